#!/usr/bin/env python3
"""checksums.py FILE: recomputes every TCP, ICMPv6 and Mobility Header checksum of a classic pcap with Ethernet frames,
over home addresses where a type 2 routing header or a Home Address option carries them (RFC 6275 sections 6.3, 6.4).
Shares no line with what it judges. Prints how many there were; exits with 1 if one is wrong, or if there are none."""
import collections
import struct
import sys

TCP, ROUTING, ICMPV6, OPTIONS, MOBILITY = 6, 43, 58, 60, 135


def frames(octets):
    order = "<" if octets[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at + 16 <= len(octets):
        kept, whole = struct.unpack(order + "II", octets[at + 8 : at + 16])
        yield octets[at + 16 : at + 16 + kept], kept == whole
        at += 16 + kept


def home_address(header):
    at = 2
    while at + 1 < len(header):
        if header[at] == 0:
            at += 1
            continue
        if header[at] == 0xC9:
            return header[at + 2 : at + 18]
        at += 2 + header[at + 1]
    return None


def upper(packet):
    """The protocol, its octets, and the addresses as it sees them."""
    source, destination, protocol, at = packet[8:24], packet[24:40], packet[6], 40
    while protocol in (0, ROUTING, OPTIONS):
        header = packet[at : at + 8 + 8 * packet[at + 1]]
        if protocol == OPTIONS:
            source = home_address(header) or source
        if protocol == ROUTING and header[2] == 2 and header[3] > 0:
            destination = header[8:24]
        protocol, at = header[0], at + len(header)
    return protocol, packet[at : 40 + struct.unpack(">H", packet[4:6])[0]], source, destination


def is_right(protocol, octets, source, destination):
    data = source + destination + struct.pack(">II", len(octets), protocol) + octets
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def main():
    seen, wrong = collections.Counter(), 0
    for number, (frame, whole) in enumerate(frames(open(sys.argv[1], "rb").read()), 1):
        if not whole or frame[12:14] != b"\x86\xdd":
            continue
        protocol, octets, source, destination = upper(frame[14:])
        if protocol not in (TCP, ICMPV6, MOBILITY):
            continue
        seen[protocol] += 1
        if not is_right(protocol, octets, source, destination):
            wrong += 1
            print(f"frame {number}: the checksum of protocol {protocol} is wrong")
    print(f"checksums: {seen[TCP]} TCP, {seen[MOBILITY]} Mobility Header, {seen[ICMPV6]} ICMPv6, {wrong} wrong")
    sys.exit(1 if wrong or not seen[TCP] or not seen[MOBILITY] else 0)


main()
