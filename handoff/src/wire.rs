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

/// A value, with room for so many octets `before` it, and what comes `behind` it: in memory of exactly that size if the value
/// is short, as most are, since what is not exact costs a second allocation where it is shared. Only a sequence of unknown
/// length could fail, and we have none.
pub(crate) fn octets<'a>(
    before: usize,
    value: &impl Serialize,
    behind: impl Iterator<Item = &'a [u8]> + Clone,
) -> Option<Vec<u8>> {
    let len = behind.clone().map(<[u8]>::len).sum::<usize>();
    let mut short = [0; SHORT];
    let mut octets = if let Ok(value) = postcard::to_slice(value, &mut short) {
        let mut octets = Vec::with_capacity(before + value.len() + len);
        octets.resize(before, 0);
        octets.extend_from_slice(value);
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
