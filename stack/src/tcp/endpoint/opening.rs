//! Connections begin: listeners, and both ways to open.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddrV6};

use super::{Endpoint, Handle, Refusal};
use crate::Instant;
use crate::tcp::config::Config;
use crate::tcp::isn::FIRST_EPHEMERAL;
use crate::tcp::listener::{Listener, SynCookies};
use crate::tcp::open::Opening;
use crate::tcp::segment::{Flow, Segment};
use crate::tcp::tcb::Tcb;

/// How far the numbers of a new connection lie above those of the one that it takes the place of, at least: beyond
/// anything that was ever in that one's window unless it was scaled.
const ABOVE_OLD: u32 = 1 << 16;

impl Endpoint {
    /// Starts to accept connections at a port. Those that are under way there or wait to be accepted stay.
    pub fn listen(&mut self, port: u16, mut listener: Listener) {
        listener.half_open =
            self.iter_all().filter(|it| it.half_open && it.tcb.flow.local.port() == port).count();
        listener.waiting = self.listeners.remove(&port).map(|old| old.waiting).unwrap_or_default();
        self.listeners.insert(port, listener);
    }

    /// Accepts no more at a port. Connections that were accepted stay; those that nobody will accept any more, and
    /// handshakes under way, are reset (RFC 9293 section 3.10.5), as Linux does.
    pub fn unlisten(&mut self, port: u16) {
        let Some(listener) = self.listeners.remove(&port) else { return };
        let half_open =
            self.connections.iter().filter(|(_, it)| it.half_open && it.tcb.flow.local.port() == port);
        let abandoned: Vec<Handle> = half_open.map(|(handle, _)| handle).chain(listener.waiting).collect();
        for handle in abandoned {
            if let Some(connection) = self.connections.get_mut(handle) {
                connection.half_open = false;
            }
            self.with(handle, Tcb::abort);
        }
    }

    /// The listener at a port.
    pub fn listener(&self, port: u16) -> Option<&Listener> {
        self.listeners.get(&port)
    }

    /// The next established connection of a listener, the oldest first.
    pub fn accept(&mut self, port: u16) -> Option<Handle> {
        self.listeners.get_mut(&port)?.waiting.pop_front()
    }

    /// Opens a connection (RFC 9293 section 3.10.1) from a free port of `local`.
    pub fn connect(
        &mut self,
        local: Ipv6Addr,
        remote: SocketAddrV6,
        config: impl Into<Arc<Config>>,
        now: Instant,
    ) -> Result<Handle, Refusal> {
        self.ports = self.ports.wrapping_add(1);
        let first = self.secret.first_port(local, remote, self.ports);
        let flow = (first..=u16::MAX)
            .chain(FIRST_EPHEMERAL..first)
            .map(|port| Flow { local: SocketAddrV6::new(local, port, 0, 0), remote })
            .find(|flow| self.find(flow).is_none())
            .ok_or(Refusal::NoPort)?;
        self.connect_from(flow, config, now)
    }

    /// Opens a connection whose local port is chosen.
    pub fn connect_from(
        &mut self,
        flow: Flow,
        config: impl Into<Arc<Config>>,
        now: Instant,
    ) -> Result<Handle, Refusal> {
        if self.find(&flow).is_some() {
            return Err(Refusal::Exists);
        }
        let tcb = Tcb::connect(flow, &self.opening(&flow, config.into(), now), now);
        Ok(self.insert(tcb, false))
    }

    /// Opens passively (RFC 9293 section 3.10.7.2): `syn` came for a flow that is not known here, and this host is to serve it. If the queue is
    /// full, [`Endpoint::answer_without_memory`] may still help the client.
    pub fn open(&mut self, flow: Flow, syn: &Segment, now: Instant) -> Result<Handle, Refusal> {
        if self.find(&flow).is_some() {
            return Err(Refusal::Exists);
        }
        let port = flow.local.port();
        let listener = self.listeners.get_mut(&port).ok_or(Refusal::NoListener(port))?;
        let full =
            listener.half_open >= listener.max_half_open || listener.waiting.len() >= listener.max_waiting;
        if full || listener.config.syn_cookies == SynCookies::Always {
            return Err(Refusal::QueueFull);
        }
        listener.half_open += 1;
        let config = Arc::clone(&listener.config);
        let mut opening = self.opening(&flow, config, now);
        if let Some((_, old)) = self.replaced.take().filter(|(replaced, _)| *replaced == flow) {
            // RFC 9293 section 3.6.1: larger than all that the old connection used. A fast one outruns the clock.
            opening.iss = opening.iss.later(old + ABOVE_OLD);
        }
        let tcb = Tcb::accept(flow, syn, &opening, now);
        Ok(self.insert(tcb, true))
    }

    pub(super) fn opening(&self, flow: &Flow, config: Arc<Config>, now: Instant) -> Opening {
        let shared = self.group_clock.at(now);
        Opening {
            config,
            iss: self.secret.initial_sequence(flow, shared),
            first_timestamp: self.secret.first_timestamp(flow, shared),
            flow_label: self.secret.flow_label(flow),
            path_mtu: self.path_mtu,
        }
    }
}
