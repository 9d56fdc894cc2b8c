//! What goes ahead of a connection that has much to bring.

use bytes::Bytes;

use super::lan::Lan;
use crate::io::Step;

/// Octets that the donors' snapshots had when the connection stood still.
fn frozen(lan: &Lan) -> Vec<usize> {
    let octets = |(_, step): &(_, Step)| match step {
        Step::Frozen { snapshot_bytes } => Some(*snapshot_bytes),
        _ => None,
    };
    lan.steps.iter().filter_map(octets).collect()
}

#[test]
fn while_a_connection_stands_still_only_what_has_changed_is_brought() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    // Nothing is read at the client, so that what is sent back waits at the node.
    let octets: Vec<u8> = (0..4_000_000_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let mut rest = Bytes::from(octets.clone());
    for _ in 0..60 {
        rest = lan.client.tcp.with(client, |tcb| tcb.write(rest)).unwrap();
        lan.pass(100);
    }
    let waiting = lan.nodes["a"].control_blocks().next().unwrap().extents().len();
    assert!(waiting > 50_000, "{waiting}");
    lan.hand_off("a", "b");
    assert_eq!(lan.owner(), ["b"]);
    assert!(frozen(&lan)[0] < 4096, "{:?}", frozen(&lan));
    lan.hand_off("b", "c");
    assert!(frozen(&lan)[1] < 4096, "{:?}", frozen(&lan));
    let mut back = Vec::new();
    for _ in 0..200 {
        rest = lan.client.tcp.with(client, |tcb| tcb.write(rest)).unwrap();
        lan.client.tcp.with(client, |tcb| {
            while tcb.readable() > 0 {
                back.extend_from_slice(&tcb.read(usize::MAX));
            }
        });
        lan.pass(100);
    }
    assert!(back == octets, "{} octets came back", back.len());
    assert_eq!(lan.resets(), 0);
}

#[test]
fn a_connection_with_little_to_bring_is_asked_for_once_and_comes_at_once() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    assert_eq!(lan.echo(client, b"a little"), b"a little");
    lan.hand_off("a", "b");
    let steps: Vec<_> = lan.steps.iter().filter(|(name, _)| *name == "a").map(|(_, step)| step).collect();
    assert!(matches!(steps[..], [Step::Asked, Step::Frozen { .. }, Step::Taken]), "{steps:?}");
}
