use alloc::vec::Vec;

use bytes::Bytes;
use ferry_stack::tcp::Broken;
use ferry_stack::{Instant, Seq};
use proptest::prelude::*;

use super::snapshot;
use crate::{MAX_SNAPSHOT, Refused, Snapshot, VERSION};

/// Where the encoding of [`snapshot`] is kept.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/golden.bin");

#[test]
fn a_snapshot_comes_back_as_it_was() {
    let original = snapshot(7);
    assert_eq!(Snapshot::decode(&original.encode().unwrap()).unwrap(), original);
}

#[test]
fn the_octets_of_a_snapshot_are_those_of_its_version() {
    // If this fails, the format has changed: raise `VERSION` and write the new octets with
    // `FERRY_BLESS=1 cargo test -p ferry-handoff octets_of_a_snapshot` in the same commit.
    assert_eq!(VERSION, 4);
    let octets = snapshot(7).encode().unwrap();
    if std::env::var_os("FERRY_BLESS").is_some() {
        std::fs::write(GOLDEN, &octets).unwrap();
    }
    let golden = std::fs::read(GOLDEN).unwrap();
    assert!(octets == golden, "the snapshot's format has changed without a new version");
    assert_eq!(Snapshot::decode(&golden.into()).unwrap(), snapshot(7));
}

#[test]
fn a_thawed_connection_freezes_to_the_same_snapshot() {
    let now = Instant::from_millis(900_000);
    let frozen = snapshot(7).tcb;
    assert_eq!(frozen.clone().thaw(now).freeze(now), *frozen);
}

#[test]
fn a_snapshot_cut_at_any_octet_is_refused() {
    let bytes = snapshot(7).encode().unwrap();
    for len in 0..bytes.len() {
        let refused = Snapshot::decode(&bytes.slice(..len)).unwrap_err();
        assert!(matches!(refused, Refused::Truncated { .. }), "cut at {len}: {refused}");
    }
}

#[test]
fn a_snapshot_with_any_bit_flipped_is_refused() {
    let mut bytes = snapshot(7).encode().unwrap().to_vec();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Snapshot::decode(&Bytes::copy_from_slice(&bytes)).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn each_kind_of_wrong_octets_has_its_reason() {
    let good = snapshot(7).encode().unwrap().to_vec();
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let longer = [&good[..], b"x"].concat();
    let cases: [(&str, Vec<u8>, Refused); 5] = [
        ("another magic", changed(0, b'X'), Refused::Magic),
        ("another version", changed(5, 9), Refused::Version(9)),
        ("a changed body", changed(20, good[20] ^ 1), Refused::Check),
        ("something behind it", longer, Refused::Trailing(1)),
        ("far too long", alloc::vec![0; MAX_SNAPSHOT + 1], Refused::TooLarge(MAX_SNAPSHOT + 1)),
    ];
    for (name, bytes, reason) in cases {
        assert_eq!(Snapshot::decode(&bytes.into()), Err(reason), "{name}");
    }
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    type Break = fn(&mut Snapshot);
    let cases: [(&str, Break, Broken); 4] = [
        (
            "an acknowledgement beyond what was sent",
            |s| s.tcb.snd.una = s.tcb.snd.nxt + 1_u32,
            Broken::SendSpace,
        ),
        ("octets in flight that nobody sent", |s| s.tcb.snd.in_flight += 1, Broken::Sent),
        ("a window that ends before it begins", |s| s.tcb.rcv.adv = s.tcb.rcv.nxt - 1, Broken::RecvSpace),
        ("a FIN that nobody queued", |s| s.tcb.snd.fin = Some(Seq(5)), Broken::SendSpace),
    ];
    for (name, break_it, reason) in cases {
        let mut snapshot = snapshot(7);
        break_it(&mut snapshot);
        let bytes = snapshot.encode().unwrap();
        assert_eq!(Snapshot::decode(&bytes), Err(Refused::Broken(reason)), "{name}");
    }
}

proptest! {
    #[test]
    fn random_octets_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        prop_assert!(Snapshot::decode(&bytes).is_err());
        let _ = crate::Message::decode(&bytes);
    }

    #[test]
    fn a_body_that_was_changed_with_its_check_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = snapshot(7).encode().unwrap().to_vec();
        for (at, octet) in changes {
            let at = 18 + at.index(bytes.len() - 18);
            bytes[at] = octet;
        }
        // Whatever passes must be able to run: nothing here may panic either.
        if let Ok(snapshot) = Snapshot::decode(&super::vouched(&bytes[18..])) {
            let now = Instant::from_millis(1_000_000);
            let mut tcb = snapshot.tcb.thaw(now);
            tcb.kick();
            for _ in 0..100 {
                while tcb.poll_transmit(ferry_stack::tcp::Path::default(), now).is_some() {}
            }
            for step in 0..50 {
                tcb.handle_timeout(Instant::from_millis(1_000_000 + step * 500));
            }
        }
    }
}
