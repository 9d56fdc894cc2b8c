//! What the peer and the applications do next.

use super::conversation::{Conversation, Role, Step};
use super::differences::is_hardly_outside;
use super::segment::Bits;
use super::side::{At, Plan, later};

impl Conversation<'_> {
    /// What happens next.
    pub(super) fn draw(&mut self) -> Step {
        self.clock = self.clock.wrapping_add(1);
        if !self.open {
            let plan = self.opening();
            self.remember(&plan);
            return Step::Send(plan);
        }
        if self.rng.chance(300) {
            return self.application();
        }
        let plan = self.segment();
        self.remember(&plan);
        Step::Send(plan)
    }

    /// Takes note of what the peer has said of its stream.
    fn remember(&mut self, plan: &Plan) {
        self.old |= self.open && plan.ack.wrapping_sub(self.acked).cast_signed() < 0;
        let hardly_outside = is_hardly_outside(plan, self.offer.scale.is_some());
        self.edge |= plan.bits.ack && !plan.bits.rst && hardly_outside;
        match plan.at {
            _ if plan.bits.rst || plan.bits.syn || !plan.bits.ack => {}
            At::Edge(_) => self.lies |= self.fin.is_some() && plan.len > 0,
            At::Seq(from) => {
                let end = from.wrapping_add(plan.len);
                self.furthest = later(self.furthest, end);
                if plan.bits.fin && self.fin.is_none_or(|fin| fin != end) {
                    self.lies |= self.fin.is_some();
                    self.fin.get_or_insert(end);
                }
                self.lies |= self.fin.is_some_and(|fin| later(fin, self.furthest) != fin);
            }
        }
        if let (At::Edge(_), true) = (plan.at, plan.len > 0) {
            // Further than all that is told by number.
            self.furthest = 1 << 30;
        }
    }

    /// What the application does.
    fn application(&mut self) -> Step {
        match self.rng.index(16) {
            0..=5 => Step::Read(usize::try_from(self.rng.scaled(1..=20_000)).unwrap_or(1)),
            6..=10 if !self.finished && !self.closed => {
                Step::Write(usize::try_from(self.rng.scaled(1..=3_000)).unwrap_or(1))
            }
            11 | 12 if !self.closed => {
                self.finished = true;
                Step::Finish
            }
            13 if !self.closed => {
                self.closed = true;
                Step::Close
            }
            14 if !self.closed => {
                self.closed = true;
                Step::Abort
            }
            _ => Step::Read(20_000),
        }
    }

    /// A segment that changes nothing: everything was said before.
    fn plain(&self) -> Plan {
        Plan {
            at: At::Seq(self.sides[0].rcv_nxt),
            len: 0,
            bits: Bits::ACK,
            ack: self.acked,
            window: self.window,
            stamp: self.stamps.then_some(self.clock),
            sack: Vec::new(),
            syn: None,
        }
    }

    /// The peer's part in the handshake, mostly the right one.
    fn opening(&mut self) -> Plan {
        let plain = self.plain();
        let syn = Plan {
            at: At::Seq(0),
            bits: Bits::SYN,
            syn: Some(self.offer),
            stamp: self.offer.timestamps.then_some(self.clock),
            ..plain.clone()
        };
        let began = self.sides[0].snd_nxt > 0;
        match (self.role, began) {
            (Role::Server, false) => {
                if self.rng.chance(100) {
                    self.stray()
                } else {
                    syn
                }
            }
            (Role::Server, true) => self.third(syn),
            (Role::Client, _) => self.second(&syn),
        }
    }

    /// A segment to a port where someone listens, or to one who opens, that opens nothing.
    fn stray(&mut self) -> Plan {
        let ack = u32::try_from(self.rng.within(2..=1_000)).unwrap_or(2);
        let plain = Plan { at: At::Seq(0), ack, stamp: None, ..self.plain() };
        let bits = self.rng.pick(&[
            Bits::ACK,
            Bits::RST,
            Bits { rst: true, ..Bits::ACK },
            Bits::FIN,
            Bits { ack: false, ..Bits::FIN },
            Bits { syn: true, ..Bits::ACK },
            Bits { ack: false, ..Bits::ACK },
            Bits { rst: true, ..Bits::SYN },
        ]);
        Plan { bits, len: self.rng.pick(&[0, 0, 10]), ..plain }
    }

    /// To our server's SYN-ACK.
    fn third(&mut self, syn: Plan) -> Plan {
        let plain = Plan { at: At::Seq(1), ack: 1, ..self.plain() };
        match self.rng.index(20) {
            0 => syn,
            1 => Plan { ack: self.rng.pick(&[0, 2, 500]), ..plain },
            2 => Plan { bits: Bits::RST, at: At::Seq(self.rng.pick(&[0, 1, 2, 100])), ..plain },
            3 => Plan { bits: Bits { ack: false, ..Bits::ACK }, len: 10, ..plain },
            4 => Plan { at: At::Seq(self.rng.pick(&[0, 2, 101])), len: self.rng.pick(&[0, 100]), ..plain },
            5 => Plan { bits: Bits { syn: true, ..Bits::ACK }, at: At::Seq(0), ..syn },
            6 => {
                (self.open, self.acked, self.fin) = (true, 1, Some(1));
                Plan { bits: Bits::FIN, ..plain }
            }
            7 => {
                (self.open, self.acked, self.sent) = (true, 1, 101);
                Plan { len: 100, ..plain }
            }
            _ => {
                (self.open, self.acked) = (true, 1);
                plain
            }
        }
    }

    /// To our client's SYN.
    fn second(&mut self, syn: &Plan) -> Plan {
        let answer = Plan { bits: Bits { ack: true, ..Bits::SYN }, ack: 1, ..syn.clone() };
        match self.rng.index(20) {
            0 => Plan { ack: self.rng.pick(&[0, 2, 500]), ..answer },
            1 => Plan {
                bits: Bits { rst: true, ..Bits::ACK },
                ack: self.rng.pick(&[0, 1, 2]),
                stamp: None,
                ..self.plain()
            },
            2 => Plan { bits: Bits::RST, ..self.plain() },
            3 => Plan { ack: self.rng.pick(&[0, 1, 2]), ..self.plain() },
            _ => {
                (self.open, self.acked) = (true, 1);
                answer
            }
        }
    }

    /// What the peer sends in the middle of a connection.
    fn segment(&mut self) -> Plan {
        let plain = self.plain();
        let nxt = self.sides[0].rcv_nxt;
        let len = u32::try_from(self.rng.scaled(1..=1_200)).unwrap_or(1);
        let some = u32::try_from(self.rng.scaled(1..=3_000)).unwrap_or(1);
        let data = Plan { len, ..plain.clone() };
        let plan = match self.rng.index(40) {
            // In order; a gap is filled if there is one.
            0..=8 => data,
            // Beyond a gap.
            9..=13 => Plan { at: At::Seq(nxt.wrapping_add(some)), ..data },
            // Old, and overlapping what is old.
            14..=16 => Plan { at: At::Seq(nxt.wrapping_sub(some.min(nxt.saturating_sub(1)))), ..data },
            17..=22 => return self.acknowledgement(plain),
            23..=26 => return self.fin(data),
            27 | 28 => return self.reset(plain),
            29 | 30 => self.syn(plain),
            31 => Plan { bits: Bits { ack: false, ..plain.bits }, len: self.rng.pick(&[0, len]), ..plain },
            32 | 33 => return self.stamped(plain),
            34 | 35 => {
                // Octets inside of the windows would not be the same octets.
                let by = i32::try_from(self.rng.scaled(0..=2_000)).unwrap_or(0);
                let (by, len) = self.rng.pick(&[(0, 0), (-by, 0), (0, len), (by, 1), (by, len)]);
                Plan { at: At::Edge(by), len, ..plain }
            }
            // A keep-alive, or a probe of a shut window.
            36 => Plan { at: At::Seq(nxt.wrapping_sub(1)), len: self.rng.pick(&[0, 1]), ..plain },
            37 => self.window(plain),
            38 => Plan { bits: Bits { urg: true, ..plain.bits }, ..data },
            _ => self.strange(data),
        };
        if let (At::Seq(from), false) = (plan.at, plan.bits.rst) {
            self.sent = self.sent.max(from.wrapping_add(plan.len));
        }
        plan
    }

    fn acknowledgement(&mut self, plain: Plan) -> Plan {
        let (acked, nxt) = (self.acked, self.sides[0].snd_nxt);
        let some = u32::try_from(self.rng.scaled(1..=3_000)).unwrap_or(1);
        match self.rng.index(8) {
            0..=3 => {
                self.acked = nxt;
                Plan { ack: nxt, ..plain }
            }
            4 if nxt > acked => {
                self.acked += u32::try_from(self.rng.within(0..=u64::from(nxt - acked))).unwrap_or(0);
                Plan { ack: self.acked, ..plain }
            }
            5 => Plan { ack: nxt.wrapping_add(some), len: self.rng.pick(&[0, 7]), ..plain },
            6 => Plan {
                ack: acked.wrapping_sub(self.rng.pick(&[some, 100_000])),
                len: self.rng.pick(&[0, 7]),
                ..plain
            },
            _ => plain,
        }
    }

    fn fin(&mut self, data: Plan) -> Plan {
        let Plan { at: At::Seq(nxt), .. } = data else { return data };
        let fin = Plan { bits: Bits::FIN, ..data };
        match (self.fin, self.rng.index(4)) {
            (Some(at), 0 | 1) => Plan { at: At::Seq(at), len: 0, ..fin },
            // Behind the FIN.
            (Some(at), _) => {
                Plan { at: At::Seq(at.wrapping_add(self.rng.pick(&[0, 1, 2]))), bits: Bits::ACK, ..fin }
            }
            (None, 0) => {
                // Beyond a gap.
                let at = self.sent.max(nxt).wrapping_add(100);
                (self.fin, self.sent) = (Some(at), at);
                Plan { at: At::Seq(at), len: 0, ..fin }
            }
            (None, which) => {
                let from = self.sent.max(nxt);
                let len = if which == 1 { 0 } else { fin.len };
                (self.fin, self.sent) = (Some(from.wrapping_add(len)), from.wrapping_add(len));
                Plan { at: At::Seq(from), len, ..fin }
            }
        }
    }

    fn reset(&mut self, plain: Plan) -> Plan {
        let nxt = self.sides[0].rcv_nxt;
        let at = match self.rng.index(8) {
            0 => At::Seq(nxt),
            1..=3 => At::Seq(nxt.wrapping_add(self.rng.pick(&[1, 100, 5_000]))),
            4 => At::Seq(nxt.wrapping_sub(1)),
            5 => At::Edge(0),
            6 => At::Edge(-1),
            _ => At::Edge(self.rng.pick(&[1, 1_000])),
        };
        Plan { at, bits: Bits { rst: true, ack: self.rng.chance(500), ..Bits::ACK }, ..plain }
    }

    fn syn(&mut self, plain: Plan) -> Plan {
        let nxt = self.sides[0].rcv_nxt;
        let at =
            self.rng.pick(&[0, 0, nxt, nxt.wrapping_add(10), nxt.wrapping_sub(1), nxt.wrapping_sub(100_000)]);
        let stamp = if self.rng.chance(300) { None } else { plain.stamp };
        let bits = Bits { ack: self.rng.chance(500), ..Bits::SYN };
        Plan { at: At::Seq(at), bits, syn: Some(self.offer), stamp, ..plain }
    }

    /// Timestamps that are old, missing, or were not agreed on.
    fn stamped(&mut self, plain: Plan) -> Plan {
        let old = self.clock.wrapping_sub(self.rng.pick(&[1_000, 1 << 30, 1 << 31]));
        let stamp = if self.stamps { self.rng.pick(&[Some(old), Some(old), None]) } else { Some(self.clock) };
        let bits = self.rng.pick(&[Bits::ACK, Bits::ACK, Bits::FIN, Bits { rst: true, ..Bits::ACK }]);
        let back = self.rng.pick(&[0, 0, 1, 50]);
        let Plan { at: At::Seq(nxt), .. } = plain else { return plain };
        Plan { stamp, bits, at: At::Seq(nxt.wrapping_sub(back)), len: self.rng.pick(&[0, 30]), ..plain }
    }

    /// Says a new window.
    fn window(&mut self, plain: Plan) -> Plan {
        self.window = self.rng.pick(&[0, 20_000, 60_000]);
        self.shut |= self.window == 0;
        Plan { window: self.window, ..plain }
    }

    /// Bits that contradict each other.
    fn strange(&mut self, data: Plan) -> Plan {
        let bits = self.rng.pick(&[
            Bits { syn: true, fin: true, ..Bits::ACK },
            Bits { syn: true, rst: true, ..Bits::ACK },
            Bits { fin: true, rst: true, ..Bits::ACK },
            Bits { ack: false, ..Bits::FIN },
            Bits { ack: false, ..Bits::ACK },
            Bits { syn: true, fin: true, rst: true, ack: true, urg: true },
        ]);
        Plan { bits, len: self.rng.pick(&[0, data.len]), ..data }
    }
}
