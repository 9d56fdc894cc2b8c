//! What a client of the service `stream` gets, octet by octet.

/// Octets of one number.
const WORD: usize = 8;

/// Reads a stream and says what of it is missing, and what came twice.
#[derive(Clone, Debug, Default)]
pub struct Words {
    received: u64,
    next: u64,
    part: Vec<u8>,
    /// Octets that never came.
    pub lost: u64,
    /// Octets that came again.
    pub duplicated: u64,
}

impl Words {
    /// The request for so many octets a second, and so many in all.
    pub fn request(rate: u64, length: u64) -> String {
        format!("{rate} {length}\n")
    }

    /// Octets so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes what came next.
    pub fn see(&mut self, octets: &[u8]) {
        self.received += octets.len() as u64;
        let mut octets = octets;
        while !octets.is_empty() {
            let (some, rest) = octets.split_at((WORD - self.part.len()).min(octets.len()));
            self.part.extend_from_slice(some);
            octets = rest;
            if let Ok(word) = <[u8; WORD]>::try_from(self.part.as_slice()) {
                self.part.clear();
                self.count(u64::from_be_bytes(word));
            }
        }
    }

    fn count(&mut self, word: u64) {
        let octets = |words: u64| words.saturating_mul(WORD as u64);
        self.lost = self.lost.saturating_add(octets(word.saturating_sub(self.next)));
        self.duplicated = self.duplicated.saturating_add(octets(self.next.saturating_sub(word)));
        self.next = word.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_comes_twice_is_counted_however_it_is_cut() {
        for cut in 1..20 {
            let words: Vec<u8> =
                [0_u64, 1, 2, 5, 6, 4, 5].iter().flat_map(|word| word.to_be_bytes()).collect();
            let mut seen = Words::default();
            words.chunks(cut).for_each(|piece| seen.see(piece));
            assert_eq!((seen.received(), seen.lost, seen.duplicated), (56, 16, 24), "{cut}");
        }
    }
}
