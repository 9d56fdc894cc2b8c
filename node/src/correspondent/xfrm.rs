//! Bindings in the kernel (`CONFIG_IPV6_MIP6`): it puts type 2 routing headers into what goes to a home address, and
//! takes Home Address options of what comes (RFC 6275 sections 9.3.1 and 9.3.2). Applications stay untouched.
//!
//! A Home Address option that no binding covers is taken by a state for all addresses, and then refused, because no policy
//! allows it: only so does the kernel report it, and a Binding Error can be sent (section 9.3.1).

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};

use ferry_mipv6::correspondent::{Binding, Change, Pair};
use rustix::io::Errno;
use rustix::net::netlink;

use super::netlink::{CREATE, EXCL, HEADER, Netlink, Request};

// linux/xfrm.h
const NEW_STATE: u16 = 0x10;
const DELETE_STATE: u16 = 0x11;
const UPDATE_STATE: u16 = 0x1a;
const NEW_POLICY: u16 = 0x13;
const DELETE_POLICY: u16 = 0x14;
const UPDATE_POLICY: u16 = 0x19;
const REPORT: u16 = 0x20;
/// The group of those who are told of what was refused.
const REPORTS: u32 = 6;
const TEMPLATE: u16 = 5;
const SOURCE: u16 = 13;
const CARE_OF: u16 = 14;
const POLICY_TYPE: u16 = 16;
const SUB: [u8; 6] = [1, 0, 0, 0, 0, 0];
const ROUTE_OPTIMISATION: u8 = 2;
const OPTIONAL: u8 = 1;
/// The state takes what no other does.
const WILDCARD: u8 = 8;
const ANY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// Octets of `struct xfrm_selector`.
const SELECTOR: usize = 56;

const INET6: u16 = 10;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
/// Whoever writes the IPv6 header himself: this daemon, whose messages must go as they are.
const RAW: u8 = 255;

/// Policies of bindings, and those that let our own messages through before them.
const PRIORITY: u32 = 10;
const FIRST: u32 = 5;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

/// The bindings that the kernel has from us.
#[derive(Debug)]
pub(super) struct Xfrm {
    kernel: Netlink,
    reports: Netlink,
    installed: BTreeMap<Pair, Ipv6Addr>,
}

/// A packet that claimed a home address without a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Our address that it came to.
    pub(super) ours: Ipv6Addr,
    /// What it claimed.
    pub(super) home: Ipv6Addr,
    /// Where it came from.
    pub(super) care_of: Ipv6Addr,
}

impl AsFd for Xfrm {
    /// Readable when there may be a [claim](Xfrm::claim).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

impl Xfrm {
    /// Opens the way to the kernel, and tries whether it can do it.
    pub(super) fn open() -> io::Result<Option<Self>> {
        let kernel = Netlink::open(Some(netlink::XFRM))?;
        let reports = Netlink::listen(netlink::XFRM, REPORTS)?;
        let mut xfrm = Self { kernel, reports, installed: BTreeMap::new() };
        // Addresses of the prefix that leads nowhere (RFC 6666).
        let nowhere = |last| Ipv6Addr::new(0x100, 0, 0, 0, 0xfe77, 0, 0, last);
        let pair = (nowhere(1), nowhere(2));
        let tried = xfrm.bind(pair, nowhere(3)).and_then(|()| xfrm.put_state(&anybody(), ANY));
        xfrm.unbind(pair);
        match tried {
            Ok(()) => Ok(Some(xfrm)),
            Err(Errno::PERM | Errno::ACCESS) => Err(Errno::PERM.into()),
            Err(_) => Ok(None),
        }
    }

    /// Carries out what the correspondent decided.
    pub(super) fn carry_out(&mut self, change: Change) -> io::Result<()> {
        match change {
            Change::Bound(pair, Binding { care_of, .. }) => Ok(self.bind(pair, care_of)?),
            Change::Unbound(pair) => {
                self.unbind(pair);
                Ok(())
            }
        }
    }

    fn bind(&mut self, (ours, home): Pair, care_of: Ipv6Addr) -> Result<(), Errno> {
        self.installed.insert((ours, home), care_of);
        self.put_state(&state(ours, home, ROUTING), care_of)?;
        self.put_state(&state(home, ours, DESTINATION_OPTIONS), care_of)?;
        let ours_first = policy(ours, home, Direction::Out, RAW, FIRST);
        self.put_policy(&ours_first, None)?;
        let out = policy(ours, home, Direction::Out, 0, PRIORITY);
        self.put_policy(&out, Some(&template(ROUTING, ANY)))?;
        let into = policy(home, ours, Direction::In, 0, PRIORITY);
        // By the state of this very home address: that for all does not make its packets good.
        self.put_policy(&into, Some(&template(DESTINATION_OPTIONS, home)))
    }

    /// The next packet that the kernel has refused because of its Home Address option.
    pub(super) fn claim(&self) -> io::Result<Option<Claim>> {
        while let Some(report) = self.reports.receive()? {
            if let Some(claim) = claim(&report) {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    fn put_state(&self, state: &[u8], care_of: Ipv6Addr) -> Result<(), Errno> {
        let request = |kind, flags| Request::new(kind, flags, state).attribute(CARE_OF, &care_of.octets());
        match self.kernel.ask(request(NEW_STATE, CREATE | EXCL)) {
            // It moves, or a former life of ours has left it behind.
            Err(Errno::EXIST) => self.kernel.ask(request(UPDATE_STATE, CREATE)),
            outcome => outcome,
        }
    }

    fn put_policy(&self, policy: &[u8], template: Option<&[u8]>) -> Result<(), Errno> {
        let request = |kind, flags| {
            let request = Request::new(kind, flags, policy).attribute(POLICY_TYPE, &SUB);
            match template {
                Some(template) => request.attribute(TEMPLATE, template),
                None => request,
            }
        };
        match self.kernel.ask(request(NEW_POLICY, CREATE | EXCL)) {
            Err(Errno::EXIST) => self.kernel.ask(request(UPDATE_POLICY, CREATE)),
            outcome => outcome,
        }
    }

    /// Takes away what [`Xfrm::bind`] has put there. What is gone already is gone.
    fn unbind(&mut self, (ours, home): Pair) {
        self.installed.remove(&(ours, home));
        let policies = [
            (selector(ours, home, 0), Direction::Out),
            (selector(ours, home, RAW), Direction::Out),
            (selector(home, ours, 0), Direction::In),
        ];
        for (mut policy, direction) in policies {
            policy.extend([0, 0, 0, 0, direction.octet(), 0, 0, 0]);
            let request = Request::new(DELETE_POLICY, 0, &policy).attribute(POLICY_TYPE, &SUB);
            self.kernel.ask(request).unwrap_or_default();
        }
        self.remove_state(ours, home, ROUTING);
        self.remove_state(home, ours, DESTINATION_OPTIONS);
    }

    fn remove_state(&self, from: Ipv6Addr, to: Ipv6Addr, protocol: u8) {
        let mut id = to.octets().to_vec();
        id.extend([0; 4]);
        id.extend(INET6.to_ne_bytes());
        id.extend([protocol, 0]);
        let request = Request::new(DELETE_STATE, 0, &id).attribute(SOURCE, &from.octets());
        self.kernel.ask(request).unwrap_or_default();
    }
}

impl Drop for Xfrm {
    /// Removes exactly what was installed.
    fn drop(&mut self) {
        let pairs: Vec<_> = self.installed.keys().copied().collect();
        for pair in pairs {
            self.unbind(pair);
        }
        self.remove_state(ANY, ANY, DESTINATION_OPTIONS);
    }
}

impl Direction {
    const fn octet(self) -> u8 {
        match self {
            Self::In => 0,
            Self::Out => 1,
        }
    }
}

/// `struct xfrm_selector`: packets from one address to another, of a protocol, or of any with zero.
fn selector(from: Ipv6Addr, to: Ipv6Addr, protocol: u8) -> Vec<u8> {
    let prefix = |address: Ipv6Addr| if address == ANY { 0 } else { 128 };
    let mut octets = [to.octets(), from.octets()].concat();
    octets.extend([0; 8]);
    octets.extend(INET6.to_ne_bytes());
    octets.extend([prefix(to), prefix(from), protocol, 0, 0, 0]);
    octets.extend([0; 8]);
    octets
}

/// `struct xfrm_lifetime_cfg` without limits, and `struct xfrm_lifetime_cur`.
fn endless() -> Vec<u8> {
    [[0xff; 32], [0; 32], [0; 32]].concat()
}

/// `struct xfrm_usersa_info`.
fn state(from: Ipv6Addr, to: Ipv6Addr, protocol: u8) -> Vec<u8> {
    let mut octets = selector(from, to, 0);
    octets.extend(to.octets());
    octets.extend([0, 0, 0, 0, protocol, 0, 0, 0]);
    octets.extend(from.octets());
    octets.extend(endless());
    // Statistics, sequence number and request number.
    octets.extend([0; 20]);
    octets.extend(INET6.to_ne_bytes());
    let flags = if from == ANY { WILDCARD } else { 0 };
    octets.extend([ROUTE_OPTIMISATION, 0, flags]);
    octets.resize(224, 0);
    octets
}

/// The state for Home Address options of which nobody knows.
fn anybody() -> Vec<u8> {
    state(ANY, ANY, DESTINATION_OPTIONS)
}

/// What a report tells: a netlink header, `struct xfrm_user_report`, and the care-of address as an attribute.
fn claim(report: &[u8]) -> Option<Claim> {
    let address = |at: usize| -> Option<Ipv6Addr> {
        let octets: [u8; 16] = report.get(at..at + 16)?.try_into().ok()?;
        Some(octets.into())
    };
    let number = |at: usize| Some(u16::from_ne_bytes(report.get(at..at + 2)?.try_into().ok()?));
    if number(4)? != REPORT || report.get(HEADER) != Some(&DESTINATION_OPTIONS) {
        return None;
    }
    let selector = HEADER + 4;
    let attribute = selector + SELECTOR;
    let care_of = (number(attribute + 2)? == CARE_OF).then(|| address(attribute + 4)).flatten()?;
    Some(Claim { ours: address(selector)?, home: address(selector + 16)?, care_of })
}

/// `struct xfrm_userpolicy_info`: lets pass, perhaps by a template.
fn policy(from: Ipv6Addr, to: Ipv6Addr, direction: Direction, protocol: u8, priority: u32) -> Vec<u8> {
    let mut octets = selector(from, to, protocol);
    octets.extend(endless());
    octets.extend(priority.to_ne_bytes());
    octets.extend([0; 4]);
    octets.push(direction.octet());
    octets.resize(168, 0);
    octets
}

/// `struct xfrm_user_tmpl`: by a state from that address, or from any, if there is one.
fn template(protocol: u8, from: Ipv6Addr) -> Vec<u8> {
    let mut octets = vec![0; 20];
    octets.extend([protocol, 0, 0, 0]);
    octets.extend(INET6.to_ne_bytes());
    octets.extend([0; 2]);
    octets.extend(from.octets());
    octets.resize(48, 0);
    octets.extend([ROUTE_OPTIMISATION, 0, OPTIONAL, 0]);
    octets.extend([0xff; 12]);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_gets_has_the_size_of_its_structures() {
        let [a, b] = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED];
        assert_eq!(selector(a, b, 0).len(), 56);
        assert_eq!(state(a, b, ROUTING).len(), 224);
        assert_eq!(policy(a, b, Direction::Out, 0, PRIORITY).len(), 168);
        assert_eq!(template(ROUTING, a).len(), 64);
        assert_eq!(selector(a, b, 0).len(), SELECTOR);
    }

    #[test]
    fn a_report_tells_who_claimed_what_and_what_is_cut_short_tells_nothing() {
        let [ours, home, care_of] =
            ["2001:db8:1::c", "2001:db8:5::1", "2001:db8:a1::2"].map(|text| text.parse().unwrap());
        let body = [vec![DESTINATION_OPTIONS, 0, 0, 0], selector(home, ours, 6)].concat();
        let report = Request::new(REPORT, 0, &body).attribute(CARE_OF, &care_of.octets()).octets();
        assert_eq!(claim(&report), Some(Claim { ours, home, care_of }));
        assert!((0..report.len()).all(|len| claim(&report[..len]).is_none()));
        let other = Request::new(REPORT, 0, &body).attribute(SOURCE, &care_of.octets()).octets();
        assert_eq!(claim(&other), None);
    }
}
