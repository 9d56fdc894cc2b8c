//! Mobility options (RFC 6275 section 6.2, RFC 4285 sections 5 and 6).

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use super::FIXED_LEN;
use crate::keys::{Authenticator, KEYED};

const PAD_1: u8 = 0;
const PAD_N: u8 = 1;
const REFRESH_ADVICE: u8 = 2;
const ALTERNATE_CARE_OF: u8 = 3;
const NONCE_INDICES: u8 = 4;
const AUTHORIZATION: u8 = 5;
/// RFC 4285 section 5.
const AUTHENTICATION: u8 = 9;
/// RFC 4285 section 6.
const REPLAY_PROTECTION: u8 = 10;
/// RFC 4285 section 5.1: between mobile node and home agent.
const MOBILE_TO_HOME_AGENT: u8 = 1;

/// Octets of an option before its data.
const HEAD: usize = 2;
/// Octets of an authentication option's data before the authenticator: subtype and SPI.
const BEFORE_AUTHENTICATOR: usize = 5;

/// What a Binding Update or a Binding Acknowledgement may say besides. Options that we do not know are skipped, as
/// RFC 6275 section 6.2.1 asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Refresh the binding this early, in units of 4 seconds (RFC 6275 section 6.2.4).
    pub refresh_advice: Option<u16>,
    /// The care-of address, if it is not the source address (RFC 6275 section 6.2.5).
    pub alternate_care_of: Option<Ipv6Addr>,
    /// The nonces of the home and of the care-of token (RFC 6275 section 6.2.6).
    pub nonce_indices: Option<(u16, u16)>,
    /// When it was sent, as an NTP timestamp (RFC 4285 section 6).
    pub timestamp: Option<u64>,
    /// Proof of a key shared with the home agent (RFC 4285 section 5.1).
    pub authentication: Option<Authentication>,
    /// Proof of both tokens (RFC 6275 section 6.2.7). The last option.
    pub authorization: Option<Authenticator>,
}

/// Proof of a key shared with the home agent (RFC 4285 section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// Names the key and the way to use it.
    pub spi: u32,
    /// The proof.
    pub authenticator: Authenticator,
}

impl Options {
    /// Appends the options, each where its alignment wants it.
    pub(super) fn put(&self, octets: &mut Vec<u8>) {
        if let Some(advice) = self.refresh_advice {
            put(octets, (2, 0), REFRESH_ADVICE, &[&advice.to_be_bytes()]);
        }
        if let Some(address) = self.alternate_care_of {
            put(octets, (8, 6), ALTERNATE_CARE_OF, &[&address.octets()]);
        }
        if let Some((home, care_of)) = self.nonce_indices {
            put(octets, (2, 0), NONCE_INDICES, &[&home.to_be_bytes(), &care_of.to_be_bytes()]);
        }
        if let Some(timestamp) = self.timestamp {
            put(octets, (8, 2), REPLAY_PROTECTION, &[&timestamp.to_be_bytes()]);
        }
        if let Some(Authentication { spi, authenticator }) = self.authentication {
            let data: &[&[u8]] = &[&[MOBILE_TO_HOME_AGENT], &spi.to_be_bytes(), &authenticator.0];
            put(octets, (4, 1), AUTHENTICATION, data);
        }
        if let Some(authenticator) = self.authorization {
            put(octets, (8, 2), AUTHORIZATION, &[&authenticator.0]);
        }
    }

    /// The options of a header whose message data end at `from`; `None` if they are cut short or contradict their
    /// own lengths.
    pub(super) fn read(header: &[u8], from: usize) -> Option<Self> {
        let mut options = Self::default();
        for option in Walk::new(header, from) {
            options.take(&option?, header.len())?;
        }
        Some(options)
    }

    fn take(&mut self, option: &Found<'_>, end: usize) -> Option<()> {
        match option.kind {
            REFRESH_ADVICE => self.refresh_advice = Some(u16::from_be_bytes(option.exactly()?)),
            ALTERNATE_CARE_OF => self.alternate_care_of = Some(option.exactly::<16>()?.into()),
            NONCE_INDICES => {
                let [a, b, c, d] = option.exactly()?;
                self.nonce_indices = Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
            }
            REPLAY_PROTECTION => self.timestamp = Some(u64::from_be_bytes(option.exactly()?)),
            AUTHENTICATION if option.data.first() == Some(&MOBILE_TO_HOME_AGENT) => {
                let (before, authenticator) = option.data.split_at_checked(BEFORE_AUTHENTICATOR)?;
                let authenticator = Authenticator(authenticator.try_into().ok()?);
                let spi = u32::from_be_bytes(before.get(1..)?.try_into().ok()?);
                self.authentication = Some(Authentication { spi, authenticator });
            }
            AUTHORIZATION => {
                // Section 6.2.7: it is the last option, because what follows would not be signed.
                (option.at + HEAD + KEYED == end).then_some(())?;
                self.authorization = Some(Authenticator(option.exactly()?));
            }
            _ => {}
        }
        Some(())
    }
}

/// Where the octets end that the authentication option of a header signs: behind its SPI (RFC 4285 section 5.1).
pub(super) fn authenticated_end(header: &[u8]) -> Option<usize> {
    let from = super::read::data_end(header)?;
    let ours = |option: &Found<'_>| {
        option.kind == AUTHENTICATION && option.data.first() == Some(&MOBILE_TO_HOME_AGENT)
    };
    let option = Walk::new(header, from).flatten().find(ours)?;
    Some(option.at + HEAD + BEFORE_AUTHENTICATOR)
}

/// An option as it lies in a header.
struct Found<'a> {
    kind: u8,
    /// Where its type lies.
    at: usize,
    data: &'a [u8],
}

impl Found<'_> {
    /// Its data, if they have this length.
    fn exactly<const N: usize>(&self) -> Option<[u8; N]> {
        self.data.try_into().ok()
    }
}

/// The options of a header one after the other, padding left out; `None` where one is cut short.
struct Walk<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(header: &'a [u8], from: usize) -> Self {
        Self { header, at: from.max(FIXED_LEN) }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Option<Found<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let at = self.at;
            let rest = self.header.get(at..).filter(|rest| !rest.is_empty())?;
            if rest[0] == PAD_1 {
                self.at += 1;
                continue;
            }
            let data = rest.get(1).and_then(|len| rest.get(HEAD..HEAD + usize::from(*len)));
            let Some(data) = data else {
                self.at = self.header.len();
                return Some(None);
            };
            self.at += HEAD + data.len();
            if rest[0] != PAD_N {
                return Some(Some(Found { kind: rest[0], at, data }));
            }
        }
    }
}

/// Appends an option at the next offset that is `remainder` modulo `multiple`.
fn put(octets: &mut Vec<u8>, (multiple, remainder): (usize, usize), kind: u8, data: &[&[u8]]) {
    pad(octets, multiple, remainder);
    let len: usize = data.iter().map(|part| part.len()).sum();
    octets.extend([kind, u8::try_from(len).unwrap_or(u8::MAX)]);
    for part in data {
        octets.extend_from_slice(part);
    }
}

/// Pads up to the next length that is `remainder` modulo `multiple` (RFC 6275 sections 6.2.2 and 6.2.3).
pub(super) fn pad(octets: &mut Vec<u8>, multiple: usize, remainder: usize) {
    let missing = (remainder + multiple - octets.len() % multiple) % multiple;
    match missing {
        0 => {}
        1 => octets.push(PAD_1),
        _ => {
            octets.extend([PAD_N, u8::try_from(missing - HEAD).unwrap_or(0)]);
            octets.resize(octets.len() + missing - HEAD, 0);
        }
    }
}
