//! Players of a medium: each buffers so much of it, plays at its own pace, and says when it had nothing to play.

use core::net::SocketAddrV6;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::words::Words;
use crate::Result;
use crate::clock::{nanos, now_ns, pause};
use crate::error::Doing;
use crate::namespace::Namespace;

/// Octets of a second of the medium.
pub const RATE: u64 = 250_000;
/// How much faster than it is played it may come, so that a buffer fills again.
const AHEAD: u64 = 2;
/// What the kernel may hold for a player; it counts as part of the buffer.
const KERNEL: usize = 4096;
const BEAT: Duration = Duration::from_millis(1);

/// What became of a player.
#[derive(Clone, Debug)]
pub struct Played {
    /// What it buffered at most.
    pub buffer: Duration,
    /// How often it had nothing to play.
    pub underruns: usize,
    /// What it has had.
    pub words: Words,
}

/// Players at work.
#[derive(Debug)]
pub struct Players {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Played>>>,
}

struct Player {
    stream: TcpStream,
    /// Octets that it may have read and not played.
    room: u64,
    /// When it would have begun, had it never stood still. `None` while it fills its buffer.
    begun_ns: Option<u64>,
    played: u64,
    told: Played,
}

impl Players {
    /// Starts a player with each of these buffers.
    pub fn start(client: &Namespace, to: SocketAddrV6, buffers: &[Duration]) -> Result<Self> {
        let players = client
            .run(|| buffers.iter().map(|buffer| Player::connect(to, *buffer)).collect::<Result<Vec<_>>>())?;
        let stop = Arc::<AtomicBool>::default();
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("players".to_owned())
            .spawn(move || play(players, &told))
            .doing("start the players")?;
        Ok(Self { stop, thread })
    }

    /// Whether they have given up.
    pub fn failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the show.
    pub fn finish(self) -> Result<Vec<Played>> {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn play(mut players: Vec<Player>, stop: &AtomicBool) -> Result<Vec<Played>> {
    let mut last_ns = now_ns();
    while !stop.load(Ordering::Acquire) {
        pause(BEAT);
        let now = now_ns();
        for player in &mut players {
            player.beat(now, now - last_ns)?;
        }
        last_ns = now;
    }
    Ok(players.into_iter().map(|player| player.told).collect())
}

/// Octets of the medium in so much time.
fn octets(nanos: u64) -> u64 {
    u64::try_from(u128::from(nanos) * u128::from(RATE) / 1_000_000_000).unwrap_or(u64::MAX)
}

impl Player {
    fn connect(to: SocketAddrV6, buffer: Duration) -> Result<Self> {
        let doing = "connect a player";
        let (family, kind) = (AddressFamily::INET6, SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).doing(doing)?;
        // Before it connects: the window that it offers never shrinks.
        sockopt::set_socket_recv_buffer_size(&socket, KERNEL).doing(doing)?;
        rustix::net::connect(&socket, &to).doing(doing)?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(Words::request(RATE * AHEAD, u64::MAX).as_bytes()).doing("ask for a stream")?;
        stream.set_nonblocking(true).doing("read without waiting")?;
        let room = octets(nanos(buffer)).saturating_sub(KERNEL as u64).max(1);
        let told = Played { buffer, underruns: 0, words: Words::default() };
        Ok(Self { stream, room, begun_ns: None, played: 0, told })
    }

    fn beat(&mut self, now_ns: u64, late_ns: u64) -> Result<()> {
        if let Some(begun) = self.begun_ns {
            let due = octets(now_ns - begun);
            // What the kernel holds has come in time; if we were not let look, that is not the stream's fault.
            self.fill(due + octets(late_ns))?;
            if self.told.words.received() < due {
                self.told.underruns += 1;
                self.begun_ns = None;
            }
            self.played = due.min(self.told.words.received());
        }
        self.fill(self.played)?;
        if self.begun_ns.is_none() && self.told.words.received() >= self.played + self.room {
            let before = u128::from(self.played) * 1_000_000_000 / u128::from(RATE);
            self.begun_ns = Some(now_ns - u64::try_from(before).unwrap_or(now_ns).min(now_ns));
        }
        Ok(())
    }

    /// Reads what the buffer has room for once so much is played.
    fn fill(&mut self, played: u64) -> Result<()> {
        let mut chunk = [0; 16_384];
        loop {
            let room = (played + self.room).saturating_sub(self.told.words.received());
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len());
            if room == 0 {
                return Ok(());
            }
            match self.stream.read(&mut chunk[..room]) {
                Ok(0) => {
                    return Err(crate::Error::Program {
                        command: "player".into(),
                        why: "the stream ended".into(),
                    });
                }
                Ok(length) => self.told.words.see(&chunk[..length]),
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why).doing("read a stream"),
            }
        }
    }
}

/// The least of the buffers with which, and with all larger ones, nobody had nothing to play.
pub fn least_buffer(played: &[Played]) -> Option<Duration> {
    let mut sorted: Vec<_> = played.iter().collect();
    sorted.sort_by_key(|one| core::cmp::Reverse(one.buffer));
    sorted.iter().take_while(|one| one.underruns == 0).last().map(|one| one.buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_buffer_is_the_one_below_which_somebody_stood_still() {
        let played = |buffers: &[(u64, usize)]| {
            let one = |(ms, underruns): &(u64, usize)| Played {
                buffer: Duration::from_millis(*ms),
                underruns: *underruns,
                words: Words::default(),
            };
            least_buffer(&buffers.iter().map(one).collect::<Vec<_>>())
        };
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(played(&[(10, 3), (20, 0), (40, 1), (80, 0), (160, 0)]), ms(80));
        assert_eq!(played(&[(80, 0), (10, 0)]), ms(10));
        assert_eq!(played(&[(10, 0), (20, 1)]), None);
    }
}
