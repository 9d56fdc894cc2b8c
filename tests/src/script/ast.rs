//! What a script says, once it is read.

use core::time::Duration;

use ferry_stack::tcp::Commit;

use super::settings::Settings;

/// A script.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where it comes from, as messages name it.
    pub name: String,
    /// Its text, line by line.
    pub lines: Vec<String>,
    /// What its head sets.
    pub settings: Settings,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub struct Step {
    /// The line that says so, from 1.
    pub line: usize,
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
}

/// When something happens, or may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long after the step before, or after anything from the first to the second.
    After(Duration, Duration),
    /// So long after the script began.
    At(Duration, Duration),
    /// Whenever it happens; only for what is expected.
    Any,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Action {
    /// The peer sends a segment.
    Arrive(usize, Segment),
    /// We must send a segment.
    Expect(usize, Segment),
    /// A router, or the peer, sends an ICMPv6 error about a segment of ours.
    Icmp(usize, Icmp),
    /// The application calls.
    Call(usize, Call),
    /// What must be true.
    Claim(usize, Vec<Claim>),
    /// Both sides shake hands in the usual way.
    Establish(usize, Establish),
    /// The connection moves to another host, whose clock began at another time.
    Handoff,
    /// Until then nothing is sent.
    Silence,
}

/// An ECN codepoint (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    Not,
    /// ECT(1).
    Ect1,
    /// ECT(0).
    Ect0,
    /// Congestion experienced.
    Ce,
}

impl Ecn {
    /// The two bits of the traffic class.
    pub fn bits(self) -> u8 {
        match self {
            Self::Not => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }

    /// What the two low bits of a traffic class say.
    pub fn of(traffic_class: u8) -> Self {
        match traffic_class & 3 {
            0 => Self::Not,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// The control bits by their letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// The letters with their bits in the header (RFC 9293 section 3.1), in the order in which they are written.
    pub const LETTERS: [(char, u16); 9] = [
        ('S', 0x002),
        ('F', 0x001),
        ('R', 0x004),
        ('P', 0x008),
        ('U', 0x020),
        ('E', 0x040),
        ('W', 0x080),
        ('N', 0x100),
        ('.', 0x010),
    ];
    /// ACK.
    pub const ACK: u16 = 0x010;
    /// SYN.
    pub const SYN: u16 = 0x002;
    /// FIN.
    pub const FIN: u16 = 0x001;

    /// Whether all of these bits are set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// A segment that arrives, or what a segment of ours must be like: `None` stands for anything.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// The codepoint in the IPv6 header.
    pub ecn: Option<Ecn>,
    /// Control bits.
    pub flags: Option<Flags>,
    /// SEG.SEQ from the ISN, and octets.
    pub seq: Option<(i64, usize)>,
    /// SEG.ACK from the other ISN. Only with the ACK bit.
    pub ack: Option<i64>,
    /// The window field.
    pub window: Option<u16>,
    /// The urgent pointer.
    pub urgent: u16,
    /// Options in order.
    pub options: Vec<Opt>,
    /// Whether there may be others.
    pub any_options: bool,
    /// The octets are not those of the stream.
    pub forged: bool,
    /// The checksum is wrong.
    pub corrupt: bool,
    /// The packet comes in so many fragments; 0 for none.
    pub fragments: usize,
}

/// A TCP option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opt {
    /// Kind 2.
    Mss(u16),
    /// Kind 1.
    Nop,
    /// Kind 0.
    End,
    /// Kind 3.
    WindowScale(u8),
    /// Kind 4.
    SackPermitted,
    /// Kind 5: ranges from the ISN of whoever sent the octets.
    Sack(Vec<(i64, i64)>),
    /// Kind 8. `TSval` of ours counts from the first that was sent.
    Timestamps(Option<i64>, Echo),
    /// Any other.
    Other(u8, Vec<u8>),
}

/// `TSecr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// This one.
    Is(i64),
    /// What the other side sent last.
    Last,
    /// Anything.
    Any,
}

/// An ICMPv6 error about a segment of ours.
#[derive(Clone, Copy, Debug)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four octets after the checksum.
    pub rest: u32,
    /// The sequence number of the quoted segment, from our ISN.
    pub seq: i64,
}

/// What the application does.
#[derive(Clone, Debug)]
pub enum Call {
    /// Starts to listen, with these limits of the accept queue and of the SYN queue.
    Listen(Option<usize>, Option<usize>),
    /// Takes the connection from the accept queue.
    Accept,
    /// Accepts no more.
    Unlisten,
    /// Opens.
    Connect,
    /// Writes octets; so many must be taken.
    Write(usize, usize),
    /// Reads exactly so many octets, which must be those that the peer's stream has there.
    Read(usize),
    /// The peer has finished and everything is read.
    ReadEnd,
    /// Writes no more.
    Shutdown,
    /// Neither writes nor reads any more.
    Close,
    /// Gives up.
    Abort,
    /// Changes how the connection behaves.
    SetOpt(SetOpt),
    /// Holds back what no backup has.
    Hold(Commit),
    /// A backup gets a copy of the connection as it is now.
    Copy,
    /// The backup has confirmed its last copy: what that knows may be told.
    Release,
    /// Holds nothing back any more.
    Unhold,
    /// The host dies, and the connection goes on from the last copy; what it had held back.
    Crash(Commit),
}

/// What can be changed while a connection runs.
#[derive(Clone, Copy, Debug)]
pub enum SetOpt {
    /// Nagle off or on.
    NoDelay(bool),
    /// Whether the first segments are acknowledged at once.
    QuickAck(bool),
    /// Idle, interval, count.
    KeepAlive(Option<(Duration, Duration, u8)>),
    /// The receive buffer.
    ReceiveBuffer(u32),
}

/// What must be true.
#[derive(Clone, Debug)]
pub enum Claim {
    /// The state's name, as RFC 9293 section 3.3.2 spells it.
    State(String),
    /// How the connection ended.
    Ended(String),
    /// How losses are repaired: open, fast, loss.
    Recovery(String),
    /// A quantity lies in a range, both ends included.
    Quantity(String, f64, f64),
}

/// A handshake.
#[derive(Clone, Debug)]
pub struct Establish {
    /// Whether we open.
    pub active: bool,
    /// The round trip.
    pub rtt: Duration,
    /// The window in the peer's SYN and after it.
    pub window: Option<u16>,
    /// What the peer offers; by default all that the settings have.
    pub options: Option<Vec<Opt>>,
    /// Control bits in the peer's SYN besides SYN (and ACK), for ECN.
    pub flags: u16,
}
