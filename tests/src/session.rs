//! The simulated services as sessions of a node.

use core::net::SocketAddrV6;
use std::sync::Mutex;

use bytes::Bytes;
use ferry_node::{Event, Session, Stream};
use serde::{Deserialize, Serialize};

use crate::octets::Octets;
use crate::rng::{PerMille, Rng};
use crate::serve::{EXCHANGE, Serving};

impl Octets for Stream<'_> {
    fn read(&mut self, max: usize) -> Bytes {
        Stream::read(self, max)
    }

    fn at_end(&self) -> bool {
        Stream::at_end(self)
    }

    fn writable(&self) -> usize {
        Stream::writable(self)
    }

    fn write(&mut self, octets: Bytes) -> Bytes {
        Stream::write(self, octets)
    }

    fn finish(&mut self) {
        Stream::finish(self);
    }

    fn reset(&mut self) {
        Stream::reset(self);
    }
}

/// What an exchange service has of its own on each node: how often it refuses to go on there.
#[derive(Debug)]
pub struct Reluctance {
    often: PerMille,
    rng: Mutex<Rng>,
}

impl Reluctance {
    /// Refuses so often.
    pub fn new(often: PerMille, rng: Rng) -> Self {
        Self { often, rng: Mutex::new(rng) }
    }
}

/// One connection of the service at [`EXCHANGE`]: checks what it gets, and sends what it was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExchangeSession(Serving);

impl Session for ExchangeSession {
    type Service = Reluctance;

    fn open(_: &Reluctance, _: SocketAddrV6) -> Self {
        Self(Serving::at(EXCHANGE))
    }

    fn adopt(&mut self, service: &Reluctance) -> Result<(), String> {
        let refuses = service.rng.lock().is_ok_and(|mut rng| rng.chance(service.often));
        if refuses { Err("not in the mood".to_owned()) } else { Ok(()) }
    }

    fn handle(&mut self, _: &Reluctance, event: Event, stream: &mut Stream<'_>) {
        if !matches!(event, Event::Closed(_)) {
            self.0.handle(stream);
        }
    }
}
