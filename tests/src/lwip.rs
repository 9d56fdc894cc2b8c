//! Another foreign peer: lwIP, in a process of its own that has neither a clock nor a wire but ours. The process is
//! compiled from `lwip/peer.c` when it is first needed, against the library of Debian's `liblwip-dev`.

use core::net::{Ipv6Addr, SocketAddrV6};
use std::collections::VecDeque;
use std::io::{BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use bytes::Bytes;
use ferry_stack::ip::Packet;
use ferry_stack::tcp::Tcb;
use ferry_stack::{Frame, Instant, Interface, Offload, interface};

use crate::needs;
use crate::octets::Octets;
use crate::stack::{End, Phase, Stack};

/// What it can be asked to do.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Init,
    Listen,
    Connect,
    Packet,
    Wake,
    Read,
    Write,
    Finish,
    Abort,
}

/// What it tells: `enum happening` of `peer.c`.
mod happening {
    pub(super) const SENT_PACKET: u8 = 0;
    pub(super) const ACCEPTED: u8 = 1;
    pub(super) const CONNECTED: u8 = 2;
    pub(super) const OCTETS: u8 = 3;
    pub(super) const GOT_FIN: u8 = 4;
    pub(super) const ROOM: u8 = 5;
    pub(super) const OVER: u8 = 6;
    pub(super) const OPENED: u8 = 7;
    pub(super) const WROTE: u8 = 8;
}

/// The most octets of one write: it has no more room anyway.
const MAX_WRITE: usize = 0xffff;

/// Whether there is an lwIP to play with. If not, `test` is skipped.
pub fn is_here(test: &str) -> bool {
    let missing = program().err();
    if let Some(why) = missing {
        needs::skip(test, why);
    }
    missing.is_none()
}

/// The compiled program, or why there is none.
fn program() -> Result<&'static PathBuf, &'static String> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM.get_or_init(compile).as_ref()
}

fn compile() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|why| why.to_string())?;
    // Beside the test, in the folder for what is built.
    let program = this.with_extension("lwip-peer");
    let output = Command::new("cc")
        .args(["-O1", "-I/usr/include/lwip", "-o"])
        .arg(&program)
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/lwip/peer.c"), "-llwip"])
        .output()
        .map_err(|why| format!("there is no C compiler: {why}"))?;
    if output.status.success() {
        return Ok(program);
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("lwIP cannot be compiled against; apt-get install gcc liblwip-dev: {why}"))
}

/// A host that runs lwIP. What lies below IPv6 is ours.
#[derive(Debug)]
pub struct Lwip {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    interface: Interface,
    address: Ipv6Addr,
    connections: Vec<Connection>,
    accepted: VecDeque<(usize, u16)>,
    opened: u16,
    wake: Instant,
}

#[derive(Debug, Default)]
struct Connection {
    unread: VecDeque<Bytes>,
    open: bool,
    finished: bool,
    aborted: bool,
    room: usize,
    wrote: usize,
    end: Option<End>,
}

impl Lwip {
    /// A host on a link. Panics where [`is_here`] says that there is none.
    pub fn new(config: interface::Config) -> Self {
        let program = program().expect("lwIP is here");
        let mut process = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was just compiled");
        let input = process.stdin.take().expect("it was piped");
        let output = BufReader::new(process.stdout.take().expect("it was piped"));
        let address = config.addresses.first().map_or(Ipv6Addr::UNSPECIFIED, |first| first.address);
        let mtu = config.mtu;
        let mut lwip = Self {
            process,
            input,
            output,
            interface: Interface::new(config),
            address,
            connections: Vec::new(),
            accepted: VecDeque::new(),
            opened: 0,
            wake: Instant::ZERO,
        };
        let arguments = [&address.octets()[..], &mtu.to_le_bytes()].concat();
        lwip.ask(Operation::Init, &arguments, Instant::ZERO);
        lwip
    }

    /// Has something done, and takes note of all that happens.
    fn ask(&mut self, operation: Operation, arguments: &[u8], now: Instant) {
        let millis = u32::try_from(now.millis()).expect("a world lasts less than 49 days");
        let len = u32::try_from(5 + arguments.len()).expect("a request is small");
        let request = [&len.to_le_bytes()[..], &millis.to_le_bytes(), &[operation as u8], arguments].concat();
        self.input.write_all(&request).expect("lwIP lives");
        let answer_len = self.number();
        let wake = self.number();
        // It looks at its clock in milliseconds.
        self.wake = Instant::from_millis(now.millis() + u64::from(wake.max(1)));
        let mut answer = vec![0; answer_len as usize - 4];
        self.output.read_exact(&mut answer).expect("lwIP lives");
        let mut answer = Bytes::from(answer);
        while !answer.is_empty() {
            let head = answer.split_to(9);
            let octets = answer.split_to(number_at(&head, 5) as usize);
            self.happens(head[0], number_at(&head, 1) as usize, octets, now);
        }
    }

    fn number(&mut self) -> u32 {
        let mut octets = [0; 4];
        self.output.read_exact(&mut octets).expect("lwIP lives");
        u32::from_le_bytes(octets)
    }

    fn happens(&mut self, kind: u8, which: usize, octets: Bytes, now: Instant) {
        let port = || u16::from_le_bytes([octets[0], octets[1]]);
        if kind == happening::SENT_PACKET {
            let packet = Packet { head: octets.to_vec(), body: Bytes::new(), offload: Offload::default() };
            return self.interface.send(packet, now);
        }
        if self.connections.len() <= which {
            self.connections.resize_with(which + 1, Connection::default);
        }
        let connection = &mut self.connections[which];
        match kind {
            happening::ACCEPTED => {
                connection.open = true;
                self.accepted.push_back((which, port()));
            }
            happening::CONNECTED => connection.open = true,
            happening::OCTETS => connection.unread.push_back(octets),
            happening::GOT_FIN => connection.finished = true,
            happening::ROOM => connection.room = number_at(&octets, 0) as usize,
            happening::OVER => {
                connection.end = Some(match octets[0] {
                    _ if connection.aborted => End::Aborted,
                    0 => End::Finished,
                    1 => End::Reset,
                    _ => End::TimedOut,
                });
            }
            happening::OPENED => self.opened = port(),
            happening::WROTE => connection.wrote = number_at(&octets, 0) as usize,
            other => panic!("peer.c tells nothing of kind {other}"),
        }
    }

    fn ask_about(&mut self, operation: Operation, which: usize, more: &[u8], now: Instant) {
        let which = u32::try_from(which).expect("it has a few connections");
        self.ask(operation, &[&which.to_le_bytes()[..], more].concat(), now);
    }
}

fn number_at(octets: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

impl Drop for Lwip {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Stack for Lwip {
    fn listen(&mut self, port: u16) {
        self.ask(Operation::Listen, &port.to_le_bytes(), Instant::ZERO);
    }

    fn accept(&mut self) -> Option<(usize, u16)> {
        self.accepted.pop_front()
    }

    fn connect(&mut self, server: SocketAddrV6, now: Instant) -> (usize, SocketAddrV6) {
        let arguments = [&server.ip().octets()[..], &server.port().to_le_bytes()].concat();
        let which = self.connections.len();
        self.ask(Operation::Connect, &arguments, now);
        (which, SocketAddrV6::new(self.address, self.opened, 0, 0))
    }

    fn phase(&self, connection: usize) -> Phase {
        let connection = &self.connections[connection];
        match connection.end {
            Some(end) if connection.unread.is_empty() => Phase::Over(end),
            _ if connection.open => Phase::Open,
            _ => Phase::Opening,
        }
    }

    fn is_settled(&self, connection: usize) -> bool {
        self.connections[connection].end.is_some()
    }

    fn act(&mut self, connection: usize, now: Instant, act: &mut dyn FnMut(&mut dyn Octets)) {
        if !self.connections[connection].aborted {
            act(&mut Hold { lwip: self, which: connection, now });
        }
    }

    fn receive(&mut self, frame: Frame, now: Instant) {
        if let Some(datagram) = self.interface.receive(frame, now) {
            self.ask(Operation::Packet, &datagram.packet, now);
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Frame> {
        self.interface.poll_transmit()
    }

    fn deadline(&mut self, _: Instant) -> Option<Instant> {
        [Some(self.wake), self.interface.deadline()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.interface.handle_timeout(now);
        if self.wake <= now {
            self.ask(Operation::Wake, &[], now);
        }
    }

    fn tcbs(&self, _: Instant) -> Vec<(&Tcb, Instant)> {
        Vec::new()
    }
}

struct Hold<'a> {
    lwip: &'a mut Lwip,
    which: usize,
    now: Instant,
}

impl Hold<'_> {
    fn connection(&mut self) -> &mut Connection {
        &mut self.lwip.connections[self.which]
    }

    fn ask(&mut self, operation: Operation, more: &[u8]) {
        self.lwip.ask_about(operation, self.which, more, self.now);
    }
}

impl Octets for Hold<'_> {
    fn read(&mut self, max: usize) -> Bytes {
        let Some(mut chunk) = self.connection().unread.pop_front() else { return Bytes::new() };
        if chunk.len() > max {
            let rest = chunk.split_off(max);
            self.connection().unread.push_front(rest);
        }
        let len = u32::try_from(chunk.len()).expect("a chunk is small");
        self.ask(Operation::Read, &len.to_le_bytes());
        chunk
    }

    fn at_end(&self) -> bool {
        let connection = &self.lwip.connections[self.which];
        connection.unread.is_empty() && (connection.finished || connection.end.is_some())
    }

    fn writable(&self) -> usize {
        let connection = &self.lwip.connections[self.which];
        if connection.end.is_none() { connection.room } else { 0 }
    }

    fn write(&mut self, mut octets: Bytes) -> Bytes {
        self.connection().wrote = 0;
        self.ask(Operation::Write, &octets[..octets.len().min(MAX_WRITE)]);
        let wrote = self.connection().wrote;
        if wrote == 0 {
            // It has no memory for it now; it tells when it has.
            self.connection().room = 0;
        }
        octets.split_off(wrote)
    }

    fn finish(&mut self) {
        self.ask(Operation::Finish, &[]);
    }

    fn reset(&mut self) {
        self.connection().aborted = true;
        self.ask(Operation::Abort, &[]);
    }
}
