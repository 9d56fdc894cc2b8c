//! Every message between nodes by itself: lost, doubled, late, overtaken, the last before its link breaks, or the first of a
//! node that is stuck. And all of them once more, much later.

#[path = "scene/mod.rs"]
mod scene;

use core::time::Duration;

use ferry_handoff::Message;
use ferry_stack::Instant;
use ferry_tests::channel::Manner;
use ferry_tests::serve::Order;
use ferry_tests::tamper::Fate;

use self::scene::{Scene, Setting, client_of, exchange};

const MOVES: u64 = 3;

fn setting(aware: bool, agent: bool) -> Setting {
    let manner = Manner { delay: Duration::from_millis(1), ..Manner::default() };
    Setting { aware, agent, manner, rate: 300_000, ..Setting::default() }
}

/// A connection that goes round the group once, in spite of what happens.
fn round(setting: &Setting, plan: Option<(u64, Fate)>) -> Scene {
    let mut scene = setting.scene(&[exchange(30_000, 75_000, Order::Together)]);
    scene.world.tamper.plan = plan;
    scene.world.tamper.records = plan.is_none();
    let mut next = scene::START + ms(60);
    while !scene.world.is_done() {
        assert!(scene.world.now < Instant::from_millis(120_000), "everything ends: {plan:?}");
        let owned = scene.owned().map(|(owner, tcb)| (owner, client_of(tcb)));
        if let Some((owner, client)) = owned
            && scene.world.is_idle()
            && scene.world.tally().handoffs < MOVES
            && next <= scene.world.now
        {
            // Time enough for a client that understands to be told; a link that is down is tried again.
            next = scene.world.now + ms(70);
            let at = scene.nodes.iter().position(|node| *node == owner).unwrap_or_default();
            let to = scene.nodes[(at + 1) % scene.nodes.len()];
            scene.world.hand_off(Some(client), owner, to);
        }
        assert!(scene.world.step(), "something will happen: {plan:?}");
    }
    scene
}

/// Plays the round once for each message that there is. How many there were.
fn each_message(setting: &Setting, fate: Fate) -> u64 {
    let mut moved = 0;
    for nth in 0.. {
        let mut scene = round(setting, Some((nth, fate)));
        if scene.world.tamper.count <= nth {
            assert!(nth > 20 && moved > nth, "{nth} messages, {moved} moves");
            return nth;
        }
        moved += scene.world.tally().handoffs;
        assert!(!scene.was_reset(), "nobody is reset: message {nth}, {fate:?}");
        scene.world.everything_is_forgotten_in_the_end();
    }
    0
}

fn everything_arrives(fates: &[Fate]) {
    for (aware, agent) in [(false, false), (true, false), (true, true)] {
        for fate in fates {
            let messages = each_message(&setting(aware, agent), *fate);
            println!("{fate:?}, aware: {aware}, home agent: {agent}: {messages} messages");
        }
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn everything_arrives_whichever_message_is_lost() {
    everything_arrives(&[Fate::Lost]);
}

#[test]
fn everything_arrives_whichever_message_is_doubled() {
    everything_arrives(&[Fate::Doubled(ms(2)), Fate::Doubled(ms(1000))]);
}

#[test]
fn everything_arrives_whichever_message_is_late_or_overtaken() {
    everything_arrives(&[Fate::Late(ms(2)), Fate::Late(ms(1000))]);
}

#[test]
fn everything_arrives_after_whichever_message_a_link_breaks() {
    everything_arrives(&[Fate::Cut(ms(20)), Fate::Cut(ms(4000))]);
}

#[test]
fn everything_arrives_after_whichever_message_a_node_is_only_slow() {
    everything_arrives(&[Fate::Stuck(ms(5000))]);
}

/// Whoever has recorded what a node said can have it said again: the link authenticates the sender, and keeps no copy from
/// arriving, but what if it did?
#[test]
fn what_was_ever_said_does_no_harm_when_it_is_said_again() {
    for (aware, agent) in [(false, false), (true, false), (false, true), (true, true)] {
        let said = core::mem::take(&mut round(&setting(aware, agent), None).world.tamper.said);
        assert!(said.iter().any(|said| matches!(said.message(), Message::Transfer { .. })));
        for after in [0, 1, 40, 1000] {
            let mut scene = round_with_echoes(&setting(aware, agent), ms(after));
            assert!(!scene.was_reset(), "nobody is reset: {after} ms later");
            scene.world.everything_is_forgotten_in_the_end();
        }
        let mut scene = round(&setting(aware, agent), None);
        // Long after the connection has ended, and in the worst order.
        scene.world.run_for(Duration::from_secs(20));
        for said in said.iter().rev() {
            scene.world.say_octets_as(said.from, said.to, said.bytes.clone());
        }
        scene.world.everything_is_forgotten_in_the_end();
        assert!(!scene.was_reset(), "nobody is reset");
    }
}

/// The same round, but everything that is said is said again so much later, over and over.
fn round_with_echoes(setting: &Setting, after: Duration) -> Scene {
    let mut scene = setting.scene(&[exchange(30_000, 75_000, Order::Together)]);
    scene.world.tamper.echo = Some(after);
    while scene.owned().is_none_or(|(_, tcb)| tcb.snd.acked_total < 20_000) {
        assert!(scene.world.step());
    }
    let mut tried = Instant::ZERO;
    while !scene.world.is_done() {
        assert!(scene.world.now < Instant::from_millis(120_000), "everything ends");
        let owned = scene.owned().map(|(owner, tcb)| (owner, client_of(tcb)));
        if let Some((owner, client)) = owned
            && scene.world.is_idle()
            && scene.world.tally().handoffs < 6
            && tried < scene.world.now
        {
            tried = scene.world.now;
            let at = scene.nodes.iter().position(|node| *node == owner).unwrap_or_default();
            // To and fro: what was said once may fit again.
            let to = if at == 1 { scene.nodes[0] } else { scene.nodes[1] };
            scene.world.hand_off(Some(client), owner, to);
        }
        assert!(scene.world.step());
    }
    scene
}
