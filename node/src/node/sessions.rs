//! Sessions: what the application makes of a connection.

use std::collections::BTreeSet;
use std::time::Duration;

use ferry_handoff::Epoch;
use ferry_stack::Instant;
use ferry_stack::tcp::{self, Flow, Handle};

use super::{Node, Owned};
use crate::io::TraceEvent;
use crate::session::{Ending, Event, Stream};

impl Node {
    /// From now on a connection is ours that was opened here; its session comes with the end of the handshake.
    pub(super) fn own(&mut self, handle: Handle, flow: Flow, now: Instant) {
        let clock = self.group_clock.at(now).millis();
        let known = self.handoffs.last_epoch(&flow).max(self.ended.epoch(&flow, now));
        let epoch = Epoch::first_of_life(clock, known);
        self.mobility.came(*flow.remote.ip(), None, now);
        let owned = Owned { epoch, offered: epoch, doubtful: false, session: None, guard: None };
        self.owned.insert(handle, owned);
        self.guard(handle, BTreeSet::new(), false, now);
        // The contact node has not placed it, if what came for it has followed an older connection.
        if known.is_some() {
            self.tell_owner(flow, epoch, now);
        }
    }

    pub(super) fn session_event(&mut self, event: tcp::Event, now: Instant) {
        match event {
            tcp::Event::Acceptable(port) => {
                while let Some(handle) = self.tcp.accept(port) {
                    self.opened(handle, now);
                }
            }
            tcp::Event::Connected(handle) => self.opened(handle, now),
            tcp::Event::Ready(handle) => self.run(handle, Event::Ready, now),
            tcp::Event::Closed(handle, flow, ending, received) => {
                self.closed(handle, &flow, ending, received, now);
            }
        }
    }

    fn opened(&mut self, handle: Handle, now: Instant) {
        let Some(owned) = self.owned.get_mut(handle) else { return };
        let Some(&tcp::Tcb { flow, .. }) = self.tcp.get(handle) else { return };
        let Some(service) = self.services.get(&flow.local.port()) else { return };
        owned.session = Some(service.open(flow.remote));
        // The client has acknowledged our answer.
        owned.doubtful = false;
        let epoch = owned.epoch;
        self.counters.accepted += 1;
        self.trace(TraceEvent::Accepted { client: flow.remote, port: flow.local.port() }, now);
        self.tell_owner(flow, epoch, now);
        self.tell_distance(handle, now);
        self.peers.load_changed(now);
        self.run(handle, Event::Opened, now);
    }

    /// Lets a session react.
    pub(super) fn run(&mut self, handle: Handle, event: Event, now: Instant) {
        let Some(owned) = self.owned.get_mut(handle) else { return };
        let Some(tcb) = self.tcp.get(handle) else { return };
        let Some(service) = self.services.get(&tcb.flow.local.port()) else { return };
        let Some(session) = &mut owned.session else { return };
        let flow = tcb.flow;
        let wake = self.tcp.with(handle, |tcb| {
            let mut stream = Stream::new(tcb, now);
            service.run(session, event, &mut stream);
            let wake = stream.wake();
            forget_unread(tcb);
            wake
        });
        if let Some(wake @ Some(_)) = wake {
            self.wakes.set(flow, wake);
        }
        self.called(handle);
    }

    /// The session of a connection that has come slept elsewhere, and has so much time left.
    pub(super) fn sleep_on(&mut self, flow: Flow, left: Option<Duration>, now: Instant) {
        self.wakes.set(flow, left.map(|left| now + left));
    }

    /// Wakes the sessions whose time has come.
    pub(super) fn wake_sessions(&mut self, now: Instant) {
        while let Some(flow) = self.wakes.due(now) {
            if let Some(handle) = self.tcp.find(&flow) {
                self.run(handle, Event::Timer, now);
            }
        }
    }

    fn closed(
        &mut self,
        handle: Handle,
        flow: &Flow,
        ending: tcp::Ending,
        received: tcp::ReceivedRange,
        now: Instant,
    ) {
        let Some(mut owned) = self.owned.remove(handle) else { return };
        let epoch = owned.epoch;
        self.wakes.set(*flow, None);
        self.discard_copies(&mut owned, *flow, now);
        self.mobility.gone(*flow.remote.ip(), now);
        self.handoffs.ended(flow, now);
        if ending == tcp::Ending::Finished {
            self.ended.remember(*flow, epoch, received, now);
        }
        self.tell_ended(*flow, epoch, now);
        if owned.session.is_some() {
            self.end_session(*flow, owned, ending, now);
            self.trace(TraceEvent::Closed { client: flow.remote, port: flow.local.port() }, now);
        }
        self.peers.load_changed(now);
    }

    /// Tells a session that its connection is gone. What it still writes goes nowhere.
    fn end_session(&self, flow: Flow, mut owned: Owned, ending: tcp::Ending, now: Instant) {
        let ending = match ending {
            tcp::Ending::Finished | tcp::Ending::Aborted => Ending::Finished,
            tcp::Ending::Reset | tcp::Ending::Refused => Ending::Reset,
            tcp::Ending::TimedOut => Ending::TimedOut,
        };
        let (Some(service), Some(session)) = (self.services.get(&flow.local.port()), &mut owned.session)
        else {
            return;
        };
        let mut gone = tcp::Tcb::closed(flow, now);
        service.run(session, Event::Closed(ending), &mut Stream::new(&mut gone, now));
    }
}

/// Both sides have finished: what the session has not read by now, it never will. It would keep the connection.
fn forget_unread(tcb: &mut tcp::Tcb) {
    if matches!(tcb.state, tcp::State::TimeWait { .. } | tcp::State::Closed(_)) {
        while tcb.readable() > 0 {
            tcb.read(usize::MAX);
        }
    }
}
