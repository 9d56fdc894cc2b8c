mod ahead;
mod claims;
mod copies;
mod deltas;
mod epochs;
mod messages;
mod moves;
mod snapshots;

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;

use bytes::Bytes;
use ferry_stack::tcp::{Config, Flow, Opening, Path, Tcb};
use ferry_stack::{Instant, Seq};

use crate::{Epoch, Snapshot, VERSION};

pub(super) fn flow() -> Flow {
    let end = |last, port| SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), port, 0, 0);
    Flow { local: end(1, 80), remote: end(2, 40_000) }
}

/// The server's half of a connection in the middle of a transfer: octets in flight both ways, some out of order,
/// some unread, and timers running.
pub(super) fn busy() -> Tcb {
    let now = Instant::from_millis(5_000);
    let there = Flow { local: flow().remote, remote: flow().local };
    let opening = |iss| Opening {
        config: Config { receive_buffer: 65_536, send_buffer: 65_536, ..Config::default() }.into(),
        iss: Seq(iss),
        first_timestamp: 77,
        flow_label: 5,
        path_mtu: 1500,
    };
    let mut client = Tcb::connect(there, &opening(u32::MAX - 5), now);
    let syn = client.poll_transmit(Path::default(), now).unwrap();
    let mut server = Tcb::accept(flow(), &syn, &opening(1000), now);
    for round in 0..3 {
        let now = Instant::from_millis(5_010 + round * 10);
        while let Some(segment) = server.poll_transmit(Path::default(), now) {
            client.receive(&segment, now).unwrap();
        }
        while let Some(segment) = client.poll_transmit(Path::default(), now) {
            server.receive(&segment, now).unwrap();
        }
    }
    let now = Instant::from_millis(5_100);
    client.write(Bytes::from(alloc::vec![b'c'; 4000]));
    let mut lost_one = false;
    while let Some(segment) = client.poll_transmit(Path::default(), now) {
        if segment.payload.is_empty() || core::mem::replace(&mut lost_one, true) {
            let _ = server.receive(&segment, now);
        }
    }
    server.write(Bytes::from(alloc::vec![b's'; 5000]));
    while server.poll_transmit(Path::default(), now).is_some() {}
    server
}

/// A body behind a header that vouches for all of it.
pub(super) fn vouched(body: &[u8]) -> Bytes {
    vouched_for(body, body.len())
}

/// A body behind a header that says that it vouches for so much of it, and does as far as it can.
pub(super) fn vouched_for(body: &[u8], checked: usize) -> Bytes {
    let [length, said] = [body.len(), checked].map(|octets| u32::try_from(octets).unwrap().to_be_bytes());
    let header = [&b"FRRY"[..], &VERSION.to_be_bytes(), &length, &said].concat();
    let check = crc32fast::hash(&[&header, &body[..checked.min(body.len())]].concat());
    [&header, &check.to_be_bytes()[..], body].concat().into()
}

pub(super) fn snapshot(epoch: u64) -> Snapshot {
    Snapshot {
        epoch: Epoch::nth(epoch),
        service: "echo".into(),
        tcb: busy().freeze(Instant::from_millis(5_150)).into(),
        session: Bytes::from_static(b"what the session knows"),
        wake: Some(Duration::from_millis(7)),
        client: Bytes::from_static(b"what the group knows of the client"),
    }
}
