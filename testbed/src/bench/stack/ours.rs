//! Our side: a [`Node`](ferry_node::Node) with the data plane that ships, on its own thread.

use core::net::SocketAddrV6;
use core::time::Duration;

use bytes::Bytes;
use ferry_handoff::Incarnation;
use ferry_node::driver::{Alone, connections};
use ferry_node::services::{Discard, Echo};
use ferry_node::{Event, Optimise, Placement, PlainSource, Service, Session, Setup, Stream};
use ferry_stack::EthernetAddress;
use ferry_stack::interface::Address;
use serde::{Deserialize, Serialize};

use super::ground::{Ground, SERVER_CORE, Tap, await_server, broken, on};
use crate::Result;

/// Sends back what it gets (RFC 862).
pub(super) const ECHO: u16 = 7;
/// Reads and forgets (RFC 863).
pub(super) const DISCARD: u16 = 9;
/// Sends without end (RFC 864).
pub(super) const SOURCE: u16 = 19;

/// The node's link-layer address.
pub(super) const MAC: EthernetAddress = EthernetAddress([2, 0xfe, 0, 0, 0, 2]);

/// What a source sends, over and over.
static OCTETS: [u8; 1 << 18] = [0x55; 1 << 18];

/// Sends without end, as fast as the connection takes it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Source;

impl Session for Source {
    type Service = ();

    fn open((): &(), _: SocketAddrV6) -> Self {
        Self
    }

    fn handle(&mut self, (): &(), event: Event, stream: &mut Stream<'_>) {
        if matches!(event, Event::Closed(_)) {
            return;
        }
        while stream.writable() > 0 {
            // What finds no room is the same as what is written next.
            drop(stream.write(Bytes::from_static(&OCTETS)));
        }
        if stream.at_end() {
            stream.close();
        }
    }
}

/// What a node is made from that serves behind a TAP.
pub(super) fn setup(tap: &Tap) -> Setup {
    Setup {
        name: "bench".to_owned(),
        group: "bench".to_owned(),
        incarnation: Incarnation(1),
        secret: [7; 32],
        group_clock: ferry_stack::GroupClock::default(),
        care_of: Address { address: tap.care_of(), prefix_len: 64 },
        gateway: tap.gateway(),
        mac: MAC,
        mtu: 1500,
        offload: tap.offload,
        service_address: tap.service(),
        contact: "bench".to_owned(),
        home_agent: None,
        placement: Placement::Local,
        rules: ferry_node::Rules::default(),
        optimise: Optimise::Auto,
        plain_source: PlainSource::Auto,
        ask_again: Duration::from_mins(10),
        directory: ferry_node::DirectorySetup::default(),
        tcp: connections(),
        peers: Vec::new(),
        services: vec![
            Service::new::<Echo>("echo", ECHO, ()),
            Service::new::<Discard>("discard", DISCARD, ()),
            Service::new::<Source>("source", SOURCE, ()),
        ],
    }
}

/// A running node.
#[derive(Debug)]
pub(super) struct Ours {
    node: Alone,
    tap: Tap,
}

impl Ours {
    /// Starts a node behind a TAP, on the servers' core.
    pub(super) fn start(ground: &Ground, tap: Tap, busy_poll: Duration) -> Result<Self> {
        let node = on(&ground.near, SERVER_CORE, || {
            Alone::start(setup(&tap), tap.device, busy_poll).map_err(broken)
        })?;
        let ours = Self { node, tap };
        await_server(&ground.near, ours.at(DISCARD))?;
        Ok(ours)
    }

    /// Where it serves.
    pub(super) fn at(&self, port: u16) -> SocketAddrV6 {
        SocketAddrV6::new(self.tap.service(), port, 0, 0)
    }

    /// Ends it; fails if it was not running any more.
    pub(super) fn stop(self) -> Result<()> {
        self.node.stop().map_err(broken)
    }
}
