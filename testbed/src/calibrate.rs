//! What the world itself can do, with the kernel's TCP on both ends: the floor under every figure of the demos.

use core::fmt;
use core::ops::Range;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener};
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::analysis::{Flow, Spread};
use crate::capture::Capture;
use crate::clients::{Download, Downloaded, Pattern, Upload, Uploaded};
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes::FILES;
use crate::world::World;
use crate::{Error, Result};

const BYTES: u64 = 64 << 20;
const HTTP: u16 = 8080;
const ECHO: u16 = 7;
const MILLISECOND: u64 = 1_000_000;

/// What was measured.
#[derive(Debug)]
pub struct Calibration {
    profile: Profile,
    download: Downloaded,
    upload: Uploaded,
    gaps: Option<Spread>,
    peers: Vec<Ipv6Addr>,
    resets: usize,
    overflowed: u64,
    frames: u64,
    missed: u64,
}

/// Builds the world, without nodes, and measures it. Writes no file outside of it.
pub fn run(profile: Profile) -> Result<Calibration> {
    let world = World::build(profile)?;
    let host = &world.hosts[0];
    let listen = |port: u16| {
        host.namespace.run(|| {
            let at = SocketAddrV6::new(host.link_address, port, 0, 0);
            TcpListener::bind(at).doing(format!("listen at {at}"))
        })
    };
    let (http, echo) = (listen(HTTP)?, listen(ECHO)?);
    std::thread::spawn(move || serve_file(&http));
    std::thread::spawn(move || serve_echo(&echo));
    let folder = Path::new(FILES).join("captures");
    fs::create_dir(&folder).doing("make a folder")?;
    let capture = Capture::start(&world, Some(&folder), false)?;
    let file = Path::new(FILES).join("download");
    let download = Download::start(&world.client, host.link_address, HTTP, "file", &file)?.finish()?;
    let echo = SocketAddrV6::new(host.link_address, ECHO, 0, 0);
    let upload = Upload::start(&world.client, echo, BYTES, 1)?.finish()?;
    let captured = capture.finish()?;
    let flow = Flow { client_port: download.local_port, service_port: HTTP };
    let moments = (download.started_ns..download.ended_ns).step_by(100 * 1_000_000);
    let silence =
        |at: u64| captured.client.longest_silence(flow, &Range { start: at, end: at + 100 * MILLISECOND });
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a transfer.
    let gaps = moments.filter_map(silence).map(|ns| ns as f64 * 1e-6).collect();
    Ok(Calibration {
        profile,
        download,
        upload,
        gaps: Spread::of(gaps),
        peers: captured.client.peers().iter().copied().collect(),
        resets: captured.client.resets().len(),
        overflowed: world.link.counters().overflowed.load(Ordering::Relaxed),
        frames: captured.frames,
        missed: captured.dropped,
    })
}

fn serve_file(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept().doing("accept")?;
    let mut request = BufReader::new(stream.try_clone().doing("share a socket")?).lines();
    while request.next().transpose().doing("read a request")?.is_some_and(|line| !line.is_empty()) {}
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).doing("answer")?;
    let (mut pattern, mut chunk) = (Pattern::new(1), vec![0; 1 << 16]);
    for _ in 0..BYTES >> 16 {
        pattern.fill(&mut chunk);
        stream.write_all(&chunk).doing("answer")?;
    }
    Ok(())
}

fn serve_echo(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept().doing("accept")?;
    let mut chunk = vec![0; 1 << 16];
    loop {
        match stream.read(&mut chunk).doing("read")? {
            0 => return Ok(()),
            length => stream.write_all(&chunk[..length]).doing("write")?,
        }
    }
}

impl Calibration {
    /// Fails if the world did something that would make its demos worthless.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::Machine(why));
        if self.missed > 0 {
            return wrong(format!("the capture missed {} frames", self.missed));
        }
        if self.resets > 0 || self.peers.len() != 1 {
            return wrong(format!("the capture shows {} RST and peers {:?}", self.resets, self.peers));
        }
        if self.download.bytes != BYTES || self.upload.sent != self.upload.received {
            return wrong("octets were lost".to_owned());
        }
        Ok(())
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, download, upload, gaps, frames, missed, overflowed, .. } = self;
        writeln!(f, "kernel to kernel over {profile}")?;
        writeln!(f, "  download             {:.0} Mbit/s", download.mbit())?;
        writeln!(f, "  through echo         {:.0} Mbit/s each way", upload.mbit())?;
        if let Some(Spread { p50, p99, max }) = gaps {
            writeln!(f, "  silence in 100 ms    p50 {p50:.2} ms  p99 {p99:.2}  max {max:.2}")?;
        }
        writeln!(f, "  dropped by the queue {overflowed}")?;
        writeln!(f, "  captured             {frames} frames, missed {missed}")
    }
}
