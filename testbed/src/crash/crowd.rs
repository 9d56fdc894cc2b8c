//! Many clients of the service `stream` at once, on one thread.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::event::epoll;

use super::words::Words;
use crate::clock::{nanos, now_ns, timespec};
use crate::error::Doing;
use crate::namespace::Namespace;
use crate::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(20);
/// So long at most before it is looked whether the time is over.
const BEAT: Duration = Duration::from_millis(5);

/// Clients whose streams run.
#[derive(Debug)]
pub struct Crowd {
    members: Vec<Member>,
    epoll: OwnedFd,
}

/// One client.
#[derive(Debug)]
pub struct Member {
    stream: TcpStream,
    /// What it has had.
    pub words: Words,
    /// When something came, as far as it was written down.
    pub arrivals: Vec<u64>,
    period_ns: u64,
    ended: bool,
}

impl Crowd {
    /// Lets `count` clients connect and ask for octets at the rate that `rate` names for each.
    pub fn gather(
        client: &Namespace,
        to: SocketAddrV6,
        count: usize,
        rate: impl Fn(usize) -> u64 + Sync,
    ) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).doing("make an epoll")?;
        let connect = |nth| Member::connect(to, rate(nth));
        let members = client.run(|| (0..count).map(connect).collect::<Result<Vec<_>>>())?;
        for (nth, member) in (0..).zip(&members) {
            let data = epoll::EventData::new_u64(nth);
            epoll::add(&epoll, &member.stream, data, epoll::EventFlags::IN).doing("watch a client")?;
        }
        Ok(Self { members, epoll })
    }

    /// All of them.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Reads what comes, for so long, or until `done` says so. With `record`, writes down when.
    pub fn read(
        &mut self,
        span: Duration,
        record: bool,
        mut done: impl FnMut(&[Member]) -> bool,
    ) -> Result<()> {
        let until = now_ns() + nanos(span);
        let mut events = Vec::with_capacity(1024);
        while now_ns() < until && !done(&self.members) {
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&self.epoll, spare, Some(&timespec(BEAT))).doing("wait for clients")?;
            let now = now_ns();
            for event in &events {
                let nth = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                if let Some(member) = self.members.get_mut(nth) {
                    member.read(now, record)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until every client has had something more; tells how long that took.
    pub fn await_all(&mut self, within: Duration) -> Result<Duration> {
        let (begun, before): (u64, Vec<u64>) =
            (now_ns(), self.members.iter().map(|member| member.words.received()).collect());
        let moves = |members: &[Member]| {
            members.iter().zip(&before).all(|(member, before)| member.words.received() > *before)
        };
        self.read(within, false, moves)?;
        if !moves(&self.members) {
            return Err(Error::Late { what: "a stream".to_owned(), within_s: within.as_secs() });
        }
        Ok(Duration::from_nanos(now_ns() - begun))
    }

    /// How much longer than the time between two pieces each client that has `dense` pieces waited for the one that came
    /// next after `at_ns`, in milliseconds.
    pub fn gaps_ms(&self, at_ns: u64, dense: Duration) -> Vec<f64> {
        let dense = self.members.iter().filter(|member| member.period_ns <= nanos(dense));
        dense.map(|member| member.gap_ms(at_ns)).collect()
    }

    /// Octets that are missing, and that came twice.
    pub fn wrong(&self) -> (u64, u64) {
        let words = || self.members.iter().map(|member| &member.words);
        (words().map(|words| words.lost).sum(), words().map(|words| words.duplicated).sum())
    }
}

impl Member {
    fn connect(to: SocketAddrV6, rate: u64) -> Result<Self> {
        let mut stream =
            TcpStream::connect_timeout(&to.into(), PATIENCE).doing(format!("connect to {to}"))?;
        stream.write_all(Words::request(rate, u64::MAX).as_bytes()).doing("ask for a stream")?;
        stream.set_nonblocking(true).doing("read without waiting")?;
        // As the service cuts it: no less than one word at a time, and no oftener than every 10 ms.
        let period_ns = (8_000_000_000 / rate).max(10_000_000);
        Ok(Self { stream, words: Words::default(), arrivals: Vec::new(), period_ns, ended: false })
    }

    fn read(&mut self, now_ns: u64, record: bool) -> Result<()> {
        let mut octets = [0; 4096];
        loop {
            match self.stream.read(&mut octets) {
                Ok(0) if self.ended => return Ok(()),
                Ok(0) => {
                    return Err(Error::Program { command: "stream".into(), why: "ended too early".into() });
                }
                Ok(length) => {
                    self.words.see(&octets[..length]);
                    if record {
                        self.arrivals.push(now_ns);
                    }
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why).doing("read a stream"),
            }
        }
    }

    /// Infinite if nothing came any more.
    fn gap_ms(&self, at_ns: u64) -> f64 {
        let next = self.arrivals.partition_point(|at| *at <= at_ns);
        // What was on its way, or in the client's host, still comes; the silence is what follows.
        let until = at_ns + 2_000_000_000;
        let first = next.saturating_sub(1);
        let window = self.arrivals[first..].iter().take_while(|at| **at <= until);
        let window: Vec<u64> = window.copied().collect();
        if window.len() < 2 {
            return f64::INFINITY;
        }
        let longest = window.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u64::MAX);
        #[allow(clippy::cast_precision_loss)] // Nanoseconds of a gap.
        let gap = longest.saturating_sub(self.period_ns) as f64 * 1e-6;
        gap
    }
}
