//! What a connection carries is not shown to whoever reads logs.

use bytes::Bytes;
use ferry_handoff::{Copy, Message, Mirror, NodeId, Snapshot};
use ferry_stack::tcp;

use super::lan::{self, Lan};
use crate::driver::audit_line;
use crate::{Command, Input, Output, TraceEvent, Which};

const SECRET: &[u8] = b"4111-1111-1111-1111-attack-at-dawn";

/// Whether something shows the payload, as text or as numbers.
fn shows(shown: &str) -> bool {
    let text = std::str::from_utf8(&SECRET[..12]).unwrap();
    let numbers: Vec<_> = SECRET[..6].iter().map(ToString::to_string).collect();
    shown.contains(text) || shown.contains(&numbers.join(", ")) || shown.contains(&numbers.join(",\n"))
}

fn tell(what: &impl std::fmt::Debug) {
    let (line, lines) = (format!("{what:?}"), format!("{what:#?}").replace(' ', ""));
    assert!(!shows(&line) && !shows(&lines), "{line}");
}

/// What the driver makes of an output: a line of the trace, and one of the log.
fn write(output: &Output) -> usize {
    let Output::Trace(trace) = output else { return 0 };
    let mut lines = vec![serde_json::to_string(trace).unwrap()];
    if let TraceEvent::Move(audit) = &trace.event {
        lines.push(audit_line(audit));
    }
    for line in &lines {
        assert!(!shows(line) && !line.contains(&hex()), "{line}");
    }
    lines.len()
}

fn hex() -> String {
    SECRET[..6].iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().concat()
}

/// A connection that holds the payload wherever one can: not acknowledged, not read, out of order, in the session.
fn full() -> Lan {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    assert_eq!(lan.echo(client, SECRET), SECRET);
    // No small segment waits for an answer.
    lan.client.tcp.with(client, |tcb| tcb.config_mut().nodelay = true);
    let now = lan.now;
    let mut send = |skip: usize| {
        lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(SECRET)));
        let frames: Vec<_> = std::iter::from_fn(|| lan.client.poll_transmit(now)).collect();
        for frame in frames.into_iter().skip(skip) {
            let frame = frame.contiguous();
            tell(&frame);
            let input = Input::Frame(frame);
            tell(&input);
            lan.nodes.get_mut("a").unwrap().handle(input, now);
        }
    };
    // The answer stays in flight; then one segment is missing, and the next is held.
    send(0);
    send(1);
    send(0);
    lan
}

#[test]
fn nothing_that_can_be_logged_shows_what_a_connection_carries() {
    let mut lan = full();
    let [snapshot] = &lan.nodes["a"].snapshots(lan.now)[..] else { panic!("one connection") };
    let tcb = &snapshot.tcb;
    assert!(!tcb.snd.queue.is_empty() && !tcb.rcv.reassembly.is_empty(), "{tcb:?}");
    let octets = snapshot.encode().unwrap();
    assert!(octets.windows(12).any(|window| window == &SECRET[..12]), "it is in there");
    tell(snapshot);
    tell(&tcp::Segment {
        payload: Bytes::from_static(SECRET),
        ..tcp::Segment::bare(tcb.snd.una, None, None)
    });
    let mut mirror = Mirror::default();
    let delta = mirror.delta(snapshot.clone());
    let mut copy = Copy::default();
    copy.apply(delta.clone()).unwrap();
    tell(&delta);
    tell(&copy);
    tell(&mirror);
    tell(&Snapshot::decode(&octets).unwrap());
    let all = Command::Handoff { to: "b".to_owned(), which: Which::All };
    let now = lan.now;
    lan.nodes.get_mut("a").unwrap().handle(Input::Command { id: 900, command: all }, now);
    let (mut transfers, mut lines) = (0, 0);
    for _ in 0..20 {
        for name in lan::NAMES {
            tell(&lan.nodes[name]);
            let mut said = Vec::new();
            loop {
                let output = lan.nodes.get_mut(name).unwrap().poll(now);
                tell(&output);
                lines += write(&output);
                match output {
                    Output::Peer { to, bytes } => said.push((to, bytes.join())),
                    Output::WaitUntil(_) => break,
                    _ => {}
                }
            }
            for (to, bytes) in said {
                let mut rest = bytes.clone();
                while let Ok(message) = Message::take(&mut rest) {
                    transfers += usize::from(matches!(message, Message::Transfer { .. }));
                    tell(&message);
                }
                let input = Input::Peer { from: NodeId::of(name), bytes };
                tell(&input);
                let to = lan::NAMES.into_iter().find(|name| NodeId::of(name) == to).unwrap();
                lan.nodes.get_mut(to).unwrap().handle(input, now);
            }
        }
    }
    assert!(transfers > 0 && lan.owner() == ["b"]);
    assert!(lines > 5, "{lines} lines");
}
