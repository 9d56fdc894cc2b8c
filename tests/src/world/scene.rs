//! What a test does to a world by hand: it looks into nodes, moves a connection at a moment of its choice, changes links
//! and messages, and says what no node has said.

use core::time::Duration;

use ferry_handoff::Message;
use ferry_node::{Command, Node, Which};
use ferry_stack::Instant;
use ferry_stack::tcp::Tcb;

use super::agenda::Event;
use super::{Body, World};
use crate::link::Quality;
use crate::owners::Client;
use crate::tamper::Fate;

impl World {
    /// A node. Panics if that machine is none.
    pub fn node(&self, nth: usize) -> &Node {
        match &self.places[nth].body {
            Body::Node(member) => &member.node,
            _ => panic!("{} is no node", self.places[nth].name),
        }
    }

    /// What the clock of a node shows. Panics if that machine is none.
    pub fn clock_of(&self, nth: usize) -> Instant {
        match &self.places[nth].body {
            Body::Node(member) => member.clock(self.now),
            _ => panic!("{} is no node", self.places[nth].name),
        }
    }

    /// Every connection that a node owns, with the number of the node.
    pub fn owned(&self) -> impl Iterator<Item = (usize, &Tcb)> {
        self.places.iter().enumerate().flat_map(|(nth, place)| {
            let node = match &place.body {
                Body::Node(member) => Some(&member.node),
                _ => None,
            };
            node.into_iter().flat_map(move |node| node.control_blocks().map(move |tcb| (nth, tcb)))
        })
    }

    /// The control blocks of a host.
    pub fn of_host(&self, nth: usize) -> Vec<&Tcb> {
        match &self.places[nth].body {
            Body::Host(machine) => machine.stack.tcbs(self.now).into_iter().map(|(tcb, _)| tcb).collect(),
            _ => Vec::new(),
        }
    }

    /// Has a node hand one connection, or all of them, to another.
    pub fn hand_off(&mut self, client: Option<Client>, from: usize, to: usize) {
        let which = client.map_or(Which::All, |(client, port)| Which::One { client, port });
        let to = self.places[to].name.clone();
        self.command(from, client, Command::Handoff { to, which });
    }

    /// Whether every command is answered.
    pub fn is_idle(&self) -> bool {
        self.group.is_idle()
    }

    /// Gives a node a command that concerns no single connection.
    pub fn order(&mut self, nth: usize, command: Command) {
        self.command(nth, None, command);
    }

    /// Lets a node hear something as if another had said it just now.
    pub fn say_as(&mut self, from: usize, to: usize, message: &Message) {
        self.say_octets_as(from, to, message.encode());
    }

    /// The same with any octets.
    pub fn say_octets_as(&mut self, from: usize, to: usize, bytes: bytes::Bytes) {
        let life = self.group.life(from, to);
        self.message(from, to, life, bytes);
    }

    /// A machine's link becomes another at that time.
    pub fn relink_at(&mut self, at: Instant, nth: usize, up: Quality, down: Quality) {
        self.schedule(at, Event::Relink(nth, Box::new((up, down))));
    }

    /// What a machine's link is like now, from it and to it.
    pub fn qualities(&self, nth: usize) -> (Quality, Quality) {
        let place = &self.places[nth];
        (place.up.quality.clone(), place.down.quality.clone())
    }

    pub(super) fn relink(&mut self, nth: usize, (up, down): (Quality, Quality)) {
        self.say(|| format!("the link of {} is another now", self.places[nth].name));
        let place = &mut self.places[nth];
        (place.up.quality, place.down.quality) = (up, down);
    }

    /// When a message arrives that would arrive then.
    pub(super) fn as_fated(
        &mut self,
        fate: Option<Fate>,
        mut arrivals: Vec<Instant>,
        (from, to): (usize, usize),
    ) -> Vec<Instant> {
        if let Some(echo) = self.tamper.echo {
            let first = arrivals.clone();
            let again = (1..=5).flat_map(|nth| first.iter().map(move |at| *at + echo * nth));
            arrivals.extend(again);
            self.group.count_fault((from, to));
        }
        let Some(fate) = fate else { return arrivals };
        self.say(|| format!("    {fate:?}"));
        match fate {
            Fate::Lost => arrivals.clear(),
            Fate::Doubled(after) => arrivals.extend(arrivals.clone().iter().map(|at| *at + after)),
            Fate::Late(by) | Fate::Stuck(by) => arrivals.iter_mut().for_each(|at| *at += by),
            Fate::Cut(span) => {
                arrivals.clear();
                self.schedule(self.now, Event::PeersPart(from, to));
                self.schedule(self.now + span.max(Duration::from_nanos(1)), Event::PeersMeet(from, to));
            }
        }
        self.group.count_fault((from, to));
        arrivals
    }
}
