//! Whatever comes in, nothing panics, and whatever goes out is well-formed.

use proptest::prelude::*;

use super::*;
use crate::Checksum;

/// Frames that are right, to be spoilt.
fn seeds() -> Vec<Vec<u8>> {
    let icmp = |kind, body: &[u8]| {
        let hop_limit = 255;
        Icmp { to_mac: MAC, source: PEER, destination: US, hop_limit, kind, code: 0, body: body.to_vec() }
            .frame()
    };
    let target = |address: Ipv6Addr, option| {
        [&[0x60, 0, 0, 0][..], &address.octets(), &[option, 1], &PEER_MAC.0].concat()
    };
    let quoted = packet(FAR, ip::TCP, &[0; 20]);
    let options = [6, 2, 1, 2, 0, 0, 0xc9, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    let routing = [60, 2, 2, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    let chain = [&routing[..], &options, &[0; 20]].concat();
    let fragment = [&[6, 0, 0, 1, 0, 0, 0, 9][..], &[0; 24]].concat();
    [
        icmp(135, &target(US, 1)),
        icmp(136, &target(PEER, 2)),
        icmp(136, &target(US, 2)),
        icmp(128, &[1; 50]),
        icmp(2, &[&[0, 0, 5, 0][..], &quoted].concat()),
        icmp(4, &[&[0, 0, 0, 6][..], &quoted].concat()),
        icmp(130, &[0; 24]),
        icmp(137, &[2; 120]),
        framed(MAC, &packet(US, ip::TCP, &[0; 20])),
        framed(MAC, &packet(US, ip::IPV6, &quoted)),
        framed(MAC, &packet(US, 43, &chain)),
        framed(MAC, &packet(US, 44, &fragment)),
        framed(MAC, &packet(US, 0, &[&[6, 0, 5, 2, 0, 0, 1, 0][..], &[0; 20]].concat())),
        framed(MAC, &packet(FAR, ip::UDP, &[0; 20])),
    ]
    .into_iter()
    .map(|frame| frame.head.to_vec())
    .collect()
}

/// Makes the ICMPv6 checksum right again, so that what is behind it is reached.
fn mend(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(14..) else { return };
    let bytes = Bytes::copy_from_slice(packet);
    let Ok(datagram) = ip::parse(bytes, Offload::default()) else { return };
    let field = datagram.upper_at + 2..datagram.upper_at + 4;
    if datagram.upper != ip::ICMPV6 || datagram.packet.len() < field.end {
        return;
    }
    packet[field.clone()].fill(0);
    let upper = &packet[datagram.upper_at..datagram.packet.len()];
    let len = u32::try_from(upper.len()).unwrap();
    let sum =
        checksum::pseudo_header(datagram.source, datagram.destination, len, ip::ICMPV6).add(upper).finish();
    packet[field].copy_from_slice(&sum.to_be_bytes());
}

fn offload() -> impl Strategy<Value = Offload> {
    let partial =
        (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| Checksum::Partial { start, offset });
    let checksum = prop_oneof![4 => Just(Checksum::Complete), 1 => Just(Checksum::Verified), 1 => partial];
    checksum.prop_map(|checksum| Offload { checksum, gso: None })
}

fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let seed = prop::sample::select(seeds());
    (seed, changes, any::<prop::sample::Index>(), any::<bool>(), any::<bool>()).prop_map(
        |(mut frame, changes, cut, keep, mended)| {
            for (at, octet) in changes {
                // The link-layer addresses stay, so that the frame gets in.
                let at = 12 + at.index(frame.len() - 12);
                frame[at] = octet;
            }
            if !keep {
                let len = cut.index(frame.len());
                frame.truncate(len);
            }
            if mended {
                mend(&mut frame);
            }
            frame
        },
    )
}

fn survive(frames: Vec<(Vec<u8>, Offload)>, forwarding: bool, mobility: bool) {
    let mut interface = acquainted();
    interface.set_forwarding(forwarding);
    interface.set_mobility(mobility);
    for (n, (bytes, offload)) in frames.into_iter().enumerate() {
        let now = at(n as u64 * 300);
        let frame = Frame { offload, ..Frame::received(bytes.into()) };
        if let Some(datagram) = interface.receive(frame, now) {
            let _ = (icmp::parse_error(&datagram), datagram.home_address(), datagram.routed_home());
            let _ = checksum::verify(&datagram);
            interface.icmp_error(&datagram, icmp::Error::PacketTooBig { mtu: 1280 }, now);
            if let Some(mut packet) = datagram.hop() {
                checksum::complete(&mut packet);
                let _ = crate::gso::segments(&packet, 1).count();
                interface.send(packet, now);
            }
        }
        interface.handle_timeout(now);
        for frame in core::iter::from_fn(|| interface.poll_transmit()) {
            // What a router sends on is as good as it came; what we make ourselves is judged.
            if frame.head[22..38] == US.octets() {
                judge(&frame);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_octets_do_not_panic(
        frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..120), offload()), 1..8),
        forwarding: bool,
    ) {
        let addressed = frames.into_iter().map(|(mut bytes, offload)| {
            if let Some(front) = bytes.get_mut(..15) {
                front.copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60]);
            }
            if let Some(destination) = bytes.get_mut(38..54) {
                destination.copy_from_slice(&US.octets());
            }
            (bytes, offload)
        });
        survive(addressed.collect(), forwarding, false);
    }

    #[test]
    fn spoilt_frames_do_not_panic(
        frames in proptest::collection::vec((spoilt(), offload()), 1..8),
        forwarding: bool,
        mobility: bool,
    ) {
        survive(frames, forwarding, mobility);
    }
}

#[test]
fn every_seed_gets_in_when_it_is_not_spoilt() {
    for (n, seed) in seeds().into_iter().enumerate() {
        let mut interface = acquainted();
        interface.set_forwarding(true);
        interface.set_mobility(true);
        let _ = interface.receive(Frame::received(seed.into()), at(0));
        let Counters { malformed, bad_checksum, not_ours, .. } = interface.counters();
        assert_eq!((malformed, bad_checksum, not_ours), (0, 0, 0), "seed {n}");
    }
}

#[test]
fn frames_cut_anywhere_do_not_panic() {
    for seed in seeds() {
        for len in 0..seed.len() {
            survive(vec![(seed[..len].to_vec(), Offload::default())], true, true);
        }
    }
}
