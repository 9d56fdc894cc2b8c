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

/// Appends a value. Only a sequence of unknown length could fail, and we have none.
pub(crate) fn append(value: &impl Serialize, octets: Vec<u8>) -> Option<Vec<u8>> {
    postcard::serialize_with_flavor(value, Octets(octets)).ok()
}
