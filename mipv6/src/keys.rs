//! Tokens, keys and signatures of return routability (RFC 6275 section 5.2).

use core::fmt;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::Instant;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

/// `MAX_TOKEN_LIFETIME` (RFC 6275 section 12): a mobile node uses a token no longer.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(210);
/// `MAX_NONCE_LIFETIME` (RFC 6275 section 12): a correspondent accepts a nonce no longer.
pub const NONCE_LIFETIME: Duration = Duration::from_mins(4);
/// A nonce is given out for so long: whoever gets the last token of it can use it for its whole life.
const NONCE_PERIOD: Duration = NONCE_LIFETIME.saturating_sub(TOKEN_LIFETIME);

/// Octets of an authenticator (RFC 6275 section 6.2.7).
pub const KEYED: usize = 12;

/// A random number by which an answer is known to be one (RFC 6275 section 5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cookie(pub [u8; 8]);

/// A keygen token (RFC 6275 section 5.2.5): proof that its holder receives at an address.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 8]);

/// A binding management key, Kbm (RFC 6275 section 5.2.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 20]);

/// The signature of a Binding Update or Acknowledgement: 96 bits of an HMAC-SHA-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Authenticator(pub [u8; KEYED]);

/// Which address a token is for (RFC 6275 section 5.2.5: the octet at the end of what is hashed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// A home keygen token.
    Home = 0,
    /// A care-of keygen token.
    CareOf = 1,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Key {
    /// The key of both tokens; of the home token alone if the binding is to be deleted (RFC 6275 section 5.2.5).
    pub fn new(home: &Token, care_of: Option<&Token>) -> Self {
        let hash = Sha1::new().chain_update(home.0);
        let hash = care_of.iter().fold(hash, |hash, token| hash.chain_update(token.0));
        Self(hash.finalize().into())
    }
}

impl Authenticator {
    /// Compares in a time that tells nothing about where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

/// The first 96 bits of HMAC-SHA-1 over two addresses and a Mobility Header (RFC 6275 section 6.2.7).
pub(crate) fn authenticator(key: &[u8], addresses: &[Ipv6Addr; 2], header: &[u8]) -> Authenticator {
    let octets = addresses.map(|address| address.octets());
    let digest = hmac(key, &[&octets[0], &octets[1], header]);
    Authenticator(first(&digest))
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    // RFC 2104: a key of any length will do.
    let Ok(mac) = Hmac::<Sha1>::new_from_slice(key) else { return [0; 20] };
    parts.iter().fold(mac, Hmac::chain_update).finalize().into_bytes().into()
}

fn first<const N: usize>(digest: &[u8; 20]) -> [u8; N] {
    core::array::from_fn(|at| digest[at])
}

/// What a correspondent makes tokens of: a node key, and nonces that follow from it and the time, so that there is
/// no state of them (RFC 6275 section 5.2.1 and 5.2.2).
#[derive(Clone)]
pub struct Nonces {
    key: [u8; 20],
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(…)")
    }
}

impl Nonces {
    /// From a node key, Kcn, that nobody else knows.
    pub const fn new(key: [u8; 20]) -> Self {
        Self { key }
    }

    /// The nonce to give tokens of now.
    pub fn index(now: Instant) -> u16 {
        index_of(period(now))
    }

    /// The token of an address under a nonce (RFC 6275 section 5.2.5); `None` if the nonce is not accepted any more.
    pub fn token(&self, test: Test, address: Ipv6Addr, index: u16, now: Instant) -> Option<Token> {
        let current = period(now);
        let age = index_of(current).wrapping_sub(index);
        // Indices wrap after some weeks; the nonces behind them do not.
        let period = current.checked_sub(u64::from(age)).filter(|_| age < PERIODS)?;
        let nonce = hmac(&self.key, &[b"nonce", &period.to_be_bytes()]);
        Some(Token(first(&hmac(&self.key, &[&address.octets(), &nonce[..8], &[test as u8]]))))
    }
}

/// Nonces that are accepted at any time: those given out less than `NONCE_LIFETIME` ago, at the beginning of theirs.
#[expect(clippy::cast_possible_truncation, reason = "there are eight")]
const PERIODS: u16 = (NONCE_LIFETIME.as_secs() / NONCE_PERIOD.as_secs()) as u16;

fn period(now: Instant) -> u64 {
    Instant::ZERO.since(now).as_secs() / NONCE_PERIOD.as_secs()
}

fn index_of(period: u64) -> u16 {
    u16::try_from(period & 0xffff).unwrap_or_default()
}

/// A source of cookies that nobody else can guess.
pub struct Cookies {
    secret: [u8; 20],
    drawn: u64,
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

impl Cookies {
    /// From a secret that is used for nothing else.
    pub const fn new(secret: [u8; 20]) -> Self {
        Self { secret, drawn: 0 }
    }

    /// One that was never given out before.
    pub fn draw(&mut self) -> Cookie {
        self.drawn += 1;
        Cookie(first(&hmac(&self.secret, &[b"cookie", &self.drawn.to_be_bytes()])))
    }
}

/// A secret for one purpose, made from one that serves several.
pub fn derive(secret: &[u8], purpose: &[u8]) -> [u8; 20] {
    hmac(secret, &[b"ferry mobility", purpose])
}
