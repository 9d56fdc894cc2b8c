//! How often the client's retransmission timer fires while its loaded connection moves: ours, which carries along what is
//! in flight, and one of the kernel's that its repair mode moves, as CRIU does it: what comes meanwhile is lost.

use core::net::SocketAddrV6;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};

use super::{Means, broken};
use crate::Result;
use crate::clients::Upload;
use crate::clock::{nanos, now_ns, pause, timespec};
use crate::demo::{Options, Stage};
use crate::error::Doing;
use crate::link::{Filter, Link, Profile};
use crate::netstat::Counts;
use crate::nodes;
use crate::report::{Bar, Row};
use crate::sys::repair;
use crate::world::World;

const HANDOFFS: usize = 1000;
/// Moves by repair mode: each may cost the client up to a second.
const REPAIRS: usize = 100;
const EACH: Duration = Duration::from_millis(10);
const EACH_REPAIR: Duration = Duration::from_millis(50);
const STREAM: u64 = 64 << 20;
/// Of the kernel's stream: it lasts until enough moves are done.
const LONG_STREAM: u64 = 1 << 30;
const KERNEL_ECHO: u16 = 7007;
/// A queue in which nothing is lost.
const LINK: Profile = Profile { queue_bytes: 16 << 20, ..Profile::GOOD };
/// Until the link's thread has seen that nothing passes any more.
const SHUT: Duration = Duration::from_micros(300);

/// The only row.
pub(super) fn row(means: Means<'_>) -> Result<Row> {
    let ours = ours(means.ferry, means.scale.count(HANDOFFS))?;
    let repairs = means.scale.count(REPAIRS);
    let (client, server) = by_repair(repairs)?;
    #[allow(clippy::cast_precision_loss)] // Counts of a run.
    let (ours_count, scaled) =
        (ours.timeouts as f64, client.timeouts as f64 * HANDOFFS as f64 / repairs as f64);
    let bar = Some(Bar::AtMost(0.0)).filter(|_| !means.scale.quick);
    let row = Row::new("client-rto", "times", &[ours_count], None, bar);
    let mut row = row.ok_or_else(|| broken("there are no figures"))?;
    row.peer = Some(scaled);
    row.peer_is = Some(format!(
        "{repairs} TCP_REPAIR moves, scaled to {HANDOFFS}; tail loss probes {} : {}, segments sent again {} : {}; \
         at the repaired end {} timeouts, {} probes",
        ours.loss_probes,
        client.loss_probes,
        ours.retransmitted,
        client.retransmitted,
        server.timeouts,
        server.loss_probes
    ));
    Ok(row)
}

/// What the client's kernel counts while streams through `echo` move so often.
fn ours(ferry: &Path, handoffs: usize) -> Result<Counts> {
    let options = Options {
        handoffs,
        interval: EACH,
        seed: 1,
        file_bytes: 1 << 20,
        echo_bytes: STREAM,
        out: None,
        ferry: ferry.to_owned(),
        link: LINK,
        group: nodes::Options::default(),
        aware: false,
    };
    let mut stage = Stage::set("client-rto", &options, None)?;
    let before = Counts::of(&stage.world.client)?;
    let mut seeds = 1..;
    while stage.driver.moved() < handoffs {
        stage.upload(STREAM, seeds.next().unwrap_or(1))?;
    }
    let counts = Counts::of(&stage.world.client)?.since(before);
    match stage.strike().problems.first() {
        Some(problem) => Err(broken(problem)),
        None => Ok(counts),
    }
}

/// What both kernels count while a stream through the kernel's own echo moves so often: the client's, the server's.
fn by_repair(moves: usize) -> Result<(Counts, Counts)> {
    let world = World::build(LINK)?;
    let host = &world.hosts[0];
    let at = SocketAddrV6::new(host.link_address, KERNEL_ECHO, 0, 0);
    let listener = host.namespace.run(|| TcpListener::bind(at).doing("listen"))?;
    let counts = || Ok([Counts::of(&world.client)?, Counts::of(&host.namespace)?]);
    let before = counts()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let mut echo = Echo { link: &world.link, left: moves, pending: Vec::new() };
            host.namespace.run(|| echo.serve(&listener, &stop))
        });
        let result = Upload::start(&world.client, at, LONG_STREAM, 1);
        let upload = result.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        while !serving.is_finished() && !upload.ended() {
            pause(EACH);
        }
        let served = serving.join().map_err(|_| broken("the kernel's echo panicked"))?;
        // It was not served to its end: enough was seen.
        drop(upload.finish());
        served
    })?;
    let after = counts()?;
    Ok((after[0].since(before[0]), after[1].since(before[1])))
}

/// An echo on the kernel's sockets that moves its own connection.
struct Echo<'a> {
    link: &'a Link,
    /// Moves to be done.
    left: usize,
    /// Read, and not written.
    pending: Vec<u8>,
}

impl Echo<'_> {
    /// Serves one client until all moves are done.
    fn serve(&mut self, listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
        let mut stream = listener.accept().doing("accept")?.0;
        stream.set_nonblocking(true).doing("do not block")?;
        let mut due = now_ns() + nanos(EACH_REPAIR);
        while self.left > 0 && !stop.load(Ordering::Relaxed) {
            if now_ns() >= due {
                stream = self.hand_over(stream)?;
                due = now_ns() + nanos(EACH_REPAIR);
            }
            self.echo(&mut stream)?;
        }
        stream.shutdown(Shutdown::Both).doing("end")
    }

    fn echo(&mut self, stream: &mut TcpStream) -> Result<()> {
        let mut octets = vec![0; 1 << 16];
        let mut moved = false;
        if self.pending.is_empty() {
            match stream.read(&mut octets) {
                Ok(0) => return Err(broken("the client ended too early")),
                Ok(length) => self.pending.extend_from_slice(&octets[..length]),
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                Err(why) => return Err(why).doing("read at the kernel's echo"),
            }
        }
        if !self.pending.is_empty() {
            match stream.write(&self.pending) {
                Ok(length) => {
                    self.pending.drain(..length);
                    moved = true;
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                Err(why) => return Err(why).doing("write at the kernel's echo"),
            }
        }
        if !moved {
            let wanted = if self.pending.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            // An error only means to look again.
            let _ = poll(&mut [PollFd::new(stream, wanted)], Some(&timespec(Duration::from_millis(1))));
        }
        Ok(())
    }

    /// What the client sends while there is no socket would be answered by a RST: it is dropped, as CRIU does it.
    fn hand_over(&mut self, stream: TcpStream) -> Result<TcpStream> {
        self.link.set_filter_from(0, Filter::Everything);
        pause(SHUT);
        let frozen = repair::freeze(stream).doing("freeze a connection of the kernel's")?;
        let stream = repair::thaw(&frozen).doing("thaw a connection of the kernel's")?;
        self.link.set_filter_from(0, Filter::None);
        stream.set_nonblocking(true).doing("do not block")?;
        self.left -= 1;
        Ok(stream)
    }
}
