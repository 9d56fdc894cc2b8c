//! What the simulated services do with a connection. Their state is serde, so that they run on a plain host and,
//! as a session that moves, on a node.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::octets::Octets;
use crate::pattern;

/// The port of the service that sends back what it gets.
pub const ECHO: u16 = 7;
/// The port of the service that reads and forgets.
pub const DISCARD: u16 = 9;
/// The port of the service that checks what it gets and sends what it was asked for.
pub const EXCHANGE: u16 = 4000;

/// The port of the service of files.
pub const HTTP: u16 = 80;

/// Octets taken from or given to the connection in one go.
const CHUNK: usize = 32 << 10;
/// What the client of an exchange sends is another stream than what it gets.
pub const UPWARD: u64 = 0x7570_7761_7264;

/// Who ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The server, when the client has ended.
    ClientFirst,
    /// The server, as soon as it has sent all; the client may still be sending.
    ServerFirst,
    /// Each when it has sent and received all.
    Together,
    /// Each as soon as it has sent all.
    Apart,
}

impl Order {
    /// Whether the server, when it ends, knows how many octets it received, and says so.
    fn has_trailer(self) -> bool {
        matches!(self, Self::ClientFirst | Self::Together)
    }
}

/// What the client of an exchange asks for: the first octets that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Names the streams.
    pub key: u64,
    /// Octets that the client will send behind this.
    pub up: u64,
    /// Octets that it wants.
    pub down: u64,
    /// Who ends first.
    pub order: Order,
}

impl Request {
    /// Octets of a request.
    pub const LEN: usize = 25;
    /// Octets that the server sends behind the stream: how many it received.
    pub const TRAILER_LEN: u64 = 8;

    /// As it is sent.
    pub fn to_bytes(self) -> Bytes {
        let mut octets = BytesMut::with_capacity(Self::LEN);
        for number in [self.key, self.up, self.down] {
            octets.extend_from_slice(&number.to_be_bytes());
        }
        octets.extend_from_slice(&[self.order as u8]);
        octets.freeze()
    }

    fn from_bytes(octets: &[u8]) -> Self {
        let number = |at: usize| octets[at..at + 8].iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet));
        let order = match octets[24] {
            0 => Order::ClientFirst,
            1 => Order::ServerFirst,
            3 => Order::Apart,
            _ => Order::Together,
        };
        Self { key: number(0), up: number(8), down: number(16), order }
    }

    /// Octets that the client gets.
    pub fn answer_len(&self) -> u64 {
        self.down + if self.order.has_trailer() { Self::TRAILER_LEN } else { 0 }
    }
}

/// One connection of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Serving {
    /// Sends back what it gets.
    Echo {
        /// Read, and not yet written.
        pending: Bytes,
    },
    /// Reads and forgets.
    Discard {
        /// Octets read.
        received: u64,
    },
    /// Checks and generates.
    Exchange(Exchange),
}

/// An exchange under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    head: Vec<u8>,
    request: Option<Request>,
    received: u64,
    sent: u64,
    finished: bool,
}

impl Serving {
    /// The service at a port.
    pub fn at(port: u16) -> Self {
        match port {
            ECHO => Self::Echo { pending: Bytes::new() },
            DISCARD => Self::Discard { received: 0 },
            _ => Self::Exchange(Exchange::default()),
        }
    }

    /// Does all that can be done now. Panics if the client's octets are not the right ones.
    pub fn handle(&mut self, io: &mut dyn Octets) {
        match self {
            Self::Echo { pending } => echo(pending, io),
            Self::Discard { received } => {
                loop {
                    let octets = io.read(CHUNK);
                    *received += octets.len() as u64;
                    if octets.is_empty() {
                        break;
                    }
                }
                if io.at_end() {
                    io.finish();
                }
            }
            Self::Exchange(exchange) => exchange.handle(io),
        }
    }
}

fn echo(pending: &mut Bytes, io: &mut dyn Octets) {
    loop {
        if pending.is_empty() {
            *pending = io.read(CHUNK);
        }
        if pending.is_empty() {
            break;
        }
        *pending = io.write(core::mem::take(pending));
        if !pending.is_empty() {
            return;
        }
    }
    if io.at_end() {
        io.finish();
    }
}

impl Exchange {
    fn handle(&mut self, io: &mut dyn Octets) {
        loop {
            let octets = io.read(CHUNK);
            if octets.is_empty() {
                break;
            }
            self.take(octets);
        }
        if self.finished {
            return;
        }
        let Some(request) = self.request else { return };
        while self.sent < request.down && io.writable() > 0 {
            let left = usize::try_from(request.down - self.sent).unwrap_or(usize::MAX);
            let octets = pattern::octets(request.key, self.sent, left.min(CHUNK).min(io.writable()));
            self.sent += octets.len() as u64;
            let rest = io.write(octets);
            self.sent -= rest.len() as u64;
        }
        self.end(&request, io);
    }

    fn end(&mut self, request: &Request, io: &mut dyn Octets) {
        let due = match request.order {
            Order::ClientFirst => io.at_end(),
            Order::Together => self.received == request.up,
            Order::ServerFirst | Order::Apart => true,
        };
        let trailer = request.order.has_trailer();
        if self.sent < request.down || !due || (trailer && io.writable() < 8) {
            return;
        }
        if trailer {
            let rest = io.write(Bytes::copy_from_slice(&self.received.to_be_bytes()));
            assert!(rest.is_empty(), "there was room for 8 octets");
        }
        self.finished = true;
        io.finish();
    }

    fn take(&mut self, mut octets: Bytes) {
        let missing = Request::LEN - self.head.len();
        self.head.extend_from_slice(&octets.split_to(missing.min(octets.len())));
        if self.request.is_none() && self.head.len() == Request::LEN {
            self.request = Some(Request::from_bytes(&self.head));
        }
        let Some(request) = self.request else { return };
        if let Some(at) = pattern::first_difference(request.key ^ UPWARD, self.received, &octets) {
            panic!("the server got a wrong octet at {at} of stream {:#x}", request.key);
        }
        self.received += octets.len() as u64;
        assert!(self.received <= request.up, "the server got {} octets of {}", self.received, request.up);
    }
}
