//! Watching interfaces: one thread drains the packet rings of all hosts, writes a pcapng for each, and shows the
//! client's frames to the analysis.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::analysis::ClientView;
use crate::clock::{pause, wall_to_monotonic_ns};
use crate::error::Doing;
use crate::namespace::Namespace;
use crate::pcapng::{Packet, Writer};
use crate::straight::{Log, Straight};
use crate::sys::packet::{Frame, Ring};
use crate::world::{CLIENT_INTERFACE, TAP, Visitor, World};
use crate::{Error, Result};

/// Octets kept of each frame: Ethernet, an IPv6 tunnel and TCP with all its options fit.
const SNAP: u32 = 160;
/// Room for what comes while the thread has no core, some seconds of the emulated link.
const RING: usize = 32 << 20;
const BEAT: Duration = Duration::from_millis(10);
/// The router's interfaces: to the client, to the contact node's host, and to the others.
const ROUTER: [&str; 4] = ["client0", "a0", "b0", "c0"];

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Captured>>,
}

/// What a capture came to.
#[derive(Debug)]
pub struct Captured {
    /// What the client saw.
    pub client: ClientView,
    /// By which way the client's packets went, where the router was watched.
    pub straight: Straight,
    /// Frames that passed but found no room in a ring. Where there are any, the rest proves nothing.
    pub dropped: u64,
    /// Frames captured on all hosts.
    pub frames: u64,
}

/// One host: its interfaces and its file.
struct Watch {
    rings: Vec<Ring>,
    file: Option<Writer<BufWriter<File>>>,
    host: Host,
}

/// Whose frames somebody looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Client,
    Router,
    Other,
}

/// What was looked at so far.
#[derive(Default)]
struct Looked {
    client: ClientView,
    router: Log,
    dropped: u64,
    frames: u64,
}

impl Capture {
    /// Watches the client, and the router if `ways` matter. With a folder, every host, and writes `HOST.pcapng` there
    /// for each.
    pub fn start(world: &World, folder: Option<&Path>, ways: bool) -> Result<Self> {
        let mut watches = vec![Watch::new(&world.client, &[CLIENT_INTERFACE], folder, Host::Client)?];
        if folder.is_some() || ways {
            let host = if ways { Host::Router } else { Host::Other };
            watches.push(Watch::new(&world.router, &ROUTER, folder, host)?);
        }
        if folder.is_some() {
            for host in &world.hosts {
                watches.push(Watch::new(&host.namespace, &[TAP], folder, Host::Other)?);
            }
        }
        Self::of(watches, ClientView::default())
    }

    /// Watches another client.
    pub fn visitor(visitor: &Visitor, folder: Option<&Path>) -> Result<Self> {
        let watch = Watch::new(&visitor.namespace, &[CLIENT_INTERFACE], folder, Host::Client)?;
        Self::of(vec![watch], ClientView::of(visitor.address))
    }

    fn of(watches: Vec<Watch>, client: ClientView) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || run(watches, client, &told))
            .doing("start the capture's thread")?;
        Ok(Self { stop, thread })
    }

    /// Ends the capture with everything that has passed until now.
    pub fn finish(self) -> Result<Captured> {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Watch {
    fn new(namespace: &Namespace, interfaces: &[&str], folder: Option<&Path>, host: Host) -> Result<Self> {
        let name = namespace.name();
        let open = |interface: &&str| {
            let index = namespace.interface(interface)?;
            let open = || Ring::open(index, SNAP, RING).doing(format!("capture on {interface} of {name}"));
            namespace.run(open)
        };
        let rings = interfaces.iter().map(open).collect::<Result<Vec<_>>>()?;
        let create = |folder: &Path| {
            let path = folder.join(format!("{name}.pcapng"));
            let doing = format!("write {}", path.display());
            let file = File::create(&path).doing(&doing)?;
            Writer::new(BufWriter::with_capacity(1 << 18, file), interfaces, SNAP).doing(doing)
        };
        Ok(Self { rings, file: folder.map(create).transpose()?, host })
    }

    fn drain(&mut self, looked: &mut Looked) -> Result<()> {
        let to_monotonic = wall_to_monotonic_ns();
        let mut written = Ok(());
        for (interface, ring) in (0..).zip(&mut self.rings) {
            ring.drain(|frame| {
                let at_ns = i128::from(frame.wall_ns) + to_monotonic;
                looked.see(self.host, u64::try_from(at_ns).unwrap_or(0), interface, &frame);
                let packet = Packet {
                    interface,
                    at_ns: frame.wall_ns,
                    length: frame.length,
                    outgoing: frame.outgoing,
                    octets: frame.octets,
                };
                if let (Some(file), Ok(())) = (&mut self.file, &written) {
                    written = file.write(packet);
                }
            });
            let dropped = ring.dropped().doing("ask a capture for its drops")?;
            looked.dropped += u64::from(dropped);
        }
        written.doing("write a capture")
    }
}

impl Looked {
    fn see(&mut self, host: Host, at_ns: u64, interface: u32, frame: &Frame<'_>) {
        self.frames += 1;
        match host {
            Host::Client => self.client.see(at_ns, frame),
            Host::Router => self.router.see(at_ns, interface as usize, frame.outgoing, frame.octets),
            Host::Other => {}
        }
    }
}

fn run(mut watches: Vec<Watch>, client: ClientView, stop: &AtomicBool) -> Result<Captured> {
    let mut looked = Looked { client, ..Looked::default() };
    loop {
        let last = stop.load(Ordering::Acquire);
        // The kernel hands a block over some milliseconds after its first frame at the latest.
        pause(if last { 3 * BEAT } else { BEAT });
        for watch in &mut watches {
            watch.drain(&mut looked)?;
        }
        if last {
            break;
        }
    }
    for file in watches.into_iter().filter_map(|watch| watch.file) {
        file.finish().doing("write a capture")?;
    }
    let Looked { client, router, dropped, frames } = looked;
    match frames {
        0 => Err(Error::Machine("the capture saw no frame at all".to_owned())),
        _ => Ok(Captured { client, straight: router.judge(), dropped, frames }),
    }
}
