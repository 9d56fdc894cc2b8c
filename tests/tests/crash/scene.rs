//! A small group that serves a client, with copies.

use core::time::Duration;
use std::collections::BTreeSet;

use ferry_node::{Commit, DirectorySetup, Optimise, Placement, PlainSource, Status};
use ferry_stack::Instant;
use ferry_stack::tcp::Config;
use ferry_tests::channel::Manner;
use ferry_tests::draw::{self, Kind};
use ferry_tests::machine::Machine;
use ferry_tests::seeds::Tally;
use ferry_tests::serve::{ECHO, EXCHANGE, Order};
use ferry_tests::talk::Task;
use ferry_tests::watch::Sender;
use ferry_tests::world::{Blow, GroupPlan, Operation, Protection, World};

/// When the faults of a scene end.
const MENDED: Duration = Duration::from_secs(2);
/// Within this after that every connection is over.
const PATIENCE: Duration = Duration::from_secs(30);
/// And so are its copies.
const FORGOTTEN: Duration = Duration::from_secs(20);

/// A scene in which nothing is left to chance but what the seed draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) replicas: u8,
    pub(super) commit: Commit,
    pub(super) placement: Placement,
    pub(super) kind: Kind,
    pub(super) handoffs: u64,
    /// Whether all nodes are on the home link, so that any can have the role of the contact node.
    pub(super) shared: bool,
    /// Takes the role of the contact node in the middle.
    pub(super) takes: Option<usize>,
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Scene {
    fn protection(&self) -> Protection {
        let directory = DirectorySetup { heartbeat: ms(40), lease: ms(200), ..DirectorySetup::default() };
        Protection { replicas: self.replicas, commit: self.commit, directory }
    }

    pub(super) fn world(&self, log: bool) -> World {
        let mut world = World::new(self.seed, log);
        (world.protection, world.light) = (self.protection(), true);
        world.home_link = if self.shared { self.nodes } else { 0 };
        let mut rng = world.rng.fork();
        let attachments = (0..self.nodes).map(|_| draw::sound_attachment(&mut rng, "", 50..=500)).collect();
        let delay = Duration::from_micros(rng.within(100..=2_000));
        let plan = GroupPlan {
            attachments,
            offload: vec![false; self.nodes],
            placement: self.placement,
            optimise: if self.kind == Kind::Aware { Optimise::Auto } else { Optimise::Never },
            plain_source: PlainSource::Auto,
            tcp: Config::default(),
            reluctance: 0,
            manner: Manner { delay, ..Manner::default() },
            www: None,
        };
        let operation = Operation {
            every: (self.handoffs > 0).then_some(5..=15),
            at_most: Some(self.handoffs),
            in_turn: true,
            dead_for_good: true,
            roles: self.takes.map(|node| (node, Instant::from_millis(45))).into_iter().collect(),
            ..Operation::default()
        };
        world.attach_group(&plan, operation);
        let attachment = draw::sound_attachment(&mut rng, "client", 500..=3_000);
        let stack = draw::stack(&mut rng, self.kind, world.next_interface(1500));
        let mut machine = Machine::new(stack);
        machine.talks.push(draw::steady_talk(&mut rng, Instant::from_millis(30), ECHO, Task::Echo(8_000)));
        let exchange = Task::Exchange { up: 3_000, down: 9_000, order: Order::ClientFirst };
        machine.talks.push(draw::steady_talk(&mut rng, Instant::from_millis(30), EXCHANGE, exchange));
        world.attach(machine, Sender::Ours, attachment);
        world.mend_at(Instant::ZERO + MENDED);
        world
    }

    /// How many moments there are without a fault.
    pub(super) fn moments(&self) -> u64 {
        let mut world = self.world(false);
        world.run(PATIENCE);
        world.moments()
    }

    /// Runs to the end of all connections. None may be lost.
    pub(super) fn play(&self, moment: u64, blows: &[(Duration, Blow)], log: bool) -> Tally {
        let mut world = self.world(log);
        for (after, blow) in blows {
            world.at_moment(moment, *after, *blow);
        }
        world.run(PATIENCE);
        assert_eq!(world.excused(), 0, "no connection is lost");
        let tally = world.tally();
        one_has_the_role(&mut world);
        if moment.is_multiple_of(100) {
            world.everything_is_forgotten_in_the_end();
        }
        copies_are_forgotten(&mut world, self.replicas);
        tally
    }
}

/// Of all nodes one is the contact node, and all say so.
pub(super) fn one_has_the_role(world: &mut World) {
    let limit = world.now + FORGOTTEN;
    loop {
        let statuses = world.statuses();
        let named: BTreeSet<_> = statuses.iter().map(|status| &status.contact_node).collect();
        let contacts = statuses.iter().filter(|status| status.contact).count();
        if named.len() == 1 && contacts == 1 {
            return;
        }
        assert!(world.now < limit, "of all nodes one is the contact node: {statuses:?}");
        world.run_for(ms(100));
    }
}

/// Nodes hold copies only of what is still owned (in TIME-WAIT), and have nothing to tell each other about others.
pub(super) fn copies_are_forgotten(world: &mut World, replicas: u8) {
    let limit = world.now + FORGOTTEN;
    loop {
        let statuses = world.statuses();
        let sum = |count: fn(&Status) -> usize| statuses.iter().map(count).sum::<usize>();
        let busy = sum(|status| status.copies.recovering + status.copies.discarding);
        let owned = sum(|status| status.connections);
        if busy == 0 && sum(|status| status.copies.held) <= owned * usize::from(replicas) {
            return;
        }
        assert!(world.now < limit, "when a connection is over nobody holds a copy of it: {statuses:?}");
        world.run_for(ms(100));
    }
}
