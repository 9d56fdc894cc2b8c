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
use crate::sys::packet::Ring;
use crate::world::{CLIENT_INTERFACE, TAP, World};
use crate::{Error, Result};

/// Octets kept of each frame: Ethernet, an IPv6 tunnel and TCP with all its options fit.
const SNAP: u32 = 160;
/// Room for what comes while the thread has no core, some seconds of the emulated link.
const RING: usize = 32 << 20;
const BEAT: Duration = Duration::from_millis(10);

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
    /// Frames that passed but found no room in a ring. Where there are any, the rest proves nothing.
    pub dropped: u64,
    /// Frames captured on all hosts.
    pub frames: u64,
}

/// One host: its interfaces and its file.
struct Watch {
    rings: Vec<Ring>,
    file: Option<Writer<BufWriter<File>>>,
    is_client: bool,
}

impl Capture {
    /// Watches the client. With a folder, every other host as well, and writes `HOST.pcapng` there for each.
    pub fn start(world: &World, folder: Option<&Path>) -> Result<Self> {
        let mut watches = vec![Watch::new(&world.client, &[CLIENT_INTERFACE], folder, true)?];
        if folder.is_some() {
            let router = ["client0", "a0", "b0", "c0"];
            watches.push(Watch::new(&world.router, &router, folder, false)?);
            for host in &world.hosts {
                watches.push(Watch::new(&host.namespace, &[TAP], folder, false)?);
            }
        }
        let stop = Arc::<AtomicBool>::default();
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || run(watches, &told))
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
    fn new(
        namespace: &Namespace,
        interfaces: &[&str],
        folder: Option<&Path>,
        is_client: bool,
    ) -> Result<Self> {
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
        Ok(Self { rings, file: folder.map(create).transpose()?, is_client })
    }

    fn drain(&mut self, captured: &mut Captured) -> Result<()> {
        let to_monotonic = wall_to_monotonic_ns();
        let mut written = Ok(());
        for (interface, ring) in (0..).zip(&mut self.rings) {
            ring.drain(|frame| {
                captured.frames += 1;
                if self.is_client {
                    let at = i128::from(frame.wall_ns) + to_monotonic;
                    captured.client.see(u64::try_from(at).unwrap_or(0), &frame);
                }
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
            captured.dropped += u64::from(dropped);
        }
        written.doing("write a capture")
    }
}

fn run(mut watches: Vec<Watch>, stop: &AtomicBool) -> Result<Captured> {
    let mut captured = Captured { client: ClientView::default(), dropped: 0, frames: 0 };
    loop {
        let last = stop.load(Ordering::Acquire);
        // The kernel hands a block over some milliseconds after its first frame at the latest.
        pause(if last { 3 * BEAT } else { BEAT });
        for watch in &mut watches {
            watch.drain(&mut captured)?;
        }
        if last {
            break;
        }
    }
    for file in watches.into_iter().filter_map(|watch| watch.file) {
        file.finish().doing("write a capture")?;
    }
    match captured.frames {
        0 => Err(Error::Machine("the capture saw no frame at all".to_owned())),
        _ => Ok(captured),
    }
}
