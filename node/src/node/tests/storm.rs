//! Ten thousand connections that leave a node at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::NodeId;
use ferry_stack::tcp::Handle;

use super::lan::{self, Lan};
use crate::{Command, Input, Output, Reply, TraceEvent, Which};

const MANY: usize = 10_000;
/// Octets that each of them has sent and not had acknowledged.
const IN_FLIGHT: usize = 1_000;

/// The links between the nodes, each of which carries so many octets in a tick.
struct Wire {
    queues: BTreeMap<(NodeId, NodeId), VecDeque<Bytes>>,
    /// The most octets that ever waited on one of them.
    longest: usize,
}

const A_TICK: usize = 1 << 20;

impl Wire {
    fn take(&mut self, from: NodeId, to: NodeId, bytes: Bytes) {
        let queue = self.queues.entry((from, to)).or_default();
        queue.push_back(bytes);
        self.longest = self.longest.max(queue.iter().map(Bytes::len).sum());
    }

    fn deliver(&mut self) -> Vec<(NodeId, NodeId, Bytes)> {
        let mut delivered = Vec::new();
        for ((from, to), queue) in &mut self.queues {
            let mut room = A_TICK;
            while let Some(bytes) = queue.pop_front() {
                room = room.saturating_sub(bytes.len());
                delivered.push((*from, *to, bytes));
                if room == 0 {
                    break;
                }
            }
        }
        delivered
    }

    fn is_empty(&self) -> bool {
        self.queues.values().all(VecDeque::is_empty)
    }
}

/// Ten thousand connections at a, each of which waits for the client to acknowledge what was sent to it.
fn crowd() -> (Lan, Vec<Handle>) {
    let mut lan = Lan::new(|_| {});
    let clients: Vec<_> = (0..MANY).map(|_| lan.connect_at_once()).collect();
    lan.pass(100);
    assert_eq!(lan.nodes["a"].connections().len(), MANY);
    for client in &clients {
        lan.client.tcp.with(*client, |tcb| tcb.write(Bytes::from_static(&[7; IN_FLIGHT])));
    }
    // The answers do not reach the client: they are still in flight when the storm begins.
    while let Some(frame) = lan.client.poll_transmit(lan.now) {
        lan.nodes.get_mut("a").unwrap().handle(Input::Frame(frame.contiguous()), lan.now);
    }
    (lan, clients)
}

#[test]
fn ten_thousand_connections_that_leave_at_once_wait_in_bounded_memory() {
    let (mut lan, clients) = crowd();
    let queued: usize = lan.nodes["a"].control_blocks().map(|tcb| tcb.snd.queue.len()).sum();
    assert!(queued >= MANY * IN_FLIGHT, "{queued}");
    let all = Command::Handoff { to: "b".to_owned(), which: Which::All };
    lan.nodes.get_mut("a").unwrap().handle(Input::Command { id: 900, command: all }, lan.now);
    let mut wire = Wire { queues: BTreeMap::new(), longest: 0 };
    let (mut reply, mut held, mut ticks) = (None, 0, 0);
    while reply.is_none() || !wire.is_empty() {
        for name in lan::NAMES {
            let node = lan.nodes.get_mut(name).unwrap();
            loop {
                match node.poll(lan.now) {
                    Output::Peer { to, bytes } => wire.take(NodeId::of(name), to, bytes.join()),
                    Output::Reply { reply: told, .. } => reply = Some(told),
                    Output::Trace(trace) => assert!(!matches!(trace.event, TraceEvent::Closed { .. })),
                    Output::Frame(_) | Output::Reborn { .. } | Output::Store { .. } => {}
                    Output::WaitUntil(_) => break,
                }
            }
            held = held.max(node.remembered()["held octets"]);
        }
        ticks += 1;
        assert!(ticks < 10_000, "it ends");
        lan.now += Duration::from_micros(100);
        for (from, to, bytes) in wire.deliver() {
            let name = lan::NAMES.into_iter().find(|name| NodeId::of(name) == to).unwrap();
            lan.nodes.get_mut(name).unwrap().handle(Input::Peer { from, bytes }, lan.now);
        }
    }
    let Some(Reply::Moved(moved)) = reply else { panic!("{reply:?}") };
    assert_eq!((moved.moved, moved.failed.len()), (MANY, 0));
    assert_eq!(lan.nodes["b"].connections().len(), MANY);
    println!("{} octets waited at most, {held} were held, of {queued}; {ticks} ticks", wire.longest);
    // What is under way at once, and not what there is: a twentieth of it.
    assert!(wire.longest < MANY * IN_FLIGHT / 10, "{} octets waited", wire.longest);
    assert!(held < MANY * IN_FLIGHT / 10, "{held} octets were held");
    // Nothing is lost of any of them: the client's timers do the rest, since no answer has reached it yet.
    for _ in 0..40 {
        lan.pass(100);
    }
    for client in clients.iter().step_by(97) {
        let readable = lan.client.tcp.with(*client, |tcb| tcb.readable());
        assert_eq!(readable, Some(IN_FLIGHT));
    }
    assert_eq!(lan.resets(), 0);
}
