//! What many people do at once: clients on the kernel's sockets that open connections of every kind, long and short, and
//! check every octet that comes back.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddrV6, TcpStream};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sha2::{Digest, Sha256};

use crate::clients::{Pattern, Upload};
use crate::clock::{nanos, now_ns, pause};
use crate::error::Doing;
use crate::namespace::Namespace;
use crate::world::SERVICE;
use crate::{Error, Result};

const ECHO: u16 = 7;
const DISCARD: u16 = 9;
const HTTP: u16 = 80;
/// A stream on which nothing moves for so long is dead.
const STALL: Duration = Duration::from_mins(1);
/// A receive buffer that is soon full.
const NARROW: usize = 4096;

/// A file that every node serves.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its name below the root.
    pub name: &'static str,
    /// Octets.
    pub length: u64,
    /// Its SHA-256.
    pub digest: [u8; 32],
}

/// What all clients together have done.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections that came to their good end.
    pub connections: AtomicU64,
    /// Octets of the clients and of the service that were checked.
    pub octets: AtomicU64,
}

/// What one connection is for.
#[derive(Clone, Copy, Debug)]
enum Errand {
    /// Says something and waits for the echo, a few times; then finishes first.
    Talk,
    /// Both ways at once, as fast as it goes.
    Stream,
    /// Fetches a file; the service finishes first.
    Fetch,
    /// Fetches one with a small buffer, and is busy with something else at first: the window shuts.
    FetchSlowly,
    /// Fetches small files one after the other from one port, while the service is still in TIME-WAIT.
    FetchAgain,
    /// Asks for a small file and finishes while the answer is under way, so that both ends may finish at once.
    Cross,
    /// Sends something that nobody answers.
    Store,
    /// Is silent for most of its life.
    Rest,
}

const ERRANDS: [Errand; 11] = [
    Errand::Talk,
    Errand::Talk,
    Errand::Stream,
    Errand::Fetch,
    Errand::Fetch,
    Errand::FetchSlowly,
    Errand::FetchAgain,
    Errand::Cross,
    Errand::Cross,
    Errand::Store,
    Errand::Rest,
];

/// Someone with many errands, one after the other.
#[derive(Debug)]
pub struct Client<'a> {
    /// Where it lives.
    pub namespace: &'a Namespace,
    /// An address of its own: a binding (RFC 6275) is one of an address, not of a connection.
    pub address: Ipv6Addr,
    /// What there is to be fetched, the smallest first.
    pub files: &'a [Served],
    /// Decides what it does.
    pub random: fastrand::Rng,
    /// Ends it, once the present errand is done.
    pub stop: &'a AtomicBool,
    /// Counts for all.
    pub tally: &'a Tally,
}

impl Client<'_> {
    /// Runs errands until it is to stop. An error is what went wrong on a connection.
    pub fn run(mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let errand = ERRANDS[self.random.usize(..ERRANDS.len())];
            let octets = self.errand(errand).map_err(|why| wrong(format!("{errand:?}: {why}")))?;
            self.tally.connections.fetch_add(1, Ordering::Relaxed);
            self.tally.octets.fetch_add(octets, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many octets were checked.
    fn errand(&mut self, errand: Errand) -> Result<u64> {
        match errand {
            Errand::Talk => self.talk(),
            Errand::Stream => self.stream(),
            Errand::Fetch => {
                let file = self.random.usize(..self.files.len());
                self.fetch(file, None, Duration::ZERO)
            }
            Errand::FetchSlowly => {
                let busy = self.some_time(100..400);
                self.fetch(1, Some(NARROW), busy)
            }
            Errand::FetchAgain => self.fetch_again(),
            Errand::Cross => self.cross(),
            Errand::Store => self.store(),
            Errand::Rest => self.rest(),
        }
    }

    fn some_time(&mut self, millis: core::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(millis))
    }

    fn connect(&self, port: u16, receive_buffer: Option<usize>) -> Result<TcpStream> {
        self.connect_from(0, port, receive_buffer)
    }

    /// From the client's port `own`, or from any if that is zero.
    fn connect_from(&self, own: u16, port: u16, receive_buffer: Option<usize>) -> Result<TcpStream> {
        self.namespace.run(|| {
            let (family, kind) = (AddressFamily::INET6, SocketType::STREAM);
            let socket =
                rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).doing("open a socket")?;
            if let Some(octets) = receive_buffer {
                rustix::net::sockopt::set_socket_recv_buffer_size(&socket, octets)
                    .doing("narrow a buffer")?;
            }
            let (here, there) =
                (SocketAddrV6::new(self.address, own, 0, 0), SocketAddrV6::new(SERVICE, port, 0, 0));
            when_free(|| rustix::net::bind(&socket, &here)).doing("take an address")?;
            when_free(|| rustix::net::connect(&socket, &there)).doing("connect")?;
            let stream = TcpStream::from(socket);
            stream.set_nodelay(true).doing("send at once")?;
            stream.set_read_timeout(Some(STALL)).doing("limit the wait")?;
            stream.set_write_timeout(Some(STALL)).doing("limit the wait")?;
            Ok(stream)
        })
    }

    fn talk(&mut self) -> Result<u64> {
        let (mut stream, mut octets) = (self.connect(ECHO, None)?, 0);
        for _ in 0..self.random.u8(1..12) {
            octets += self.say(&mut stream)?;
            pause(self.some_time(0..20));
        }
        finish(&mut stream)?;
        Ok(octets)
    }

    fn rest(&mut self) -> Result<u64> {
        let mut stream = self.connect(ECHO, None)?;
        let mut octets = self.say(&mut stream)?;
        pause(self.some_time(200..600));
        octets += self.say(&mut stream)?;
        finish(&mut stream)?;
        Ok(octets)
    }

    /// Says something to `echo`, and fails if it does not come back.
    fn say(&mut self, stream: &mut TcpStream) -> Result<u64> {
        let mut said = vec![0; self.random.usize(1..3000)];
        self.random.fill(&mut said);
        let mut heard = vec![0; said.len()];
        stream.write_all(&said).doing("send to echo")?;
        stream.read_exact(&mut heard).doing("receive from echo")?;
        if heard == said { Ok(2 * said.len() as u64) } else { Err(wrong("echo came back changed")) }
    }

    fn stream(&mut self) -> Result<u64> {
        let (octets, seed) = (self.random.u64(64 << 10..1 << 20), self.random.u64(..));
        Ok(2 * Upload::over(self.connect(ECHO, None)?, octets, seed)?.finish()?.bytes)
    }

    fn fetch(&mut self, file: usize, receive_buffer: Option<usize>, busy: Duration) -> Result<u64> {
        let mut stream = self.connect(HTTP, receive_buffer)?;
        self.ask(&mut stream, file)?;
        pause(busy);
        self.check(&mut stream, file)
    }

    fn fetch_again(&mut self) -> Result<u64> {
        let (mut own, mut octets) = (0, 0);
        for _ in 0..3 {
            let mut stream = self.connect_from(own, HTTP, None)?;
            own = stream.local_addr().doing("ask for our port")?.port();
            self.ask(&mut stream, 0)?;
            octets += self.check(&mut stream, 0)?;
        }
        Ok(octets)
    }

    fn cross(&mut self) -> Result<u64> {
        let mut stream = self.connect(HTTP, None)?;
        self.ask(&mut stream, 0)?;
        pause(Duration::from_micros(self.random.u64(..12_000)));
        stream.shutdown(Shutdown::Write).doing("finish")?;
        self.check(&mut stream, 0)
    }

    fn ask(&self, stream: &mut TcpStream, file: usize) -> Result<()> {
        let name = self.files[file].name;
        let request = format!("GET /{name} HTTP/1.1\r\nHost: ferry\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).doing("ask for a file")
    }

    /// Reads the answer to its end, and compares digests.
    fn check(&self, stream: &mut TcpStream, file: usize) -> Result<u64> {
        let Served { name, length, digest } = &self.files[file];
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).doing("receive a file")?;
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        let body = head.map_or(&[][..], |head| &answer[head..]);
        if !answer.starts_with(b"HTTP/1.1 200 ") || body.len() as u64 != *length {
            let (octets, all) = (body.len(), answer.len());
            return Err(wrong(format!("{octets} of {length} octets of {name} came, in an answer of {all}")));
        }
        if Sha256::digest(body)[..] != digest[..] {
            return Err(wrong(format!("{name} came changed")));
        }
        Ok(*length)
    }

    fn store(&mut self) -> Result<u64> {
        let mut stream = self.connect(DISCARD, None)?;
        let mut octets = vec![0; self.random.usize(1..1 << 19)];
        Pattern::new(self.random.u64(..)).fill(&mut octets);
        stream.write_all(&octets).doing("send to discard")?;
        finish(&mut stream)?;
        Ok(octets.len() as u64)
    }
}

/// Tries again as long as the port's last connection is not over.
fn when_free(attempt: impl Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    let until = now_ns() + nanos(STALL);
    loop {
        match attempt() {
            Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) if now_ns() < until => {
                pause(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

/// Finishes first, and waits until the service has finished, too.
fn finish(stream: &mut TcpStream) -> Result<()> {
    stream.shutdown(Shutdown::Write).doing("finish")?;
    match stream.read(&mut [0]).doing("wait for the end")? {
        0 => Ok(()),
        _ => Err(wrong("something came behind the end")),
    }
}

fn wrong(why: impl Into<String>) -> Error {
    Error::Program { command: "a client".to_owned(), why: why.into() }
}
