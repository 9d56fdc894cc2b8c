use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::cc::Kind;
use super::listener::SynCookies;
use super::path::PathPolicy;
use super::plpmtud::MtuProbing;
use crate::ip::MIN_MTU;

/// How a connection behaves. Fixed when it is opened; travels with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent switch of the protocol")]
pub struct Config {
    /// The largest segment that we ask the other side to send: octets of payload and TCP options (RFC 6691).
    pub mss: u16,
    /// Octets that may be queued to be sent, sent ones that are not acknowledged included.
    pub send_buffer: u32,
    /// Octets that may be queued beyond what the congestion window lets out (as `TCP_NOTSENT_LOWAT`). A small value
    /// costs nothing where the application answers at once, and keeps small what a handoff has to move.
    pub unsent_limit: u32,
    /// Octets that may be received and not read: bounds the window.
    pub receive_buffer: u32,
    /// Offer and accept window scaling (RFC 7323 section 2).
    pub window_scaling: bool,
    /// Offer and accept timestamps (RFC 7323 section 3).
    pub timestamps: bool,
    /// Offer and accept selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Explicit congestion notification.
    pub ecn: EcnPolicy,
    /// Send small segments at once (switches the algorithm of Nagle off; RFC 9293 section 3.7.4).
    pub nodelay: bool,
    /// How long an acknowledgement may wait (RFC 9293 section 3.8.6.3: at most 500 ms).
    pub delayed_ack: Duration,
    /// Least retransmission timeout.
    pub min_rto: Duration,
    /// Greatest retransmission timeout (RFC 6298 section 2.5: at least 60 s).
    pub max_rto: Duration,
    /// Retransmissions of a SYN before giving up (RFC 9293 section 3.8.3, R2: for at least 3 minutes).
    pub syn_retries: u8,
    /// Retransmissions of the answer to a SYN before giving up. Fewer: the client repeats its SYN.
    pub syn_ack_retries: u8,
    /// Retransmissions of anything else before giving up (RFC 9293 section 3.8.3, R2).
    pub retries: u8,
    /// How long octets may stay unacknowledged, or unsent because the window is shut, before giving up (RFC 9293
    /// section 3.9.1.1, RFC 5482 section 3). `None`: as long as `retries` last. Local: the option of RFC 5482 is
    /// neither sent nor obeyed.
    pub user_timeout: Option<Duration>,
    /// How long FIN-WAIT-2 lasts once nobody reads any more.
    pub fin_wait_2: Duration,
    /// How long TIME-WAIT lasts.
    pub time_wait: Duration,
    /// When a listener answers SYNs without remembering them. The same at all nodes of a group.
    pub syn_cookies: SynCookies,
    /// Asks an idle peer whether it is still there.
    pub keep_alive: Option<KeepAlive>,
    /// The congestion control algorithm.
    pub congestion: Kind,
    /// Initial window in segments (RFC 6928).
    pub initial_window: u8,
    /// Begin anew with slow start after a silence (RFC 5681 section 4.1).
    pub slow_start_after_idle: bool,
    /// Whether packets of other sizes are tried (RFC 8899).
    pub mtu_probing: MtuProbing,
    /// The packet that passes everywhere (`BASE_PLPMTU`, RFC 8899 section 5.1.2): over IPv6 never less than 1280
    /// octets are needed.
    pub base_mtu: u16,
    /// What is kept of the congestion state when the connection has come to another host.
    pub path_policy: PathPolicy,
}

/// Who may ask for explicit congestion notification (RFC 3168).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EcnPolicy {
    /// Nobody.
    Off,
    /// The other side.
    Accept,
    /// We do, too.
    On,
}

/// Keep-alive probes (RFC 9293 section 3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub count: u8,
}

impl Default for Config {
    /// As Linux behaves by default where it matters, at an MTU of 1500.
    fn default() -> Self {
        Self {
            mss: 1440,
            send_buffer: 2 << 20,
            unsent_limit: u32::MAX,
            receive_buffer: 2 << 20,
            window_scaling: true,
            timestamps: true,
            sack: true,
            ecn: EcnPolicy::Accept,
            nodelay: false,
            delayed_ack: Duration::from_millis(40),
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_mins(2),
            syn_retries: 7,
            syn_ack_retries: 5,
            retries: 15,
            user_timeout: None,
            fin_wait_2: Duration::from_mins(1),
            time_wait: Duration::from_mins(1),
            syn_cookies: SynCookies::WhenFull,
            keep_alive: None,
            congestion: Kind::Cubic,
            initial_window: 10,
            slow_start_after_idle: true,
            mtu_probing: MtuProbing::OnBlackHole,
            base_mtu: MIN_MTU,
            path_policy: PathPolicy::Keep,
        }
    }
}

impl Config {
    /// The window scale that lets the receive buffer be advertised in full (RFC 7323 section 2.3: at most 14).
    pub fn window_scale(&self) -> u8 {
        (0..=14).find(|scale| self.receive_buffer >> scale <= 0xffff).unwrap_or(14)
    }
}
