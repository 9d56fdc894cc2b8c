//! Deltas from a node that lies or is broken: each is refused with its reason, and changes nothing.

use alloc::vec::Vec;

use bytes::Bytes;
use ferry_stack::tcp::{Broken, Extent};
use proptest::prelude::*;

use super::snapshot;
use crate::{Copy, Delta, Epoch, MAX_SNAPSHOT, Mirror, Refused, Snapshot, Unfit, Version};

/// A copy at version 1, what it is a copy of later, and the delta to that.
fn pair() -> (Copy, Snapshot, Delta) {
    let (mut copy, mut mirror) = (Copy::default(), Mirror::default());
    let mut source = snapshot(3);
    copy.apply(mirror.delta(source.clone())).unwrap();
    source.tcb.snd.queue.push(Bytes::from_static(&[7; 3000]));
    let delta = mirror.delta(source.clone());
    (copy, source, delta)
}

/// The octets of a delta whose body was changed, behind a header that vouches for them.
fn vouched(octets: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut body = octets[18..].to_vec();
    change(&mut body);
    super::vouched(&body)
}

#[test]
fn a_delta_comes_back_as_it_was_and_fits() {
    let (mut copy, source, delta) = pair();
    let octets = delta.encode().unwrap();
    assert_eq!(Delta::decode(&octets).unwrap(), delta);
    assert_eq!(Delta::decode_pieces(&delta.pieces().unwrap()).unwrap(), delta);
    assert_eq!(copy.apply(delta).unwrap(), Version { epoch: Epoch::nth(3), number: 2 });
    assert_eq!(copy.snapshot().unwrap(), source);
}

#[test]
fn a_delta_that_was_cut_or_has_a_flipped_bit_is_refused() {
    let delta = pair().2;
    let octets = delta.encode().unwrap();
    for len in 0..octets.len() {
        let refused = Delta::decode(&octets.slice(..len)).unwrap_err();
        assert!(matches!(refused, Refused::Truncated { .. }), "cut at {len}: {refused}");
    }
    let mut flipped = octets.to_vec();
    for bit in (0..octets.len() * 8).step_by(5) {
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Delta::decode(&Bytes::copy_from_slice(&flipped)).is_err(), "bit {bit}");
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    // For a link, too, but for the long payload behind the first piece: that is the link's to guard.
    let pieces = delta.pieces().unwrap();
    let (said, mut flipped) = (pieces.iter().next().unwrap().len(), pieces.clone().join().to_vec());
    assert_eq!(flipped.len() - said, 3000);
    for bit in 0..said * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Delta::decode(&Bytes::copy_from_slice(&flipped)).is_err(), "bit {bit}");
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn octets_that_vouch_for_less_than_what_they_say_are_refused() {
    let octets = pair().2.encode().unwrap();
    for checked in [0, 1, 50, octets.len() - 18 + 1] {
        assert_eq!(
            Delta::decode(&super::vouched_for(&octets[18..], checked)),
            Err(Refused::Check),
            "{checked}"
        );
    }
}

#[test]
fn deltas_that_contradict_themselves_are_refused_when_they_are_read() {
    type Change = fn(&mut Delta);
    let cases: [(&str, Change); 9] = [
        ("payload before SND.UNA", |d| d.extents.send.seq = d.extents.send.seq - 1),
        ("payload beyond what is in order", |d| d.extents.unread.len += 1),
        ("an island that the control block does not know", |d| {
            d.extents.islands.push(Extent { seq: d.extents.islands[0].end() + 9_u32, len: 5 });
        }),
        ("no island", |d| d.extents.islands.clear()),
        ("an empty island", |d| d.extents.islands[0].len = 0),
        ("an island elsewhere", |d| d.extents.islands[0].seq = d.extents.islands[0].seq + 1_u32),
        ("payload inside of the control block", |d| d.tcb.snd.queue.push(Bytes::from_static(b"x"))),
        ("it builds on itself", |d| d.base = Some(d.version)),
        ("whole, and without its session", |d| (d.base, d.session) = (None, None)),
    ];
    for (name, change) in cases {
        let (mut copy, _, mut delta) = pair();
        change(&mut delta);
        assert_eq!(Delta::decode(&delta.encode().unwrap()), Err(Refused::Contradiction), "{name}");
        // Nor does it do harm to a copy that is handed it all the same.
        let _ = copy.apply(delta);
        let _ = copy.snapshot();
    }
}

#[test]
fn a_delta_that_does_not_fit_the_copy_leaves_it_as_it_is() {
    type Change = fn(&mut Delta);
    let lacks = Unfit::Lacks { have: Version { epoch: Epoch::nth(3), number: 1 } };
    let payload = |present| Unfit::Refused(Refused::Payload { present, wanted: 3000 });
    let cases: [(&str, Change, Unfit); 5] = [
        (
            "on a version that is not there",
            |d| d.base = Some(Version { number: 0, ..d.version }),
            lacks.clone(),
        ),
        (
            "on an epoch that is not there",
            |d| d.base = Some(Version { epoch: Epoch::nth(2), number: 1 }),
            lacks,
        ),
        ("octets that are missing", |d| drop(d.fresh.pop()), payload(0)),
        ("octets that nobody needs", |d| d.fresh.push(Bytes::from_static(b"four")), payload(3004)),
        ("of another connection", |d| d.tcb.flow.remote.set_port(9), Unfit::Refused(Refused::Contradiction)),
    ];
    for (name, change, why) in cases {
        let (mut copy, _, mut delta) = pair();
        let before = copy.snapshot().unwrap();
        change(&mut delta);
        assert_eq!(copy.apply(delta), Err(why), "{name}");
        assert_eq!(copy.snapshot().unwrap(), before, "{name}");
    }
}

#[test]
fn what_no_connection_can_be_like_is_refused_before_it_runs() {
    let (mut copy, _, mut delta) = pair();
    delta.tcb.snd.in_flight += 1;
    copy.apply(delta).unwrap();
    assert_eq!(copy.snapshot(), Err(Refused::Broken(Broken::Sent)));
    assert_eq!(Copy::default().snapshot(), Err(Refused::Nothing));
}

#[test]
fn a_copy_cannot_be_made_to_grow_beyond_a_snapshot_by_many_deltas() {
    let (mut copy, mut mirror, mut source) = (Copy::default(), Mirror::default(), snapshot(3));
    let mut grown = 0;
    loop {
        source.tcb.snd.queue.push(alloc::vec![7; 1 << 20].into());
        let delta = mirror.delta(source.clone());
        if delta.encode().is_err() {
            break;
        }
        copy.apply(delta).unwrap();
        grown += 1;
    }
    assert_eq!(grown, 7, "the first octets were there before");
    // A node that does not keep to it says how much it wants to have held, in a few octets.
    let (_, _, honest) = pair();
    let octets = honest.encode().unwrap();
    let mut delta = honest.clone();
    delta.extents.send.len = u32::try_from(MAX_SNAPSHOT).unwrap();
    assert!(delta.encode().is_err());
    let (short, long) = (postcard::to_allocvec(&honest).unwrap(), postcard::to_allocvec(&delta).unwrap());
    let lied = vouched(&octets, |body| drop(body.splice(..short.len(), long)));
    assert!(matches!(Delta::decode(&lied), Err(Refused::TooLarge(_))));
}

#[test]
fn snapshots_are_refused_for_what_they_build_on() {
    let octets = pair().2.encode().unwrap();
    assert_eq!(Snapshot::decode(&octets), Err(Refused::Nothing));
}

proptest! {
    #[test]
    fn a_delta_that_was_changed_with_its_check_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (mut copy, _, delta) = pair();
        let octets = vouched(&delta.encode().unwrap(), |body| {
            for (at, octet) in &changes {
                let at = at.index(body.len().min(400));
                body[at] = *octet;
            }
        });
        if let Ok(delta) = Delta::decode(&octets) {
            let before = copy.version();
            if copy.apply(delta).is_err() {
                prop_assert_eq!(copy.version(), before);
            }
            prop_assert!(copy.len() <= MAX_SNAPSHOT as u64);
            if let Ok(snapshot) = copy.snapshot() {
                prop_assert_eq!(snapshot.tcb.check(), Ok(()));
            }
        }
    }
}
