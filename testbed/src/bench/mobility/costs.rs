//! What headers and bindings cost, in this process: nanoseconds for a packet, exchanges a second, octets of memory.

use core::net::Ipv6Addr;
use core::time::Duration;
use std::hint::black_box;

use ferry_mipv6::correspondent::{Correspondent, Outgoing};
use ferry_mipv6::mobile::{Mobile, Mode};
use ferry_mipv6::route::{put_routing, stripped};
use ferry_mipv6::{Inbound, Path, Stage, header};
use ferry_stack::ip::{self, Datagram, Header, Packet};
use ferry_stack::{Checksum, Instant, Offload};

use super::broken;
use crate::Result;
use crate::bench::stack::{Figures, Scale, resident};
use crate::clock::thread_cpu_ns;
use crate::world::SERVICE;

/// The node's care-of address.
const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 2);
/// Packets of one run, half of them each way.
const PACKETS: usize = 400_000;
/// Bindings of one run.
const BINDINGS: usize = 10_000;
/// Bindings that there are at once.
const MANY: usize = 100_000;
/// Octets of payload: a full segment with a Home Address option in front fills an Ethernet frame.
const PAYLOAD: usize = 1404;
/// What a TCP header takes, with timestamps.
const TCP_HEADER: usize = 32;

/// The address of a client.
pub(super) fn client(number: usize) -> Ipv6Addr {
    let base = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0).to_bits();
    Ipv6Addr::from_bits(base + number as u128 + 1)
}

/// A packet to the client that is given its Home Address option, and one of the client's that loses its type 2 routing
/// header, in turn; nanoseconds a packet. Against packets on which nothing is to be done.
pub(super) fn rewriting(scale: Scale) -> Result<Figures> {
    let stage = Stage::new(SERVICE, [CARE_OF]);
    let (out, back) = (packet(SERVICE, client(0)), packet(client(0), SERVICE));
    let mut routed = back.clone();
    put_routing(&mut routed, CARE_OF);
    let (plain, routed) = (parse(&back)?, parse(&routed)?);
    let rounds = scale.count(PACKETS) / 2;
    let cost = |path: Path, arriving: &Datagram| {
        let begun = thread_cpu_ns();
        for _ in 0..rounds {
            let put = |packet| drop(black_box(packet));
            stage.outbound(black_box(out.clone()), &path, put).map_err(broken)?;
            let Inbound::Direct(datagram) = stage.inbound(black_box(arriving.clone())) else {
                return Err(broken("a packet was not taken"));
            };
            black_box(datagram);
        }
        #[allow(clippy::cast_precision_loss)] // Nanoseconds of a run.
        Ok((thread_cpu_ns() - begun) as f64 / (rounds * 2) as f64)
    };
    if stripped(routed.clone()).destination != SERVICE {
        return Err(broken("the routing header is not read"));
    }
    Figures::alternate(
        scale.runs,
        || cost(Path::Optimised { care_of: CARE_OF }, &routed),
        || cost(Path::Direct, &plain),
    )
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr) -> Packet {
    let header = Header { source, destination, next_header: ip::TCP, ..Header::default() };
    let mut head = header.emit(TCP_HEADER + PAYLOAD);
    head.extend([0; TCP_HEADER]);
    head[ip::HEADER_LEN + 12] = 0x80;
    let start = u16::try_from(ip::HEADER_LEN).unwrap_or(0);
    let offload = Offload { checksum: Checksum::Partial { start, offset: 16 }, ..Offload::default() };
    Packet { head, body: vec![0; PAYLOAD].into(), offload }
}

fn parse(packet: &Packet) -> Result<Datagram> {
    ip::parse(packet.to_bytes(), packet.offload).map_err(broken)
}

/// Both sides of everything that binds a client: six messages written, carried, read and checked. Bindings a second of
/// one core that does the work of both.
pub(super) fn bindings(scale: Scale) -> Result<Figures> {
    let count = scale.count(BINDINGS);
    let mut ours = Vec::new();
    for _ in 0..scale.runs {
        let (mut node, mut clients) = (mobile(), Correspondent::new([5; 20]));
        let begun = thread_cpu_ns();
        for number in 0..count {
            bind(&mut node, &mut clients, client(number))?;
        }
        #[allow(clippy::cast_precision_loss)] // Nanoseconds of a run.
        ours.push(count as f64 * 1e9 / (thread_cpu_ns() - begun) as f64);
    }
    Ok(Figures::alone(ours))
}

/// Resident octets of all that a node remembers of a client that is bound to it.
pub(super) fn memory(scale: Scale) -> Result<Figures> {
    let count = scale.count(MANY);
    let (mut ours, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..scale.runs.min(3) {
        let mut node = mobile();
        let before = resident()?;
        for number in 0..count {
            // A client's own memory is not asked for: its other half is forgotten at once.
            bind(&mut node, &mut Correspondent::new([5; 20]), client(number))?;
        }
        #[allow(clippy::cast_precision_loss)] // Octets of this machine.
        ours.push(resident()?.saturating_sub(before) as f64 / count as f64);
        // What the allocator has kept of one would hide what the next takes.
        kept.push(node);
    }
    Ok(Figures::alone(ours))
}

fn mobile() -> Mobile {
    Mobile::new(SERVICE, CARE_OF, [3; 20])
}

/// A node comes to own a connection of a client, which believes it in the end.
fn bind(node: &mut Mobile, clients: &mut Correspondent, client: Ipv6Addr) -> Result<()> {
    let now = Instant::ZERO + Duration::from_secs(1000);
    node.own(client, now);
    while let Some(message) = node.poll() {
        let answer = clients.receive(&opened(&message)?, now);
        if let Some(answer) = answer {
            node.receive(&opened(&answer)?, now);
        }
    }
    clients.take_changes();
    match node.mode(client, now) {
        Mode::Optimised => Ok(()),
        Mode::Relayed => Err(broken("a client was not bound")),
    }
}

/// A message as it arrives.
fn opened(message: &Outgoing) -> Result<header::Received> {
    header::open(&parse(&message.packet())?).map_err(|fault| broken(format!("{fault:?}")))
}
