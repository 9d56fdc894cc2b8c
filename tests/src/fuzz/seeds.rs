use core::time::Duration;
use std::net::Ipv6Addr;

use bytes::Bytes;
use ferry_handoff::claims::{Claim, Standing};
use ferry_handoff::{Epoch, Incarnation, Message, NodeId, Opinion, Pulse, Refusal, Snapshot, Verdict};
use ferry_stack::frame::Offload;
use ferry_stack::ip::{self, Header, Packet};
use ferry_stack::tcp::{Control, Flow, Options, Path, Segment, Tcb, Timestamps};
use ferry_stack::{Instant, Seq};

use super::states::{config, flow, opening};

/// What a corpus begins with: octets that make sense, from which a fuzzer finds those that almost do. By target.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for packet in packets() {
        seeds.push(("frame", [&[0xff, 0, 200][..], &packet, &[0xc1, 0, 100], &packet].concat()));
        seeds.push(("packet", [&[2][..], &packet].concat()));
    }
    seeds.extend(super::mobility::seeds().into_iter().map(|octets| ("mobility", octets)));
    for snapshot in snapshots() {
        for message in messages(&snapshot) {
            seeds.push(("message", message.encode().to_vec()));
        }
        let body = snapshot.encode().map(|octets| octets.slice(14..)).unwrap_or_default();
        seeds.push(("snapshot", [&[3, 0, 1, 3, 3, 2, 3, 3][..], &body].concat()));
    }
    let example = configuration();
    for cut in 0..5 {
        seeds.push(("config", example[..example.len() - example.len() * cut / 8].to_vec()));
    }
    for state in 0..9 {
        let script = [0_u8, state, 0, 0, 20, 20, 30, 0, 0, 100, 8, 10, 0, 10, 1, 0, 11, 14, 0, 9, 2, 5, 18];
        seeds.push(("states", script.to_vec()));
        seeds.push((
            "pair",
            [&[state * 16, state * 8, 12, 12, 0, 20, 0, 1, 30, 12, 18, 3, 24, 0, 9][..], &script].concat(),
        ));
    }
    seeds.extend(links().into_iter().map(|octets| ("greeting", octets)));
    for message in of_deaths(flow()) {
        seeds.push(("message", message.encode().to_vec()));
    }
    seeds
}

fn packets() -> Vec<Vec<u8>> {
    let mut syn = Segment::bare(Seq(1), None, Some(Control::Syn));
    syn.options = Options {
        mss: Some(1000),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 1, echo: 2 }),
        ..Options::default()
    };
    let mut data = Segment::bare(Seq(2), Some(Seq(7)), Some(Control::Fin));
    data.options.sack[0] = Some((Seq(10), Seq(20)));
    data.payload = Bytes::from_static(b"some octets");
    let mut packets: Vec<_> =
        [syn, data].iter().map(|segment| segment.emit(&flow(), 0x12345, false).to_bytes().to_vec()).collect();
    let inner = packets[0].clone();
    // Packet Too Big, a neighbour solicitation, a tunnel, and a chain of extension headers.
    packets.push(emit(ip::ICMPV6, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], &inner].concat()));
    packets.push(emit(
        ip::ICMPV6,
        &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0x20; 16], &[1, 1, 2, 0, 0, 0, 0, 9]].concat(),
    ));
    packets.push(emit(ip::IPV6, &inner));
    let chain =
        [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[44, 0, 1, 4, 0, 0, 0, 0], &[6, 0, 0, 0, 0, 0, 0, 9], &inner[40..]];
    packets.push(emit(0, &chain.concat()));
    packets
}

fn emit(next_header: u8, body: &[u8]) -> Vec<u8> {
    let (source, destination) = (Ipv6Addr::from([0x20; 16]), Ipv6Addr::from([0x21; 16]));
    let head = Header { source, destination, next_header, ..Header::default() }.emit(body.len());
    Packet { head, body: Bytes::copy_from_slice(body), offload: Offload::default() }.to_bytes().to_vec()
}

/// Connections with octets in flight, out of order, unread; and one that is being opened.
fn snapshots() -> Vec<Snapshot> {
    let now = Instant::from_millis(1_000_000);
    let mut connections = Vec::new();
    for bits in [0, 8, 16, 0xff] {
        let mut tcb = Tcb::connect(flow(), &opening(config(bits), Seq(9000)), now);
        while tcb.poll_transmit(Path::default(), now).is_some() {}
        connections.push(tcb.clone());
        let mut answer = Segment::bare(Seq(500), Some(Seq(9001)), Some(Control::Syn));
        answer.window = 30_000;
        answer.options = Options { mss: Some(1000), sack_permitted: true, ..Options::default() };
        answer.options.timestamps = Some(Timestamps { value: 1, echo: 0 });
        let _ = tcb.receive(&answer, now);
        let _ = tcb.write(Bytes::from_static(&[7; 5000]));
        while tcb.poll_transmit(Path::default(), now).is_some() {}
        for seq in [501, 520] {
            let mut data = Segment::bare(Seq(seq), Some(Seq(9001)), None);
            (data.window, data.payload) = (30_000, Bytes::from_static(b"0123456789"));
            data.options.timestamps = Some(Timestamps { value: 2, echo: 0 });
            data.options.sack[0] = Some((Seq(10_001), Seq(11_001)));
            let _ = tcb.receive(&data, now + Duration::from_millis(30));
        }
        connections.push(tcb);
    }
    let freeze = |tcb: Tcb| Snapshot {
        epoch: Epoch::nth(3),
        service: "echo".to_owned(),
        tcb: tcb.freeze(now + Duration::from_millis(50)).into(),
        session: Bytes::from_static(b"state"),
        wake: Some(Duration::from_millis(20)),
        client: Bytes::from_static(b"client"),
    };
    connections.into_iter().map(freeze).collect()
}

fn messages(snapshot: &Snapshot) -> [Message; 6] {
    let (flow, epoch) = (snapshot.tcb.flow, snapshot.epoch);
    let octets = snapshot.pieces().unwrap_or_default();
    [
        Message::Prepare { flow, epoch, service: "echo".to_owned() },
        Message::Transfer { flow, epoch, snapshot: octets.clone() },
        Message::Copy { flow, epoch, version: 3, holders: vec![NodeId::of("a")], delta: octets },
        Message::Refuse { flow, epoch, why: Refusal::Session("no".to_owned()) },
        Message::Owner { flow, epoch, node: NodeId::of("a") },
        Message::Load { connections: 300, open: true },
    ]
}

/// What is said when a node dies.
fn of_deaths(flow: Flow) -> [Message; 7] {
    let (node, life, epoch, iss) = (NodeId::of("a"), Incarnation(7), Epoch::nth(3).recovered(), Seq(9000));
    let standing = Standing { iss, epoch, version: 5, rank: 1 };
    let copies = vec![Claim { flow, standing }, Claim { flow, standing: Standing::of_owner(iss, epoch) }];
    let opinion = Opinion { node, life, verdict: Verdict::Suspected };
    [
        Message::Copied { flow, epoch, version: 5 },
        Message::Lacks { flow, epoch, version: 5, have: 4 },
        Message::Discard { flow, iss, epoch },
        Message::Claims { dead: node, life, run: 1 << 20, copies: copies.clone() },
        Message::Claimed { dead: node, life, run: 1 << 20, objections: copies },
        Message::Pulse(Pulse { life, number: 9, heard: Some((life, 8)), opinions: vec![opinion] }),
        Message::Dead { node, life },
    ]
}

/// A question and the answers to it, each with a ping, a message and half of another behind it.
fn links() -> Vec<Vec<u8>> {
    let hello = b"\x04demo\x01a\x07\0";
    let mut said = vec![(0, hello.to_vec()), (1, [&[0][..], hello].concat())];
    let refusals: [&[u8]; 6] =
        [&[0, 2], b"\x01\x01x\x04demo", b"\x02\x01z", b"\x03\x06a.demo", b"\x04\x01a", b"\x05\x01b"];
    said.extend(refusals.iter().map(|refusal| (1, [&[1][..], refusal].concat())));
    let link = |(side, greeting): (u8, Vec<u8>)| {
        let length = u8::try_from(10 + greeting.len()).unwrap_or(u8::MAX);
        let frames = b"\0\0\0\x01\x01\0\0\0\x05\0text\0\0\0\x05\0te";
        [&[side + 14, 0, 0, 0, length][..], b"ferry-pl\0\x04", &greeting, frames].concat()
    };
    said.into_iter().map(link).collect()
}

/// The configuration that README.md shows.
fn configuration() -> Vec<u8> {
    let readme = include_str!("../../../README.md");
    let example = readme.split("```toml").nth(1).and_then(|rest| rest.split("```").next());
    example.unwrap_or_default().as_bytes().to_vec()
}
