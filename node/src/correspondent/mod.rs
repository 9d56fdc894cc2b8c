//! The client's half of Mobile IPv6 as a daemon: `ferry correspondent`. It answers the tests of return routability,
//! keeps bindings (RFC 6275 section 9), and puts them into effect in one of two ways.
//!
//! | mode | what carries out the bindings |
//! |---|---|
//! | [`Mode::Xfrm`] | the kernel, where it has `CONFIG_IPV6_MIP6`: at its own speed |
//! | [`Mode::Tun`] | the daemon, between a TUN device and the network |

mod netlink;
mod prefix;
mod sys;
mod tun;
mod wire;
mod xfrm;

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use bytes::Bytes;
use ferry_mipv6::correspondent::{Correspondent, Outgoing};
use ferry_mipv6::header::{self, BindingErrorStatus, Fault, Message, Received};
use ferry_mipv6::limit::Pace;
use ferry_mipv6::route::{ROUTING_OVERHEAD, put_routing, stripped, unrouted};
use ferry_stack::ip::{self, Datagram};
use ferry_stack::{Instant, Offload, checksum, icmp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use serde::{Deserialize, Serialize};

pub use self::prefix::Prefix;
use self::tun::{Tun, is_service};
use self::wire::{Wanted, Wire};
use self::xfrm::{Claim, Xfrm};
use crate::daemon::{ListenError, Listener, timespec};
use crate::driver::now;

/// Octets of an ICMPv6 error before the packet that it quotes.
const ICMP_HEADER: usize = 8;
/// Packets of one kind in a row before the others have their turn.
const BATCH: usize = 64;

/// How bindings are put into effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By the kernel.
    Xfrm,
    /// By the daemon, with a TUN device.
    Tun,
}

/// What the daemon is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// How; absent: as the kernel allows.
    pub mode: Option<Mode>,
    /// The services whose addresses may be bound. None: in mode [`Mode::Xfrm`] any address.
    pub services: Vec<Prefix>,
    /// The MTU of the TUN device: that of the network less 24.
    pub mtu: u16,
    /// Where `ferry correspondent status` finds the daemon.
    pub control: PathBuf,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// It may not do what it must.
    #[error(
        "ferry correspondent needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root (`sudo ferry correspondent …`), or let systemd \
         give it both (dist/ferry-correspondent.service)"
    )]
    NotAllowed,
    /// The kernel cannot do what was asked for.
    #[error(
        "this kernel has no Mobile IPv6 (CONFIG_IPV6_MIP6); leave --mode away, or say `--mode tun --service PREFIX`"
    )]
    NoKernelSupport,
    /// It would not know what to route to its device.
    #[error(
        "mode tun needs to know which addresses to take care of, and this kernel has no Mobile IPv6 of its own: \
         say `--service PREFIX`, for example `--service 2001:db8:5::/64`"
    )]
    NoService,
    /// Nobody could ask it anything.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Anything else.
    #[error("cannot {doing}: {why}")]
    Other {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        why: io::Error,
    },
}

fn doing(doing: &'static str) -> impl Fn(io::Error) -> Failed {
    move |why| match why.kind() {
        io::ErrorKind::PermissionDenied => Failed::NotAllowed,
        _ => Failed::Other { doing, why },
    }
}

/// What puts bindings into effect.
#[derive(Debug)]
enum Way {
    Xfrm(Xfrm),
    Tun(Tun),
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    core: Correspondent,
    services: Vec<Prefix>,
    way: Way,
    wire: Wire,
    control: Listener,
    errors: Pace,
    counters: Counters,
}

/// How a daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How bindings are put into effect.
    pub mode: Mode,
    /// Every binding.
    pub bindings: Vec<Bound>,
    /// What has happened so far.
    pub counters: Counters,
}

/// A binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The address of this host.
    pub client: Ipv6Addr,
    /// The service's address.
    pub service: Ipv6Addr,
    /// Where the service is.
    pub care_of: Ipv6Addr,
    /// How long that holds.
    pub seconds_left: u64,
    /// The sequence number of the last Binding Update.
    pub sequence: u16,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Mobility Headers that came.
    pub signalling: u64,
    /// Packets sent straight to a care-of address, in mode `tun`.
    pub optimised_out: u64,
    /// Packets taken from a care-of address, in mode `tun`.
    pub optimised_in: u64,
    /// Packets of no use.
    pub dropped: u64,
}

impl Daemon {
    /// Sets everything up, and drops every capability that is not needed from then on.
    pub fn start(options: &Options) -> Result<Self, Failed> {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        let held = capabilities(None).map_err(|why| doing("read the capabilities")(why.into()))?;
        if !held.effective.contains(needed) {
            return Err(Failed::NotAllowed);
        }
        let control = Listener::open(&options.control)?;
        let way = way(options)?;
        let wanted = if matches!(way, Way::Tun(_)) { Wanted::All } else { Wanted::Signalling };
        let wire = Wire::open(wanted).map_err(doing("open the packet sockets"))?;
        keep_only(CapabilitySet::NET_ADMIN).map_err(|why| doing("drop capabilities")(why.into()))?;
        let mut key = [0; 20];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
            .map_err(|why| doing("draw a key")(why.into()))?;
        Ok(Self {
            core: Correspondent::new(key),
            services: options.services.clone(),
            way,
            wire,
            control,
            errors: Pace::default(),
            counters: Counters::default(),
        })
    }

    /// How bindings are put into effect.
    pub const fn mode(&self) -> Mode {
        match self.way {
            Way::Xfrm(_) => Mode::Xfrm,
            Way::Tun(_) => Mode::Tun,
        }
    }

    /// Runs until `end` becomes readable. What was installed is removed when the daemon is dropped.
    pub fn run(&mut self, end: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let at = now();
            for request in self.core.handle_timeout(at) {
                self.say(&request);
            }
            self.carry_out();
            let wait = self.core.deadline().map(|deadline| timespec(deadline.until(at)));
            if self.wait(end, wait)? {
                return Ok(());
            }
            self.hear_all()?;
            self.hear_claims()?;
            self.send_all()?;
            self.control.answer(|| self.status(now()));
        }
    }

    /// Waits until there is something to do; whether that is to end.
    fn wait(&self, end: BorrowedFd<'_>, wait: Option<Timespec>) -> io::Result<bool> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![readable(end), readable(self.wire.as_fd()), readable(self.control.as_fd())];
        fds.push(readable(match &self.way {
            Way::Tun(tun) => tun.as_fd(),
            Way::Xfrm(xfrm) => xfrm.as_fd(),
        }));
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(why) => Err(why.into()),
        }
    }

    /// What came from the network.
    fn hear_all(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.wire.receive() {
                Ok(Some(datagram)) if datagram.upper == ip::MOBILITY => self.hear(&datagram, now()),
                Ok(Some(datagram)) if datagram.upper == ip::ICMPV6 && datagram.home_address().is_none() => {
                    self.too_big(&datagram)?;
                }
                Ok(Some(datagram)) => self.take(datagram, now())?,
                Ok(None) => break,
                // An interface went down: others may be up.
                Err(why) if why.raw_os_error() == Some(Errno::NETDOWN.raw_os_error()) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn hear(&mut self, datagram: &Datagram, now: Instant) {
        self.counters.signalling += 1;
        if !wire::is_ours(datagram.destination) {
            self.counters.dropped += 1;
            return;
        }
        match header::open(datagram) {
            Ok(received) if self.concerns_us(&received) => {
                let answer = self.core.receive(&received, now);
                // A kernel that does not know the binding yet drops what comes right behind the acknowledgement.
                if self.carry_out()
                    && let Some(answer) = answer
                {
                    self.say(&answer);
                }
            }
            // RFC 6275 section 9.2.
            Err(Fault::UnknownType(_)) => {
                let status = BindingErrorStatus::UNKNOWN_TYPE;
                let way = (datagram.destination, datagram.source);
                self.complain(way, status, Ipv6Addr::UNSPECIFIED, now);
            }
            Err(Fault::Problem(pointer)) => {
                let error = icmp::Error::ParameterProblem { code: icmp::ERRONEOUS_FIELD, pointer };
                self.counters.dropped += 1;
                let complaint = icmp::complaint(&datagram.packet, error, datagram.destination);
                if let Some(packet) = complaint.filter(|_| self.errors.take(now))
                    && let Err(why) = self.wire.send(&packet)
                {
                    tracing::debug!("a Parameter Problem cannot be sent: {why}");
                }
            }
            Ok(_) | Err(Fault::Checksum | Fault::Option | Fault::Address) => self.counters.dropped += 1,
        }
    }

    /// Home addresses that the kernel has refused because there is no binding (RFC 6275 section 9.3.1).
    fn hear_claims(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            let Way::Xfrm(xfrm) = &self.way else { return Ok(()) };
            let Some(Claim { ours, home, care_of }) = xfrm.claim()? else { return Ok(()) };
            if is_service(&self.services, home) {
                self.complain((ours, care_of), BindingErrorStatus::NO_BINDING, home, now());
            }
        }
        Ok(())
    }

    /// A router says that a packet was too big that we have sent to a care-of address: its sender has sent it to a home
    /// address, through our device, and must hear of it there (RFC 8201 section 4). Its packets have to be smaller by
    /// what we add.
    fn too_big(&self, datagram: &Datagram) -> io::Result<()> {
        let Way::Tun(tun) = &self.way else { return Ok(()) };
        if checksum::verify(datagram)
            && let Some(icmp::Received { error: icmp::Error::PacketTooBig { mtu }, from, .. }) =
                icmp::parse_error(datagram)
            && let Some(about) = datagram.upper_bytes().get(ICMP_HEADER..).and_then(unrouted)
        {
            let mtu = mtu.saturating_sub(ROUTING_OVERHEAD.into()).max(ip::MIN_MTU.into());
            tell_sender(tun, &about.into(), mtu, from)?;
        }
        Ok(())
    }

    /// Tests of any care-of address are answered; only services are bound.
    fn concerns_us(&self, received: &Received) -> bool {
        let home = received.home_address.unwrap_or(received.source);
        match received.message {
            Message::CareOfTestInit(_) => true,
            _ => is_service(&self.services, home),
        }
    }

    /// Has what was decided put into effect. Whether that was possible.
    fn carry_out(&mut self) -> bool {
        let mut done = true;
        for change in self.core.take_changes() {
            tracing::info!("{change:?}");
            if let Way::Xfrm(xfrm) = &mut self.way
                && let Err(why) = xfrm.carry_out(change)
            {
                tracing::error!("the kernel refuses {change:?}: {why}");
                done = false;
            }
        }
        done
    }

    fn say(&mut self, message: &Outgoing) {
        if let Err(why) = self.wire.send(&message.packet()) {
            tracing::debug!("a {} cannot be sent: {why}", message.message.name());
            self.counters.dropped += 1;
        }
    }

    /// A packet with a Home Address option (RFC 6275 section 9.3.1).
    fn take(&mut self, datagram: Datagram, now: Instant) -> io::Result<()> {
        let Way::Tun(tun) = &self.way else { return Ok(()) };
        let Some(home) = datagram.home_address() else { return Ok(()) };
        if self.core.check_claim(datagram.destination, home, datagram.source, now).is_some() {
            if wire::is_ours(datagram.destination) {
                let way = (datagram.destination, datagram.source);
                self.complain(way, BindingErrorStatus::NO_BINDING, home, now);
            }
            return Ok(());
        }
        self.counters.optimised_in += 1;
        tun.deliver(stripped(datagram)).map(drop)
    }

    /// A Binding Error from an address of ours, about something that was of no use.
    fn complain(
        &mut self,
        (from, to): (Ipv6Addr, Ipv6Addr),
        status: BindingErrorStatus,
        home_address: Ipv6Addr,
        now: Instant,
    ) {
        self.counters.dropped += 1;
        if !self.errors.take(now) {
            return;
        }
        let message = Message::BindingError { status, home_address };
        self.say(&Outgoing::plain(from, to, message));
    }

    /// What goes to a service, in mode `tun` (RFC 6275 section 9.3.2).
    fn send_all(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            let Way::Tun(tun) = &mut self.way else { return Ok(()) };
            let Some(datagram) = tun.receive()? else { return Ok(()) };
            let pair = (datagram.source, datagram.destination);
            let care_of = self.core.use_binding(pair, now());
            let whole = datagram.packet.clone();
            let mut packet = datagram.into_packet();
            if let Some(care_of) = care_of {
                put_routing(&mut packet, care_of);
                self.counters.optimised_out += 1;
            }
            match self.wire.send(&packet) {
                Ok(()) => {}
                Err(why) => {
                    self.counters.dropped += 1;
                    if why == Errno::MSGSIZE {
                        // The network is narrower than our device: we do not know by how much, but this always fits.
                        tell_sender(tun, &whole, ip::MIN_MTU.into(), pair.1)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn status(&self, now: Instant) -> Status {
        let bound = |((client, service), binding): (_, &ferry_mipv6::correspondent::Binding)| Bound {
            client,
            service,
            care_of: binding.care_of,
            seconds_left: binding.until.until(now).as_secs(),
            sequence: binding.sequence,
        };
        Status {
            mode: self.mode(),
            bindings: self.core.bindings().map(bound).collect(),
            counters: self.counters,
        }
    }
}

/// Tells this host that a packet which it has sent through our device is too big.
fn tell_sender(tun: &Tun, about: &Bytes, mtu: u32, from: Ipv6Addr) -> io::Result<()> {
    let error = icmp::complaint(about, icmp::Error::PacketTooBig { mtu }, from);
    let told = error.and_then(|packet| ip::parse(packet.to_bytes(), Offload::default()).ok());
    told.map_or(Ok(()), |told| tun.deliver(told).map(drop))
}

fn way(options: &Options) -> Result<Way, Failed> {
    let by_kernel = || Xfrm::open().map_err(doing("talk to the kernel's xfrm"));
    let by_device = || {
        if options.services.is_empty() {
            return Err(Failed::NoService);
        }
        let tun = Tun::open(&options.services, options.mtu).map_err(doing("set up the TUN device"))?;
        Ok(Way::Tun(tun))
    };
    match options.mode {
        Some(Mode::Xfrm) => by_kernel()?.map(Way::Xfrm).ok_or(Failed::NoKernelSupport),
        Some(Mode::Tun) => by_device(),
        None => by_kernel()?.map_or_else(by_device, |xfrm| Ok(Way::Xfrm(xfrm))),
    }
}

fn keep_only(kept: CapabilitySet) -> rustix::io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}
