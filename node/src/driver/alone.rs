//! A node without peers and without an operator: the data plane that ships, and nothing around it.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use super::clock;
use super::dataplane::{DataPlane, End, LINKS};
use super::links::{Links, Patience};
use super::mailbox::{Letter, Mailbox, mailbox};
use super::start::{Failed, StartError};
use super::tap::Tap;
use crate::{Node, Setup};

/// A node whose data plane runs on a thread of its own and that nobody but its clients talks to. For benchmarks, and
/// for programs that have a node in them.
#[derive(Debug)]
pub struct Alone {
    mailbox: Mailbox,
    end: End,
    /// Taken when it is ended.
    data: Option<JoinHandle<()>>,
}

impl Alone {
    /// Starts a node on the TAP `device`, which must exist and be this user's. With `busy_poll` the data plane asks for
    /// frames without sleeping until so long after the last one. The thread inherits the caller's cores.
    pub fn start(setup: Setup, device: &str, busy_poll: Duration) -> Result<Self, StartError> {
        let tap = Tap::open(device, setup.offload)?;
        // Where the device has no offloads, the driver does what they stand for.
        let node = Node::new(Setup { offload: true, ..setup }, clock::now())?;
        let (mailbox, inbox) = mailbox()?;
        // Nobody commands it, so that there is nothing to answer.
        let (replies, _) = mpsc::channel(1);
        let plane = DataPlane {
            node,
            tap,
            inbox,
            links: Links::new(Patience::default(), LINKS),
            replies,
            tracer: None,
            auditor: None,
            busy_poll,
            life: None,
            store: None,
        };
        let (data, end) = plane.start()?;
        Ok(Self { mailbox, end, data: Some(data) })
    }

    /// Ends the node at once, and says whether it was running until then.
    pub fn stop(mut self) -> Result<(), Failed> {
        self.end();
        match self.end.try_recv() {
            Ok(result) => result.map_err(Failed::Tap),
            Err(_) => Err(Failed::Panicked),
        }
    }

    fn end(&mut self) {
        self.mailbox.send(Letter::Stop);
        // A panic has told its own story.
        let _ = self.data.take().map(JoinHandle::join);
    }
}

impl Drop for Alone {
    /// The TAP is free again.
    fn drop(&mut self) {
        self.end();
    }
}
