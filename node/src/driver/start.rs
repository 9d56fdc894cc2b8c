//! Puts a node together from its configuration, and takes it apart again.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use ferry_handoff::Incarnation;
use ferry_mipv6::header::Lifetime;
use ferry_stack::{EthernetAddress, tcp};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::mpsc;

use super::ask::Asker;
use super::audit::{AuditWriter, auditor};
use super::clock;
use super::control::{Control, ControlError};
use super::dataplane::{DataPlane, End};
use super::etcd;
use super::mailbox::{Letter, Mailbox, mailbox};
use super::metrics::{Metrics, MetricsError};
use super::peers::{self, PeerError};
use super::tap::{Tap, TapError};
use super::trace::{TraceWriter, tracer};
use crate::config::{Config, FileError, HomeAgentLink, Service as ServiceConfig, ServiceKind, read_secret};
use crate::services::{Discard, Echo, File, FileService, Paced, RootError};
use crate::{HomeAgent, Node, Peer, Policy, Rules, Service, Setup, SetupError};

/// A client that has gone without a word does not keep its connection for ever; the times are those of Linux.
const KEEP_ALIVE: tcp::KeepAlive =
    tcp::KeepAlive { idle: Duration::from_hours(2), interval: Duration::from_secs(75), count: 9 };

/// Two of the largest super-segments: enough to keep the TAP busy until the session is asked for more.
const UNSENT_LIMIT: u32 = 128 << 10;

/// What a node is told besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A descriptor that the process was started with, already attached to the TAP.
    pub tap_fd: Option<RawFd>,
    /// Where to write traces.
    pub trace: Option<PathBuf>,
    /// Makes the policy by which new connections are placed, if none of those that a configuration can name will do.
    pub policy: Option<fn() -> Box<dyn Policy>>,
}

/// A node cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TAP cannot be used.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder cannot be served.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Peer links cannot be started.
    #[error(transparent)]
    Peers(#[from] PeerError),
    /// Metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The core refuses the configuration.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The trace file cannot be written.
    #[error("cannot write the trace {}: {why}", file.display())]
    Trace {
        /// The file.
        file: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// The system refuses something that every process needs.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Why a running node ended though nobody wanted it to.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Another node says that this one must not be.
    #[error(transparent)]
    Peers(PeerError),
    /// The TAP is gone.
    #[error("the TAP cannot be used any more: {0}; was the device removed?")]
    Tap(io::Error),
    /// The data plane panicked.
    #[error("the data plane ended by a fault in ferry; what it said stands above")]
    Panicked,
}

/// A node that serves.
#[derive(Debug)]
pub struct Running {
    asker: Asker,
    mailbox: Mailbox,
    fatal: mpsc::Receiver<PeerError>,
    end: End,
    data: JoinHandle<()>,
    audit: AuditWriter,
    trace: Option<TraceWriter>,
}

/// Starts a node; to be called within a runtime, which then runs its control plane.
///
/// An inherited TAP is taken over first, before anything else could be given its number.
pub async fn start(config: &Config, options: &Options) -> Result<Running, StartError> {
    let tap = match options.tap_fd {
        Some(fd) => Tap::inherit(fd, &config.tap.device)?,
        None => Tap::open(&config.tap.device, true)?,
    };
    let incarnation = draw_incarnation()?;
    let setup = setup(config, options, incarnation)?;
    let (mailbox, inbox) = mailbox()?;
    let (asker, replies) = Asker::new(mailbox.clone());
    let control = Control::bind(&config.control)?;
    let metrics = match config.metrics {
        Some(address) => Some(Metrics::bind(address).await?),
        None => None,
    };
    let links = peers::start(config, incarnation, &mailbox).await?;
    let store = match &config.etcd {
        None => None,
        Some(etcd) => Some(etcd::start(etcd, config.directory.lease, &mailbox)?),
    };
    let (tracer, trace) = match &options.trace {
        None => (None, None),
        Some(file) => {
            let (tracer, writer) =
                tracer(file).map_err(|why| StartError::Trace { file: file.clone(), why })?;
            (Some(tracer), Some(writer))
        }
    };
    let (auditor, audit) = auditor()?;
    let node = Node::new(setup, clock::now())?;
    let busy_poll = config.tap.busy_poll;
    let plane = DataPlane {
        node,
        tap,
        inbox,
        links: links.running,
        replies,
        tracer,
        auditor: Some(auditor),
        busy_poll,
        life: Some(links.life),
        store,
    };
    let (data, end) = plane.start()?;
    tokio::spawn(control.serve(asker.clone()));
    metrics.map(|metrics| tokio::spawn(metrics.serve(asker.clone())));
    Ok(Running { asker, mailbox, fatal: links.fatal, end, data, audit, trace })
}

impl Running {
    /// To ask the node what an operator can ask.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Waits until the node cannot go on.
    pub async fn failed(&mut self) -> Failed {
        tokio::select! {
            Some(error) = self.fatal.recv() => Failed::Peers(error),
            end = &mut self.end => match end {
                Ok(Err(why)) => Failed::Tap(why),
                // Nobody has asked it to stop.
                Ok(Ok(())) | Err(_) => Failed::Panicked,
            },
        }
    }

    /// Ends the node at once, and writes what is left of the trace. Blocks for as long as that takes.
    pub fn stop(self) {
        self.mailbox.send(Letter::Stop);
        // A panic has told its own story.
        let _ = self.data.join();
        self.audit.finish();
        if let Some(trace) = self.trace {
            trace.finish();
        }
    }
}

fn draw_incarnation() -> io::Result<Incarnation> {
    let mut octets = [0u8; 8];
    getrandom(&mut octets[..], GetRandomFlags::empty())?;
    Ok(Incarnation(u64::from_ne_bytes(octets)))
}

fn setup(config: &Config, options: &Options, incarnation: Incarnation) -> Result<Setup, StartError> {
    let services = config.services.iter().map(service).collect::<Result<_, _>>()?;
    let peers =
        config.peers.iter().map(|peer| Peer { name: peer.name.clone(), care_of: peer.care_of }).collect();
    Ok(Setup {
        name: config.name.clone(),
        group: config.group.name.clone(),
        incarnation,
        secret: read_secret(&config.group.secret_file)?,
        group_clock: clock::group(),
        care_of: config.tap.address,
        gateway: config.tap.gateway,
        mac: mac_of(config.tap.address.address),
        mtu: config.tap.mtu,
        offload: true,
        service_address: config.group.service_address,
        contact: config.group.contact.clone(),
        home_agent: config.home_agent.as_ref().map(home_agent).transpose()?,
        placement: config.group.placement,
        rules: Rules {
            weights: config.group.weights.clone(),
            allowed: config.group.allowed.clone(),
            tokens_ahead: config.group.tokens_ahead,
            policy: options.policy.map(|make| make()),
            untraced: options.trace.is_none(),
        },
        optimise: config.group.optimise,
        plain_source: config.group.plain_source,
        ask_again: config.group.ask_again,
        directory: config.directory.clone(),
        tcp: tcp::Config { path_policy: config.group.path_after_move, ..connections() },
        peers,
        services,
    })
}

fn home_agent(config: &HomeAgentLink) -> Result<HomeAgent, FileError> {
    Ok(HomeAgent {
        address: config.agent_address,
        spi: config.spi,
        key: read_secret(&config.key_file)?.to_vec(),
        lifetime: Lifetime::at_most(config.lifetime),
    })
}

/// How the connections of a node behave.
pub fn connections() -> tcp::Config {
    tcp::Config {
        nodelay: true,
        keep_alive: Some(KEEP_ALIVE),
        unsent_limit: UNSENT_LIMIT,
        ..tcp::Config::default()
    }
}

fn service(config: &ServiceConfig) -> Result<Service, StartError> {
    let (name, port) = (config.kind.name(), config.port);
    let service = match &config.kind {
        ServiceKind::Echo => Service::new::<Echo>(name, port, ()),
        ServiceKind::Discard => Service::new::<Discard>(name, port, ()),
        ServiceKind::Stream => Service::new::<Paced>(name, port, ()),
        ServiceKind::File { root } => Service::new::<File>(name, port, FileService::open(root)?),
    };
    Ok(service.protected(config.replicas, config.commit))
}

/// The link-layer address of our end of a TAP: locally administered, and the same at each start, so that the router's
/// neighbour cache stays right. Unlike our address's last octets, the kernel's end is drawn at random.
pub(crate) fn mac_of(address: Ipv6Addr) -> EthernetAddress {
    let [.., a, b, c, d] = address.octets();
    EthernetAddress([0x02, 0xfe, a, b, c, d])
}
