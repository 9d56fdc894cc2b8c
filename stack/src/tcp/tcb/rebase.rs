//! How a control block travels: every point in time in it is carried over to another clock.

use alloc::boxed::Box;
use core::time::Duration;

use super::{Challenges, Floor, Newest, Rack, SendSpace, Sent, Tcb, Timers, TimestampState, Undo};
use crate::Instant;

/// How points in time are carried over to another clock.
pub trait Rebase<A, B> {
    /// A deadline.
    fn ahead(&self, at: A) -> B;
    /// A moment that has passed.
    fn behind(&self, at: A) -> B;
}

/// From this host's clock to time left and time passed, seen from the moment it holds.
#[derive(Clone, Copy, Debug)]
pub struct Leaving(pub Instant);

impl Rebase<Instant, Duration> for Leaving {
    fn ahead(&self, at: Instant) -> Duration {
        at.until(self.0)
    }

    fn behind(&self, at: Instant) -> Duration {
        at.since(self.0)
    }
}

/// From time left and time passed to this host's clock, seen from the moment it holds.
#[derive(Clone, Copy, Debug)]
pub struct Arriving(pub Instant);

impl Rebase<Duration, Instant> for Arriving {
    fn ahead(&self, left: Duration) -> Instant {
        self.0 + left
    }

    fn behind(&self, passed: Duration) -> Instant {
        self.0.earlier_by(passed)
    }
}

impl Tcb<Instant> {
    /// Takes the running connection and stops its clocks. What comes out can travel.
    pub fn freeze(mut self, now: Instant) -> Tcb<Duration> {
        if let Some(timestamps) = &mut self.timestamps {
            timestamps.anchor(now);
        }
        self.map_time(&Leaving(now))
    }

    /// What would come out now, while the connection runs on.
    pub fn frozen_copy(&self, now: Instant) -> Box<Tcb<Duration>> {
        Box::new(self.clone().freeze(now))
    }
}

impl Tcb<Duration> {
    /// Starts the clocks again, those of the host that the connection has come to.
    pub fn thaw(self, now: Instant) -> Tcb<Instant> {
        self.map_time(&Arriving(now))
    }
}

impl<At> Tcb<At> {
    /// The same connection on another clock. Names every field: a new one does not compile until somebody has
    /// decided how it travels. All are carried; points in time are rebased.
    #[rustfmt::skip]
    pub fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Tcb<B> {
        let Self {
            flow, flow_label, config, state, snd, rcv, timestamps, sack, ecn, rtt, congestion, recovery, undo, rack,
            timers, pending, probes, last_heard, challenges: Challenges { since, sent }, held, recovered,
        } = self;
        Tcb {
            flow,
            flow_label,
            config,
            state: state.map_time(clock),
            snd: snd.map_time(clock),
            rcv,
            timestamps: timestamps.map(|timestamps| timestamps.map_time(clock)),
            sack,
            ecn,
            rtt,
            congestion: congestion.map_time(clock),
            recovery,
            undo: undo.map(|undo| Box::new(undo.map_time(clock))),
            rack: rack.map_time(clock),
            timers: timers.map_time(clock),
            pending,
            probes,
            last_heard: clock.behind(last_heard),
            challenges: Challenges { since: clock.behind(since), sent },
            held,
            recovered: recovered.map(|recovered| Box::new(recovered.map_time(clock))),
        }
    }
}

impl<At> SendSpace<At> {
    #[rustfmt::skip]
    fn map_time<B>(self, clock: &impl Rebase<At, B>) -> SendSpace<B> {
        let Self {
            iss, una, nxt, wnd, wl1, wl2, max_wnd, wscale, mss, path_mtu, search, queue, fin, crossed, sent, in_flight, sacked,
            push, small, last, limited, most_used, used_until, acked_total, retransmitted, timeouts, recover, kicked,
            path_since,
        } = self;
        let sent = sent
            .into_iter()
            .map(|Sent { seq, len, at, retransmissions, mark }| {
                Sent { seq, len, at: clock.behind(at), retransmissions, mark }
            })
            .collect();
        SendSpace {
            iss, una, nxt, wnd, wl1, wl2, max_wnd, wscale, mss, path_mtu,
            search: search.map(|search| Box::new(search.map_time(clock))),
            queue, fin, crossed, sent, in_flight, sacked, push, small, last: clock.behind(last), limited, most_used, used_until,
            acked_total, retransmitted, timeouts, recover,
            kicked: kicked.map(|at| clock.behind(at)),
            path_since: path_since.map(|at| clock.behind(at)),
        }
    }
}

impl TimestampState<Instant> {
    /// Counts on from here. What has passed of a millisecond counts too: a connection may move many times in each.
    fn anchor(&mut self, now: Instant) {
        let passed = self.at.since(now);
        self.value = self.value_at(now);
        self.at = now.earlier_by(Duration::from_nanos(u64::from(passed.subsec_nanos() % 1_000_000)));
    }
}

impl<At> TimestampState<At> {
    fn map_time<B>(self, clock: &impl Rebase<At, B>) -> TimestampState<B> {
        let Self { value, at, recent, recent_at } = self;
        TimestampState { value, at: clock.behind(at), recent, recent_at: clock.behind(recent_at) }
    }
}

impl<At> Undo<At> {
    fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Undo<B> {
        let Self { since, first, unreported, congestion } = self;
        Undo { since, first, unreported, congestion: congestion.map_time(clock) }
    }
}

impl<At> Rack<At> {
    fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Rack<B> {
        let Self { newest, fack, reordering, quarters, grown, persist, floor, probe } = self;
        let floor = Floor { since: clock.behind(floor.since), next: floor.next };
        let newest = newest.map(|Newest { at, end, rtt }| Newest { at: clock.behind(at), end, rtt });
        Rack { newest, fack, reordering, quarters, grown, persist, floor, probe }
    }
}

impl<At> Timers<At> {
    fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Timers<B> {
        let Self { rto, persist, delayed_ack, keep_alive, reorder, tail_probe, user } = self;
        let ahead = |timer: Option<At>| timer.map(|at| clock.ahead(at));
        Timers {
            rto: ahead(rto),
            persist: ahead(persist),
            delayed_ack: ahead(delayed_ack),
            keep_alive: ahead(keep_alive),
            reorder: ahead(reorder),
            tail_probe: ahead(tail_probe),
            user: ahead(user),
        }
    }
}
