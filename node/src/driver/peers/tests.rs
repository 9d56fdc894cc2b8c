mod proof;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::conveyed::Wire;
use super::*;
use crate::config::{Group, KeyFiles, PeerLink, Tap};
use crate::driver::links::ends;
use crate::driver::mailbox::{Inbox, mailbox};
use crate::driver::now;
use crate::{Input, Placement, keygen};

const SOON: Duration = Duration::from_secs(20);

const QUICK: Timing = Timing {
    patience: Patience { ping: Duration::from_millis(100), silence: Duration::from_millis(1500) },
    step: Duration::from_secs(5),
    back_off: (Duration::from_millis(10), Duration::from_millis(50)),
    contest: Duration::from_millis(500),
};

/// One group's keys and ports.
struct Lab {
    folder: TempDir,
    ports: BTreeMap<String, u16>,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nodes = ["a", "b", "c"].map(str::to_owned);
        let plan = keygen::Plan { group: "demo", nodes: &nodes, out: folder.path(), ca: None };
        keygen::generate(&plan).unwrap();
        let free = || std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        // All are held at once, so that they differ.
        let held: Vec<_> = nodes.iter().map(|name| (name.clone(), free())).collect();
        let ports =
            held.iter().map(|(name, port)| (name.clone(), port.local_addr().unwrap().port())).collect();
        Self { folder, ports }
    }

    fn keys(&self, node: &str) -> KeyFiles {
        let file = |name: String| self.folder.path().join(name);
        KeyFiles {
            ca: file("ca.pem".into()),
            certificate: file(format!("{node}.pem")),
            key: file(format!("{node}.key")),
        }
    }

    fn config(&self, name: &str, peers: &[&str]) -> Config {
        let address = |name: &str| SocketAddr::from((Ipv6Addr::LOCALHOST, self.ports[name]));
        let care_of: Ipv6Addr = "2001:db8::2".parse().unwrap();
        Config {
            name: name.into(),
            control: PathBuf::new(),
            group: Group {
                name: "demo".into(),
                service_address: care_of,
                contact: "a".into(),
                secret_file: PathBuf::new(),
                placement: Placement::Local,
                weights: BTreeMap::new(),
                allowed: BTreeMap::new(),
                optimise: crate::Optimise::Auto,
                plain_source: crate::PlainSource::Auto,
                ask_again: std::time::Duration::from_mins(10),
                path_after_move: ferry_stack::tcp::PathPolicy::Keep,
                tokens_ahead: crate::TokensAhead::Auto,
            },
            home_agent: None,
            directory: crate::DirectorySetup::default(),
            etcd: None,
            tap: Tap {
                device: String::new(),
                address: ferry_stack::interface::Address { address: care_of, prefix_len: 64 },
                gateway: care_of,
                mtu: 1500,
                busy_poll: Duration::ZERO,
            },
            peer_link: Some(PeerLink { listen: address(name), keys: Some(self.keys(name)) }),
            metrics: None,
            peers: peers
                .iter()
                .map(|&peer| Peer { name: peer.into(), care_of, link: address(peer) })
                .collect(),
            services: Vec::new(),
        }
    }
}

/// A node without a core: a task that runs its links, and keeps what a core would get.
struct Node {
    plane: Arc<Mutex<Plane>>,
    fatal: mpsc::Receiver<PeerError>,
    life: watch::Sender<Incarnation>,
    task: tokio::task::JoinHandle<()>,
}

struct Plane {
    inbox: Inbox,
    links: Links,
    epoll: OwnedFd,
    life: Incarnation,
    inputs: VecDeque<Input>,
}

impl Plane {
    fn turn(&mut self) {
        let Self { inbox, links, epoll, life, inputs } = self;
        while let Some(letter) = inbox.take() {
            match letter {
                Letter::Link(handover) => {
                    links.begin(*handover, *life, epoll.as_fd(), now(), |input| inputs.push_back(input));
                }
                Letter::Ask { peer, asker } => links.ask(peer, asker),
                Letter::PeerDead { peer, incarnation } => {
                    inputs.push_back(Input::PeerDead { peer, incarnation });
                }
                other => panic!("{other:?}"),
            }
        }
        let mut events: Vec<epoll::Event> = Vec::with_capacity(8);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&at_once)).unwrap();
        for epoll::Event { flags, data } in events {
            links.ready(data.u64(), flags);
        }
        links.take(now(), |input| inputs.push_back(input));
        links.flush(now());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    async fn start(config: &Config, incarnation: u64) -> Self {
        Self::start_with(config, incarnation, QUICK).await
    }

    async fn start_with(config: &Config, incarnation: u64, timing: Timing) -> Self {
        let (mailbox, inbox) = mailbox().unwrap();
        let life = Incarnation(incarnation);
        let PeerLinks { running, fatal, life: sender } =
            start_with(config, life, &mailbox, timing).await.unwrap();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let plane = Plane { inbox, links: running, epoll, life, inputs: VecDeque::new() };
        let plane = Arc::new(Mutex::new(plane));
        let runs = Arc::clone(&plane);
        let task = tokio::spawn(async move {
            loop {
                runs.lock().unwrap().turn();
                tokio::task::yield_now().await;
            }
        });
        Self { plane, fatal, life: sender, task }
    }

    fn take(&self) -> Option<Input> {
        self.plane.lock().unwrap().inputs.pop_front()
    }

    /// The next input.
    async fn input(&self) -> Input {
        let until = Instant::now() + SOON;
        loop {
            if let Some(input) = self.take() {
                return input;
            }
            assert!(Instant::now() < until, "no input");
            tokio::task::yield_now().await;
        }
    }

    async fn up(&self, name: &str) -> u64 {
        match self.input().await {
            Input::PeerUp { peer, incarnation } if peer == NodeId::of(name) => incarnation.0,
            other => panic!("{other:?}"),
        }
    }

    async fn down(&self, name: &str) {
        match self.input().await {
            Input::PeerDown { peer } => assert_eq!(peer, NodeId::of(name)),
            other => panic!("{other:?}"),
        }
    }

    /// It is proved that this life of another node is over.
    async fn dead(&self, name: &str, life: u64) {
        match self.input().await {
            Input::PeerDead { peer, incarnation } => {
                assert_eq!((peer, incarnation), (NodeId::of(name), Incarnation(life)));
            }
            other => panic!("{other:?}"),
        }
    }

    async fn message(&self) -> (NodeId, Bytes) {
        match self.input().await {
            Input::Peer { from, bytes } => (from, bytes),
            other => panic!("{other:?}"),
        }
    }

    fn tell(&self, name: &str, message: impl Into<Bytes>) {
        assert!(self.plane.lock().unwrap().links.tell(NodeId::of(name), message.into().into()));
    }

    /// Begins a new life, as a core does.
    fn begin_anew(&self, life: u64) {
        let mut plane = self.plane.lock().unwrap();
        plane.life = Incarnation(life);
        plane.links.end_life();
        self.life.send_replace(Incarnation(life));
    }

    async fn fatal(&mut self) -> String {
        timeout(SOON, self.fatal.recv()).await.unwrap().unwrap().to_string()
    }
}

#[tokio::test]
async fn two_nodes_find_each_other_and_messages_arrive_whole_and_in_order() {
    let lab = Lab::new();
    let a = Node::start(&lab.config("a", &["b"]), 1).await;
    let b = Node::start(&lab.config("b", &["a"]), 2).await;
    assert_eq!((a.up("b").await, b.up("a").await), (2, 1));
    let big: Bytes =
        (0..MAX_MESSAGE).map(|index| u8::try_from(index % 251).unwrap()).collect::<Vec<_>>().into();
    for message in [Bytes::from_static(b"one"), big.clone(), Bytes::new(), Bytes::from_static(b"two")] {
        a.tell("b", message.clone());
        assert!(b.message().await == (NodeId::of("a"), message));
    }
    b.tell("a", "three");
    assert_eq!(a.message().await, (NodeId::of("b"), Bytes::from_static(b"three")));
}

#[tokio::test]
async fn a_node_that_comes_back_is_linked_again_with_its_new_life() {
    let lab = Lab::new();
    let a = Node::start(&lab.config("a", &["b"]), 1).await;
    let config = lab.config("b", &["a"]);
    let stop = short_lived(config, 2, "a");
    assert_eq!(a.up("b").await, 2);
    stop.await.unwrap();
    a.down("b").await;
    a.dead("b", 2).await;
    let _b = Node::start(&lab.config("b", &["a"]), 3).await;
    assert_eq!(a.up("b").await, 3);
}

/// A node that ends as suddenly as a process: its runtime is gone with everything that it listened at.
fn short_lived(config: Config, incarnation: u64, peer: &'static str) -> tokio::task::JoinHandle<u64> {
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Node::start(&config, incarnation).await.up(peer).await })
    })
}

#[tokio::test]
async fn a_node_that_goes_on_under_a_new_life_is_linked_anew() {
    for (stays, changes) in [("a", "b"), ("b", "a")] {
        let lab = Lab::new();
        let node = Node::start(&lab.config(stays, &[changes]), 1).await;
        let other = Node::start(&lab.config(changes, &[stays]), 2).await;
        assert_eq!((node.up(changes).await, other.up(stays).await), (2, 1));
        other.begin_anew(3);
        node.down(changes).await;
        // Asked before it has called again, it has proved the end of the former life by its answer.
        let life = loop {
            match node.input().await {
                Input::PeerUp { incarnation, .. } => break incarnation,
                Input::PeerDead { incarnation, .. } => assert_eq!(incarnation, Incarnation(2)),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(life, Incarnation(3));
        assert_eq!(other.up(stays).await, 1, "of the end of its former links it is told nothing");
    }
}

/// Both names: the one that dials for links, and the one that is only dialled.
#[tokio::test]
async fn a_second_node_with_a_taken_name_is_told_so() {
    for name in ["a", "c"] {
        let lab = Lab::new();
        let b = Node::start(&lab.config("b", &["a", "c"]), 1).await;
        let _first = Node::start(&lab.config(name, &["b"]), 2).await;
        assert_eq!(b.up(name).await, 2);
        let mut config = lab.config(name, &["b"]);
        config.peer_link.as_mut().unwrap().listen.set_port(0);
        let mut second = Node::start(&config, 3).await;
        let expected = format!(
            "b refuses this node: another node with the name \"{name}\" is running; give each node a name of its own"
        );
        assert_eq!(second.fatal().await, expected);
        assert!(b.take().is_none(), "the first was not disturbed");
    }
}

#[tokio::test]
async fn a_link_that_went_dumb_gives_way_to_the_same_node_started_again() {
    let lab = Lab::new();
    let b = Node::start(&lab.config("b", &["a"]), 1).await;
    let own = Identity { name: "a".into(), group: "demo".into(), life: watch::channel(Incarnation(2)).1 };
    let tls = Tls::load(&lab.keys("a"), "a", "demo").unwrap();
    let peer = lab.config("a", &["b"]).peers.remove(0);
    let (fatal, _fatal) = mpsc::channel(1);
    let mut dumb = dial::Dialer::new(peer, own, Some(tls), QUICK, fatal);
    let _wire = dumb.next(None).await.unwrap();
    assert_eq!(b.up("a").await, 2);
    let _a = Node::start(&lab.config("a", &["b"]), 3).await;
    b.down("a").await;
    assert_eq!(b.up("a").await, 3);
}

#[tokio::test]
async fn only_a_certificate_of_the_group_for_the_very_name_opens_a_link() {
    let (lab, other) = (Lab::new(), Lab::new());
    let b = Node::start(&lab.config("b", &["a", "c"]), 1).await;
    let peer = lab.config("a", &["b"]).peers.remove(0);
    let call = async |name: &str, keys: &KeyFiles, ca: &Path| {
        let own =
            Identity { name: name.into(), group: "demo".into(), life: watch::channel(Incarnation(9)).1 };
        let keys = KeyFiles { ca: ca.to_owned(), ..keys.clone() };
        // The name in the certificate is right for its files; what the greeting claims may be another.
        let certified = keys.certificate.file_stem().unwrap().to_str().unwrap();
        let tls = Tls::load(&keys, certified, "demo").unwrap();
        let (fatal, _receiver) = mpsc::channel(1);
        let dialer = dial::Dialer::new(peer.clone(), own, Some(tls), QUICK, fatal);
        dialer.call_once().await
    };
    let (right, wrong) = (lab.keys("a"), other.keys("a"));
    let cases = [
        (
            "a certificate of another authority",
            "a",
            &wrong,
            &right.ca,
            "TLS: received fatal alert: DecryptError; both nodes",
        ),
        (
            "an authority that did not sign b's",
            "a",
            &right,
            &wrong.ca,
            "TLS: invalid peer certificate: BadSignature; both nodes",
        ),
        (
            "the certificate of another node",
            "c",
            &right,
            &right.ca,
            "it refuses this node: its certificate is not for \"c.demo.ferry\"",
        ),
        (
            "a name that b does not know",
            "x",
            &right,
            &right.ca,
            "it refuses this node: its certificate is not for \"x.demo.ferry\"",
        ),
    ];
    for (case, name, keys, ca, expected) in cases {
        let why = call(name, keys, ca).await.unwrap_err();
        assert!(why.contains(expected), "{case}: {why}");
    }
    assert!(b.take().is_none(), "nothing of it reached the data plane");
    call("a", &right, &right.ca).await.unwrap();
}

#[tokio::test]
async fn the_wrong_keys_are_refused_at_the_start() {
    let lab = Lab::new();
    let keys = lab.keys("a");
    let error = |keys: KeyFiles| Tls::load(&keys, "a", "demo").err().unwrap().to_string();
    let missing = error(KeyFiles { key: "/nonexistent.key".into(), ..keys.clone() });
    assert!(missing.starts_with("cannot read /nonexistent.key: No such file"), "{missing}");
    let foreign = error(KeyFiles { certificate: lab.keys("b").certificate, ..keys.clone() });
    assert!(
        foreign.contains("b.pem: the certificate is not for a.demo.ferry; use the files that"),
        "{foreign}"
    );
    let unpaired = error(KeyFiles { key: lab.keys("b").key, ..keys.clone() });
    assert!(unpaired.contains("b.key: "), "{unpaired}");
    let empty = error(KeyFiles { ca: keys.key.clone(), ..keys });
    assert!(empty.contains("a.key: holds no certificate"), "{empty}");
}

#[tokio::test]
async fn plain_text_works_where_it_is_asked_for() {
    let lab = Lab::new();
    let [mut a, mut b] = [lab.config("a", &["b"]), lab.config("b", &["a"])];
    for config in [&mut a, &mut b] {
        config.peer_link.as_mut().unwrap().keys = None;
    }
    let (a, b) = (Node::start(&a, 1).await, Node::start(&b, 2).await);
    assert_eq!((a.up("b").await, b.up("a").await), (2, 1));
}

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    /// Waits until all of these are in it.
    async fn with(&self, lines: &[&str]) -> String {
        loop {
            let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            if lines.iter().all(|line| log.contains(line)) {
                return log;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl std::io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_line_of_the_log_shows_what_goes_over_a_link_or_comes_instead() {
    const SECRET: &[u8] = b"4111-1111-1111-1111-attack-at-dawn";
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let lab = Lab::new();
    let a = Node::start(&lab.config("a", &["b"]), 1).await;
    let b = Node::start(&lab.config("b", &["a"]), 2).await;
    assert_eq!((a.up("b").await, b.up("a").await), (2, 1));
    a.tell("b", SECRET);
    assert_eq!(b.message().await.1, SECRET);
    // Instead of a greeting.
    let mut stranger = tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, lab.ports["b"])).await.unwrap();
    stranger.write_all(&SECRET.repeat(100)).await.unwrap();
    let _ = stranger.read_to_end(&mut Vec::new()).await;
    // Instead of a frame, and in one that is cut off.
    for kind in [&[0, 0, 0, 9, 9][..], &[0xff; 5], &frame_header(Kind::Message, 1000)] {
        tracing::warn!("one link ended: {}", ends(&[kind, SECRET].concat()));
    }
    drop(b);
    a.down("b").await;
    let log =
        timeout(SOON, log.with(&["link is up", "no link of this group", "link is down"])).await.unwrap();
    let numbers = SECRET[..6].iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let hex = SECRET[..6].iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().concat();
    for shown in [std::str::from_utf8(&SECRET[..12]).unwrap(), &numbers, &hex] {
        assert!(!log.contains(shown), "{log}");
    }
}
