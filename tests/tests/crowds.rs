//! Many handoffs at once: chains that are faster than messages settle, handoffs that cross, and the role of the contact
//! node that moves meanwhile.

#[path = "scene/mod.rs"]
mod scene;

use core::time::Duration;

use ferry_node::{Command, Placement};
use ferry_stack::Instant;
use ferry_tests::channel::Manner;
use ferry_tests::serve::Order;
use ferry_tests::talk::Script;

use self::scene::{Scene, Setting, client_of, exchange};

fn slow_messages(millis: u64) -> Manner {
    Manner { delay: Duration::from_millis(millis), ..Manner::default() }
}

fn ends(scene: &mut Scene) {
    let limit = scene.world.now + Duration::from_mins(1);
    while !scene.world.is_done() {
        assert!(scene.world.now < limit, "everything ends");
        assert!(scene.world.step());
    }
    assert!(!scene.was_reset(), "nobody is reset");
    scene.world.everything_is_forgotten_in_the_end();
}

/// Moves the only connection on as soon as it has come, so often.
fn chain(setting: &Setting, script: &Script, moves: usize) -> Scene {
    let mut scene = setting.scene(core::slice::from_ref(script));
    let (mut at, mut moved) = (None, 0);
    while !scene.world.is_done() && moved < moves {
        assert!(scene.world.step());
        let Some((owner, tcb)) = scene.owned() else { continue };
        if at == Some(owner) {
            continue;
        }
        let client = client_of(tcb);
        let place = scene.nodes.iter().position(|node| *node == owner).unwrap_or_default();
        let to = scene.nodes[(place + 1) % scene.nodes.len()];
        scene.world.hand_off(Some(client), owner, to);
        (at, moved) = (Some(owner), moved + 1);
    }
    scene
}

#[test]
fn chains_that_are_faster_than_messages_settle_lose_nothing() {
    for (nodes, millis, aware) in [(3, 1, false), (4, 1, true), (5, 20, false), (4, 20, true), (7, 5, false)]
    {
        for script in [exchange(0, 600_000, Order::ServerFirst), exchange(300_000, 300_000, Order::Together)]
        {
            let setting = Setting { nodes, aware, manner: slow_messages(millis), ..Setting::default() };
            let mut scene = chain(&setting, &script, 30);
            ends(&mut scene);
            let moved = scene.world.tally().handoffs;
            assert!(moved >= 10, "{nodes} nodes, {millis} ms, aware: {aware}: {moved} moves");
        }
    }
}

/// Each connection, and where it is.
fn all(scene: &Scene) -> Vec<(ferry_tests::owners::Client, usize)> {
    scene.world.owned().map(|(owner, tcb)| (client_of(tcb), owner)).collect()
}

#[test]
fn handoffs_of_one_client_s_connections_cross() {
    for (millis, aware) in [(0, false), (0, true), (1, false), (1, true), (30, false), (30, true)] {
        let script = exchange(200_000, 400_000, Order::Together);
        let (manner, placement) = (slow_messages(millis), Placement::RoundRobin);
        let setting = Setting { nodes: 2, aware, placement, manner, ..Setting::default() };
        let mut scene = setting.scene(&[script.clone(), script.clone(), script.clone(), script]);
        scene.world.run_for(Duration::from_millis(300));
        let (first, second) = (scene.nodes[0], scene.nodes[1]);
        let mut crossed = 0;
        while !scene.world.is_done() {
            let owned = all(&scene);
            let both = owned.iter().any(|(_, at)| *at == first) && owned.iter().any(|(_, at)| *at == second);
            if scene.world.is_idle() && both {
                crossed += 1;
                for (client, from) in owned {
                    let to = if from == first { second } else { first };
                    scene.world.hand_off(Some(client), from, to);
                }
            }
            scene.world.run_for(Duration::from_millis(7));
            assert!(scene.world.now < Instant::from_millis(60_000), "everything ends");
        }
        assert!(crossed >= 3, "{millis} ms, aware: {aware}: {crossed} times");
        ends(&mut scene);
    }
}

#[test]
fn connections_move_while_the_role_of_the_contact_node_does() {
    for (millis, aware) in [(0, false), (0, true), (5, false), (5, true)] {
        let setting = Setting { agent: true, aware, manner: slow_messages(millis), ..Setting::default() };
        // The donor takes the role, the acceptor does, another node does, after each number of messages that there are.
        for taker in 0..3 {
            let times = (0..100).take_while(|after| role_moves(&setting, *after, taker)).count();
            assert!(times >= 8, "after so many messages: {times}");
        }
    }
}

/// Whether there were so many messages.
fn role_moves(setting: &Setting, after: u64, taker: usize) -> bool {
    let mut scene = setting.scene(&[exchange(100_000, 300_000, Order::Together)]);
    while scene.owned().is_none_or(|(_, tcb)| tcb.snd.acked_total < 30_000) {
        assert!(scene.world.step() && !scene.world.is_done());
    }
    let Some((owner, tcb)) = scene.owned() else { panic!("somebody owns it") };
    let client = client_of(tcb);
    let place = scene.nodes.iter().position(|node| *node == owner).unwrap_or_default();
    let other = |ahead: usize| scene.nodes[(place + ahead) % 3];
    let (first, takes) = (other(1), other(taker));
    let said = scene.world.tamper.count;
    scene.world.hand_off(Some(client), owner, first);
    let (mut taken, mut further) = (false, false);
    while !scene.world.is_done() {
        assert!(scene.world.now < Instant::from_millis(60_000), "everything ends");
        if !taken && scene.world.tamper.count >= said + after {
            taken = true;
            scene.world.order(takes, Command::Contact);
        }
        // And on, before everybody has heard of either.
        if taken && !further && scene.owned().is_some_and(|(at, _)| at == first) {
            further = true;
            let to = scene.nodes[(place + 2) % 3];
            scene.world.hand_off(Some(client), first, to);
        }
        assert!(scene.world.step());
    }
    if !taken {
        return false;
    }
    assert!(further, "after {after} messages, by {taker}");
    ends(&mut scene);
    let contacts: Vec<_> = scene.nodes.iter().map(|node| scene.world.node(*node).is_contact()).collect();
    assert_eq!(contacts.iter().filter(|is| **is).count(), 1, "{contacts:?}");
    true
}
