//! A connection of a group can be handed off at any moment: each state of TCP and each condition is brought about in the
//! simulated world, and the connection frozen in it.

#[path = "moments/conditions.rs"]
mod conditions;
#[path = "scene/mod.rs"]
mod scene;

use core::time::Duration;

use ferry_handoff::Message;
use ferry_stack::Instant;
use ferry_stack::tcp::Tcb;
use ferry_tests::link::Quality;
use ferry_tests::talk::Script;

use self::scene::{Scene, Setting, client_of};

/// What is seen of a connection: both its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) tcb: &'a Tcb,
    pub(crate) client: &'a Tcb,
    /// Whether a cookie opened it.
    pub(crate) by_cookie: bool,
}

pub(crate) type Condition = fn(&Sight<'_>) -> bool;

/// Which way of the client's link carries nothing for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outage {
    Up,
    Down,
    Both,
}

/// A moment in the life of a connection.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) name: &'static str,
    pub(crate) script: Script,
    pub(crate) set: fn(&mut Setting),
    /// What brings it about, if the script does not: from when on the link carries nothing, and how long.
    pub(crate) outage: Option<(Condition, Outage, Duration)>,
    pub(crate) is: Condition,
}

/// What a run of a moment showed.
#[derive(Debug, Default)]
struct Played {
    /// Freezes at the moment, and at another one although it had been there when the handoff was asked for.
    hit: u32,
    missed: u32,
    /// Retransmission timeouts of the client and of the owners.
    timeouts: [u32; 2],
    ended: Instant,
}

/// Counts how often the retransmission timer has fired, of either end.
#[derive(Default)]
struct Timeouts {
    last: [u8; 2],
    sum: [u32; 2],
}

impl Timeouts {
    fn look(&mut self, ends: [Option<&Tcb>; 2]) {
        for (at, tcb) in ends.into_iter().enumerate() {
            let Some(tcb) = tcb else { continue };
            self.sum[at] += u32::from(tcb.snd.timeouts > self.last[at]);
            self.last[at] = tcb.snd.timeouts;
        }
    }
}

impl Moment {
    fn setting(&self, aware: bool) -> Setting {
        let mut setting = Setting { aware, ..Setting::default() };
        (self.set)(&mut setting);
        setting
    }

    /// Plays it: the connection first goes to `first`, if that is not where it begins, and at the moment to `then`.
    fn play(&self, aware: bool, first: usize, then: Option<usize>) -> Played {
        let mut scene = self.setting(aware).scene(core::slice::from_ref(&self.script));
        let mut run = Run { moment: self, first, then, ..Run::new(self) };
        while !scene.world.is_done() {
            let in_time = scene.world.now < Instant::from_millis(60_000);
            assert!(in_time, "{}: everything ends: {:?}", self.name, scene.owned().map(|(_, tcb)| tcb.state));
            run.step(&mut scene);
        }
        run.played.ended = scene.world.now;
        run.played.timeouts = run.timeouts.sum;
        assert!(!scene.was_reset(), "{}: nobody is reset", self.name);
        scene.world.everything_is_forgotten_in_the_end();
        run.played
    }
}

/// A moment that is being played.
struct Run<'a> {
    moment: &'a Moment,
    first: usize,
    then: Option<usize>,
    went: bool,
    broke: bool,
    warmed: Instant,
    /// The handoff at the moment: who gives.
    giving: Option<usize>,
    timeouts: Timeouts,
    played: Played,
}

impl<'a> Run<'a> {
    fn new(moment: &'a Moment) -> Self {
        Self {
            moment,
            first: 0,
            then: None,
            went: false,
            broke: false,
            warmed: Instant::ZERO,
            giving: None,
            timeouts: Timeouts::default(),
            played: Played::default(),
        }
    }

    fn holds(scene: &Scene, condition: Condition) -> bool {
        let (Some((_, tcb)), Some(client)) = (scene.owned(), scene.of_client()) else { return false };
        let by_cookie = scene.world.statuses().iter().any(|status| status.counters.cookies_accepted > 0);
        condition(&Sight { tcb, client, by_cookie })
    }

    fn step(&mut self, scene: &mut Scene) {
        let (owner, held) = (scene.owned().map(|(owner, _)| owner), Self::holds(scene, self.moment.is));
        assert!(scene.world.step(), "{}: something will happen", self.moment.name);
        self.timeouts.look([scene.of_client(), scene.owned().map(|(_, tcb)| tcb)]);
        let now_owner = scene.owned().map(|(owner, _)| owner);
        if let Some(giver) = self.giving.take_if(|giver| owner == Some(*giver) && now_owner != owner) {
            assert_ne!(now_owner, Some(giver));
            self.played.hit += u32::from(held);
            self.played.missed += u32::from(!held);
        }
        self.direct(scene);
    }

    /// Does what is due.
    fn direct(&mut self, scene: &mut Scene) {
        let Some((owner, tcb)) = scene.owned() else { return };
        let (client, flow) = (client_of(tcb), tcb.flow);
        let nodes = scene.nodes.clone();
        if !self.went && self.first != 0 {
            self.went = true;
            return scene.world.hand_off(Some(client), owner, nodes[self.first]);
        }
        if owner != nodes[self.first] {
            return;
        }
        // Every other node has a care-of token ahead of need, so that none has to be fetched at the moment itself.
        if self.warmed <= scene.world.now {
            self.warmed = scene.world.now + Duration::from_millis(500);
            for other in nodes.iter().filter(|other| **other != owner) {
                scene.world.say_as(owner, *other, &Message::WarmUp { flow });
            }
        }
        self.break_link(scene);
        if let Some(then) = self.then
            && (self.giving.is_none() && self.played.hit == 0 && self.played.missed < 50)
            && Self::holds(scene, self.moment.is)
        {
            self.giving = Some(owner);
            scene.world.hand_off(Some(client), owner, nodes[then]);
        }
    }

    fn break_link(&mut self, scene: &mut Scene) {
        let Some((when, outage, span)) = self.moment.outage else { return };
        if self.broke || !Self::holds(scene, when) {
            return;
        }
        self.broke = true;
        let client = scene.clients[0];
        let (up, down) = scene.world.qualities(client);
        let dead = |quality: &Quality| Quality { loss: 1000, ..quality.clone() };
        let broken = match outage {
            Outage::Up => (dead(&up), down.clone()),
            Outage::Down => (up.clone(), dead(&down)),
            Outage::Both => (dead(&up), dead(&down)),
        };
        let now = scene.world.now;
        scene.world.relink_at(now, client, broken.0, broken.1);
        scene.world.relink_at(now + span, client, up, down);
    }
}

/// Where the connection is, and where it goes: away from home, on, back home.
const WAYS: [(usize, usize); 3] = [(0, 1), (1, 2), (1, 0)];

/// What is wrong with how a moment was played.
fn wrong(moved: &Played, stayed: &Played) -> Option<&'static str> {
    if moved.hit != 1 {
        return Some("the connection was not frozen at the moment");
    }
    if moved.timeouts[0] > stayed.timeouts[0] {
        return Some("the client waited for a timeout");
    }
    if moved.timeouts[1] > stayed.timeouts[1] {
        return Some("an owner waited for a timeout");
    }
    let late = stayed.ended.since(moved.ended) > Duration::from_millis(100);
    late.then_some("it ended later than it would have")
}

fn every_moment(aware: bool) {
    let mut failed = Vec::new();
    for moment in conditions::all() {
        for (first, then) in WAYS {
            let stayed = moment.play(aware, first, None);
            let moved = moment.play(aware, first, Some(then));
            let verdict = wrong(&moved, &stayed);
            let line = format!("{}, {first} to {then}: {verdict:?}: {moved:?}, else {stayed:?}", moment.name);
            println!("{line}");
            failed.extend(verdict.map(|_| line));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_plain_client_notices_no_handoff_at_any_moment() {
    every_moment(false);
}

#[test]
fn a_client_that_understands_notices_no_handoff_at_any_moment() {
    every_moment(true);
}
