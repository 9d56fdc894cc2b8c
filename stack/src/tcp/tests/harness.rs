//! One control block and a hand-made peer. All sequence numbers in the tests count from the two ISNs, so that the
//! same test runs across the wrap.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::SocketAddrV6;
use core::time::Duration;

use bytes::Bytes;

use crate::tcp::{Config, Control, Flow, Opening, Options, Path, Reason, Segment, State, Tcb, Timestamps};
use crate::{Instant, Seq};

pub(super) const MS: Duration = Duration::from_millis(1);
/// Octets in a full segment of [`plain`].
pub(super) const MSS: usize = 1000;
/// The window that the peer offers.
pub(super) const WINDOW: u16 = 60_000;

/// A millisecond less.
pub(super) fn just_before(span: Duration) -> Duration {
    span.checked_sub(MS).unwrap()
}

/// Without options that change segments: tests switch on what they are about.
pub(super) fn plain() -> Config {
    Config {
        mss: 1000,
        window_scaling: false,
        timestamps: false,
        sack: false,
        receive_buffer: 50_000,
        send_buffer: 1 << 20,
        ..Config::default()
    }
}

pub(super) fn flow() -> Flow {
    let end = |host: u16, port| SocketAddrV6::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into(), port, 0, 0);
    Flow { local: end(1, 80), remote: end(2, 40_000) }
}

pub(super) fn reversed(flow: Flow) -> Flow {
    Flow { local: flow.remote, remote: flow.local }
}

pub(super) fn opening(config: Config, iss: Seq) -> Opening {
    Opening { config: config.into(), iss, first_timestamp: 7_000, flow_label: 0x12345, path_mtu: 1500 }
}

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) config: Config,
    pub(super) iss: u32,
    pub(super) irs: u32,
}

impl From<Config> for Start {
    fn from(config: Config) -> Self {
        Self { config, iss: 1000, irs: 5000 }
    }
}

/// A control block, its clock, and where both sides' sequence numbers begin.
#[derive(Clone, Debug)]
pub(super) struct Solo {
    pub(super) tcb: Tcb,
    pub(super) now: Instant,
    pub(super) path: Path,
    pub(super) iss: Seq,
    pub(super) irs: Seq,
}

impl Solo {
    pub(super) fn with(config: Config, iss: u32, irs: u32) -> Self {
        let now = Instant::from_millis(1_000_000);
        let tcb = Tcb::connect(flow(), &opening(config, Seq(iss)), now);
        Self { tcb, now, path: Path::default(), iss: Seq(iss), irs: Seq(irs) }
    }

    pub(super) fn syn_sent(start: impl Into<Start>) -> Self {
        let Start { config, iss, irs } = start.into();
        let mut solo = Self::with(config, iss, irs);
        assert_eq!(solo.sent(), ["SYN 0"]);
        solo
    }

    pub(super) fn syn_received(start: impl Into<Start>) -> Self {
        let Start { config, iss, irs } = start.into();
        let mut solo = Self::with(config, iss, irs);
        let syn = solo.syn(config.mss);
        solo.tcb = Tcb::accept(flow(), &syn, &opening(config, Seq(iss)), solo.now);
        assert_eq!(solo.sent(), ["SYN 0 ack 1"]);
        solo
    }

    /// The peer's SYN, with every option that the configuration would accept.
    pub(super) fn syn(&self, mss: u16) -> Segment {
        let config = &self.tcb.config;
        let mut syn = Segment::bare(self.irs, None, Some(Control::Syn));
        syn.window = WINDOW;
        syn.options = Options {
            mss: Some(mss),
            window_scale: config.window_scaling.then_some(3),
            sack_permitted: config.sack,
            timestamps: config.timestamps.then_some(Timestamps { value: 100, echo: 0 }),
            ..Options::default()
        };
        syn
    }

    pub(super) fn established(start: impl Into<Start>) -> Self {
        let mut solo = Self::syn_received(start);
        solo.now += 10 * MS;
        solo.gets(solo.ack(1, 1)).unwrap();
        assert_eq!(solo.sent(), [""; 0]);
        assert_eq!(solo.tcb.state, State::Established);
        solo
    }

    pub(super) fn fin_wait_1(start: impl Into<Start>) -> Self {
        let mut solo = Self::established(start);
        solo.tcb.finish();
        assert_eq!(solo.sent(), ["FIN 1 ack 1"]);
        solo
    }

    pub(super) fn fin_wait_2(start: impl Into<Start>) -> Self {
        let mut solo = Self::fin_wait_1(start);
        solo.gets(solo.ack(1, 2)).unwrap();
        assert_eq!(solo.sent(), [""; 0]);
        solo
    }

    pub(super) fn close_wait(start: impl Into<Start>) -> Self {
        let mut solo = Self::established(start);
        solo.gets(solo.ack(1, 1).fin()).unwrap();
        assert_eq!(solo.sent(), ["1 ack 2"]);
        solo
    }

    pub(super) fn closing(start: impl Into<Start>) -> Self {
        let mut solo = Self::fin_wait_1(start);
        solo.gets(solo.ack(1, 1).fin()).unwrap();
        assert_eq!(solo.sent(), ["2 ack 2"]);
        solo
    }

    pub(super) fn last_ack(start: impl Into<Start>) -> Self {
        let mut solo = Self::close_wait(start);
        solo.tcb.finish();
        assert_eq!(solo.sent(), ["FIN 1 ack 2"]);
        solo
    }

    pub(super) fn time_wait(start: impl Into<Start>) -> Self {
        let mut solo = Self::fin_wait_2(start);
        solo.gets(solo.ack(1, 2).fin()).unwrap();
        assert_eq!(solo.sent(), ["2 ack 2"]);
        solo
    }

    /// A segment of the peer without octets: `seq` and `ack` count from the ISNs.
    pub(super) fn ack(&self, seq: u32, ack: u32) -> Segment {
        let mut segment = Segment::bare(self.irs + seq, Some(self.iss + ack), None);
        segment.window = WINDOW;
        if let Some(ours) = &self.tcb.timestamps {
            let value = ours.recent.wrapping_add(1);
            segment.options.timestamps = Some(Timestamps { value, echo: ours.value_at(self.now) });
        }
        segment
    }

    #[expect(clippy::needless_pass_by_value, reason = "segments are made where they are given")]
    pub(super) fn gets(&mut self, segment: Segment) -> Result<(), Reason> {
        let result = self.tcb.receive(&segment, self.now);
        self.tcb.check().unwrap();
        result
    }

    pub(super) fn poll(&mut self) -> Option<Segment> {
        let segment = self.tcb.poll_transmit(self.path, self.now);
        self.tcb.check().unwrap();
        segment
    }

    /// Everything that is to be sent now.
    pub(super) fn segments(&mut self) -> Vec<Segment> {
        let segments: Vec<_> = core::iter::from_fn(|| self.poll()).take(10_000).collect();
        assert!(segments.len() < 10_000, "it sends for ever");
        segments
    }

    /// The same, in words.
    pub(super) fn sent(&mut self) -> Vec<String> {
        self.segments().iter().map(|segment| self.show(segment)).collect()
    }

    /// Lets time pass with all that comes due in between; what is sent meanwhile, in words.
    pub(super) fn wait(&mut self, span: Duration) -> Vec<String> {
        let end = self.now + span;
        let mut sent = self.sent();
        while let Some(at) = self.tcb.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tcb.handle_timeout(self.now);
            self.tcb.check().unwrap();
            sent.extend(self.sent());
        }
        self.now = end;
        sent
    }

    pub(super) fn write(&mut self, octets: usize) {
        let rest = self.tcb.write(Bytes::from(alloc::vec![b'x'; octets]));
        assert!(rest.is_empty());
    }

    pub(super) fn read_all(&mut self) -> Vec<u8> {
        let chunks = core::iter::from_fn(|| Some(self.tcb.read(usize::MAX)).filter(|it| !it.is_empty()));
        chunks.flatten().collect()
    }

    /// A segment in words: control bits, sequence numbers from the ISNs, octets.
    pub(super) fn show(&self, segment: &Segment) -> String {
        let mut text = match segment.control {
            Some(Control::Syn) => "SYN ".to_string(),
            Some(Control::Fin) => "FIN ".to_string(),
            Some(Control::Rst) => "RST ".to_string(),
            None => String::new(),
        };
        let relative = |seq: Seq, from: Seq| i64::from(seq.0.wrapping_sub(from.0).cast_signed());
        write!(text, "{}", relative(segment.seq, self.iss)).unwrap();
        if !segment.payload.is_empty() {
            write!(text, "+{}", segment.payload.len()).unwrap();
        }
        if let Some(ack) = segment.ack {
            write!(text, " ack {}", relative(ack, self.irs)).unwrap();
        }
        for (from, to) in segment.options.sack_blocks() {
            write!(text, " sack {}-{}", relative(from, self.irs), relative(to, self.irs)).unwrap();
        }
        text
    }
}

/// How a hand-made segment becomes a special one.
pub(super) trait Make {
    fn data(self, octets: &[u8]) -> Self;
    fn fin(self) -> Self;
    fn rst(self) -> Self;
    fn syn_bit(self) -> Self;
    fn window(self, window: u16) -> Self;
    fn sacks(self, blocks: &[(Seq, Seq)]) -> Self;
}

impl Make for Segment {
    fn data(self, octets: &[u8]) -> Self {
        Self { payload: Bytes::copy_from_slice(octets), ..self }
    }

    fn fin(self) -> Self {
        Self { control: Some(Control::Fin), ..self }
    }

    fn rst(self) -> Self {
        Self { control: Some(Control::Rst), ..self }
    }

    fn syn_bit(self) -> Self {
        Self { control: Some(Control::Syn), ..self }
    }

    fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    fn sacks(mut self, blocks: &[(Seq, Seq)]) -> Self {
        for (slot, block) in self.options.sack.iter_mut().zip(blocks) {
            *slot = Some(*block);
        }
        self
    }
}
