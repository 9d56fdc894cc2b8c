//! Hosts of a group that share a secret and a clock: numbers that stay in order, and SYN cookies.

use alloc::vec::Vec;
use core::net::SocketAddrV6;
use core::time::Duration;

use super::harness::{MS, Make, WINDOW, flow, plain};
use crate::ip::{self, Packet};
use crate::tcp::{
    Arrival, Config, Control, Endpoint, Flow, Handle, Listener, Options, Path, Refusal, Secret, Segment,
    State, SynCookies, Timestamps,
};
use crate::{GroupClock, Instant, Seq};

/// A host whose own clock began `uptime` before the group's time shows a thousand days.
struct Member {
    endpoint: Endpoint,
    ahead: Duration,
}

const EPOCH: Duration = Duration::from_hours(24_000);

fn config() -> Config {
    Config { timestamps: true, sack: true, window_scaling: true, receive_buffer: 1 << 20, ..plain() }
}

fn client(port: u16) -> Flow {
    let Flow { local, remote } = flow();
    Flow { local, remote: SocketAddrV6::new(*remote.ip(), port, 0, 0) }
}

fn syn(irs: u32, options: Options) -> Segment {
    Segment { window: WINDOW, options, ..Segment::bare(Seq(irs), None, Some(Control::Syn)) }
}

fn all_options() -> Options {
    Options {
        mss: Some(1440),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 5, echo: 0 }),
        ..Options::default()
    }
}

/// The segment with which a client ends its handshake.
fn answer_to(syn: &Segment, answer: &Segment) -> Segment {
    let timestamps = answer.options.timestamps.map(|theirs| Timestamps { value: 9, echo: theirs.value });
    let options = Options { timestamps, ..Options::default() };
    Segment { window: 100, options, ..Segment::bare(syn.seq + 1_u32, Some(answer.seq + 1_u32), None) }
}

impl Member {
    fn new(uptime: Duration, config: Config) -> Self {
        let mut endpoint = Endpoint::new(Secret::new([7; 32]), 1500, false);
        endpoint.set_group_clock(GroupClock::ahead_by(EPOCH.checked_sub(uptime).unwrap()));
        endpoint.listen(80, Listener { max_half_open: 2, max_waiting: 4, ..Listener::new(config) });
        Self { endpoint, ahead: uptime }
    }

    /// What its own clock shows `at` so much of the group's time.
    fn clock(&self, at: Duration) -> Instant {
        Instant::ZERO + self.ahead + at
    }

    fn parse(packet: &Packet) -> Segment {
        Segment::parse(&ip::parse(packet.to_bytes(), packet.offload).unwrap()).unwrap().1
    }

    fn sent(&mut self, at: Duration) -> Vec<Segment> {
        let now = self.clock(at);
        let packets = core::iter::from_fn(|| self.endpoint.poll_transmit(now, |_| Path::default()));
        packets.map(|(_, packet)| Self::parse(&packet)).collect()
    }

    /// The answer to a SYN that is remembered.
    fn opens(&mut self, flow: Flow, syn: &Segment, at: Duration) -> Segment {
        let now = self.clock(at);
        assert_eq!(self.endpoint.receive(&flow, syn, now), Arrival::Unknown);
        self.endpoint.open(flow, syn, now).unwrap();
        self.sent(at).pop().unwrap()
    }

    /// The answer to a SYN that is not.
    fn bakes(&mut self, flow: Flow, syn: &Segment, at: Duration) -> Segment {
        let now = self.clock(at);
        Self::parse(&self.endpoint.answer_without_memory(&flow, syn, now).unwrap())
    }

    /// Forgets every connection.
    fn abort_all(&mut self) {
        let handles: Vec<_> = self.endpoint.iter().map(|(handle, _)| handle).collect();
        for handle in handles {
            self.endpoint.export(handle, Instant::ZERO);
        }
    }

    fn takes(&mut self, flow: Flow, segment: &Segment, at: Duration) -> Result<Handle, Refusal> {
        let now = self.clock(at);
        assert_eq!(self.endpoint.receive(&flow, segment, now), Arrival::Unknown);
        let handle = self.endpoint.open_by_cookie(flow, segment, now)?;
        self.endpoint.get(handle).unwrap().check().unwrap();
        Ok(handle)
    }
}

#[test]
fn numbers_of_a_client_that_comes_again_are_later_whichever_host_it_comes_to() {
    let mut old = Member::new(Duration::from_hours(1000), config());
    let mut new = Member::new(Duration::ZERO, config());
    for (first, gap) in [(0, 1), (0, 1000), (70_000, 500), (4_000_000, 3_600_000)] {
        let at = first * MS;
        let a = old.opens(client(1), &syn(1000, all_options()), at);
        old.abort_all();
        let b = new.opens(client(1), &syn(9000, all_options()), at + gap * MS);
        new.abort_all();
        assert!(a.seq.before(b.seq), "{a:?} {b:?}");
        let [a, b] = [a, b].map(|it| it.options.timestamps.unwrap().value);
        assert_eq!(b.wrapping_sub(a), gap);
    }
}

#[test]
fn a_client_that_opens_anew_out_of_time_wait_gets_numbers_above_all_that_were_used() {
    let mut host = Member::new(Duration::ZERO, plain());
    let syn_ack = host.opens(client(1), &syn(1000, Options::default()), MS);
    let handle = host.endpoint.find(&client(1)).unwrap();
    let now = host.clock(2 * MS);
    // A gigabyte was sent meanwhile, faster than the clock counts.
    let used = syn_ack.seq + 1_000_000_000_u32;
    host.endpoint.with(handle, |tcb| {
        (tcb.snd.una, tcb.snd.nxt, tcb.state) = (used, used, State::TimeWait { until: now + 1000 * MS });
    });
    let again = syn(90_000, Options::default());
    assert!(host.opens(client(1), &again, 3 * MS).seq.after(used));
}

#[test]
fn a_cookie_of_one_host_opens_a_connection_at_another_with_all_that_was_agreed_on() {
    let [at, later] = [50 * MS, 180 * MS];
    for size in [47, 48, 535, 536, 1219, 1220, 1400, 1439, 1440, 1500, 9000] {
        for index in 0..16_u8 {
            let options = Options {
                mss: Some(size),
                window_scale: (index & 1 != 0).then_some(index),
                sack_permitted: index & 2 != 0,
                timestamps: (index & 4 != 0).then_some(Timestamps { value: 5, echo: 0 }),
                ..Options::default()
            };
            let mut a = Member::new(Duration::from_hours(77), config());
            let mut b = Member::new(Duration::from_secs(3), config());
            let syn = syn(1000 + u32::from(index), options);
            let baked = a.bakes(client(1), &syn, at);
            let handle = b.takes(client(1), &answer_to(&syn, &baked).data(b"GET"), later).unwrap();
            assert_eq!(b.endpoint.accept(80), Some(handle));
            assert!(a.endpoint.is_empty());
            let tcb = b.endpoint.get(handle).unwrap();
            assert_eq!((tcb.state, tcb.readable(), tcb.snd.nxt), (State::Established, 3, baked.seq + 1_u32));
            assert!(tcb.snd.mss <= size.max(48), "never more than the client takes");
            assert!([48, 536, 1220, 1400, 1440].contains(&size) <= (tcb.snd.mss == size));
            let stamped = options.timestamps.is_some();
            assert_eq!(tcb.timestamps.is_some(), stamped);
            assert_eq!(tcb.sack, stamped && options.sack_permitted);
            let scale = options.window_scale.filter(|_| stamped).map(|scale| scale.min(14));
            assert_eq!(tcb.snd.wscale, scale.unwrap_or(0));
            assert_eq!(tcb.snd.wnd, 100 << scale.unwrap_or(0));
            assert_eq!(tcb.rcv.wscale, if scale.is_some() { 5 } else { 0 });
            assert_eq!(baked.options.window_scale.is_some(), scale.is_some(), "what was said holds");
            let next = b.sent(later).pop().unwrap();
            let times = next.options.timestamps.map(|it| it.value);
            assert!(times.is_none_or(|it| Seq(it).after(Seq(baked.options.timestamps.unwrap().value))));
        }
    }
}

#[test]
fn ecn_is_agreed_on_by_a_cookie_with_timestamps_only() {
    for stamped in [true, false] {
        let timestamps = all_options().timestamps.filter(|_| stamped);
        let syn = syn(1000, Options { timestamps, ..all_options() });
        let syn = Segment { ece: true, cwr: true, ..syn };
        let mut host = Member::new(Duration::from_secs(1), config());
        let baked = host.bakes(client(1), &syn, MS);
        let handle = host.takes(client(1), &answer_to(&syn, &baked), 2 * MS).unwrap();
        assert_eq!(
            (baked.is_ecn_setup(), host.endpoint.get(handle).unwrap().ecn.is_some()),
            (stamped, stamped)
        );
    }
}

#[test]
fn a_host_without_timestamps_offers_nothing_that_its_cookies_cannot_tell() {
    let mut host = Member::new(Duration::from_secs(1), Config { timestamps: false, ..config() });
    let syn = syn(1000, all_options());
    let baked = host.bakes(client(1), &syn, MS);
    assert_eq!(baked.options, Options { mss: Some(1000), ..Options::default() });
    let handle = host.takes(client(1), &answer_to(&syn, &baked), 2 * MS).unwrap();
    let tcb = host.endpoint.get(handle).unwrap();
    assert_eq!((tcb.snd.wscale, tcb.rcv.wscale, tcb.sack, tcb.timestamps), (0, 0, false, None));
}

#[test]
fn a_cookie_is_refused_if_anything_about_it_is_wrong() {
    let mut host = Member::new(Duration::from_secs(1), config());
    let syn = syn(1000, all_options());
    let baked = host.bakes(client(1), &syn, MS);
    let good = answer_to(&syn, &baked);
    let wrong: [(&str, Flow, Segment); 8] = [
        ("number", client(1), Segment { ack: good.ack.map(|ack| ack + 64_u32), ..good.clone() }),
        ("far number", client(1), Segment { ack: good.ack.map(|ack| ack + (1_u32 << 30)), ..good.clone() }),
        ("sequence", client(1), Segment { seq: good.seq + 1_u32, ..good.clone() }),
        ("client", client(2), good.clone()),
        ("port", Flow { local: SocketAddrV6::new(*flow().local.ip(), 81, 0, 0), ..client(1) }, good.clone()),
        ("RST", client(1), good.clone().rst()),
        ("SYN", client(1), good.clone().syn_bit()),
        ("no ACK", client(1), Segment { ack: None, ..good.clone() }),
    ];
    for (what, flow, segment) in wrong {
        assert!(host.takes(flow, &segment, 2 * MS).is_err(), "{what}");
    }
    let mut stranger = Member::new(Duration::from_secs(1), config());
    stranger.endpoint = Endpoint::new(Secret::new([8; 32]), 1500, false);
    stranger.endpoint.set_group_clock(GroupClock::ahead_by(EPOCH));
    stranger.endpoint.listen(80, Listener::new(config()));
    assert_eq!(stranger.takes(client(1), &good, 2 * MS), Err(Refusal::NoCookie));
    let reset = stranger.endpoint.refuse(&client(1), &good).unwrap();
    assert!(Member::parse(&reset).is_rst());
    host.takes(client(1), &good, 2 * MS).unwrap();
}

#[test]
fn a_cookie_lives_longer_than_a_handshake_and_less_than_two_minutes() {
    for start in [0, 7, 33, 34, 50, 67] {
        let baked_at = Duration::from_secs(start);
        for (age, taken) in [(0, true), (20, true), (60, true), (102, false), (120, false), (4000, false)] {
            let mut host = Member::new(Duration::from_secs(1), config());
            let syn = syn(1000, all_options());
            let answer = answer_to(&syn, &host.bakes(client(1), &syn, baked_at));
            let result = host.takes(client(1), &answer, baked_at + Duration::from_secs(age));
            assert_eq!(result.is_ok(), taken, "{start} {age}");
        }
    }
}

#[test]
fn a_cookie_that_has_opened_a_connection_opens_no_other_but_the_next_one_does() {
    let mut host = Member::new(Duration::from_secs(1), config());
    let first = syn(1000, all_options());
    let answer = answer_to(&first, &host.bakes(client(1), &first, MS));
    host.takes(client(1), &answer, 2 * MS).unwrap();
    host.abort_all();
    host.sent(3 * MS);
    assert!(host.endpoint.is_empty());
    assert_eq!(host.takes(client(1), &answer, 4 * MS), Err(Refusal::CookieSpent));
    assert_eq!(host.endpoint.cookies().replayed, 1);
    let second = syn(2000, all_options());
    let answer = answer_to(&second, &host.bakes(client(1), &second, 5 * MS));
    host.takes(client(1), &answer, 6 * MS).unwrap();
}

#[test]
fn cookies_are_given_as_the_configuration_says() {
    for (syn_cookies, remembered, baked) in
        [(SynCookies::Never, 2, 0), (SynCookies::WhenFull, 2, 3), (SynCookies::Always, 0, 5)]
    {
        let mut host = Member::new(Duration::from_secs(1), Config { syn_cookies, ..config() });
        let now = host.clock(MS);
        for port in 1..=5 {
            let syn = syn(1000, all_options());
            if host.endpoint.open(client(port), &syn, now) == Err(Refusal::QueueFull) {
                host.endpoint.answer_without_memory(&client(port), &syn, now);
            }
        }
        assert_eq!((host.endpoint.len(), host.endpoint.cookies().sent), (remembered, baked));
        let answer = Segment::bare(Seq(1001), Some(Seq(1)), None);
        assert_eq!(host.takes(client(9), &answer, 2 * MS), Err(Refusal::NoCookie));
    }
}

#[test]
fn a_full_accept_queue_neither_gives_nor_takes_cookies() {
    let mut host = Member::new(Duration::from_secs(1), config());
    let cookies: Vec<_> = (1..=5)
        .map(|port| {
            let syn = syn(1000, all_options());
            (port, answer_to(&syn, &host.bakes(client(port), &syn, MS)))
        })
        .collect();
    for (port, answer) in &cookies {
        let result = host.takes(client(*port), answer, 2 * MS);
        assert_eq!(result.is_ok(), *port <= 4);
    }
    let now = host.clock(3 * MS);
    assert!(host.endpoint.answer_without_memory(&client(6), &syn(1, all_options()), now).is_none());
    host.endpoint.accept(80).unwrap();
    let (port, answer) = &cookies[4];
    host.takes(client(*port), answer, 4 * MS).unwrap();
}

#[test]
fn honest_clients_are_all_served_in_a_flood_of_ten_thousand() {
    let mut host = Member::new(Duration::from_secs(1), config());
    let mut served = 0;
    for nth in 0..10_000_u16 {
        let at = u32::from(nth) * MS / 10;
        let now = host.clock(at);
        let syn = syn(u32::from(nth), all_options());
        let flow = client(nth + 1);
        let answer = match host.endpoint.open(flow, &syn, now) {
            Ok(_) => host.sent(at).pop().unwrap(),
            Err(_) => host.bakes(flow, &syn, at),
        };
        if nth % 100 != 0 {
            continue;
        }
        let answer = answer_to(&syn, &answer);
        if host.endpoint.receive(&flow, &answer, now) == Arrival::Unknown {
            host.endpoint.open_by_cookie(flow, &answer, now).unwrap();
        }
        let handle = host.endpoint.accept(80).unwrap();
        assert_eq!(host.endpoint.get(handle).unwrap().state, State::Established);
        served += 1;
    }
    assert_eq!(served, 100);
    assert!(host.endpoint.len() <= 102, "the flood is not remembered");
}
