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
        (config.receive_buffer, config.send_buffer) = (4 << 20, 4 << 20);
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

#[test]
fn the_ten_round_trips_after_a_handoff_carry_what_they_would_have() {
    let ms = Duration::from_millis;
    for (rate, delay) in [(1_000_000, ms(5)), (10_000_000, ms(1)), (10_000_000, ms(10)), (2_000_000, ms(40))] {
        for (way, aware) in [(Way::Down, false), (Way::Down, true), (Way::Up, false), (Way::Up, true)] {
            // In slow start, when it has just ended, and when the path has long been full.
            for at in [ms(200) + 12 * delay, ms(200) + 40 * delay, ms(3_000)] {
                let setting = setting(rate, delay, aware);
                let [without, with] = [false, true].map(|moves| ten_round_trips(&setting, way, at, moves));
                let kept = ratio(with, without);
                let what = format!("{rate} octets/s, {delay:?} one way, {way:?}, aware: {aware}, after {at:?}");
                println!("{what}: {with} of {without}: {kept:.4}");
                assert!(kept >= 0.98, "{what}: {with} of {without}: {kept}");
            }
        }
    }
}
