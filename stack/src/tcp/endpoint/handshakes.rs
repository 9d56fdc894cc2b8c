//! Handshakes without memory: SYN cookies given and taken (RFC 4987 section 3.6).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::time::Duration;

use hashbrown::HashMap;

use super::{Endpoint, Handle, Refusal};
use crate::ip::Packet;
use crate::tcp::cookie::{self, LIFETIME};
use crate::tcp::isn::MapKey;
use crate::tcp::listener::{Listener, SynCookies};
use crate::tcp::open::Opening;
use crate::tcp::segment::{Flow, Segment};
use crate::tcp::tcb::Tcb;
use crate::{Instant, Seq};

/// Cookies that are remembered as used.
const MAX_SPENT: usize = 1 << 16;

/// What was counted of SYN cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieCounters {
    /// SYNs that were answered and not remembered.
    pub sent: u64,
    /// Connections that a cookie opened.
    pub accepted: u64,
    /// Cookies that came back a second time, when the connection was over.
    pub replayed: u64,
}

/// Cookies that have opened a connection: they open no second one when that is over.
#[derive(Debug)]
pub(super) struct Spent {
    known: HashMap<(Flow, Seq), (), MapKey>,
    in_turn: VecDeque<(Instant, Flow, Seq)>,
}

impl Spent {
    pub(super) fn new(key: MapKey) -> Self {
        Self { known: HashMap::with_hasher(key), in_turn: VecDeque::new() }
    }

    fn insert(&mut self, flow: Flow, irs: Seq, now: Instant) {
        let old = |(until, ..): &(Instant, Flow, Seq), len: usize| *until <= now || len >= MAX_SPENT;
        while self.in_turn.front().is_some_and(|first| old(first, self.in_turn.len())) {
            let Some((_, flow, irs)) = self.in_turn.pop_front() else { break };
            self.known.remove(&(flow, irs));
        }
        if self.known.insert((flow, irs), ()).is_none() {
            self.in_turn.push_back((now + LIFETIME, flow, irs));
        }
    }
}

impl Endpoint {
    /// How long a cookie is taken at most after it was given.
    pub const COOKIE_LIFETIME: Duration = LIFETIME;

    /// The answer to a SYN that is not remembered: the client's next segment brings back all that is needed. `None`
    /// if nobody listens there, or does so without cookies, or has too many connections to accept already.
    pub fn answer_without_memory(&mut self, flow: &Flow, syn: &Segment, now: Instant) -> Option<Packet> {
        let listener = self.listeners.get(&flow.local.port())?;
        let config = Arc::clone(&listener.config);
        if config.syn_cookies == SynCookies::Never || listener.waiting.len() >= listener.max_waiting {
            return None;
        }
        let timestamps = config.timestamps;
        let opening = self.opening(flow, config, now);
        let iss = cookie::bake(&self.secret, flow, syn, self.group_clock.at(now));
        let first_timestamp = cookie::note(syn, opening.first_timestamp);
        let mut told = syn.clone();
        if syn.options.timestamps.is_none() || !timestamps {
            (told.options.window_scale, told.options.sack_permitted) = (None, false);
            (told.ece, told.cwr) = (false, false);
        }
        let mut tcb = Tcb::accept(*flow, &told, &Opening { iss, first_timestamp, ..opening }, now);
        self.cookies.sent += 1;
        self.baked = Some(now);
        Some(tcb.send_syn(now).emit(flow, opening.flow_label, self.offload))
    }

    /// Whether a segment of an unknown flow may belong to a handshake that only a cookie of some host of the group knows
    /// of, and have overtaken the one that brings that back. The client will repeat the other one.
    pub fn may_follow_cookie(&self, flow: &Flow, segment: &Segment, now: Instant) -> bool {
        let bakes =
            |listener: &Listener| listener.config.syn_cookies != SynCookies::Never && !segment.is_syn();
        let may_be = |ack| cookie::may_be(&self.secret, flow, ack - 1, self.group_clock.at(now));
        self.listeners.get(&flow.local.port()).is_some_and(bakes) && segment.ack.is_some_and(may_be)
    }

    /// Whether such a segment is no reason for a RST: cookies were given here.
    pub fn may_follow_own_cookie(&self, flow: &Flow, segment: &Segment, now: Instant) -> bool {
        let out = self.baked.is_some_and(|baked| baked.since(now) < LIFETIME);
        out && self.may_follow_cookie(flow, segment, now)
    }

    /// Whether a segment of an unknown flow brings back a cookie that is still good.
    pub fn returns_cookie(&self, flow: &Flow, segment: &Segment, now: Instant) -> bool {
        self.syn_remembered(flow, segment, now).is_ok()
    }

    /// Whether a segment of an unknown flow brings back a cookie that has been used: its connection is over.
    pub fn returns_spent_cookie(&self, flow: &Flow, segment: &Segment, now: Instant) -> bool {
        matches!(self.syn_remembered(flow, segment, now), Err(Refusal::CookieSpent))
    }

    /// Notes that a cookie has been used, here or at another host: it opens nothing here any more.
    pub fn spend_cookie(&mut self, flow: &Flow, segment: &Segment, now: Instant) {
        self.spent.insert(*flow, segment.seq - 1, now);
    }

    /// Takes back [`Endpoint::spend_cookie`].
    pub fn unspend_cookie(&mut self, flow: &Flow, segment: &Segment) {
        self.spent.known.remove(&(*flow, segment.seq - 1));
    }

    /// Opens a connection by the cookie that a segment of an unknown flow brings back. A cookie serves once.
    pub fn open_by_cookie(&mut self, flow: Flow, segment: &Segment, now: Instant) -> Result<Handle, Refusal> {
        let syn = self.syn_remembered(&flow, segment, now).inspect_err(|refusal| {
            self.cookies.replayed += u64::from(*refusal == Refusal::CookieSpent);
        })?;
        let port = flow.local.port();
        let listener = self.listeners.get_mut(&port).ok_or(Refusal::NoListener(port))?;
        if listener.waiting.len() >= listener.max_waiting {
            return Err(Refusal::QueueFull);
        }
        listener.half_open += 1;
        let config = Arc::clone(&listener.config);
        let mut opening = self.opening(&flow, config, now);
        opening.iss = segment.ack.unwrap_or_default() - 1;
        if let Some(theirs) = segment.options.timestamps {
            // The host that answered the SYN may have a clock that is a little ahead of ours.
            opening.first_timestamp = Seq(opening.first_timestamp).later(Seq(theirs.echo)).0;
        }
        let tcb = Tcb::answered(flow, &syn, &opening, now);
        self.spend_cookie(&flow, segment, now);
        self.cookies.accepted += 1;
        let handle = self.insert(tcb, true);
        self.receive(&flow, segment, now);
        Ok(handle)
    }

    /// What was counted of SYN cookies.
    pub fn cookies(&self) -> CookieCounters {
        self.cookies
    }

    fn syn_remembered(&self, flow: &Flow, segment: &Segment, now: Instant) -> Result<Segment, Refusal> {
        if segment.is_syn() || segment.is_rst() || self.find(flow).is_some() {
            return Err(Refusal::NoCookie);
        }
        let port = flow.local.port();
        let listener = self.listeners.get(&port).ok_or(Refusal::NoListener(port))?;
        if listener.config.syn_cookies == SynCookies::Never {
            return Err(Refusal::NoCookie);
        }
        let syn = cookie::syn_of(&self.secret, flow, segment, self.group_clock.at(now));
        let syn = syn.ok_or(Refusal::NoCookie)?;
        if self.spent.known.contains_key(&(*flow, syn.seq)) { Err(Refusal::CookieSpent) } else { Ok(syn) }
    }
}
