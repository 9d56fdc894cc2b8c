//! Bindings in userspace, for kernels without `CONFIG_IPV6_MIP6`: what goes to a service passes a TUN device.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, BorrowedFd};

use ferry_stack::Frame;
use ferry_stack::ip::{self, Datagram};
use rustix::net::netdevice::name_to_index;
use rustix::net::netlink;
use rustix::net::{AddressFamily, SocketType};

use super::netlink::{CREATE, EXCL, Netlink, Request, attributes, put_attribute};
use super::{Prefix, wire};
use crate::driver::{Sent, Tap};

/// The device.
const DEVICE: &str = "ferry-cn";
/// The routing table with the routes to it, which are not for the daemon's own packets.
const TABLE: u32 = wire::MARK;
const RULE_PRIORITY: u32 = 7700;

// linux/rtnetlink.h, linux/if_link.h, linux/fib_rules.h
const NEW_LINK: u16 = 16;
const NEW_ROUTE: u16 = 24;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const LINK_MTU: u16 = 4;
const UP: u32 = 1;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_DEVICE: u16 = 4;
const ROUTE_TABLE: u16 = 15;
const RULE_PRIORITY_ATTRIBUTE: u16 = 6;
const RULE_MARK: u16 = 10;
const RULE_TABLE: u16 = 15;
const RULE_MASK: u16 = 16;
const INVERT: u32 = 2;
const INET6: u8 = 10;

/// The TUN device and what leads to it. All of it goes with the daemon, however that ends, but for the rule, which
/// then leads to an empty table.
#[derive(Debug)]
pub(super) struct Tun {
    device: Tap,
    routing: Netlink,
    /// The filter belongs to this socket: the kernel takes it away with it.
    _filter: Netlink,
}

impl Tun {
    /// Makes the device, and has what goes to the services go there.
    pub(super) fn open(services: &[Prefix], mtu: u16) -> io::Result<Self> {
        let device = Tap::make_tun(DEVICE)?;
        let routing = Netlink::open(None)?;
        let any = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None)?;
        let index = name_to_index(&any, DEVICE)?;
        set_up(&routing, index, mtu)?;
        for service in services {
            routing.ask(route(service, index))?;
        }
        // One that a former life has left behind does no harm, and is taken over.
        routing.ask(rule(DELETE_RULE, 0)).unwrap_or_default();
        routing.ask(rule(NEW_RULE, CREATE | EXCL))?;
        Ok(Self { device, routing, _filter: keep_from_kernel()? })
    }

    /// The next packet that goes to a service.
    pub(super) fn receive(&mut self) -> io::Result<Option<Datagram>> {
        while let Some(frame) = self.device.receive()? {
            if let Ok(datagram) = ip::parse_transit(frame.head, frame.offload) {
                return Ok(Some(datagram));
            }
        }
        Ok(None)
    }

    /// Lets this host have a packet, as if it had come through the device.
    pub(super) fn deliver(&self, datagram: Datagram) -> io::Result<Sent> {
        let packet = datagram.into_packet();
        self.device.send(&Frame { head: packet.head.into(), body: packet.body, offload: packet.offload })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        self.routing.ask(rule(DELETE_RULE, 0)).unwrap_or_default();
    }
}

fn set_up(routing: &Netlink, index: u32, mtu: u16) -> io::Result<()> {
    let mut link = vec![0; 4];
    link.extend(index.to_ne_bytes());
    link.extend(UP.to_ne_bytes());
    link.extend(UP.to_ne_bytes());
    let request = Request::new(NEW_LINK, 0, &link).attribute(LINK_MTU, &u32::from(mtu).to_ne_bytes());
    Ok(routing.ask(request)?)
}

fn route(service: &Prefix, index: u32) -> Request {
    const STATIC: u8 = 4;
    const UNICAST: u8 = 1;
    let body = [INET6, service.len, 0, 0, 0, STATIC, 0, UNICAST, 0, 0, 0, 0];
    Request::new(NEW_ROUTE, CREATE | EXCL, &body)
        .attribute(ROUTE_DESTINATION, &service.address.octets())
        .attribute(ROUTE_DEVICE, &index.to_ne_bytes())
        .attribute(ROUTE_TABLE, &TABLE.to_ne_bytes())
}

/// What is not marked as ours looks into our table first.
fn rule(kind: u16, flags: u16) -> Request {
    const TO_TABLE: u8 = 1;
    let mut body = vec![INET6, 0, 0, 0, 0, 0, 0, TO_TABLE];
    body.extend(INVERT.to_ne_bytes());
    Request::new(kind, flags, &body)
        .attribute(RULE_PRIORITY_ATTRIBUTE, &RULE_PRIORITY.to_ne_bytes())
        .attribute(RULE_MARK, &wire::MARK.to_ne_bytes())
        .attribute(RULE_MASK, &u32::MAX.to_ne_bytes())
        .attribute(RULE_TABLE, &TABLE.to_ne_bytes())
}

/// A kernel that does not know the Home Address option refuses the packet with an ICMPv6 error, which tells its sender
/// that this host has no Mobile IPv6: it must not see what the daemon takes. The table belongs to the socket.
fn keep_from_kernel() -> io::Result<Netlink> {
    const OWNED: u32 = 2;
    const TABLE: &[u8] = b"ferry-correspondent\0";
    const CHAIN: &[u8] = b"home-address-options\0";
    const PREROUTING: u32 = 0;
    const RAW: i32 = -300;
    let table = message(0, CREATE | EXCL, false, &[(1, TABLE), (2, &OWNED.to_be_bytes())]);
    let hook = attributes(&[(1, &PREROUTING.to_be_bytes()), (2, &RAW.to_be_bytes())]);
    let chain = message(3, CREATE, false, &[(1, TABLE), (3, CHAIN), (NESTED | 4, &hook), (7, b"filter\0")]);
    let mut expressions = Vec::new();
    for expression in [octet_at(6), equals(60), octet_at(46), equals(0xc9), drop_it()] {
        put_attribute(&mut expressions, NESTED | 1, &expression);
    }
    let rule = message(6, CREATE | APPEND, true, &[(1, TABLE), (2, CHAIN), (NESTED | 4, &expressions)]);
    let filter = Netlink::open(Some(netlink::NETFILTER))?;
    let batch = [batch(BEGIN), table, chain, rule, batch(END)].concat();
    filter.exchange(&batch)?;
    Ok(filter)
}

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const NESTED: u16 = 0x8000;
const APPEND: u16 = 0x800;
const TABLES: u8 = 10;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const REGISTER: u32 = 1;

fn batch(kind: u16) -> Vec<u8> {
    Request::silent(kind, 0, &[0, 0, 0, TABLES]).octets()
}

fn message(kind: u16, flags: u16, last: bool, list: &[(u16, &[u8])]) -> Vec<u8> {
    let kind = u16::from(TABLES) << 8 | kind;
    let body = [INET6, 0, 0, 0];
    let request = if last { Request::new(kind, flags, &body) } else { Request::silent(kind, flags, &body) };
    list.iter().fold(request, |request, (kind, data)| request.attribute(*kind, data)).octets()
}

fn expression(name: &[u8], data: &[(u16, &[u8])]) -> Vec<u8> {
    attributes(&[(1, name), (NESTED | 2, &attributes(data))])
}

/// Loads an octet of the packet, counted from the IPv6 header.
fn octet_at(offset: u32) -> Vec<u8> {
    const NETWORK_HEADER: u32 = 1;
    let [register, base, offset, len] = [REGISTER, NETWORK_HEADER, offset, 1].map(u32::to_be_bytes);
    expression(b"payload\0", &[(1, &register), (2, &base), (3, &offset), (4, &len)])
}

fn equals(octet: u8) -> Vec<u8> {
    const EQUAL: u32 = 0;
    let value = attributes(&[(1, &[octet])]);
    let (register, operator) = (REGISTER.to_be_bytes(), EQUAL.to_be_bytes());
    expression(b"cmp\0", &[(1, &register), (2, &operator), (NESTED | 3, &value)])
}

fn drop_it() -> Vec<u8> {
    const VERDICT_REGISTER: u32 = 0;
    const DROP: u32 = 0;
    let code = attributes(&[(1, &DROP.to_be_bytes())]);
    let verdict = attributes(&[(NESTED | 2, &code)]);
    expression(b"immediate\0", &[(1, &VERDICT_REGISTER.to_be_bytes()), (NESTED | 2, &verdict)])
}

/// Whether an address lies in one of the services' prefixes; with none given, any does.
pub(super) fn is_service(services: &[Prefix], address: Ipv6Addr) -> bool {
    services.is_empty() || services.iter().any(|service| service.contains(address))
}
