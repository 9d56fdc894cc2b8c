//! Multicast: which groups we listen to, and telling snooping bridges so (MLD, version 2: RFC 3810).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use bytes::Bytes;
use smoltcp::wire::{EthernetAddress, Icmpv6Packet, MldAddressRecordRepr, MldRecordType, MldRepr};

use super::Interface;
use crate::checksum;
use crate::frame::Offload;
use crate::ip::{self, Datagram, HEADER_LEN, Header, Packet};
use crate::time::Instant;

/// Every node on the link (RFC 4291 section 2.7.1).
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every node behind this interface (RFC 4291 section 2.7.1).
const ALL_NODES_HERE: Ipv6Addr = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1);
/// Every router and bridge that speaks version 2 (RFC 3810 section 5.2.14).
const REPORT_TO: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// A report may get lost, so that a change is reported twice (RFC 3810 sections 6.1 and 9.11).
pub(super) const REPORT_AGAIN: Duration = Duration::from_secs(1);
/// Hop-by-Hop Options: ICMPv6 follows; Router Alert for MLD (RFC 2711), two octets of padding.
const ROUTER_ALERT: [u8; 8] = [ip::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
/// Records in one report at most, to stay within the minimum MTU.
const MAX_RECORDS: usize = 50;
/// Octets of a report before its records, and of a record without sources.
const REPORT_LEN: usize = 8;
const RECORD_LEN: usize = 20;
const _: () =
    assert!(HEADER_LEN + ROUTER_ALERT.len() + REPORT_LEN + MAX_RECORDS * RECORD_LEN <= ip::MIN_MTU as usize);

/// The group in which an address is looked for (RFC 4291 section 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let low = address.to_bits() & 0xff_ffff;
    Ipv6Addr::from_bits((0xff02_u128 << 112) | 0x1_ff00_0000 | low)
}

/// Whether this is the solicited-node group of some address.
pub(super) fn is_solicited_node(address: Ipv6Addr) -> bool {
    solicited_node(address) == address
}

/// The link-layer address of a group (RFC 2464 section 7).
pub(super) fn mac_of(group: Ipv6Addr) -> EthernetAddress {
    let [.., a, b, c, d] = group.octets();
    EthernetAddress([0x33, 0x33, a, b, c, d])
}

impl Interface {
    /// Whether a frame to this link-layer address is for us.
    pub(super) fn listens_to(&self, mac: EthernetAddress) -> bool {
        mac == self.mac
            || mac.is_multicast()
                && (mac == mac_of(ALL_NODES)
                    || self.answered().any(|known| mac_of(solicited_node(known)) == mac))
    }

    /// Whether a packet to this address is for us: an address of ours, or a group that we are in.
    pub(super) fn is_ours(&self, destination: Ipv6Addr) -> bool {
        if !destination.is_multicast() {
            return self.has_address(destination);
        }
        let asked = || self.answered().any(|known| solicited_node(known) == destination);
        destination == ALL_NODES || destination == ALL_NODES_HERE || asked()
    }

    /// A router or bridge asks who listens to what (RFC 3810 section 6.2). It is told everything at once.
    pub(super) fn queried(&mut self, query: &Datagram, now: Instant) {
        let genuine = query.source.is_unicast_link_local() && query.hop_limit == 1;
        if genuine && self.reports.take(now) {
            self.report(MldRecordType::ModeIsExclude, &self.groups());
        }
    }

    /// Says which groups we listen to.
    pub(super) fn report_groups(&mut self) {
        self.report(MldRecordType::ChangeToExclude, &self.groups());
    }

    /// Says that nobody here listens for `address` any more.
    pub(super) fn leave_group_of(&mut self, address: Ipv6Addr) {
        let group = solicited_node(address);
        if !self.groups().contains(&group) {
            self.report(MldRecordType::ChangeToInclude, &[group]);
        }
    }

    /// The solicited-node groups of our addresses. The group of all nodes is never reported (RFC 3810 section 6).
    fn groups(&self) -> Vec<Ipv6Addr> {
        let groups: BTreeSet<_> = self.answered().map(solicited_node).collect();
        groups.into_iter().collect()
    }

    fn report(&mut self, kind: MldRecordType, groups: &[Ipv6Addr]) {
        let own = self.addresses.iter().map(|known| known.address).find(Ipv6Addr::is_unicast_link_local);
        // RFC 3810 section 5.2.13.
        let source = own.unwrap_or(Ipv6Addr::UNSPECIFIED);
        for groups in groups.chunks(MAX_RECORDS) {
            self.put(mac_of(REPORT_TO), emit(kind, groups, source));
        }
    }
}

/// A report (RFC 3810 section 5.2).
fn emit(kind: MldRecordType, groups: &[Ipv6Addr], source: Ipv6Addr) -> Packet {
    let records: Vec<_> = groups.iter().map(|group| MldAddressRecordRepr::new(kind, *group)).collect();
    let len = REPORT_LEN + RECORD_LEN * records.len();
    let header = Header { source, destination: REPORT_TO, next_header: 0, hop_limit: 1, ..Header::default() };
    let mut head = header.emit(ROUTER_ALERT.len() + len);
    head.extend_from_slice(&ROUTER_ALERT);
    let at = head.len();
    head.resize(at + len, 0);
    let mut message = Icmpv6Packet::new_unchecked(&mut head[at..]);
    MldRepr::ReportRecordReprs(&records).emit(&mut message);
    let mut packet = Packet { head, body: Bytes::new(), offload: Offload::default() };
    checksum::transport(&mut packet, at, checksum::ICMPV6, false);
    packet
}
