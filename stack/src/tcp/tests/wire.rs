//! An independent judge reads what is emitted.

use alloc::vec::Vec;

use etherparse::{PacketHeaders, PayloadSlice, TcpOptionElement, TransportHeader};

use super::harness::{Make, Solo, plain};
use super::pair::cut;
use crate::frame::{Checksum, Offload};
use crate::tcp::{Config, Path, Segment};
use crate::{gso, ip};

/// Everything that a connection sends in a life with losses and moves.
fn life(config: Config, path: Path) -> (Solo, Vec<Segment>) {
    let mut solo = Solo::with(config, u32::MAX - 2000, 5000);
    solo.path = path;
    let mut sent = solo.segments();
    let mut answer = solo.syn(1000);
    answer.ack = Some(solo.iss + 1_u32);
    solo.gets(answer).unwrap();
    sent.extend(solo.segments());
    solo.write(25_000);
    sent.extend(solo.segments());
    for nth in 0..3 {
        solo.gets(solo.ack(11 + nth * 10, 1).data(b"abc")).unwrap();
        sent.extend(solo.segments());
    }
    let block = (solo.iss + 2001_u32, solo.iss + 9001_u32);
    solo.gets(solo.ack(1, 1001).data(b"x").sacks(&[block])).unwrap();
    sent.extend(solo.segments());
    solo.tcb.finish();
    solo.gets(solo.ack(2, 9001)).unwrap();
    sent.extend(solo.segments());
    solo.tcb.abort();
    sent.extend(solo.segments());
    (solo, sent)
}

#[test]
fn an_independent_reader_finds_what_was_meant() {
    let modern =
        Config { sack: true, timestamps: true, window_scaling: true, receive_buffer: 1 << 20, ..plain() };
    for config in [plain(), modern, Config { timestamps: false, ..modern }, Config { sack: false, ..modern }]
    {
        let (solo, sent) = life(config, Path::default());
        assert!(sent.len() > 15);
        for segment in sent {
            let packet = segment.emit(&solo.tcb.flow, 0x12345, false);
            assert_eq!(packet.offload, Offload::default());
            read_back(&solo, &segment, &packet.to_bytes());
        }
    }
}

#[test]
fn a_super_segment_comes_apart_into_the_segments_it_stands_for() {
    let config = Config { sack: true, timestamps: true, ..plain() };
    let (solo, sent) = life(config, Path { overhead: 0, segmentation: true });
    let mut supers = 0;
    for segment in sent {
        let packet = segment.emit(&solo.tcb.flow, 0x12345, true);
        assert!(matches!(packet.offload.checksum, Checksum::Partial { .. }));
        let Some(size) = packet.offload.gso else { continue };
        supers += 1;
        let pieces: Vec<_> = gso::segments(&packet, size.size).collect();
        let expected = cut(&segment);
        assert_eq!(pieces.len(), expected.len());
        for (piece, expected) in pieces.iter().zip(expected) {
            read_back(&solo, &expected, &piece.to_bytes());
        }
    }
    assert!(supers > 1);
}

fn read_back(solo: &Solo, segment: &Segment, octets: &[u8]) {
    let headers = PacketHeaders::from_ip_slice(octets).unwrap();
    let Some(TransportHeader::Tcp(tcp)) = &headers.transport else { panic!("no TCP") };
    let PayloadSlice::Tcp(payload) = headers.payload else { panic!("no payload") };
    assert_eq!(payload, &segment.payload[..]);
    let (from, to) = (solo.tcb.flow.local, solo.tcb.flow.remote);
    let sum = tcp.calc_checksum_ipv6_raw(from.ip().octets(), to.ip().octets(), payload).unwrap();
    assert_eq!(sum, tcp.checksum);
    assert_eq!((tcp.source_port, tcp.destination_port), (from.port(), to.port()));
    assert_eq!((tcp.sequence_number, tcp.window_size), (segment.seq.0, segment.window));
    assert_eq!(tcp.ack.then_some(tcp.acknowledgment_number), segment.ack.map(|ack| ack.0));
    assert_eq!((tcp.syn, tcp.fin, tcp.rst), (segment.is_syn(), segment.is_fin(), segment.is_rst()));
    assert!(!(tcp.urg || tcp.ece || tcp.cwr || tcp.ns));
    let Some(etherparse::NetHeaders::Ipv6(header, _)) = &headers.net else { panic!("no IPv6") };
    assert_eq!(usize::from(header.payload_length) + ip::HEADER_LEN, octets.len());
    assert_eq!(header.flow_label.value(), 0x12345);
    options(segment, tcp);
}

fn options(segment: &Segment, tcp: &etherparse::TcpHeader) {
    let (mut mss, mut scale, mut permitted, mut stamps, mut blocks) = (None, None, false, None, Vec::new());
    for option in tcp.options_iterator() {
        match option.unwrap() {
            TcpOptionElement::Noop => {}
            TcpOptionElement::MaximumSegmentSize(value) => mss = Some(value),
            TcpOptionElement::WindowScale(value) => scale = Some(value),
            TcpOptionElement::SelectiveAcknowledgementPermitted => permitted = true,
            TcpOptionElement::Timestamp(value, echo) => stamps = Some((value, echo)),
            TcpOptionElement::SelectiveAcknowledgement(first, rest) => {
                blocks = core::iter::once(first).chain(rest.into_iter().flatten()).collect();
            }
        }
    }
    let ours = &segment.options;
    assert_eq!((mss, scale, permitted), (ours.mss, ours.window_scale, ours.sack_permitted));
    assert_eq!(stamps, ours.timestamps.map(|it| (it.value, it.echo)));
    assert_eq!(blocks, ours.sack_blocks().map(|(from, to)| (from.0, to.0)).collect::<Vec<_>>());
}
