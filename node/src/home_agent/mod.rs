//! A home agent as a daemon: `ferry home-agent`. It stands on the home link and answers there for the service address
//! on behalf of whichever node of a group has registered it (RFC 6275 section 10, RFC 4285), so that the address
//! outlives every node of the group. Like a node it runs on a TAP and needs no capability.

mod agent;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, BorrowedFd};

use ferry_mipv6::header::Lifetime;
use ferry_mipv6::home_agent::{Group, Now, Timestamp};
use ferry_stack::{Offload, gso};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use self::agent::{Agent, Counters, Setup};
use crate::config::{FileError, HomeAgentConfig, read_secret};
use crate::daemon::{ListenError, Listener, timespec};
use crate::driver::{Sent, TAP_ROOM, Tap, TapError, mac_of, now, wall};

/// Frames in a row before the others have their turn.
const BATCH: usize = 64;

/// How a home agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its own address.
    pub address: Ipv6Addr,
    /// What is registered.
    pub homes: Vec<Home>,
    /// What has happened so far.
    pub counters: Counters,
}

/// A home address that is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The address.
    pub address: Ipv6Addr,
    /// Where it is: the care-of address of the contact node.
    pub care_of: Ipv6Addr,
    /// How long that holds.
    pub seconds_left: u64,
    /// The sequence number of the last Binding Update.
    pub sequence: u16,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The TAP cannot be used.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A key cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nobody could ask it anything.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    agent: Agent,
    tap: Tap,
    control: Listener,
}

impl Daemon {
    /// Attaches to the TAP, and is ready for registrations.
    pub fn start(config: &HomeAgentConfig) -> Result<Self, Failed> {
        let tap = Tap::open(&config.tap.device, true)?;
        let control = Listener::open(&config.control)?;
        Ok(Self { agent: Agent::new(setup(config)?), tap, control })
    }

    /// Runs until `end` becomes readable.
    pub fn run(&mut self, end: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let at = now();
            self.agent.handle_timeout(at);
            self.send_all()?;
            let wait = self.agent.deadline().map(|deadline| timespec(deadline.until(at)));
            if self.wait(end, wait)? {
                return Ok(());
            }
            self.hear_all()?;
            self.control.answer(|| self.agent.status(now()));
        }
    }

    /// Waits until there is something to do; whether that is to end.
    fn wait(&self, end: BorrowedFd<'_>, wait: Option<Timespec>) -> io::Result<bool> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = [readable(end), readable(self.tap.as_fd()), readable(self.control.as_fd())];
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(why) => Err(why.into()),
        }
    }

    fn hear_all(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            let Some(frame) = self.tap.receive()? else { break };
            self.agent.receive(frame, Now { monotonic: now(), wall: Timestamp::from_unix(wall()) });
            self.send_all()?;
        }
        Ok(())
    }

    fn send_all(&mut self) -> io::Result<()> {
        while let Some(frame) = self.agent.poll_transmit() {
            if self.tap.takes_offload() || frame.offload == Offload::default() {
                settle(self.tap.send(&frame)?);
            } else {
                gso::frames(&frame, TAP_ROOM, |octets| self.tap.send_whole(octets).map(settle))?;
            }
        }
        Ok(())
    }
}

/// What the TAP does not take now is lost, as on any link.
fn settle(sent: Sent) {
    if let Sent::Refused(why) = sent {
        tracing::debug!("the TAP refuses a frame: {why}");
    }
}

fn setup(config: &HomeAgentConfig) -> Result<Setup, FileError> {
    let mut groups = BTreeMap::<u32, Group>::new();
    for home in &config.homes {
        let key = read_secret(&home.key_file)?.to_vec();
        groups.insert(home.spi, Group { key, homes: [home.service_address].into() });
    }
    Ok(Setup {
        mac: mac_of(config.tap.address.address),
        address: config.tap.address,
        gateway: config.tap.gateway,
        mtu: config.tap.mtu,
        groups,
        max_lifetime: Lifetime::at_most(config.max_lifetime),
    })
}
