//! The data plane: one thread that runs the node's core between a TAP, the links to other nodes and two queues, each input
//! to completion.

#[cfg(test)]
mod tests;

use core::mem::MaybeUninit;
use core::num::NonZeroU64;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::JoinHandle;

use bytes::Bytes;
use ferry_handoff::{Incarnation, NodeId, Pieces};
use ferry_stack::{Frame, Instant, Offload, gso};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use tokio::sync::{oneshot, watch};
use tracing::warn;

use super::ask::Replies;
use super::audit::{Auditor, Role};
use super::clock::now;
use super::etcd::Requests;
use super::links::Links;
use super::mailbox::{Inbox, Letter};
use super::patience::Patience;
use super::tap::{self, Sent, Tap};
use super::trace::Tracer;
use crate::{Input, Node, Output, TraceEvent};

/// Frames that are read before the core's outputs are carried out: the fewer acknowledgements, the more does the
/// kernel's TCP send at once for each.
const BATCH: usize = 128;

/// Octets of such frames, so that super-segments are acknowledged while their sender can still do something.
const BATCH_OCTETS: usize = 256 << 10;

/// Letters that are taken before frames have their turn again.
const LETTERS: usize = 64;

/// Frames that may wait for a TAP without room; more are lost, as on any full queue of a network device.
const BACKLOG: usize = 1024;

/// Marks in the epoll set.
const TAP: u64 = 0;
const MAILBOX: u64 = 1;

/// Sockets of links are marked with this and everything above.
pub(super) const LINKS: u64 = 2;

/// Sockets that epoll tells of at a time; others have to wait for the next.
const EVENTS: usize = 64;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What the data plane works on.
pub(crate) struct DataPlane {
    pub(crate) node: Node,
    pub(crate) tap: Tap,
    pub(crate) inbox: Inbox,
    pub(crate) links: Links,
    pub(crate) replies: Replies,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) auditor: Option<Auditor>,
    pub(crate) busy_poll: Duration,
    /// Tells the peer links under which life to greet.
    pub(crate) life: Option<watch::Sender<Incarnation>>,
    /// To who asks etcd, if that is the directory.
    pub(crate) store: Option<Requests>,
}

/// How the data plane ended; nothing at all if it panicked.
pub(crate) type End = oneshot::Receiver<io::Result<()>>;

impl DataPlane {
    /// Starts the thread.
    pub(crate) fn start(self) -> io::Result<(JoinHandle<()>, End)> {
        let mut running = Loop::new(self)?;
        let (sender, end) = oneshot::channel();
        let thread = std::thread::Builder::new().name("ferry-data".to_owned()).spawn(move || {
            punctual();
            // Nobody listens any more if the process is ending anyway.
            let _ = sender.send(running.run());
        })?;
        Ok((thread, end))
    }
}

/// Timers of this thread fire when they are due, not when it suits the kernel (prctl(2), `PR_SET_TIMERSLACK`).
fn punctual() {
    if let Err(why) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        warn!("timers are late by up to 50 µs: {why}");
    }
}

struct Loop {
    plane: DataPlane,
    epoll: OwnedFd,
    backlog: VecDeque<Frame>,
    /// Whether the epoll set waits for room on the TAP.
    wants_room: bool,
    /// The last input.
    active: Instant,
    patience: Patience,
    /// With the answers of other nodes.
    answers: Patience,
    awaited: Awaited,
    /// Whether epoll was asked since the last inputs.
    looked: bool,
    /// Whether there may be frames on the TAP.
    frames: bool,
    /// What was lost and not yet told.
    lost: Lost,
    /// Frames that the TAP did not want.
    refused: u64,
    /// Frames that were no frames, as far as that was told.
    unusable: u64,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Anything,
    /// Because of the last input another node was told something.
    Answer,
}

/// Counts of what had no room.
#[derive(Debug, Default)]
struct Lost {
    frames: u64,
    messages: u64,
}

/// What there was to take in.
enum Taken {
    Nothing,
    Something,
    Stop,
}

impl Loop {
    fn new(plane: DataPlane) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, plane.tap.as_fd(), EventData::new_u64(TAP), EventFlags::IN)?;
        epoll::add(&epoll, plane.inbox.event(), EventData::new_u64(MAILBOX), EventFlags::IN)?;
        Ok(Self {
            plane,
            epoll,
            backlog: VecDeque::new(),
            wants_room: false,
            active: now(),
            patience: Patience::with_input(),
            answers: Patience::with_answers(),
            awaited: Awaited::Anything,
            looked: false,
            frames: true,
            lost: Lost::default(),
            refused: 0,
            unusable: 0,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut deadline = None;
        loop {
            let input = self.take_inputs()?;
            if matches!(input, Taken::Stop) {
                return Ok(());
            }
            self.send_backlog()?;
            if deadline.is_some_and(|deadline| deadline <= now()) {
                self.plane.node.handle(Input::Tick, now());
            }
            let awaited = core::mem::replace(&mut self.awaited, Awaited::Anything);
            deadline = self.carry_out()?;
            self.plane.links.flush(now());
            if matches!(input, Taken::Something) {
                self.active = now();
            } else {
                self.awaited = awaited;
            }
            // Else there is nothing more than what epoll would tell of.
            if !self.is_patient() && !self.frames && !self.plane.links.is_restless() {
                let fell_asleep = now();
                self.sleep(deadline)?;
                match self.awaited {
                    Awaited::Anything => self.patience.waited(fell_asleep.since(now())),
                    Awaited::Answer => self.answers.waited(self.active.since(now())),
                }
            }
        }
    }

    /// Whether to ask for input once more before sleeping.
    fn is_patient(&self) -> bool {
        let patience = match self.awaited {
            Awaited::Anything => self.patience,
            Awaited::Answer => self.answers,
        };
        self.active + self.plane.busy_poll.max(patience.span()) > now()
    }

    fn take_inputs(&mut self) -> io::Result<Taken> {
        let mut input = Taken::Nothing;
        for _ in 0..LETTERS {
            let Some(letter) = self.plane.inbox.take() else { break };
            input = Taken::Something;
            if !self.open(letter) {
                return Ok(Taken::Stop);
            }
        }
        self.look_around()?;
        // One look at the clock for all of them: they wait already.
        let now = now();
        let DataPlane { node, links, .. } = &mut self.plane;
        if links.take(now, |input| node.handle(input, now)) {
            input = Taken::Something;
        }
        let (mut frames, mut octets) = (0, 0);
        while self.frames && frames < BATCH && octets < BATCH_OCTETS {
            let Some(frame) = self.plane.tap.receive()? else {
                self.frames = false;
                break;
            };
            input = Taken::Something;
            (frames, octets) = (frames + 1, octets + frame.len());
            self.plane.node.handle(Input::Frame(frame), now);
        }
        Ok(input)
    }

    /// Finds out what there is to take in, unless that is known.
    fn look_around(&mut self) -> io::Result<()> {
        if self.plane.links.is_empty() {
            // To read the TAP takes no longer than to ask for it.
            self.frames = true;
        } else if !self.looked {
            self.look(Some(&AT_ONCE))?;
        }
        self.looked = false;
        Ok(())
    }

    /// `false` if the data plane is to end.
    fn open(&mut self, letter: Letter) -> bool {
        let now = now();
        let DataPlane { node, links, .. } = &mut self.plane;
        let input = match letter {
            Letter::Link(handover) => {
                let life = node.incarnation();
                links.begin(*handover, life, self.epoll.as_fd(), now, |input| node.handle(input, now));
                return true;
            }
            Letter::Ask { peer, asker } => {
                links.ask(peer, asker);
                return true;
            }
            Letter::PeerDead { peer, incarnation } => Input::PeerDead { peer, incarnation },
            Letter::Command { id, command } => Input::Command { id, command },
            Letter::Store { id, answer } => Input::Store { id, answer },
            Letter::Stop => return false,
        };
        node.handle(input, now);
        true
    }

    /// Carries out everything that the core wants, and tells when it wants to be called again.
    fn carry_out(&mut self) -> io::Result<Option<Instant>> {
        loop {
            match self.plane.node.poll(now()) {
                Output::WaitUntil(deadline) => return Ok(deadline),
                Output::Frame(frame) => self.send(frame)?,
                Output::Peer { to, bytes } => {
                    self.tell(to, bytes);
                    if !self.plane.node.has_outputs() {
                        // The other side need not wait until it is clear that nothing follows.
                        self.plane.links.flush(now());
                    }
                }
                Output::Reply { id, reply } => {
                    // There is room for every command that may be unanswered; and at the end nobody listens.
                    let _ = self.plane.replies.try_send((id, reply));
                }
                Output::Reborn { incarnation } => self.begin_anew(incarnation),
                Output::Store { id, request } => {
                    if let Some(store) = &self.plane.store {
                        // At the end nobody listens, and the core can do without an answer.
                        let _ = store.send((id, request));
                    }
                }
                Output::Trace(trace) => {
                    if let TraceEvent::Lost { connections } = &trace.event {
                        warn!(
                            "the others took this node for dead: its {connections} connections are theirs now"
                        );
                    }
                    self.audit(&trace.event);
                    if let Some(tracer) = &self.plane.tracer {
                        tracer.put(*trace);
                    }
                }
            }
        }
    }

    fn audit(&mut self, event: &TraceEvent) {
        let Some(auditor) = &mut self.plane.auditor else { return };
        match event {
            TraceEvent::Move(audit) => auditor.put(audit.clone()),
            TraceEvent::Contact { contact, former, dead, term } => {
                let (from, to) = (former.clone(), contact.clone());
                auditor.put_role(Role { from, to, term: *term, dead: *dead });
            }
            _ => {}
        }
    }

    /// The node goes on under a new life, on new links.
    fn begin_anew(&mut self, life: Incarnation) {
        self.backlog.clear();
        if let Some(links) = &self.plane.life {
            links.send_replace(life);
        }
        // Who hears of it calls under the new one.
        self.plane.links.end_life();
    }

    fn tell(&mut self, to: NodeId, message: Pieces) {
        self.awaited = Awaited::Answer;
        if !self.plane.links.tell(to, message) {
            self.lost.messages += 1;
        }
    }

    /// In the order of the core: nothing overtakes what waits already.
    fn send(&mut self, frame: Frame) -> io::Result<()> {
        if self.plane.tap.takes_offload() || frame.offload == Offload::default() {
            return self.send_whole(frame);
        }
        gso::frames(&frame, tap::ROOM, |octets| {
            if !self.backlog.is_empty() || !self.settle(self.plane.tap.send_whole(octets)?) {
                self.keep(Frame::received(Bytes::copy_from_slice(&octets[tap::ROOM..])));
            }
            Ok(())
        })
    }

    fn send_whole(&mut self, frame: Frame) -> io::Result<()> {
        if !self.backlog.is_empty() || !self.put(&frame)? {
            self.keep(frame);
        }
        Ok(())
    }

    /// For when there is room.
    fn keep(&mut self, frame: Frame) {
        if self.backlog.len() < BACKLOG {
            self.backlog.push_back(frame);
        } else {
            self.lost.frames += 1;
        }
    }

    fn send_backlog(&mut self) -> io::Result<()> {
        if !self.backlog.is_empty() && !self.plane.node.may_serve(now()) {
            // They have waited for too long: another node may be going on with what they are about.
            self.backlog.clear();
        }
        while let Some(frame) = self.backlog.pop_front() {
            if !self.put(&frame)? {
                self.backlog.push_front(frame);
                return Ok(());
            }
        }
        Ok(())
    }

    /// `false` if there is no room now.
    fn put(&mut self, frame: &Frame) -> io::Result<bool> {
        let sent = self.plane.tap.send(frame)?;
        Ok(self.settle(sent))
    }

    /// Whether a frame has gone, or never will.
    fn settle(&mut self, sent: Sent) -> bool {
        match sent {
            Sent::Done => true,
            Sent::Full => false,
            Sent::Refused(why) => {
                self.refused += 1;
                if self.refused.is_power_of_two() {
                    warn!("the TAP refuses frames, {} so far: {why}; is the device up?", self.refused);
                }
                true
            }
        }
    }

    /// Until there is an input, or the deadline has come.
    fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.want_room(!self.backlog.is_empty())?;
        self.tell_losses();
        if !self.plane.inbox.may_sleep() {
            self.plane.inbox.awake();
            return Ok(());
        }
        let deadline = deadline.into_iter().chain(self.plane.links.deadline()).min();
        let timeout = deadline.map(|deadline| timespec(deadline.until(now())));
        let woken = self.look(timeout.as_ref());
        self.plane.inbox.awake();
        woken
    }

    /// Asks epoll, and waits for so long if it has nothing to tell.
    fn look(&mut self, timeout: Option<&Timespec>) -> io::Result<()> {
        self.looked = true;
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let events = match epoll::wait(&self.epoll, &mut room, timeout) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(why) => return Err(why.into()),
        };
        for &mut epoll::Event { flags, data } in events {
            match data.u64() {
                TAP => self.frames = true,
                MAILBOX => self.plane.inbox.clear(),
                mark => self.plane.links.ready(mark, flags),
            }
        }
        Ok(())
    }

    fn want_room(&mut self, wanted: bool) -> io::Result<()> {
        if wanted != self.wants_room {
            let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, self.plane.tap.as_fd(), EventData::new_u64(TAP), flags)?;
            self.wants_room = wanted;
        }
        Ok(())
    }

    fn tell_losses(&mut self) {
        let Lost { frames, messages } = core::mem::take(&mut self.lost);
        if frames > 0 {
            warn!("{frames} frames were lost: the TAP took none for too long");
        }
        let unusable = self.plane.tap.unusable();
        if unusable > self.unusable {
            warn!("{} frames from the TAP could not be understood", unusable - self.unusable);
            self.unusable = unusable;
        }
        if messages > 0 {
            warn!("{messages} messages to other nodes were lost: their links are too slow");
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
