//! What the head of a script sets. Everything that changes segments is off: a script switches on what it is about.

use core::time::Duration;

use ferry_stack::tcp::cc::Kind;
use ferry_stack::tcp::{Config, KeepAlive, MtuProbing, SynCookies};

/// How both ends behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our connections.
    pub config: Config,
    /// The MTU of our link; octets.
    pub mtu: u16,
    /// The peer's initial sequence number.
    pub irs: u32,
    /// The window field of the peer's segments that name none.
    pub window: u16,
    /// The segment size that the peer offers in `establish`.
    pub peer_mss: u16,
    /// The window scale that the peer offers in `establish`, if we scale.
    pub peer_wscale: u8,
    /// Whether the mode that moves the connection after every event is left out, because the script is about what
    /// does not move with a connection.
    pub stays: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: Config {
                mss: 1000,
                window_scaling: false,
                timestamps: false,
                sack: false,
                receive_buffer: 50_000,
                send_buffer: 1 << 20,
                congestion: Kind::NewReno,
                ..Config::default()
            },
            mtu: 1500,
            irs: 5_000_000,
            window: 50_000,
            peer_mss: 1000,
            peer_wscale: 7,
            stays: false,
        }
    }
}

/// What can follow a key.
#[derive(Clone, Copy, Debug)]
enum Setter {
    Switch(fn(&mut Settings, bool)),
    Number(u64, fn(&mut Settings, u64)),
    Span(fn(&mut Settings, Duration)),
    Words(&'static [&'static str], fn(&mut Settings, &str)),
    KeepAlive,
}

/// A number that was checked against the key's limit fits.
fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).unwrap_or_else(|_| unreachable!("checked against the key's limit"))
}

#[rustfmt::skip]
const KEYS: &[(&str, Setter)] = &[
    ("cc", Setter::Words(&["reno", "cubic"], |s, word| {
        s.config.congestion = if word == "cubic" { Kind::Cubic } else { Kind::NewReno };
    })),
    ("timestamps", Setter::Switch(|s, on| s.config.timestamps = on)),
    ("sack", Setter::Switch(|s, on| s.config.sack = on)),
    ("wscale", Setter::Switch(|s, on| s.config.window_scaling = on)),
    ("nodelay", Setter::Switch(|s, on| s.config.nodelay = on)),
    ("stays", Setter::Switch(|s, on| s.stays = on)),
    ("mss", Setter::Number(65_535, |s, n| s.config.mss = narrow(n))),
    ("rcvbuf", Setter::Number(1 << 30, |s, n| s.config.receive_buffer = narrow(n))),
    ("sndbuf", Setter::Number(1 << 30, |s, n| s.config.send_buffer = narrow(n))),
    ("unsent_limit", Setter::Number(u32::MAX as u64, |s, n| s.config.unsent_limit = narrow(n))),
    ("iw", Setter::Number(255, |s, n| s.config.initial_window = narrow(n))),
    ("syn_retries", Setter::Number(255, |s, n| s.config.syn_retries = narrow(n))),
    ("syn_ack_retries", Setter::Number(255, |s, n| s.config.syn_ack_retries = narrow(n))),
    ("retries", Setter::Number(255, |s, n| s.config.retries = narrow(n))),
    ("user_timeout", Setter::Span(|s, span| s.config.user_timeout = Some(span))),
    ("cookies", Setter::Words(&["never", "when-full", "always"], |s, word| {
        s.config.syn_cookies = match word {
            "never" => SynCookies::Never,
            "always" => SynCookies::Always,
            _ => SynCookies::WhenFull,
        };
    })),
    ("mtu_probing", Setter::Words(&["off", "on-black-hole", "always"], |s, word| {
        s.config.mtu_probing = match word {
            "off" => MtuProbing::Off,
            "always" => MtuProbing::Always,
            _ => MtuProbing::OnBlackHole,
        };
    })),
    ("base_mtu", Setter::Number(65_535, |s, n| s.config.base_mtu = narrow(n))),
    ("delack", Setter::Span(|s, span| s.config.delayed_ack = span)),
    ("min_rto", Setter::Span(|s, span| s.config.min_rto = span)),
    ("max_rto", Setter::Span(|s, span| s.config.max_rto = span)),
    ("fin_wait_2", Setter::Span(|s, span| s.config.fin_wait_2 = span)),
    ("time_wait", Setter::Span(|s, span| s.config.time_wait = span)),
    ("keepalive", Setter::KeepAlive),
    ("mtu", Setter::Number(65_535, |s, n| s.mtu = narrow(n))),
    ("irs", Setter::Number(u32::MAX as u64, |s, n| s.irs = narrow(n))),
    ("win", Setter::Number(65_535, |s, n| s.window = narrow(n))),
    ("peer_mss", Setter::Number(65_535, |s, n| s.peer_mss = narrow(n))),
    ("peer_wscale", Setter::Number(255, |s, n| s.peer_wscale = narrow(n))),
];

/// A time in seconds.
pub(super) fn seconds(word: &str) -> Option<Duration> {
    let number: f64 = word.parse().ok()?;
    let plain = word.chars().all(|c| c.is_ascii_digit() || c == '.');
    // To the nanosecond: what a script writes with six decimals is met exactly.
    plain.then(|| Duration::try_from_secs_f64(number).ok()).flatten()
}

impl Settings {
    /// Sets one key to the words that follow it. The error says what would be right.
    pub(super) fn set(&mut self, key: &str, words: &[&str]) -> Result<(), String> {
        let Some((_, setter)) = KEYS.iter().find(|(known, _)| *known == key) else {
            let known: Vec<_> = KEYS.iter().map(|(known, _)| *known).collect();
            return Err(format!("`{key}` cannot be set; known are {}", known.join(", ")));
        };
        let one = || match words {
            [word] => Ok(*word),
            _ => Err(format!("`{key}` takes one value")),
        };
        match setter {
            Setter::Switch(set) => match one()? {
                "on" => set(self, true),
                "off" => set(self, false),
                other => return Err(format!("`{key}` is `on` or `off`, not `{other}`")),
            },
            Setter::Number(limit, set) => match one()?.parse() {
                Ok(number) if number <= *limit => set(self, number),
                _ => return Err(format!("`{key}` takes a number from 0 to {limit}")),
            },
            Setter::Span(set) => {
                let span = seconds(one()?);
                set(self, span.ok_or_else(|| format!("`{key}` takes seconds, such as 0.2"))?);
            }
            Setter::Words(allowed, set) => {
                let word = one()?;
                if !allowed.contains(&word) {
                    return Err(format!("`{key}` is one of {}", allowed.join(", ")));
                }
                set(self, word);
            }
            Setter::KeepAlive => {
                let (idle, interval, count) = keep_alive(words)?;
                self.config.keep_alive = Some(KeepAlive { idle, interval, count });
            }
        }
        Ok(())
    }
}

/// Idle, interval and count.
pub(super) fn keep_alive(words: &[&str]) -> Result<(Duration, Duration, u8), String> {
    let wrong = || "`keepalive` takes seconds of silence, seconds between probes, and probes".to_owned();
    let [idle, interval, count] = words else { return Err(wrong()) };
    match (seconds(idle), seconds(interval), count.parse()) {
        (Some(idle), Some(interval), Ok(count)) => Ok((idle, interval, count)),
        _ => Err(wrong()),
    }
}
