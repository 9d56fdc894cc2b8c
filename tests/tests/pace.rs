//! What handoffs cost a connection that goes on: the ten round trips after one, and a thousand of them in a second.

#[path = "scene/mod.rs"]
mod scene;

use core::time::Duration;

use ferry_handoff::Message;
use ferry_tests::channel::Manner;
use ferry_tests::serve::Order;
use ferry_tests::talk::Script;

use self::scene::{Scene, Setting, client_of, exchange};

/// Which way the octets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Down,
    Up,
}

impl Way {
    /// More than passes while anybody looks.
    fn script(self) -> Script {
        match self {
            Self::Down => exchange(0, 64 << 20, Order::ServerFirst),
            Self::Up => exchange(64 << 20, 0, Order::ClientFirst),
        }
    }

    /// Octets that have reached the application by now.
    fn received(self, scene: &mut Scene) -> u64 {
        let client = scene.clients[0];
        match self {
            Self::Down => scene.world.host(client).talks[0].received,
            Self::Up => scene.owned().map_or(0, |(_, tcb)| tcb.rcv.total),
        }
    }
}

fn setting(rate: u64, delay: Duration, aware: bool) -> Setting {
    let manner = Manner { delay: Duration::from_micros(200), ..Manner::default() };
    let mut setting = Setting { aware, delay, rate, manner, ..Setting::default() };
    for config in [&mut setting.server, &mut setting.client] {
        (config.receive_buffer, config.send_buffer) = (400 << 10, 400 << 10);
    }
    setting
}

/// Hands the only connection to the next node. Whether it could be.
fn hand_on(scene: &mut Scene) -> bool {
    let Some((owner, tcb)) = scene.owned() else { return false };
    let client = client_of(tcb);
    let at = scene.nodes.iter().position(|node| *node == owner).unwrap_or_default();
    let to = scene.nodes[(at + 1) % scene.nodes.len()];
    scene.world.hand_off(Some(client), owner, to);
    true
}

/// The octets that arrive in the ten round trips from `at` on, with a handoff then or without.
fn ten_round_trips(setting: &Setting, way: Way, at: Duration, moves: bool) -> u64 {
    let mut scene = setting.scene(&[way.script()]);
    scene.world.run_for(at);
    warm_up(&mut scene);
    scene.world.run_for(setting.delay * 4);
    if moves {
        assert!(hand_on(&mut scene));
    }
    let before = way.received(&mut scene);
    // What waits in the queues of the path is part of a round trip.
    let rtt = scene.of_client().and_then(|tcb| tcb.rtt.smoothed).unwrap_or_default().max(2 * setting.delay);
    scene.world.run_for(10 * rtt);
    assert!(!moves || scene.world.tally().handoffs == 1);
    way.received(&mut scene) - before
}

/// Lets all who may get the connection have their tokens of the client.
fn warm_up(scene: &mut Scene) {
    let Some((owner, tcb)) = scene.owned() else { return };
    let flow = tcb.flow;
    for other in scene.nodes.clone().into_iter().filter(|other| *other != owner) {
        scene.world.say_as(owner, other, &Message::WarmUp { flow });
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of this size are exact")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

fn the_ten_round_trips_after_a_handoff(way: Way) {
    let ms = Duration::from_millis;
    for (rate, delay) in [(1_000_000, ms(5)), (5_000_000, ms(1)), (2_000_000, ms(20))] {
        for aware in [false, true] {
            // In slow start, when that has ended, and when the path has long been full.
            for at in [ms(200) + 12 * delay, ms(200) + 40 * delay, ms(200) + 80 * delay] {
                let setting = setting(rate, delay, aware);
                let [without, with] = [false, true].map(|moves| ten_round_trips(&setting, way, at, moves));
                let kept = ratio(with, without);
                let what =
                    format!("{rate} octets/s, {delay:?} one way, {way:?}, aware: {aware}, after {at:?}");
                println!("{what}: {with} of {without}: {kept:.4}");
                assert!(kept >= 0.98, "{what}: {with} of {without}: {kept}");
            }
        }
    }
}

#[test]
fn the_ten_round_trips_after_a_handoff_bring_down_what_they_would_have() {
    the_ten_round_trips_after_a_handoff(Way::Down);
}

#[test]
fn the_ten_round_trips_after_a_handoff_carry_up_what_they_would_have() {
    the_ten_round_trips_after_a_handoff(Way::Up);
}

/// What a node may remember of one connection that moves a thousand times a second.
const MOST: [(&str, usize); 9] = [
    ("connections", 1),
    ("places", 1),
    ("placed", 0),
    ("handoffs", 3),
    ("warming", 2),
    ("leaving", 1),
    ("updates", 1),
    ("questions", 0),
    ("jobs", 2),
];

fn nothing_grows(scene: &Scene) {
    for node in &scene.nodes {
        let remembered = scene.world.node(*node).remembered();
        for (what, most) in MOST {
            let at = scene.world.now;
            assert!(remembered[what] <= most, "{what} at node {node}, {at}: {remembered:?}");
        }
    }
}

/// How long a megabyte takes while its connection goes to and fro, and how often it did.
fn ping_pong(setting: &Setting, way: Way, every: Option<Duration>) -> (Duration, u64) {
    let megabyte = match way {
        Way::Down => exchange(0, 1 << 20, Order::ServerFirst),
        Way::Up => exchange(1 << 20, 0, Order::ClientFirst),
    };
    let mut scene = setting.scene(&[megabyte]);
    // Until the client is known to understand, if it does.
    scene.world.run_for(Duration::from_millis(200) + 8 * setting.delay);
    while !scene.world.is_done() {
        scene.world.run_for(every.unwrap_or(Duration::from_millis(1)));
        if every.is_some() && scene.world.is_idle() && !scene.world.is_done() {
            hand_on(&mut scene);
        }
        nothing_grows(&scene);
        assert!(scene.world.now < scene::START + Duration::from_mins(1), "it ends");
    }
    let (took, moved) = (scene::START.since(scene.world.now), scene.world.tally().handoffs);
    assert!(!scene.was_reset());
    scene.world.everything_is_forgotten_in_the_end();
    for node in &scene.nodes {
        let remembered = scene.world.node(*node).remembered();
        assert!(remembered.values().all(|count| *count == 0), "{remembered:?}");
    }
    (took, moved)
}

#[test]
fn a_connection_that_goes_to_and_fro_a_thousand_times_a_second_arrives_and_leaves_nothing_behind() {
    let (us, ms) = (Duration::from_micros, Duration::from_millis);
    for delay in [us(100), us(500), ms(2), ms(10)] {
        for (way, aware) in [(Way::Down, false), (Way::Down, true), (Way::Up, false), (Way::Up, true)] {
            let manner = Manner { delay: us(50), ..Manner::default() };
            let setting = Setting { nodes: 2, manner, ..setting(1_000_000, delay, aware) };
            let [(without, _), (with, moved)] =
                [None, Some(ms(1))].map(|every| ping_pong(&setting, way, every));
            let kept = without.as_secs_f64() / with.as_secs_f64();
            let what = format!("{delay:?} one way, {way:?}, aware: {aware}");
            println!("{what}: {moved} handoffs, {with:?} instead of {without:?}: goodput {kept:.3}");
            let per_second = ratio(moved, 1) / with.as_secs_f64();
            assert!(per_second > 500.0, "{what}: {per_second} handoffs a second");
            assert!(kept > 0.8, "{what}: {kept}");
        }
    }
}
