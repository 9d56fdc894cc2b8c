//! SYN cookies in a group (RFC 4987 section 3.6): one node gives them, any node takes them.

use ferry_handoff::{Message, NodeId};
use ferry_stack::Instant;
use ferry_stack::ip::Datagram;
use ferry_stack::tcp::{Endpoint, Flow, Segment};

use super::Node;

impl Node {
    /// Answers a SYN that is not remembered; drops it if that is not wanted.
    pub(super) fn answer_without_memory(&mut self, flow: &Flow, syn: &Segment, now: Instant) {
        match self.tcp.answer_without_memory(flow, syn, now) {
            Some(answer) => self.send_home(answer, now),
            // The client will try again.
            None => self.counters.dropped += 1,
        }
    }

    /// A segment of an unknown connection that brings back a cookie opens it, where it is placed. Whether it did.
    pub(super) fn place_by_cookie(
        &mut self,
        flow: Flow,
        from: Option<NodeId>,
        segment: &Segment,
        datagram: &Datagram,
        now: Instant,
    ) -> bool {
        if !self.tcp.returns_cookie(&flow, segment, now) {
            return false;
        }
        // It was placed here.
        if let Some(from) = from.filter(|_| !self.is_contact()) {
            if self.draining {
                // The contact node knows that, and places it anew. Another has followed an older connection.
                if from != self.contact {
                    self.tell(from, &Message::NotMine { flow });
                }
                self.counters.dropped += 1;
                return true;
            }
            return self.open_by_cookie(flow, segment, now);
        }
        // A former life may have sent the client on to a node that owns the connection now: the others know.
        if self.contact_since.since(now) <= Endpoint::COOKIE_LIFETIME || !self.has_room_for_places() {
            return false;
        }
        match self.choose(&flow, now) {
            None if !self.may_own(self.id, &flow) => {
                self.counters.dropped += 1;
                true
            }
            None => self.open_by_cookie(flow, segment, now),
            Some(to) if self.has_had(&flow) => {
                let opened = self.open_by_cookie(flow, segment, now);
                self.give_now(flow, to, now);
                opened
            }
            Some(to) => {
                self.tcp.spend_cookie(&flow, segment, now);
                self.place_at(flow, to, now);
                self.forward(datagram.clone(), to, now);
                true
            }
        }
    }

    /// Nobody owns the connection of a segment: it opens one by a cookie, or is refused, unless it may have overtaken
    /// the one that brings the cookie back.
    pub(super) fn open_or_refuse(&mut self, flow: &Flow, segment: &Segment, now: Instant) {
        if !self.draining && self.may_own(self.id, flow) && self.open_by_cookie(*flow, segment, now) {
            return;
        }
        if self.tcp.may_follow_own_cookie(flow, segment, now)
            && !self.tcp.returns_spent_cookie(flow, segment, now)
        {
            self.counters.dropped += 1;
        } else {
            self.reset(flow, segment, now);
        }
    }

    fn open_by_cookie(&mut self, flow: Flow, segment: &Segment, now: Instant) -> bool {
        let opened = self.tcp.open_by_cookie(flow, segment, now);
        if let Ok(handle) = opened {
            self.own(handle, flow, now);
        }
        opened.is_ok()
    }

    /// The first segments of a connection that another node is to open pass here: what opens it there must not open
    /// it once more when it is over.
    pub(super) fn spend_cookie(&mut self, flow: &Flow, datagram: &Datagram, now: Instant) {
        if let Ok((_, segment)) = Segment::parse(datagram)
            && self.tcp.returns_cookie(flow, &segment, now)
        {
            self.tcp.spend_cookie(flow, &segment, now);
        }
    }
}
