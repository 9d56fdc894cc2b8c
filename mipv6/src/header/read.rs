//! Reading a Mobility Header out of a packet, and what a bad one deserves (RFC 6275 section 9.2).

use core::net::Ipv6Addr;

use ferry_stack::ip::{self, Datagram};
use ferry_stack::{Checksum, checksum};
use thiserror::Error;

use super::options::{Options, authenticated_end};
use super::{
    BindingAcknowledgement, BindingErrorStatus, BindingUpdate, FIXED_LEN, Lifetime, Message, Status, Test,
    UNIT, kind,
};
use crate::keys::{self, Cookie, KEYED, Key, Token};

/// A Mobility Header that arrived, with the addresses that it travelled between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The source address in the IPv6 header.
    pub source: Ipv6Addr,
    /// The destination address in the IPv6 header.
    pub destination: Ipv6Addr,
    /// The sender's home address, if a Home Address option carries one.
    pub home_address: Option<Ipv6Addr>,
    /// The receiver's home address, if a type 2 routing header carries one.
    pub routed_home: Option<Ipv6Addr>,
    /// What it says.
    pub message: Message,
    /// The header with a checksum of zero: what signatures are over.
    octets: bytes::Bytes,
}

/// What is wrong with a Mobility Header, and what its sender is to hear (RFC 6275 section 9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// ICMPv6 Parameter Problem, code 0, that points here: octets from the start of the packet.
    #[error("the octet at {0} is wrong")]
    Problem(u32),
    /// A Binding Error with [`BindingErrorStatus::UNKNOWN_TYPE`].
    #[error("the type {0} is not known")]
    UnknownType(u8),
    /// Nothing: the checksum is wrong.
    #[error("the checksum is wrong")]
    Checksum,
    /// Nothing: it comes from, or is for, what is no host's address, so that no answer could be.
    #[error("an address is no host's")]
    Address,
    /// Nothing: an option contradicts itself.
    #[error("an option is malformed")]
    Option,
}

/// Reads the Mobility Header of a packet whose upper layer it is.
pub fn open(datagram: &Datagram) -> Result<Received, Fault> {
    let upper = datagram.upper_bytes();
    let problem = |at: usize| Fault::Problem(u32::try_from(datagram.upper_at + at).unwrap_or(u32::MAX));
    let &[payload_proto, units, ..] = upper else { return Err(problem(0)) };
    if payload_proto != ip::NO_NEXT_HEADER {
        return Err(problem(0));
    }
    // The length counts units of 8 octets after the first. What does not fit the packet is no less wrong than what
    // is too short for its type.
    let header = upper.get(..UNIT + usize::from(units) * UNIT).ok_or_else(|| problem(1))?;
    let (home_address, routed_home) = (datagram.home_address(), datagram.routed_home());
    let (from, to) = (home_address.unwrap_or(datagram.source), routed_home.unwrap_or(datagram.destination));
    let named = [from, to, datagram.source, datagram.destination];
    if named.iter().any(|address| address.is_multicast() || address.is_unspecified()) {
        return Err(Fault::Address);
    }
    if datagram.offload.checksum != Checksum::Verified && !is_sound(header, from, to) {
        return Err(Fault::Checksum);
    }
    let data_len = data_len(header[2]).ok_or(Fault::UnknownType(header[2]))?;
    let data = header.get(FIXED_LEN..FIXED_LEN + data_len).ok_or_else(|| problem(1))?;
    let options = Options::read(header, FIXED_LEN + data_len).ok_or(Fault::Option)?;
    let message = message(header[2], data, options).ok_or_else(|| problem(1))?;
    let mut octets = header.to_vec();
    octets[super::CHECKSUM_AT..FIXED_LEN].fill(0);
    let (source, destination) = (datagram.source, datagram.destination);
    Ok(Received { source, destination, home_address, routed_home, message, octets: octets.into() })
}

fn is_sound(header: &[u8], from: Ipv6Addr, to: Ipv6Addr) -> bool {
    let len = u32::try_from(header.len()).unwrap_or(u32::MAX);
    checksum::pseudo_header(from, to, len, ip::MOBILITY).add(header).finish() == 0
}

/// Octets of message data before the options; `None` for a type that is not known.
const fn data_len(kind: u8) -> Option<usize> {
    Some(match kind {
        kind::REFRESH => 2,
        kind::HOME_INIT | kind::CARE_OF_INIT => 10,
        kind::HOME | kind::CARE_OF | kind::ERROR => 18,
        kind::UPDATE | kind::ACKNOWLEDGEMENT => 6,
        _ => return None,
    })
}

/// Where the message data of a header end and its options begin.
pub(super) fn data_end(header: &[u8]) -> Option<usize> {
    Some(FIXED_LEN + data_len(*header.get(2)?)?)
}

fn message(kind: u8, data: &[u8], options: Options) -> Option<Message> {
    Some(match kind {
        kind::REFRESH => Message::BindingRefreshRequest,
        kind::HOME_INIT => Message::HomeTestInit(cookie(data)?),
        kind::CARE_OF_INIT => Message::CareOfTestInit(cookie(data)?),
        kind::HOME => Message::HomeTest(test(data)?),
        kind::CARE_OF => Message::CareOfTest(test(data)?),
        kind::UPDATE => Message::BindingUpdate(BindingUpdate::read(data.try_into().ok()?, options)),
        kind::ACKNOWLEDGEMENT => {
            let &[status, _, high, low, units, more] = data else { return None };
            Message::BindingAcknowledgement(BindingAcknowledgement {
                status: Status(status),
                sequence: u16::from_be_bytes([high, low]),
                lifetime: Lifetime(u16::from_be_bytes([units, more])),
                options,
            })
        }
        kind::ERROR => {
            let (status, address) = data.split_at_checked(2)?;
            let home_address = <[u8; 16]>::try_from(address).ok()?.into();
            Message::BindingError { status: BindingErrorStatus(status[0]), home_address }
        }
        _ => return None,
    })
}

fn cookie(data: &[u8]) -> Option<Cookie> {
    Some(Cookie(data.get(2..10)?.try_into().ok()?))
}

fn test(data: &[u8]) -> Option<Test> {
    let nonce_index = u16::from_be_bytes(data.get(..2)?.try_into().ok()?);
    let token = Token(data.get(10..18)?.try_into().ok()?);
    Some(Test { nonce_index, cookie: cookie(data)?, token })
}

impl Received {
    /// Whether the signature is one of this binding management key (RFC 6275 section 6.2.7).
    pub fn is_authorized(&self, key: &Key, care_of: Ipv6Addr, correspondent: Ipv6Addr) -> bool {
        let told = self.message.options().and_then(|options| options.authorization);
        let signed = self.octets.len().checked_sub(KEYED).and_then(|end| self.octets.get(..end));
        let right = signed.map(|signed| keys::authenticator(key.as_ref(), &[care_of, correspondent], signed));
        told.zip(right).is_some_and(|(told, right)| told.is(&right))
    }

    /// Whether the signature is one of this key shared with the home agent (RFC 4285 section 5.1).
    pub fn is_authentic(&self, key: &[u8], care_of: Ipv6Addr, home_address: Ipv6Addr) -> bool {
        let told = self.message.options().and_then(|options| options.authentication);
        let signed = authenticated_end(&self.octets).and_then(|end| self.octets.get(..end));
        let right = signed.map(|signed| keys::authenticator(key, &[care_of, home_address], signed));
        told.zip(right).is_some_and(|(told, right)| told.authenticator.is(&right))
    }
}
