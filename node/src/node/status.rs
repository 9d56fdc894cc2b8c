//! How the node is, for those who look.

use std::collections::BTreeMap;
use std::time::Duration;

use ferry_stack::Instant;
use ferry_stack::tcp::Tcb;

use super::{Node, Owned};
use crate::directory::Lease;
use crate::io::{Connection, Counters, Status};

impl Node {
    /// How the node is.
    pub fn status(&self, now: Instant) -> Status {
        Status {
            name: (*self.name).to_owned(),
            group: self.group.clone(),
            service_address: self.service_address,
            care_of: self.care_of,
            gateway_answers: self.interface.has_found_gateway(),
            contact: self.is_contact(),
            contact_node: self.node_name(self.contact).to_owned(),
            contact_term: self.home.term(),
            home_agent: self.home.status(now),
            draining: self.draining,
            placement: self.policy.name().to_owned(),
            uptime_ms: millis(self.started.since(now)),
            connections: self.owned.len(),
            relayed: self.places.len(),
            moving: self.handoffs.under_way() + self.warming.leaving(),
            directory: self.directory.name().to_owned(),
            serving: self.may_serve(now),
            lease_ms: match self.directory.lease() {
                Lease::Unlimited => None,
                Lease::Until(end) => Some(millis(end.until(now))),
            },
            etcd: self.directory.etcd(now),
            peers: self.peers.status(|peer| self.directory.standing(peer)),
            copies: self.copies(now),
            counters: self.counters(),
        }
    }

    /// The connections that it owns, in the order of client address and port.
    pub fn connections(&self) -> Vec<Connection> {
        let mut owned: Vec<_> = self.owned().collect();
        owned.sort_by_key(|(tcb, _)| (tcb.flow.remote, tcb.flow.local.port()));
        owned.into_iter().map(|(tcb, owned)| self.connection(owned, tcb)).collect()
    }

    /// How much it remembers, and of what: all of it is bounded, and gone some minutes after the last connection. For
    /// tests and experiments.
    pub fn remembered(&self) -> BTreeMap<&'static str, usize> {
        [
            ("connections", self.owned.len()),
            ("places", self.places.len()),
            ("held octets", self.octets_held()),
            ("placed", self.placed.len()),
            ("handoffs", self.handoffs.remembered()),
            ("warming", self.warming.len()),
            ("leaving", self.leaving.len()),
            ("claims", self.claims.len()),
            ("updates", self.updates.len()),
            ("questions", self.asks.len()),
            ("suspended", self.suspended.len()),
            ("jobs", self.jobs.jobs.len()),
            ("outputs", self.outputs.len()),
        ]
        .into_iter()
        .chain(self.backup.remembered())
        .collect()
    }

    fn connection(&self, owned: &Owned, tcb: &Tcb) -> Connection {
        let port = tcb.flow.local.port();
        Connection {
            client: tcb.flow.remote,
            port,
            service: self.services.get(&port).map(|service| service.name().to_owned()).unwrap_or_default(),
            state: tcb.state.to_string(),
            opened_ms: owned.epoch.life,
            epoch: owned.epoch.count,
            sent: tcb.snd.acked_total,
            received: tcb.rcv.total,
            srtt_us: tcb.rtt.smoothed.map(micros),
            cwnd: tcb.congestion.cwnd.into(),
            protection: self.protection_of(owned, tcb),
        }
    }

    fn counters(&self) -> Counters {
        let below = self.interface.counters();
        let cookies = self.tcp.cookies();
        Counters {
            resets_sent: self.tcp.resets(),
            retransmitted: self.tcp.retransmitted(),
            cookies_sent: cookies.sent,
            cookies_accepted: cookies.accepted,
            cookies_replayed: cookies.replayed,
            dropped: self.counters.dropped + below.malformed + below.bad_checksum + below.not_ours,
            ..self.counters.clone()
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
