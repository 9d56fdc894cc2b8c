//! A node's status as a page of metrics.

use core::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::{Copies, Counters, EtcdStatus, HomeAgentStatus, PeerStatus, Standing, Status};

/// The page. `None` if it cannot be written, which a string always can.
pub(super) fn text(status: Status) -> Option<String> {
    let mut registry = Registry::with_prefix("ferry");
    registry.register_collector(Box::new(Seen(status)));
    let mut text = String::with_capacity(4 << 10);
    prometheus_text::encode(&mut text, &registry).ok().map(|()| text)
}

/// What is told of a node at one moment.
#[derive(Debug)]
struct Seen(Status);

impl Collector for Seen {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.status(&self.0)
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn status(&mut self, status: &Status) -> fmt::Result {
        // Named one by one, so that what is new is not forgotten here.
        let Status {
            name,
            group,
            service_address,
            care_of,
            gateway_answers,
            contact,
            contact_node: _,
            contact_term,
            home_agent,
            draining,
            placement,
            uptime_ms,
            connections,
            relayed,
            moving,
            directory: _,
            serving,
            lease_ms,
            etcd,
            peers,
            copies,
            counters,
        } = status;
        let (service_address, care_of) = (service_address.to_string(), care_of.to_string());
        let identity = [("name", name), ("group", group), ("service_address", &service_address)];
        self.identity(identity.into_iter().chain([("care_of", &care_of), ("placement", placement)]))?;
        self.gauge("uptime_seconds", "Since the node started", uptime_ms / 1000)?;
        self.gauge("gateway_answers", "Whether its gateway has answered", u64::from(*gateway_answers))?;
        self.gauge("contact_node", "Whether it answers for the service address", u64::from(*contact))?;
        if let Some(term) = contact_term {
            self.gauge("contact_term", "Counts the contact nodes", *term)?;
        }
        self.gauge("draining", "Whether it empties itself", u64::from(*draining))?;
        self.gauge("connections", "Connections that it owns", *connections as u64)?;
        self.gauge("connections_relayed", "Connections of others that it relays", *relayed as u64)?;
        self.gauge("connections_moving", "Handoffs under way, as donor or acceptor", *moving as u64)?;
        self.gauge("serving", "Whether it may act for its connections", u64::from(*serving))?;
        if let Some(lease) = lease_ms {
            self.gauge("lease_milliseconds", "For how long that is certain", *lease)?;
        }
        if let Some(EtcdStatus { connected, registered, revision, .. }) = etcd {
            self.gauge("etcd_connected", "Whether etcd has answered", u64::from(*connected))?;
            let help = "Whether this node is registered in etcd under a lease";
            self.gauge("etcd_registered", help, u64::from(*registered))?;
            let help = "The newest revision of the group's keys in etcd that is known";
            self.gauge("etcd_revision", help, u64::try_from(*revision).unwrap_or_default())?;
        }
        if let Some(HomeAgentStatus { registered, .. }) = home_agent {
            let help = "Whether the home agent sends what comes for the service address here";
            self.gauge("home_agent_registered", help, u64::from(*registered))?;
        }
        self.peers(peers)?;
        self.copies(copies)?;
        self.counters(counters)
    }

    fn copies(&mut self, copies: &Copies) -> fmt::Result {
        let Copies {
            protected,
            unprotected,
            lag_octets,
            lag_us,
            held,
            held_octets,
            recovering,
            discarding,
            recovered,
            lost,
            deltas,
            delta_octets,
        } = copies;
        self.gauge(
            "connections_protected",
            "Connections of which another node has a copy",
            *protected as u64,
        )?;
        let help = "Connections that should have a copy at another node, and have none";
        self.gauge("connections_unprotected", help, *unprotected as u64)?;
        self.gauge("copies_lag_octets", "Octets that are not in every copy yet", *lag_octets)?;
        self.gauge("copies_lag_microseconds", "For how long the furthest behind has been", *lag_us)?;
        self.gauge("copies_held", "Copies of other nodes' connections", *held as u64)?;
        self.gauge("copies_held_octets", "Octets of payload in them", *held_octets as u64)?;
        self.gauge("copies_recovering", "Copies of which the owner has died", *recovering as u64)?;
        self.gauge("copies_discarding", "Copies elsewhere that are to be forgotten", *discarding as u64)?;
        let help = "Connections that went on here after their owner had died";
        self.counter("connections_recovered", help, *recovered)?;
        self.counter("copies_lost", "Copies from which no connection could go on", *lost)?;
        self.counter("deltas_sent", "How often copies were brought up to date", *deltas)?;
        self.counter("delta_octets_sent", "Octets that this took", *delta_octets)
    }

    fn counters(&mut self, counters: &Counters) -> fmt::Result {
        let Counters {
            frames_in,
            frames_out,
            accepted,
            taken,
            given,
            handoffs_failed,
            forwarded,
            held,
            optimised,
            resets_sent,
            retransmitted,
            cookies_sent,
            cookies_accepted,
            cookies_replayed,
            disbelieved,
            lost_ownership,
            roles_taken,
            dropped,
        } = counters;
        [
            ("frames_in", "Frames from the TAP", frames_in),
            ("frames_out", "Frames to the TAP", frames_out),
            ("connections_accepted", "Connections that clients opened here", accepted),
            ("connections_taken", "Connections that came from another node", taken),
            ("connections_given", "Connections that went to another node", given),
            ("handoffs_failed", "Handoffs that came to nothing", handoffs_failed),
            ("segments_forwarded", "Segments sent on to another node", forwarded),
            ("segments_held", "Segments held for a connection that was arriving", held),
            ("segments_optimised", "Segments sent straight to a client that knows the owner", optimised),
            ("resets_sent", "RST segments sent", resets_sent),
            ("segments_retransmitted", "TCP segments sent again", retransmitted),
            ("cookies_sent", "SYN segments answered by a cookie", cookies_sent),
            ("cookies_accepted", "Connections that a cookie opened here", cookies_accepted),
            ("cookies_replayed", "Cookies that came back when their connection was over", cookies_replayed),
            ("messages_disbelieved", "Messages of other members that were not believed", disbelieved),
            ("connections_lost", "Connections given up to others that took it for dead", lost_ownership),
            ("roles_taken", "How often it became the contact node", roles_taken),
            ("packets_dropped", "Packets that were malformed, or meant for somebody else", dropped),
        ]
        .into_iter()
        .try_for_each(|(name, help, value)| self.counter(name, help, *value))
    }

    fn peers(&mut self, peers: &[PeerStatus]) -> fmt::Result {
        let up = |peer: &PeerStatus| u64::from(peer.up);
        let owned = |peer: &PeerStatus| peer.connections as u64;
        let alive = |peer: &PeerStatus| u64::from(matches!(peer.standing, Standing::Alive | Standing::New));
        self.of_each(
            "peer_alive",
            "Whether nothing speaks against another node's being alive",
            peers,
            alive,
        )?;
        self.of_each("peer_up", "Whether the link to another node is up", peers, up)?;
        let help = "Connections of another node when it last said so";
        self.of_each("peer_connections", help, peers, owned)
    }

    fn of_each(
        &mut self,
        name: &str,
        help: &str,
        peers: &[PeerStatus],
        value: impl Fn(&PeerStatus) -> u64,
    ) -> fmt::Result {
        if peers.is_empty() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for peer in peers {
            let labels = [("peer", peer.name.as_str())];
            ConstGauge::new(value(peer)).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn identity<'s>(&mut self, labels: impl Iterator<Item = (&'s str, &'s String)>) -> fmt::Result {
        let version = ("version", env!("CARGO_PKG_VERSION"));
        let labels: Vec<_> = labels.map(|(name, value)| (name, value.as_str())).chain([version]).collect();
        let encoder = self.0.encode_descriptor("node", "Who the node is", None, MetricType::Info)?;
        Info::new(labels).encode(encoder)
    }
}
