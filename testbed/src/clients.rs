//! The client's programs: `curl` for downloads, and a two-way stream of our own for uploads through `echo`.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddrV6, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use sha2::{Digest, Sha256};

use crate::clock::now_ns;
use crate::error::Doing;
use crate::namespace::Namespace;
use crate::{Error, Result};

/// No transfer of ours takes longer unless it hangs.
const TRANSFER_S: u64 = 600;
/// A stream on which nothing moves for so long is dead.
const STALL: Duration = Duration::from_secs(30);
const CHUNK: usize = 1 << 16;

/// Octets that a seed stands for.
#[derive(Debug)]
pub struct Pattern(fastrand::Rng);

impl Pattern {
    /// The octets of this seed, from the first one.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// The next octets. They depend on how they are cut: always ask for the same lengths.
    pub fn fill(&mut self, octets: &mut [u8]) {
        self.0.fill(octets);
    }
}

/// Writes `length` octets of a pattern to a file and gives their SHA-256.
pub fn make_file(path: &Path, length: u64, seed: u64) -> Result<String> {
    let doing = format!("write {}", path.display());
    let (mut file, mut pattern) = (File::create(path).doing(&doing)?, Pattern::new(seed));
    let (mut hash, mut chunk, mut left) = (Sha256::new(), vec![0; CHUNK], length);
    while left > 0 {
        chunk.truncate(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
        pattern.fill(&mut chunk);
        hash.update(&chunk);
        file.write_all(&chunk).doing(&doing)?;
        left -= chunk.len() as u64;
    }
    Ok(hex(&hash.finalize()))
}

/// The SHA-256 of a file.
pub fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).doing(format!("read {}", path.display()))?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let length = file.read(&mut chunk).doing(format!("read {}", path.display()))?;
        if length == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&chunk[..length]);
    }
}

/// Where two files differ first; `None` if they do not. The end of one counts as a difference.
pub fn first_difference(one: &Path, other: &Path) -> Result<Option<u64>> {
    let open = |path: &Path| File::open(path).map(BufReader::new).doing(format!("read {}", path.display()));
    let (mut one, mut other) = (open(one)?.bytes(), open(other)?.bytes());
    for at in 0.. {
        let (a, b) = (one.next().transpose(), other.next().transpose());
        match (a.doing("read a file")?, b.doing("read a file")?) {
            (None, None) => return Ok(None),
            (a, b) if a != b => return Ok(Some(at)),
            _ => {}
        }
    }
    Ok(None)
}

fn hex(octets: &[u8]) -> String {
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A running download with `curl`.
#[derive(Debug)]
pub struct Download {
    /// Taken when it is waited for.
    child: Option<Child>,
    file: PathBuf,
    started_ns: u64,
}

/// A finished download.
#[derive(Clone, Debug, PartialEq)]
pub struct Downloaded {
    /// Where the octets are.
    pub file: PathBuf,
    /// How many.
    pub bytes: u64,
    /// From the first octet of the request to the last one of the answer.
    pub seconds: f64,
    /// Whom `curl` believes to have talked to.
    pub peer: String,
    /// Its port on its own side.
    pub local_port: u16,
    /// When it started, on the monotonic clock.
    pub started_ns: u64,
    /// When it had ended.
    pub ended_ns: u64,
}

impl Downloaded {
    /// Payload in Mbit/s.
    #[allow(clippy::cast_precision_loss)] // No transfer of ours has 2⁵³ octets.
    pub fn mbit(&self) -> f64 {
        self.bytes as f64 * 8e-6 / self.seconds
    }
}

impl Download {
    /// The command as a person would type it.
    pub fn command_line(from: Ipv6Addr, port: u16, path: &str) -> String {
        format!("curl {}", url(from, port, path))
    }

    /// Starts `curl` in a namespace.
    pub fn start(client: &Namespace, from: Ipv6Addr, port: u16, path: &str, to: &Path) -> Result<Self> {
        let mut command = client.command("curl");
        command.args(["--silent", "--show-error", "--fail", "--globoff", "--write-out", "%{json}"]);
        command.args(["--max-time", &TRANSFER_S.to_string(), "--output"]).arg(to).arg(url(from, port, path));
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        // No file of an earlier download may be taken for this one's.
        if to.exists() {
            fs::remove_file(to).doing(format!("remove {}", to.display()))?;
        }
        let child = command.spawn().doing("start curl")?;
        Ok(Self { child: Some(child), file: to.to_owned(), started_ns: now_ns() })
    }

    /// Octets that arrived so far.
    pub fn progress(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    /// Whether `curl` has ended.
    pub fn ended(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else { return Ok(true) };
        Ok(child.try_wait().doing("wait for curl")?.is_some())
    }

    /// Waits for the end. An error of `curl`'s is ours.
    pub fn finish(mut self) -> Result<Downloaded> {
        let wrong = |why: String| Error::Program { command: "curl".to_owned(), why };
        let child = self.child.take().ok_or_else(|| wrong("was waited for twice".to_owned()))?;
        let output = child.wait_with_output().doing("wait for curl")?;
        let ended_ns = now_ns();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(wrong(format!("{}: {said}", output.status)));
        }
        let said: Said = serde_json::from_slice(&output.stdout).map_err(|error| wrong(error.to_string()))?;
        Ok(Downloaded {
            file: self.file.clone(),
            bytes: said.size_download,
            seconds: said.time_total - said.time_pretransfer,
            peer: said.remote_ip,
            local_port: said.local_port,
            started_ns: self.started_ns,
            ended_ns,
        })
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Somebody gave up on it.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What `curl` says at its end.
#[derive(serde::Deserialize)]
struct Said {
    size_download: u64,
    time_total: f64,
    time_pretransfer: f64,
    remote_ip: String,
    local_port: u16,
}

fn url(host: Ipv6Addr, port: u16, path: &str) -> String {
    match port {
        80 => format!("http://[{host}]/{path}"),
        _ => format!("http://[{host}]:{port}/{path}"),
    }
}

/// A running stream through `echo`: sends a pattern and checks every octet that comes back.
#[derive(Debug)]
pub struct Upload {
    thread: JoinHandle<Result<Uploaded>>,
    received: Arc<AtomicU64>,
}

/// A finished stream whose octets all came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploaded {
    /// Octets that went there and came back.
    pub bytes: u64,
    /// From the first octet sent to the end of the stream.
    pub seconds: f64,
    /// The SHA-256 of what was sent.
    pub sent: String,
    /// The SHA-256 of what came back.
    pub received: String,
    /// When it started, on the monotonic clock.
    pub started_ns: u64,
    /// When it had ended.
    pub ended_ns: u64,
}

impl Uploaded {
    /// Payload in each direction, in Mbit/s.
    #[allow(clippy::cast_precision_loss)] // No transfer of ours has 2⁵³ octets.
    pub fn mbit(&self) -> f64 {
        self.bytes as f64 * 8e-6 / self.seconds
    }
}

impl Upload {
    /// Connects from a namespace and starts to send `length` octets of the pattern of `seed`.
    pub fn start(client: &Namespace, to: SocketAddrV6, length: u64, seed: u64) -> Result<Self> {
        let stream = client.run(|| {
            let stream = TcpStream::connect_timeout(&to.into(), STALL).doing(format!("connect to {to}"))?;
            Ok(stream)
        })?;
        Self::over(stream, length, seed)
    }

    /// The same over a connection to an `echo` that is there.
    pub fn over(stream: TcpStream, length: u64, seed: u64) -> Result<Self> {
        stream.set_read_timeout(Some(STALL)).doing("set a timeout")?;
        stream.set_write_timeout(Some(STALL)).doing("set a timeout")?;
        let received = Arc::<AtomicU64>::default();
        let count = Arc::clone(&received);
        let thread = thread::spawn(move || exchange(&stream, length, seed, &count));
        Ok(Self { thread, received })
    }

    /// Octets that came back so far.
    pub fn progress(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    pub fn finish(self) -> Result<Uploaded> {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn exchange(stream: &TcpStream, length: u64, seed: u64, count: &AtomicU64) -> Result<Uploaded> {
    let started_ns = now_ns();
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(stream, length, seed));
        let received = receive(stream, length, seed, count);
        if received.is_err() {
            // Wakes a sender that nobody reads from.
            let _ = stream.shutdown(Shutdown::Both);
        }
        match sender.join() {
            Ok(sent) => (sent, received),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let ((bytes, received), sent) = (received?, sent?);
    let ended_ns = now_ns();
    if bytes != length {
        let what = format!("echo gave {bytes} octets of {length} back and closed");
        return Err(Error::Program { command: "upload".to_owned(), why: what });
    }
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a transfer.
    let seconds = (ended_ns - started_ns) as f64 * 1e-9;
    Ok(Uploaded { bytes, seconds, sent, received, started_ns, ended_ns })
}

fn send(mut stream: &TcpStream, length: u64, seed: u64) -> Result<String> {
    let (mut pattern, mut hash, mut chunk, mut left) =
        (Pattern::new(seed), Sha256::new(), vec![0; CHUNK], length);
    while left > 0 {
        chunk.truncate(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
        pattern.fill(&mut chunk);
        hash.update(&chunk);
        stream.write_all(&chunk).doing("send to echo")?;
        left -= chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write).doing("finish sending to echo")?;
    Ok(hex(&hash.finalize()))
}

fn receive(mut stream: &TcpStream, length: u64, seed: u64, count: &AtomicU64) -> Result<(u64, String)> {
    let (mut hash, mut expected, mut bytes) = (Sha256::new(), Expected::new(length, seed), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = stream.read(&mut chunk).doing("receive from echo")?;
        if length == 0 {
            return Ok((bytes, hex(&hash.finalize())));
        }
        if let Some(at) = expected.differs(&chunk[..length]) {
            let why = format!("octet {} came back changed", bytes + at as u64);
            return Err(Error::Program { command: "upload".to_owned(), why });
        }
        hash.update(&chunk[..length]);
        bytes += length as u64;
        count.store(bytes, Ordering::Relaxed);
    }
}

/// What must come back, made again chunk by chunk.
struct Expected {
    pattern: Pattern,
    chunk: Vec<u8>,
    used: usize,
    left: u64,
}

impl Expected {
    fn new(length: u64, seed: u64) -> Self {
        Self { pattern: Pattern::new(seed), chunk: Vec::new(), used: 0, left: length }
    }

    /// Where the next octets differ from what was sent.
    fn differs(&mut self, octets: &[u8]) -> Option<usize> {
        for (at, octet) in octets.iter().enumerate() {
            if self.used == self.chunk.len() {
                self.refill();
            }
            if self.chunk.get(self.used) != Some(octet) {
                return Some(at);
            }
            self.used += 1;
        }
        None
    }

    fn refill(&mut self) {
        self.chunk.resize(usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK), 0);
        self.pattern.fill(&mut self.chunk);
        self.left -= self.chunk.len() as u64;
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_octet_is_found_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let one = make_file(&path("one"), 100_000, 7).expect("written");
        assert_eq!(digest(&path("one")).expect("read"), one);
        let mut octets = fs::read(path("one")).expect("read");
        octets[77_777] ^= 1;
        fs::write(path("two"), &octets).expect("written");
        fs::write(path("short"), &octets[..500]).expect("written");
        assert_ne!(digest(&path("two")).expect("read"), one);
        assert_eq!(first_difference(&path("one"), &path("two")).expect("read"), Some(77_777));
        assert_eq!(first_difference(&path("one"), &path("short")).expect("read"), Some(500));
        assert_eq!(first_difference(&path("one"), &path("one")).expect("read"), None);
    }
}
