//! One connection in any state, and segments, calls and time in any order.

use core::time::Duration;

use bytes::Bytes;
use ferry_stack::tcp::cc::Kind;
use ferry_stack::tcp::{
    Commit, Config, Control, Flow, KeepAlive, Opening, Options, Path, Segment, Tcb, Timestamps,
};
use ferry_stack::{Instant, Seq};

use super::feed::Feed;

/// The other side's initial sequence number.
const IRS: Seq = Seq(0xffff_f000);

/// Between which ends.
pub(super) fn flow() -> Flow {
    let end = |host: u16, port| {
        std::net::SocketAddrV6::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into(), port, 0, 0)
    };
    Flow { local: end(1, 80), remote: end(2, 40_000) }
}

/// How a connection behaves.
pub(super) fn config(bits: u8) -> Config {
    let keep_alive = KeepAlive { idle: Duration::from_mins(1), interval: Duration::from_secs(5), count: 3 };
    Config {
        mss: if bits & 1 == 0 { 1000 } else { 100 },
        send_buffer: 50_000,
        receive_buffer: if bits & 2 == 0 { 20_000 } else { 300_000 },
        window_scaling: bits & 4 == 0,
        timestamps: bits & 8 == 0,
        sack: bits & 16 == 0,
        nodelay: bits & 32 == 0,
        congestion: if bits & 64 == 0 { Kind::Cubic } else { Kind::NewReno },
        keep_alive: (bits & 128 != 0).then_some(keep_alive),
        ..Config::default()
    }
}

/// What a new connection gets.
pub(super) fn opening(config: Config, iss: Seq) -> Opening {
    Opening { config: config.into(), iss, first_timestamp: u32::MAX - 500, flow_label: 1, path_mtu: 1500 }
}

struct Solo {
    tcb: Tcb,
    now: Instant,
    /// The right edge of the window that was told.
    edge: Option<Seq>,
}

/// A connection that is brought into a state, and then everything that octets can say.
pub fn states(octets: &[u8]) {
    let mut feed = Feed::new(octets);
    let (Some(bits), Some(start)) = (feed.byte(), feed.byte()) else { return };
    let mut solo = Solo::begin(config(bits), start);
    while solo.act(&mut feed).is_some() {
        solo.settle();
    }
}

impl Solo {
    /// A connection in the state that `start` names.
    fn begin(config: Config, start: u8) -> Self {
        let now = Instant::from_millis(1_000_000);
        let opening = opening(config, Seq(0x7fff_ff00));
        let mut syn = Segment::bare(IRS, None, Some(Control::Syn));
        syn.window = 30_000;
        syn.options = Options {
            mss: Some(1000),
            window_scale: Some(2),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 1, echo: 0 }),
            ..Options::default()
        };
        let tcb = match start % 9 {
            0 => Tcb::connect(flow(), &opening, now),
            _ => Tcb::accept(flow(), &syn, &opening, now),
        };
        let mut solo = Self { tcb, now, edge: None };
        solo.settle();
        if start % 9 >= 2 {
            solo.establish(start % 9);
        }
        solo
    }

    /// From SYN-RECEIVED on: ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2, CLOSE-WAIT, CLOSING, LAST-ACK, TIME-WAIT.
    fn establish(&mut self, state: u8) {
        self.gets(0, 0, None, &[]);
        if matches!(state, 5 | 7) {
            self.gets(0, 0, Some(Control::Fin), &[]);
        }
        if matches!(state, 3 | 4 | 6 | 7 | 8) {
            self.tcb.finish();
            self.settle();
        }
        if state == 6 {
            self.gets(0, u32::MAX, Some(Control::Fin), &[]);
        }
        if matches!(state, 4 | 8) {
            self.gets(0, 0, None, &[]);
        }
        if state == 8 {
            self.gets(0, 0, Some(Control::Fin), &[]);
        }
    }

    /// A segment `seq` beyond RCV.NXT that acknowledges `ack` beyond SND.NXT.
    fn gets(&mut self, seq: u32, ack: u32, control: Option<Control>, payload: &[u8]) {
        let (nxt, sent) = (self.tcb.rcv.nxt, self.tcb.snd.nxt);
        let mut segment = Segment::bare(nxt + seq, Some(sent + ack), control);
        segment.window = 30_000;
        segment.options.timestamps =
            self.tcb.timestamps.map(|ours| Timestamps { value: ours.recent, echo: 0 });
        segment.payload = Bytes::copy_from_slice(payload);
        let _ = self.tcb.receive(&segment, self.now);
        self.settle();
    }

    fn act(&mut self, feed: &mut Feed) -> Option<()> {
        let act = feed.byte()?;
        match act % 16 {
            0..=7 => self.any_segment(act, feed)?,
            8 => {
                let len = usize::from(feed.word()?);
                let _ = self.tcb.write(vec![act; len].into());
            }
            9 => drop(self.tcb.read(usize::from(feed.word()?))),
            10 => self.now += Duration::from_millis(feed.word()?.into()),
            11 => self.now = self.tcb.deadline().unwrap_or(self.now).max(self.now),
            12 => match feed.byte()? % 8 {
                0 => self.tcb.abort(),
                1 | 2 => self.tcb.close(self.now),
                3 | 4 => self.tcb.finish(),
                5 => self.tcb.unhold(),
                6 => self.tcb.hold(if act & 16 == 0 { Commit::Strict } else { Commit::Regenerate }),
                _ => self.tcb.release(self.tcb.point()),
            },
            13 => {
                let mtu = feed.word()?;
                self.tcb.packet_too_big(mtu, self.tcb.snd.una + feed.distance()?, self.now);
            }
            _ => self.hand_over(feed.word()?),
        }
        if self.tcb.deadline().is_some_and(|at| at <= self.now) {
            self.tcb.handle_timeout(self.now);
        }
        Some(())
    }

    /// The connection goes to another host, with another clock.
    fn hand_over(&mut self, clock: u16) {
        let frozen = self.tcb.clone().freeze(self.now);
        assert_eq!(frozen.check(), Ok(()));
        self.now = Instant::from_millis(10_000_000 + u64::from(clock));
        let back = frozen.clone().thaw(self.now).freeze(self.now);
        assert_eq!(back, frozen, "a move changes the connection");
        self.tcb = frozen.thaw(self.now);
        self.tcb.kick();
    }

    fn any_segment(&mut self, act: u8, feed: &mut Feed) -> Option<()> {
        let bits = feed.byte()?;
        let control = match act % 8 {
            0 => Some(Control::Fin),
            1 if bits & 4 != 0 => Some(Control::Rst),
            2 if bits & 4 != 0 => Some(Control::Syn),
            _ => None,
        };
        let seq = self.tcb.rcv.nxt + feed.distance()?;
        let ack = self.tcb.snd.una + feed.distance()?;
        let mut segment = Segment::bare(seq, (bits & 1 == 0).then_some(ack), control);
        segment.window = feed.word()?;
        segment.push = bits & 2 != 0;
        segment.payload = vec![bits; usize::from(feed.word()? % 3000)].into();
        if bits & 8 != 0 {
            segment.payload = Bytes::new();
        }
        segment.options.timestamps = match &self.tcb.timestamps {
            Some(ours) if bits & 16 == 0 => {
                Some(Timestamps { value: ours.recent.wrapping_add(feed.byte()?.into()), echo: ours.value })
            }
            _ if bits & 32 != 0 => Some(Timestamps { value: feed.long()?, echo: feed.long()? }),
            _ => None,
        };
        for block in segment.options.sack.iter_mut().take(usize::from(bits >> 6)) {
            let from = self.tcb.snd.una + feed.distance()?;
            *block = Some((from, from + feed.distance()?));
        }
        if control == Some(Control::Syn) {
            segment.options.mss = Some(feed.word()?);
            segment.options.window_scale = Some(feed.byte()?);
            segment.options.sack_permitted = bits & 8 == 0;
        }
        let _ = self.tcb.receive(&segment, self.now);
        Some(())
    }

    /// Everything that must hold after every event.
    fn settle(&mut self) {
        assert_eq!(self.tcb.check(), Ok(()), "after {:?}", self.tcb.state);
        let mut sent = 0;
        while let Some(segment) = self.tcb.poll_transmit(Path::default(), self.now) {
            sent += 1;
            assert!(sent < 10_000, "it sends for ever");
            self.judge(&segment);
            assert_eq!(self.tcb.check(), Ok(()), "after sending in {:?}", self.tcb.state);
        }
        if let Some(at) = self.tcb.deadline() {
            assert!(at.until(self.now) < Duration::from_hours(24), "a timer at {at} that will never be seen");
        }
    }

    fn judge(&mut self, segment: &Segment) {
        assert!(segment.payload.len() <= 1440, "{} octets in a segment", segment.payload.len());
        let Some(ack) = segment.ack.filter(|_| segment.control != Some(Control::Syn) && !segment.is_rst())
        else {
            self.edge = None;
            return;
        };
        let edge = ack + (usize::from(segment.window) << self.tcb.rcv.wscale);
        // RFC 7323 section 2.4: up to a unit less is what scaling does to a window.
        let least = self.edge.map(|old| old - (1_u32 << self.tcb.rcv.wscale));
        assert!(least.is_none_or(|least| least.at_or_before(edge)), "the window's right edge goes back");
        self.edge = Some(edge.later(self.edge.unwrap_or(edge)));
    }
}
