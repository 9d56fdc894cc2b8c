//! A member that lies all the time, in the simulated world: the connections of the others arrive, move, and end as if it did
//! not, and it makes nobody remember without bound.

#[path = "scene/mod.rs"]
mod scene;

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;

use bytes::Bytes;
use ferry_handoff::claims::{Claim, Standing};
use ferry_handoff::{Epoch, Incarnation, Message, Mirror, NodeId, Order as Task, Refusal, Snapshot};
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;
use ferry_tests::channel::Manner;
use ferry_tests::serve::Order;
use ferry_tests::world::SERVICE_ADDRESS;

use self::scene::{Scene, Setting, client_of, exchange};

/// What a liar knows: the connection, its epoch, how often it has lied, a snapshot of the connection, and the lives of those
/// whom it lies to.
struct Knows {
    flow: Flow,
    epoch: Epoch,
    nth: u32,
    snapshot: Bytes,
    lives: [(NodeId, Incarnation); 2],
}

impl Knows {
    /// A connection that nobody has.
    fn invented(&self) -> Flow {
        let client = Ipv6Addr::from_bits(0x2001_0db8_eeee << 80 | u128::from(self.nth));
        let local = SocketAddrV6::new(SERVICE_ADDRESS, 4000, 0, 0);
        Flow { local, remote: SocketAddrV6::new(client, 4000, 0, 0) }
    }
}

fn name(name: &str) -> NodeId {
    NodeId::of(name)
}

/// The connection as if it had come further, and one that nobody has.
fn further(knows: &Knows) -> Vec<Claim> {
    let Ok(Snapshot { tcb, .. }) = Snapshot::decode(&knows.snapshot) else { panic!("it is one") };
    let claim = |flow, epoch| Claim { flow, standing: Standing::of_owner(tcb.snd.iss, epoch) };
    vec![
        claim(knows.flow, later(knows, 0)),
        claim(knows.flow, later(knows, 9)),
        claim(knows.invented(), Epoch::nth(2)),
    ]
}

/// A copy of a connection for both to hold, under another name and a later epoch.
fn copy_of(knows: &Knows, flow: Flow, by: u64) -> Message {
    let Ok(mut snapshot) = Snapshot::decode(&knows.snapshot) else { panic!("it is one") };
    let epoch = later(knows, by);
    (snapshot.tcb.flow, snapshot.epoch) = (flow, epoch);
    let mut mirror = Mirror::after(u64::from(knows.nth));
    let delta = mirror.delta(snapshot).pieces().expect("it fits");
    let holders = knows.lives.map(|(node, _)| node).to_vec();
    Message::Copy { flow, epoch, version: mirror.version(), holders, delta }
}

fn later(knows: &Knows, by: u64) -> Epoch {
    Epoch { count: knows.epoch.count.saturating_add(by), ..knows.epoch }
}

/// What c says of a connection that lives at a or b.
type Lie = fn(&Knows) -> Vec<Message>;

const LIES: [(&str, Lie); 20] = [
    ("it owns the connection, in the next epoch", |knows| {
        vec![Message::Owner { flow: knows.flow, epoch: later(knows, 1), node: name("c") }]
    }),
    ("it owns the connection, in an epoch beyond reach", |knows| {
        let epochs = [1 << 20, (1 << 31) - 1 - knows.epoch.count, 1 << 32, u64::MAX];
        let owner = |by| Message::Owner { flow: knows.flow, epoch: later(knows, by), node: name("c") };
        epochs.map(owner).to_vec()
    }),
    ("it owns the connection, in this epoch or an earlier one", |knows| {
        let owner = |epoch| Message::Owner { flow: knows.flow, epoch, node: name("c") };
        vec![owner(knows.epoch), owner(Epoch::nth(0))]
    }),
    ("another owns the connection", |knows| {
        let owner = |node| Message::Owner { flow: knows.flow, epoch: later(knows, 1), node: name(node) };
        vec![owner("a"), owner("b")]
    }),
    ("the connection is over", |knows| {
        let ended = |by| Message::Ended { flow: knows.flow, epoch: later(knows, by) };
        vec![ended(0), ended(7), ended(u64::MAX)]
    }),
    ("nobody has the connection", |knows| vec![Message::NotMine { flow: knows.flow }]),
    ("it offers the connection, again and again", |knows| {
        let (flow, service) = (knows.flow, "exchange".to_owned());
        vec![Message::Prepare { flow, epoch: later(knows, 5 + u64::from(knows.nth)), service }]
    }),
    ("it offers the connection, and does not", |knows| {
        let (flow, epoch, service) = (knows.flow, later(knows, 5), "exchange".to_owned());
        vec![Message::Prepare { flow, epoch, service }, Message::Abort { flow, epoch }]
    }),
    ("it sends what is no connection", |knows| {
        let transfer = |by, snapshot: Bytes| Message::Transfer {
            flow: knows.flow,
            epoch: later(knows, by),
            snapshot: snapshot.into(),
        };
        // Cut, of another epoch, of other octets.
        let cut = knows.snapshot.slice(..knows.snapshot.len() / 2);
        let broken: Vec<u8> = knows.snapshot.iter().map(|octet| octet ^ 0x40).collect();
        vec![transfer(1, cut), transfer(2, broken.into()), transfer(9, knows.snapshot.clone())]
    }),
    ("it answers for others", |knows| {
        let (flow, why) = (knows.flow, Refusal::Stale);
        let answers = |epoch| {
            [
                Message::Ready { flow, epoch },
                Message::Refuse { flow, epoch, why: why.clone() },
                Message::Taken { flow, epoch },
                Message::Returned { flow, epoch, why: why.clone() },
                Message::Abort { flow, epoch },
                Message::OwnerSeen { flow, epoch },
                Message::Warm { flow },
            ]
        };
        [later(knows, 0), later(knows, 1), later(knows, 2)].into_iter().flat_map(answers).collect()
    }),
    ("it has more connections than there are, or none", |knows| {
        let load = |connections, open| Message::Load { connections, open };
        vec![if knows.nth.is_multiple_of(2) { load(u32::MAX, true) } else { load(0, false) }]
    }),
    ("every client is near", |knows| {
        let prefix = u64::from(knows.nth);
        vec![Message::Near { prefix, rtt_us: 1 }, Message::Near { prefix, rtt_us: u32::MAX }]
    }),
    ("it floods with offers, questions and wishes", |knows| {
        let (flow, service) = (knows.invented(), "exchange".to_owned());
        vec![
            Message::Prepare { flow, epoch: Epoch::nth(2), service },
            Message::Ask { flow },
            Message::WarmUp { flow },
            Message::Ended { flow, epoch: Epoch::nth(2) },
        ]
    }),
    ("it orders what it likes", |knows| {
        let run = u64::from(knows.nth);
        let shed = Task::Shed { to: name("c"), count: u32::MAX };
        let nowhere = Task::Shed { to: name("z"), count: 1 };
        [Task::Stop, nowhere, shed].map(|order| Message::Order { run, order }).to_vec()
    }),
    ("the others are dead", |knows| {
        let dead = |(node, life)| Message::Dead { node, life };
        let next = |(node, life): (NodeId, Incarnation)| (node, Incarnation(life.0.wrapping_add(1)));
        knows.lives.into_iter().flat_map(|one| [dead(one), dead(next(one))]).collect()
    }),
    ("it claims the connections of those who live", |knows| {
        let claims = |(dead, life)| {
            let run = u64::from(knows.nth);
            Message::Claims { dead, life, run, copies: further(knows) }
        };
        knows.lives.map(claims).to_vec()
    }),
    ("it answers claims that nobody has made", |knows| {
        let claimed = |(dead, life), run| Message::Claimed { dead, life, run, objections: further(knows) };
        let runs = |one| [claimed(one, u64::from(knows.nth)), claimed(one, 1 << 20)];
        knows.lives.into_iter().flat_map(runs).collect()
    }),
    ("the others are to hold copies of the connection, and of none", |knows| {
        let mut cut = copy_of(knows, knows.flow, 2);
        if let Message::Copy { delta, .. } = &mut cut {
            *delta = delta.clone().join().slice(..delta.len() / 2).into();
        }
        let ours = [0, 1, 1 << 32, u64::MAX].map(|by| copy_of(knows, knows.flow, by));
        ours.into_iter().chain([copy_of(knows, knows.invented(), 2), cut]).collect()
    }),
    ("copies of the connection are of no use", |knows| {
        let Ok(Snapshot { tcb, .. }) = Snapshot::decode(&knows.snapshot) else { panic!("it is one") };
        let (flow, iss) = (knows.flow, tcb.snd.iss);
        let of = |epoch| [Message::Discard { flow, iss, epoch }, Message::Discarded { flow, iss, epoch }];
        let copied = |epoch| [1, u64::MAX].map(|version| Message::Copied { flow, epoch, version });
        let lacks = |epoch| Message::Lacks { flow, epoch, version: 1, have: u64::MAX };
        let epochs = [later(knows, 0), later(knows, 1), Epoch::nth(u64::MAX)];
        epochs
            .into_iter()
            .flat_map(|epoch| [&of(epoch)[..], &copied(epoch), &[lacks(epoch)]].concat())
            .collect()
    }),
    ("it says nothing that makes sense", |knows| {
        let (flow, epoch) = (knows.flow, Epoch::nth(u64::MAX));
        vec![Message::Prepare { flow, epoch, service: "x".repeat(1 << 16) }, Message::Ask { flow }]
    }),
];

/// What any node may remember because of it.
const MOST: [(&str, usize); 8] = [
    ("places", 20_000),
    ("held octets", 1 << 20),
    ("handoffs", 20_000),
    ("warming", 1 << 13),
    ("claims", 100),
    ("jobs", 10),
    ("copies", 1_000),
    ("copies to be forgotten", 10),
];

/// One transfer both ways that moves from a to b and back while c says `lie` every other millisecond to both of them.
fn play(aware: bool, lie: Option<Lie>) -> Scene {
    let manner = Manner { delay: Duration::from_micros(200), ..Manner::default() };
    let setting = Setting { aware, manner, rate: 500_000, ..Setting::default() };
    let mut scene = setting.scene(&[exchange(100_000, 200_000, Order::Together)]);
    let mut nth = 0;
    while !scene.world.is_done() {
        assert!(scene.world.now < Instant::from_millis(30_000), "everything ends");
        scene.world.run_for(Duration::from_millis(2));
        let Some((owner, tcb)) = scene.owned() else { continue };
        let (client, flow, open) = (client_of(tcb), tcb.flow, tcb.state.is_synchronised());
        nth += 1;
        // In a handshake a node is not sure that no other has answered, and lets go.
        if let Some(lie) = lie.filter(|_| open) {
            tell_all(&mut scene, owner, flow, nth, lie);
        }
        let [a, b, _] = scene.nodes[..] else { panic!("three nodes") };
        if nth.is_multiple_of(60) && scene.world.is_idle() && !scene.world.is_done() {
            scene.world.hand_off(Some(client), owner, if owner == a { b } else { a });
        }
        for (what, most) in MOST {
            for node in [a, b] {
                let remembered = scene.world.node(node).remembered();
                assert!(remembered[what] <= most, "{what}: {remembered:?}");
            }
        }
    }
    scene
}

fn tell_all(scene: &mut Scene, owner: usize, flow: Flow, nth: u32, lie: Lie) {
    let [a, b, c] = scene.nodes[..] else { panic!("three nodes") };
    let node = scene.world.node(owner);
    let Some(snapshot) = node.snapshots(scene.world.clock_of(owner)).into_iter().next() else { return };
    let (epoch, snapshot) = (snapshot.epoch, snapshot.encode().expect("it fits"));
    let lives = [("a", a), ("b", b)].map(|(one, at)| (name(one), scene.world.node(at).incarnation()));
    for message in lie(&Knows { flow, epoch, nth, snapshot, lives }) {
        for victim in [a, b] {
            scene.world.say_as(c, victim, &message);
        }
    }
}

fn whatever_it_says(aware: bool) {
    let honest = scene::START.since(play(aware, None).world.now);
    for (name, lie) in LIES {
        let mut scene = play(aware, Some(lie));
        let took = scene::START.since(scene.world.now);
        let moved = scene.world.tally().handoffs;
        println!("{name}: {took:?} instead of {honest:?}, {moved} moves");
        assert!(!scene.was_reset(), "{name}: nobody is reset");
        assert!(took < honest * 2, "{name}: {took:?} instead of {honest:?}");
        scene.world.run_for(Duration::from_mins(8));
        for node in &scene.nodes {
            let remembered = scene.world.node(*node).remembered();
            let kept: usize =
                ["connections", "held octets", "handoffs", "claims"].map(|of| remembered[of]).iter().sum();
            assert_eq!(kept, 0, "{name}: {remembered:?}");
        }
    }
}

#[test]
fn a_member_that_lies_about_a_plain_client_s_connection_cannot_harm_it() {
    whatever_it_says(false);
}

#[test]
fn a_member_that_lies_about_the_connection_of_a_client_that_understands_cannot_harm_it() {
    whatever_it_says(true);
}
