//! Which services the daemon takes care of.

use std::net::Ipv6Addr;
use std::str::FromStr;

/// An IPv6 prefix: `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its first address.
    pub address: Ipv6Addr,
    /// Its length in bits.
    pub len: u8,
}

impl Prefix {
    /// Whether an address lies in it.
    pub const fn contains(&self, address: Ipv6Addr) -> bool {
        let differing = self.address.to_bits() ^ address.to_bits();
        differing.leading_zeros() >= self.len as u32
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, len) = text.split_once('/').unwrap_or((text, "128"));
        let address: Ipv6Addr = address.parse().map_err(|_| format!("{address} is no IPv6 address"))?;
        let len: u8 = len.parse().map_err(|_| format!("{len} is no length of a prefix"))?;
        let beyond = address.to_bits().checked_shl(len.into()).unwrap_or(0);
        match (len, beyond) {
            (129.., _) => Err(format!("a prefix has at most 128 bits, not {len}")),
            (_, 0) => Ok(Self { address, len }),
            _ => Err(format!("{address} has bits behind the first {len}; is it {address}/128?")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_and_what_is_wrong_with_one_is_said() {
        let prefix: Prefix = "2001:db8:5::/64".parse().unwrap();
        assert!(prefix.contains("2001:db8:5::1".parse().unwrap()));
        assert!(!prefix.contains("2001:db8:6::1".parse().unwrap()));
        let one: Prefix = "2001:db8:5::1".parse().unwrap();
        assert_eq!(one.len, 128);
        let all: Prefix = "::/0".parse().unwrap();
        assert!(all.contains(Ipv6Addr::LOCALHOST));
        for (wrong, why) in [
            ("10.0.0.0/8", "no IPv6 address"),
            ("2001:db8::/x", "no length"),
            ("2001:db8::/129", "at most 128"),
            ("2001:db8::1/64", "behind the first 64"),
        ] {
            assert!(wrong.parse::<Prefix>().unwrap_err().contains(why), "{wrong}");
        }
    }
}
