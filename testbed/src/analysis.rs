//! What the client saw on its wire, from the capture alone, parsed by a parser that is not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::ops::Range;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};

use crate::straight;
use crate::sys::packet::Frame;
use crate::world::CLIENT;

/// A connection of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The client's port.
    pub client_port: u16,
    /// The service's port.
    pub service_port: u16,
}

/// A frame that came for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, on the monotonic clock.
    pub at_ns: u64,
    /// Octets of TCP payload.
    pub payload: u32,
}

/// A RST on the client's wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// When, on the monotonic clock.
    pub at_ns: u64,
    /// Who sent it.
    pub from: Ipv6Addr,
    /// On which connection.
    pub flow: Flow,
}

/// Everything that matters of what passed the client's interface.
#[derive(Debug)]
pub struct ClientView {
    /// An address of its own; others share its prefix.
    own: Ipv6Addr,
    flows: BTreeMap<Flow, Vec<Seen>>,
    peers: BTreeSet<Ipv6Addr>,
    resets: Vec<Reset>,
    ends: BTreeMap<Flow, End>,
    afterwords: usize,
}

/// How far the client's connection is in ending.
#[derive(Debug, Default)]
struct End {
    /// The number after the client's FIN.
    after_fin: Option<u32>,
    /// How often that was acknowledged.
    acknowledged: u32,
    /// Whether what came last was one more of these acknowledgements, and nothing else.
    repeated: bool,
}

impl End {
    fn sent(&mut self, tcp: &TcpSlice<'_>) {
        if tcp.syn() {
            *self = Self::default();
        }
        if tcp.fin() {
            let octets = u32::try_from(tcp.payload().len()).unwrap_or(0);
            self.after_fin = Some(tcp.sequence_number().wrapping_add(octets).wrapping_add(1));
        }
    }

    fn came(&mut self, tcp: &TcpSlice<'_>, payload: u32) {
        let of_fin = tcp.ack() && self.after_fin == Some(tcp.acknowledgment_number());
        let bare = payload == 0 && !tcp.fin() && !tcp.syn() && !tcp.rst();
        self.repeated = of_fin && bare && self.acknowledged > 0;
        self.acknowledged += u32::from(of_fin);
    }
}

impl Default for ClientView {
    fn default() -> Self {
        Self::of(CLIENT)
    }
}

impl ClientView {
    /// Of the client with this address, and others of the same prefix.
    pub fn of(own: Ipv6Addr) -> Self {
        Self {
            own,
            flows: BTreeMap::new(),
            peers: BTreeSet::new(),
            resets: Vec::new(),
            ends: BTreeMap::new(),
            afterwords: 0,
        }
    }

    /// Takes a frame of the capture. Frames must come in the order of their times.
    pub fn see(&mut self, at_ns: u64, frame: &Frame<'_>) {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame.octets) else { return };
        let (Some(LaxNetSlice::Ipv6(ip)), Some(TransportSlice::Tcp(tcp))) = (&packet.net, &packet.transport)
        else {
            return;
        };
        let header = ip.header();
        // The upper layers see home addresses (RFC 6275 section 9.3.1).
        let home = straight::read(frame.octets).and_then(|seen| seen.home);
        let from = home.unwrap_or(header.source_addr());
        let own = from.segments()[..4] == self.own.segments()[..4];
        let flow = if own {
            Flow { client_port: tcp.source_port(), service_port: tcp.destination_port() }
        } else {
            Flow { client_port: tcp.destination_port(), service_port: tcp.source_port() }
        };
        let end = self.ends.entry(flow).or_default();
        if own && tcp.rst() && end.repeated {
            // It repeated its FIN because the acknowledgement was late; both were answered, as RFC 9293 section 3.10.7.4 has
            // it, and the second answer found nobody.
            self.afterwords += 1;
        } else if tcp.rst() {
            self.resets.push(Reset { at_ns, from, flow });
        }
        if own {
            end.sent(tcp);
        } else {
            let before = ip.extensions().slice().len();
            let payload = payload(usize::from(header.payload_length()), before, tcp);
            end.came(tcp, payload);
            self.peers.insert(from);
            self.flows.entry(flow).or_default().push(Seen { at_ns, payload });
        }
    }

    /// The addresses that the client's connections came from.
    pub fn peers(&self) -> &BTreeSet<Ipv6Addr> {
        &self.peers
    }

    /// Every RST, of either side, but for those of [`ClientView::afterwords`].
    pub fn resets(&self) -> &[Reset] {
        &self.resets
    }

    /// RST of the client to one more acknowledgement of a FIN that was acknowledged before: its connection was over.
    pub fn afterwords(&self) -> usize {
        self.afterwords
    }

    /// The frames that came for each connection.
    pub fn flows(&self) -> &BTreeMap<Flow, Vec<Seen>> {
        &self.flows
    }

    /// The longest time without a frame from the service that touches `window`, in nanoseconds. Only time between
    /// the first and the last data of the connection counts: before and after, nothing is due.
    pub fn longest_silence(&self, flow: Flow, window: &Range<u64>) -> Option<u64> {
        let seen = self.flows.get(&flow)?;
        let first = seen.iter().position(|seen| seen.payload > 0)?;
        let last = seen.iter().rposition(|seen| seen.payload > 0)?;
        let seen = &seen[first..=last];
        // From the last frame before the window to the first one after it.
        let from = seen.partition_point(|seen| seen.at_ns <= window.start).saturating_sub(1);
        let to = seen.partition_point(|seen| seen.at_ns < window.end);
        let touched = &seen[from..seen.len().min(to + 1)];
        touched.windows(2).map(|pair| pair[1].at_ns.saturating_sub(pair[0].at_ns)).max()
    }
}

/// Octets of payload by the IPv6 header: the captured octets are cut.
fn payload(ip_payload: usize, extensions: usize, tcp: &TcpSlice<'_>) -> u32 {
    let headers = extensions + tcp.header_len();
    u32::try_from(ip_payload.saturating_sub(headers)).unwrap_or(u32::MAX)
}

/// The median, the 99th percentile and the greatest of some figures.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Half are not greater.
    pub p50: f64,
    /// All but one in a hundred are not greater.
    pub p99: f64,
    /// None is greater.
    pub max: f64,
}

impl Spread {
    /// Of nothing there is no spread.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        // The smallest figure that at least this share (in hundredths) does not exceed.
        let at = |share: usize| figures.get((figures.len() * share).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { p50: at(50)?, p99: at(99)?, max: at(100)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow { client_port: 40_000, service_port: 80 };

    fn view(frames: &[(u64, u32)]) -> ClientView {
        let seen = frames.iter().map(|&(at_ns, payload)| Seen { at_ns, payload }).collect();
        ClientView { flows: [(FLOW, seen)].into(), ..ClientView::default() }
    }

    #[test]
    fn a_silence_is_the_longest_time_between_frames_that_touches_the_window() {
        let frames = [(10, 1), (20, 1), (50, 1), (60, 0), (200, 1), (210, 1)];
        let cases = [
            ("before the long one", 12..19, Some(10)),
            ("reaching into the window from before", 30..40, Some(30)),
            ("reaching out of the window", 55..70, Some(140)),
            ("the whole window lies in it", 100..110, Some(140)),
            ("all", 0..1000, Some(140)),
            ("after the end", 300..400, None),
        ];
        for (name, window, expected) in cases {
            assert_eq!(view(&frames).longest_silence(FLOW, &window), expected, "{name}");
        }
    }

    #[test]
    fn silence_before_the_first_and_after_the_last_data_does_not_count() {
        let frames = [(0, 0), (500, 1), (510, 1), (900, 0)];
        assert_eq!(view(&frames).longest_silence(FLOW, &(0..1000)), Some(10));
    }

    #[test]
    fn the_spread_of_a_hundred_figures_leaves_one_above_p99() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!(spread, Some(Spread { p50: 50.0, p99: 99.0, max: 100.0 }));
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![7.0]), Some(Spread { p50: 7.0, p99: 7.0, max: 7.0 }));
    }

    #[test]
    fn a_frame_cut_by_the_capture_counts_with_its_whole_payload() {
        let mut octets = Vec::new();
        let service = crate::world::SERVICE;
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6(service.octets(), CLIENT.octets(), 64)
            .tcp(80, 40_000, 1, 1000)
            .rst()
            .write(&mut octets, &[0; 1000])
            .expect("a packet can be written to memory");
        let mut view = ClientView::default();
        let length = u32::try_from(octets.len()).expect("short");
        view.see(7, &Frame { wall_ns: 0, length, outgoing: false, octets: &octets[..100] });
        assert_eq!(view.flows()[&FLOW], [Seen { at_ns: 7, payload: 1000 }]);
        assert_eq!(view.resets(), [Reset { at_ns: 7, from: service, flow: FLOW }]);
        assert_eq!(view.peers().iter().collect::<Vec<_>>(), [&service]);
    }

    /// Shows a view a segment, of the client or for it: its SEG.SEQ and SEG.ACK, its flags, and its payload.
    fn show(view: &mut ClientView, own: bool, (seq, ack): (u32, u32), flags: &str, payload: &[u8]) {
        let service = crate::world::SERVICE;
        let (from, to) = if own { (CLIENT, service) } else { (service, CLIENT) };
        let (source, destination) = if own { (40_000, 80) } else { (80, 40_000) };
        let mut tcp = etherparse::TcpHeader::new(source, destination, seq, 1000);
        (tcp.syn, tcp.fin) = (flags.contains('S'), flags.contains('F'));
        (tcp.rst, tcp.ack) = (flags.contains('R'), flags.contains('A'));
        tcp.acknowledgment_number = ack;
        let builder =
            etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(from.octets(), to.octets(), 64);
        let mut octets = Vec::new();
        builder.tcp_header(tcp).write(&mut octets, payload).expect("a packet can be written to memory");
        let length = u32::try_from(octets.len()).expect("short");
        view.see(7, &Frame { wall_ns: 0, length, outgoing: own, octets: &octets });
    }

    #[test]
    fn a_rst_counts_unless_it_answers_one_more_acknowledgement_of_a_fin() {
        // The client's FIN is 500; what comes for it, and whether its RST after that counts.
        type Came<'a> = &'a [((u32, u32), &'a str, &'a [u8])];
        let cases: [(Came<'_>, usize); 6] = [
            (&[((900, 501), "A", b""), ((900, 501), "A", b"")], 0),
            (&[((900, 501), "A", b"")], 1),
            (&[((900, 501), "A", b""), ((900, 501), "A", b"more")], 1),
            (&[((900, 501), "A", b""), ((900, 501), "FA", b"")], 1),
            (&[((900, 500), "A", b""), ((900, 500), "A", b"")], 1),
            (&[], 1),
        ];
        for (came, counts) in cases {
            let mut view = ClientView::default();
            show(&mut view, true, (99, 0), "S", b"");
            show(&mut view, true, (498, 900), "FA", b"ab");
            for (numbers, flags, payload) in came {
                show(&mut view, false, *numbers, flags, payload);
            }
            show(&mut view, true, (501, 0), "R", b"");
            assert_eq!((view.resets().len(), view.afterwords()), (counts, 1 - counts), "{came:?}");
        }
        let mut view = ClientView::default();
        show(&mut view, true, (498, 900), "FA", b"ab");
        show(&mut view, false, (900, 501), "A", b"");
        show(&mut view, false, (900, 501), "A", b"");
        show(&mut view, false, (900, 501), "RA", b"");
        assert_eq!(view.resets().len(), 1, "one of the service always counts");
    }
}
