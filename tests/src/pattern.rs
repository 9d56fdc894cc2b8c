//! The stream oracle: octets that follow from a key and an offset, so that whoever knows the key can tell for
//! each octet whether it is the right one in the right place.

use bytes::Bytes;

use crate::rng::mix;

/// The octets of stream `key` from `offset` on.
pub fn fill(key: u64, offset: u64, into: &mut [u8]) {
    let key = mix(key);
    let block = |index: u64| mix(key ^ index).to_le_bytes();
    let within = usize::try_from(offset % 8).unwrap_or(0);
    let mut index = offset / 8;
    let mut rest = into;
    if within > 0 {
        let (first, others) = rest.split_at_mut(rest.len().min(8 - within));
        first.copy_from_slice(&block(index)[within..within + first.len()]);
        (rest, index) = (others, index + 1);
    }
    for chunk in rest.chunks_mut(8) {
        chunk.copy_from_slice(&block(index)[..chunk.len()]);
        index += 1;
    }
}

/// The `len` octets of stream `key` from `offset` on.
pub fn octets(key: u64, offset: u64, len: usize) -> Bytes {
    let mut octets = vec![0; len];
    fill(key, offset, &mut octets);
    octets.into()
}

/// Where `octets` are not those of stream `key` from `offset` on: the offset of the first wrong one.
pub fn first_difference(key: u64, offset: u64, octets: &[u8]) -> Option<u64> {
    let mut expected = [0; 4096];
    for (nth, chunk) in octets.chunks(expected.len()).enumerate() {
        let at = offset + (nth * expected.len()) as u64;
        let expected = &mut expected[..chunk.len()];
        fill(key, at, expected);
        if expected != chunk {
            let differing = expected.iter().zip(chunk).take_while(|(a, b)| a == b).count();
            return Some(at + differing as u64);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let whole = octets(3, 0, 10_000);
        for (from, to) in [(0, 1), (1, 8), (7, 9), (8, 16), (5, 9999), (4095, 4097)] {
            assert_eq!(octets(3, from as u64, to - from), whole[from..to], "{from}..{to}");
            assert_eq!(first_difference(3, from as u64, &whole[from..to]), None);
        }
    }

    #[test]
    fn every_octet_out_of_place_is_noticed() {
        let mut wrong = octets(3, 0, 6000).to_vec();
        for at in [0, 1, 4095, 4096, 5999] {
            wrong[at] ^= 1;
            assert_eq!(first_difference(3, 0, &wrong), Some(at as u64));
            wrong[at] ^= 1;
        }
        assert!(first_difference(3, 1, &wrong).is_some(), "shifted by one");
        assert!(first_difference(4, 0, &wrong).is_some(), "another stream");
    }
}
