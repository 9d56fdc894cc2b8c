//! The Mobility Header (RFC 6275 section 6.1): reading it, and writing it.

mod options;
mod read;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::{checksum, ip};

pub use self::options::{Authentication, Options};
pub use self::read::{Fault, Received, open};
use crate::keys::{self, Authenticator, Cookie, KEYED, Key, Token};

/// Octets before the message data.
const FIXED_LEN: usize = 6;
/// Where the checksum lies.
const CHECKSUM_AT: usize = 4;
/// Octets of the unit in which the Header Len field counts.
const UNIT: usize = 8;

/// What a Mobility Header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The correspondent's binding is about to expire (section 6.1.2).
    BindingRefreshRequest,
    /// Is this home address yours? (Section 6.1.3.)
    HomeTestInit(Cookie),
    /// Is this care-of address yours? (Section 6.1.4.)
    CareOfTestInit(Cookie),
    /// The answer to a Home Test Init (section 6.1.5).
    HomeTest(Test),
    /// The answer to a Care-of Test Init (section 6.1.6).
    CareOfTest(Test),
    /// Where the sender is now (section 6.1.7).
    BindingUpdate(BindingUpdate),
    /// What became of a Binding Update (section 6.1.8).
    BindingAcknowledgement(BindingAcknowledgement),
    /// Something could not be understood, or is not allowed (section 6.1.9).
    BindingError {
        /// What is wrong.
        status: BindingErrorStatus,
        /// The home address that a packet claimed; unspecified if none did.
        home_address: Ipv6Addr,
    },
}

/// What a correspondent gives to whoever proves to receive at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Names the nonce that the token was made with.
    pub nonce_index: u16,
    /// As in the message that asked.
    pub cookie: Cookie,
    /// Half of a binding management key.
    pub token: Token,
}

/// Where a mobile node is (RFC 6275 section 6.1.7).
#[expect(clippy::struct_excessive_bools, reason = "the flags of the message, each with a name in the RFC")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingUpdate {
    /// Later than that of the last one, modulo 2¹⁶.
    pub sequence: u16,
    /// Whether an acknowledgement is asked for (A).
    pub acknowledge: bool,
    /// Whether the receiver is to be the home agent (H).
    pub home_registration: bool,
    /// Whether the interface identifiers of the link-local and the home address agree (L).
    pub link_local: bool,
    /// Whether the security association with the home agent survives movement (K).
    pub key_management: bool,
    /// How long the binding is to hold.
    pub lifetime: Lifetime,
    /// What else is said.
    pub options: Options,
}

/// What became of a Binding Update (RFC 6275 section 6.1.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingAcknowledgement {
    /// Accepted, or why not.
    pub status: Status,
    /// As in the Binding Update; with [`Status::SEQUENCE`] the last one that was accepted.
    pub sequence: u16,
    /// How long the binding will hold.
    pub lifetime: Lifetime,
    /// What else is said.
    pub options: Options,
}

/// How long a binding holds: units of 4 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(pub u16);

impl Lifetime {
    /// The binding is to be deleted.
    pub const ZERO: Self = Self(0);
    /// `MAX_RR_BINDING_LIFETIME` (RFC 6275 section 12): a binding made by return routability holds no longer.
    pub const MAX_ROUTABILITY: Self = Self(105);

    /// The longest lifetime not above `duration`.
    pub fn at_most(duration: Duration) -> Self {
        Self(u16::try_from(duration.as_secs() / 4).unwrap_or(u16::MAX))
    }

    /// As time.
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 4)
    }
}

/// The status of a Binding Acknowledgement (RFC 6275 section 6.1.8). Below 128: accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// Binding Update accepted.
    pub const ACCEPTED: Self = Self(0);
    /// Reason unspecified.
    pub const UNSPECIFIED: Self = Self(128);
    /// Administratively prohibited.
    pub const PROHIBITED: Self = Self(129);
    /// Insufficient resources.
    pub const RESOURCES: Self = Self(130);
    /// Home registration not supported.
    pub const NO_HOME_AGENT: Self = Self(131);
    /// Not the home subnet.
    pub const NOT_HOME: Self = Self(132);
    /// Not home agent for this mobile node.
    pub const NOT_YOURS: Self = Self(133);
    /// Sequence number out of window.
    pub const SEQUENCE: Self = Self(135);
    /// Expired home nonce index.
    pub const HOME_NONCE: Self = Self(136);
    /// Expired care-of nonce index.
    pub const CARE_OF_NONCE: Self = Self(137);
    /// Expired nonces.
    pub const NONCES: Self = Self(138);
    /// Registration type change disallowed.
    pub const TYPE_CHANGE: Self = Self(139);
    /// Invalid care-of address.
    pub const CARE_OF_ADDRESS: Self = Self(174);
    /// Identification mismatch: the timestamp of RFC 4285 section 6 is not ours.
    pub const IDENTIFICATION: Self = Self(144);

    /// Whether the Binding Update was accepted.
    pub const fn is_accepted(self) -> bool {
        self.0 < 128
    }
}

/// The status of a Binding Error (RFC 6275 section 6.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingErrorStatus(pub u8);

impl BindingErrorStatus {
    /// A Home Address option without a binding.
    pub const NO_BINDING: Self = Self(1);
    /// A type of Mobility Header that is not known.
    pub const UNKNOWN_TYPE: Self = Self(2);
}

/// The MH Type field.
mod kind {
    pub(super) const REFRESH: u8 = 0;
    pub(super) const HOME_INIT: u8 = 1;
    pub(super) const CARE_OF_INIT: u8 = 2;
    pub(super) const HOME: u8 = 3;
    pub(super) const CARE_OF: u8 = 4;
    pub(super) const UPDATE: u8 = 5;
    pub(super) const ACKNOWLEDGEMENT: u8 = 6;
    pub(super) const ERROR: u8 = 7;
}

impl Message {
    /// The name that RFC 6275 gives it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BindingRefreshRequest => "Binding Refresh Request",
            Self::HomeTestInit(_) => "Home Test Init",
            Self::CareOfTestInit(_) => "Care-of Test Init",
            Self::HomeTest(_) => "Home Test",
            Self::CareOfTest(_) => "Care-of Test",
            Self::BindingUpdate(_) => "Binding Update",
            Self::BindingAcknowledgement(_) => "Binding Acknowledgement",
            Self::BindingError { .. } => "Binding Error",
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::BindingRefreshRequest => kind::REFRESH,
            Self::HomeTestInit(_) => kind::HOME_INIT,
            Self::CareOfTestInit(_) => kind::CARE_OF_INIT,
            Self::HomeTest(_) => kind::HOME,
            Self::CareOfTest(_) => kind::CARE_OF,
            Self::BindingUpdate(_) => kind::UPDATE,
            Self::BindingAcknowledgement(_) => kind::ACKNOWLEDGEMENT,
            Self::BindingError { .. } => kind::ERROR,
        }
    }

    fn options(&self) -> Option<&Options> {
        match self {
            Self::BindingUpdate(BindingUpdate { options, .. })
            | Self::BindingAcknowledgement(BindingAcknowledgement { options, .. }) => Some(options),
            _ => None,
        }
    }

    fn options_mut(&mut self) -> Option<&mut Options> {
        match self {
            Self::BindingUpdate(BindingUpdate { options, .. })
            | Self::BindingAcknowledgement(BindingAcknowledgement { options, .. }) => Some(options),
            _ => None,
        }
    }

    /// Signs it with a binding management key (section 6.2.7): `care_of` is the mobile node's, `correspondent` the
    /// other side's address. Only Binding Updates and Acknowledgements carry a signature.
    pub fn authorize(&mut self, key: &Key, care_of: Ipv6Addr, correspondent: Ipv6Addr) {
        let Some(options) = self.options_mut() else { return };
        options.authorization = Some(Authenticator::default());
        let octets = self.octets();
        let signed = octets.get(..octets.len() - KEYED).unwrap_or_default();
        let authenticator = keys::authenticator(key.as_ref(), &[care_of, correspondent], signed);
        if let Some(options) = self.options_mut() {
            options.authorization = Some(authenticator);
        }
    }

    /// Signs it with a key that is shared with the home agent (RFC 4285 section 5.1). The option must carry its SPI.
    pub fn authenticate(&mut self, key: &[u8], care_of: Ipv6Addr, home_address: Ipv6Addr) {
        let octets = self.octets();
        let Some(authentication) = self.options_mut().and_then(|options| options.authentication.as_mut())
        else {
            return;
        };
        let end = options::authenticated_end(&octets).unwrap_or(0);
        let signed = octets.get(..end).unwrap_or_default();
        authentication.authenticator = keys::authenticator(key, &[care_of, home_address], signed);
    }

    /// The whole header with its checksum, which counts the addresses as the upper layers see them: the home address
    /// where a Home Address option or a type 2 routing header carries one (sections 6.1.1 and 11.3.1).
    pub fn emit(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut octets = self.octets();
        let len = u32::try_from(octets.len()).unwrap_or(u32::MAX);
        let sum = checksum::pseudo_header(source, destination, len, ip::MOBILITY).add(&octets).finish();
        octets[CHECKSUM_AT..FIXED_LEN].copy_from_slice(&sum.to_be_bytes());
        octets
    }

    /// The whole header with a checksum of zero.
    fn octets(&self) -> Vec<u8> {
        let mut octets = alloc::vec![ip::NO_NEXT_HEADER, 0, self.kind(), 0, 0, 0];
        self.put_data(&mut octets);
        if let Some(options) = self.options() {
            options.put(&mut octets);
        }
        options::pad(&mut octets, UNIT, 0);
        octets[1] = u8::try_from(octets.len() / UNIT - 1).unwrap_or(u8::MAX);
        octets
    }

    fn put_data(&self, octets: &mut Vec<u8>) {
        match self {
            Self::BindingRefreshRequest => octets.extend([0; 2]),
            Self::HomeTestInit(cookie) | Self::CareOfTestInit(cookie) => {
                octets.extend([0; 2]);
                octets.extend(cookie.0);
            }
            Self::HomeTest(test) | Self::CareOfTest(test) => {
                octets.extend(test.nonce_index.to_be_bytes());
                octets.extend(test.cookie.0);
                octets.extend(test.token.0);
            }
            Self::BindingUpdate(update) => update.put(octets),
            Self::BindingAcknowledgement(acknowledgement) => {
                octets.extend([acknowledgement.status.0, 0]);
                octets.extend(acknowledgement.sequence.to_be_bytes());
                octets.extend(acknowledgement.lifetime.0.to_be_bytes());
            }
            Self::BindingError { status, home_address } => {
                octets.extend([status.0, 0]);
                octets.extend(home_address.octets());
            }
        }
    }
}

impl BindingUpdate {
    fn put(&self, octets: &mut Vec<u8>) {
        let flags = [self.acknowledge, self.home_registration, self.link_local, self.key_management];
        let flags = flags.iter().enumerate().map(|(nth, flag)| u8::from(*flag) << (7 - nth)).sum();
        octets.extend(self.sequence.to_be_bytes());
        octets.extend([flags, 0]);
        octets.extend(self.lifetime.0.to_be_bytes());
    }

    fn read(octets: [u8; 6], options: Options) -> Self {
        let [high, low, flags, _, units, more] = octets;
        let flag = |nth: u8| flags & (0x80 >> nth) != 0;
        Self {
            sequence: u16::from_be_bytes([high, low]),
            acknowledge: flag(0),
            home_registration: flag(1),
            link_local: flag(2),
            key_management: flag(3),
            lifetime: Lifetime(u16::from_be_bytes([units, more])),
            options,
        }
    }
}
