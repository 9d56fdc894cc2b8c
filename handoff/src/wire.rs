//! What is said in octets, written into memory that is there already.

use alloc::vec::Vec;

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Appends whole runs at a time, which `postcard::to_extend` does not.
struct Octets(Vec<u8>);

impl Flavor for Octets {
    type Output = Vec<u8>;

    fn try_push(&mut self, octet: u8) -> postcard::Result<()> {
        self.0.push(octet);
        Ok(())
    }

    fn try_extend(&mut self, octets: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(octets);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Octets that most messages and control blocks do not exceed.
const SHORT: usize = 1024;

/// Into memory of that size. Most of what comes is a number of one to three octets, too short for a call of `memcpy`.
struct Short {
    octets: [u8; SHORT],
    len: usize,
}

impl Short {
    fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

impl Flavor for &mut Short {
    type Output = ();

    fn try_push(&mut self, octet: u8) -> postcard::Result<()> {
        *self.octets.get_mut(self.len).ok_or(postcard::Error::SerializeBufferFull)? = octet;
        self.len += 1;
        Ok(())
    }

    fn try_extend(&mut self, octets: &[u8]) -> postcard::Result<()> {
        if octets.len() < 4 {
            return octets.iter().try_for_each(|octet| self.try_push(*octet));
        }
        let end = self.len + octets.len();
        let place = self.octets.get_mut(self.len..end).ok_or(postcard::Error::SerializeBufferFull)?;
        place.copy_from_slice(octets);
        self.len = end;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// A value, with room for so many octets `before` it, and what comes `behind` it: in memory of exactly that size if the value
/// is short, as most are, since what is not exact costs a second allocation where it is shared. Only a sequence of unknown
/// length could fail, and we have none.
pub(crate) fn octets<'a>(
    before: usize,
    value: &impl Serialize,
    behind: impl Iterator<Item = &'a [u8]> + Clone,
) -> Option<Vec<u8>> {
    let len = behind.clone().map(<[u8]>::len).sum::<usize>();
    let mut short = Short { octets: [0; SHORT], len: 0 };
    let mut octets = if postcard::serialize_with_flavor(value, &mut short).is_ok() {
        let mut octets = Vec::with_capacity(before + short.len + len);
        octets.resize(before, 0);
        octets.extend_from_slice(short.octets());
        octets
    } else {
        let mut octets = Vec::with_capacity(before + 2 * SHORT + len);
        octets.resize(before, 0);
        append(value, octets)?
    };
    for some in behind {
        octets.extend_from_slice(some);
    }
    Some(octets)
}

/// Appends a value. Only a sequence of unknown length could fail, and we have none.
fn append(value: &impl Serialize, octets: Vec<u8>) -> Option<Vec<u8>> {
    postcard::serialize_with_flavor(value, Octets(octets)).ok()
}
