//! What comes from other nodes, and from the operator: messages, snapshots, the configuration file.

use core::time::Duration;
use std::path::Path;

use bytes::Bytes;
use ferry_handoff::{Message, Snapshot, VERSION};
use ferry_node::driver::{Understood, understood};
use ferry_stack::Instant;
use ferry_stack::tcp::{Endpoint, Path as Way, Secret};

use super::feed::Feed;

/// A message of another node.
pub fn message(octets: &[u8]) {
    if let Ok(message) = Message::decode(&Bytes::copy_from_slice(octets)) {
        let again = Message::decode(&message.encode());
        assert_eq!(again, Ok(message), "we do not understand our own message");
    }
}

/// What one side of a peer link says, from its first octet: which side it is and in what pieces it arrives, then that.
pub fn greeting(octets: &[u8]) {
    let Some(([piece], said)) = octets.split_first_chunk() else { return };
    let (dialled, piece) = (piece % 2 == 0, usize::from(piece / 2));
    let heard = understood(said, dialled, piece);
    assert_eq!(understood(said, dialled, said.len()), heard, "the pieces make a difference");
    assert_ne!(heard.closes.as_deref(), Some(""), "it does not say why");
    if heard.octets.is_empty() {
        assert!(heard.closes.is_some(), "no greeting, and it waits for frames");
        return;
    }
    // Only a greeting can be written in more ways than one.
    let again = understood(&heard.octets, dialled, piece);
    assert_eq!(
        again,
        Understood { octets: heard.octets, closes: None },
        "we do not understand our own words"
    );
}

/// A snapshot: the octets as they are, or the body behind a header that vouches for it. One that is taken runs.
pub fn snapshot(octets: &[u8]) {
    let _ = Snapshot::decode(&Bytes::copy_from_slice(octets));
    let Some((script, body)) = octets.split_first_chunk::<8>() else { return };
    let Ok(snapshot) = Snapshot::decode(&vouched(body)) else { return };
    let encoded = snapshot.encode().unwrap_or_else(|why| panic!("what was decoded cannot be encoded: {why}"));
    assert_eq!(Snapshot::decode(&encoded).as_ref(), Ok(&snapshot));
    let now = Instant::from_millis(1 << 40);
    let again = snapshot.tcb.clone().thaw(now).freeze(now);
    assert_eq!(again.check(), Ok(()), "thawed and frozen again");
    run(snapshot, script, now);
}

/// A body behind the header that a snapshot of this version has.
fn vouched(body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let header: [&[u8]; 4] = [b"FRRY", &VERSION.to_be_bytes(), &length, &length];
    let header = header.concat();
    let mut check = crc32fast::Hasher::new();
    check.update(&header);
    check.update(body);
    [&header, &check.finalize().to_be_bytes()[..], body].concat().into()
}

/// Runs what a snapshot holds for a while: sends, waits for its timers, reads, writes.
fn run(snapshot: Snapshot, script: &[u8], mut now: Instant) {
    let mut endpoint = Endpoint::new(Secret::new([2; 32]), 1500, false);
    let Ok(handle) = endpoint.import(snapshot.tcb, now) else { return };
    let mut feed = Feed::new(script);
    while let Some(act) = feed.byte() {
        let mut sent = 0;
        while endpoint.poll_transmit(now, |_| Way::default()).is_some() {
            sent += 1;
            assert!(sent < 100_000, "it sends for ever");
        }
        while endpoint.poll_event().is_some() {}
        let Some(tcb) = endpoint.get(handle) else { return };
        assert_eq!(tcb.check(), Ok(()));
        match act % 4 {
            0 => drop(endpoint.with(handle, |tcb| tcb.read(usize::from(act) * 100))),
            1 => drop(endpoint.with(handle, |tcb| tcb.write(vec![act; usize::from(act) * 100].into()))),
            2 => now += Duration::from_millis(u64::from(act)),
            _ => now = endpoint.deadline().unwrap_or(now).max(now),
        }
        endpoint.handle_timeout(now);
    }
}

/// The text of a configuration file.
pub fn config(octets: &[u8]) {
    let Ok(text) = core::str::from_utf8(octets) else { return };
    if let Err(error) = ferry_node::config::Config::parse(text, Path::new("/etc/ferry/node.toml"), None) {
        assert!(!error.to_string().is_empty());
    }
}
