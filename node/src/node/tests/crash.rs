//! Nodes that die, and connections that do not.

use bytes::Bytes;

use super::ONE_MOVED;
use super::lan::{self, Lan};
use crate::node::{Commit, Setup};

/// Each connection has so many copies.
fn protected(replicas: u8, commit: Commit) -> impl Fn(&mut Setup) {
    move |setup| {
        let services = core::mem::take(&mut setup.services);
        setup.services = services.into_iter().map(|service| service.protected(replicas, commit)).collect();
    }
}

fn holders(lan: &Lan) -> Vec<&'static str> {
    let alive = lan::NAMES.into_iter().filter(|name| !lan.dead.contains(name));
    alive.filter(|name| lan.nodes[name].status(lan.now).copies.held > 0).collect()
}

#[test]
fn a_connection_outlives_its_owner() {
    for commit in [Commit::Strict, Commit::Regenerate, Commit::None] {
        for owner in ["b", "c"] {
            let mut lan = Lan::new(protected(1, commit));
            let client = lan.connect();
            assert_eq!(lan.hand_off("a", owner), ONE_MOVED);
            assert_eq!(lan.echo(client, b"alive"), b"alive", "{commit:?}");
            let [holder] = holders(&lan)[..] else { panic!("one copy: {:?}", holders(&lan)) };
            lan.kill(owner);
            lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(b"into the gap ")));
            lan.run();
            lan.prove_to_all(owner);
            assert_eq!(lan.owner(), [holder], "{commit:?}");
            assert_eq!(lan.echo(client, b"and on"), b"into the gap and on", "{commit:?}");
            assert_eq!(lan.nodes[holder].status(lan.now).copies.recovered, 1);
            assert_eq!(holders(&lan).len(), 1, "and it is protected again");
            assert_eq!(lan.resets(), 0);
        }
    }
}
