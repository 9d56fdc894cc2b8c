//! A small world that a test directs by hand: a group of nodes side by side, and clients on a longer way.

#![allow(dead_code, reason = "each test uses what it needs")]

use core::net::SocketAddrV6;
use core::time::Duration;

use ferry_node::{Optimise, Placement, PlainSource};
use ferry_stack::Instant;
use ferry_stack::tcp::{Config, Tcb};
use ferry_tests::aware::Aware;
use ferry_tests::channel::Manner;
use ferry_tests::link::Quality;
use ferry_tests::machine::Machine;
use ferry_tests::owners::Client;
use ferry_tests::serve::{EXCHANGE, Order};
use ferry_tests::stack::{Plain, Stack};
use ferry_tests::talk::{Script, Talk, Task};
use ferry_tests::watch::Sender;
use ferry_tests::world::{Attachment, GroupPlan, Operation, SERVICE_ADDRESS, World, service_at};

/// When clients begin.
pub(crate) const START: Instant = Instant::from_millis(200);

/// What a scene is made from.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) placement: Placement,
    pub(crate) plain_source: PlainSource,
    /// Whether the service address is with a home agent of its own.
    pub(crate) agent: bool,
    /// Whether clients understand Mobile IPv6.
    pub(crate) aware: bool,
    pub(crate) clients: usize,
    /// One way between a client and the network.
    pub(crate) delay: Duration,
    /// Octets that its link carries in a second.
    pub(crate) rate: u64,
    /// Octets that wait on it before packets are marked.
    pub(crate) marking: Option<u64>,
    /// The largest packet that passes from the client to the rest of the network.
    pub(crate) path_mtu: u16,
    /// Between nodes.
    pub(crate) manner: Manner,
    pub(crate) server: Config,
    pub(crate) client: Config,
}

impl Default for Setting {
    fn default() -> Self {
        let config = Config { receive_buffer: 256 << 10, send_buffer: 256 << 10, ..Config::default() };
        Self {
            seed: 1,
            nodes: 3,
            placement: Placement::Local,
            plain_source: PlainSource::Auto,
            agent: false,
            aware: false,
            clients: 1,
            delay: Duration::from_millis(10),
            rate: 2_000_000,
            marking: None,
            path_mtu: 1500,
            manner: at_once(),
            server: config,
            client: config,
        }
    }
}

/// Messages that take no time.
pub(crate) fn at_once() -> Manner {
    Manner { delay: Duration::ZERO, octets_per_second: u64::MAX, ..Manner::default() }
}

/// A world with its nodes and clients.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) nodes: Vec<usize>,
    pub(crate) clients: Vec<usize>,
}

pub(crate) fn near(name: &str) -> Attachment {
    let (up, down) = (Quality::default(), Quality::default());
    Attachment { name: name.to_owned(), up, down, mtu: 1500, path_mtu: 1500, tap: true }
}

impl Setting {
    /// The scene, each of whose clients plays these scripts.
    pub(crate) fn scene(&self, scripts: &[Script]) -> Scene {
        let mut world = World::new(self.seed, std::env::var_os("FERRY_LOG").is_some());
        let plan = GroupPlan {
            attachments: vec![near(""); self.nodes],
            offload: vec![true; self.nodes],
            placement: self.placement,
            optimise: Optimise::Auto,
            plain_source: self.plain_source,
            tcp: self.server,
            reluctance: 0,
            manner: self.manner.clone(),
            www: None,
        };
        if self.agent {
            world.attach_home_agent(near("agent"));
        }
        let nodes = world.attach_group(&plan, Operation::default());
        let clients = (0..self.clients).map(|nth| self.attach_client(&mut world, nth, scripts)).collect();
        Scene { world, nodes, clients }
    }

    fn attach_client(&self, world: &mut World, nth: usize, scripts: &[Script]) -> usize {
        let up = Quality {
            delay: self.delay,
            octets_per_second: Some(self.rate),
            queue: 512 << 10,
            marking: self.marking,
            ..Quality::default()
        };
        let down = up.clone();
        let (name, path_mtu) = (format!("client{nth}"), self.path_mtu);
        let attachment = Attachment { name, up, down, mtu: 1500, path_mtu, tap: false };
        let (interface, secret) = (world.next_interface(1500), [u8::try_from(nth % 251).unwrap_or(0); 32]);
        let stack: Box<dyn Stack> = if self.aware {
            Box::new(Aware::new(interface, self.client, secret, false))
        } else {
            Box::new(Plain::new(interface, self.client, secret, false))
        };
        let mut machine = Machine::new(stack);
        machine.talks.extend(scripts.iter().cloned().map(Talk::new));
        world.attach(machine, Sender::Ours, attachment)
    }
}

impl Scene {
    /// The only connection: its owner and control block, if it has one now.
    pub(crate) fn owned(&self) -> Option<(usize, &Tcb)> {
        self.world.owned().next()
    }

    /// Whether the group has sent a RST. (A client that has long finished answers what comes late with one.)
    pub(crate) fn was_reset(&self) -> bool {
        self.world.watch.resets.iter().any(|reset| *reset.from.ip() == SERVICE_ADDRESS)
    }

    /// The client's own control block of it.
    pub(crate) fn of_client(&self) -> Option<&Tcb> {
        self.world.of_host(self.clients[0]).into_iter().next()
    }
}

/// The connection of a control block, as owners are asked for it.
pub(crate) fn client_of(tcb: &Tcb) -> Client {
    (tcb.flow.remote, tcb.flow.local.port())
}

/// A client that sends and receives so many octets.
pub(crate) fn exchange(up: u64, down: u64, order: Order) -> Script {
    Script { task: Task::Exchange { up, down, order }, ..Script::download(START, exchange_port(), 0) }
}

pub(crate) fn exchange_port() -> SocketAddrV6 {
    service_at(EXCHANGE)
}
