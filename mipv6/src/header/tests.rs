use core::net::Ipv6Addr;

use bytes::Bytes;
use ferry_stack::ip::{self, Datagram};
use ferry_stack::{Checksum, Offload};
use proptest::prelude::*;

use super::*;

// Packets that another implementation (Scapy 2.8) wrote; the lengths of options 4 and 5 had to be told to it.
const REFRESH_REQUEST: &str =
    "600000000008874020010db800010000000000000000000c20010db80005000000000000000000013b00000068eb0000";
const HOME_TEST_INIT: &str = "600000000010874020010db800050000000000000000000120010db800010000000000000000000c3b01010057ce00000102030405060708";
const CARE_OF_TEST_INIT: &str = "600000000010874020010db8000a0000000000000000000220010db800010000000000000000000c3b01020056c800000102030405060708";
const HOME_TEST: &str = "600000000018874020010db800010000000000000000000c20010db80005000000000000000000013b020300f33c123401020304050607081112131415161718";
const CARE_OF_TEST: &str = "600000000018874020010db800010000000000000000000c20010db8000a000000000000000000023b020400f235123501020304050607081112131415161718";
const UPDATE: &str = "6000000000383c4020010db8000a0000000000000000000220010db800010000000000000000000c870201020000c91020010db80005000000000000000000013b030500d103fffe80000069040412341235050c2122232425262728292a2b2c";
const ACKNOWLEDGEMENT: &str = "6000000000382b4020010db800010000000000000000000c20010db8000a00000000000000000002870202010000000020010db80005000000000000000000013b030600ee758700000700000202005a0100050c2122232425262728292a2b2c";
const ERROR: &str = "600000000018874020010db800010000000000000000000c20010db8000a000000000000000000023b0207003314010020010db8000500000000000000000001";
const HOME_REGISTRATION: &str = "6000000000383c4020010db8000a0000000000000000000220010db800010000000000000000000c870201020000c91020010db80005000000000000000000013b03050071ef0001c000000a0100031020010db8000a00000000000000000002";

const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
const CORRESPONDENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xc);
const COOKIE: Cookie = Cookie([1, 2, 3, 4, 5, 6, 7, 8]);
const TOKEN: Token = Token([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
const AUTHENTICATOR: Authenticator =
    Authenticator([0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x2b, 0x2c]);

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn datagram(octets: &[u8]) -> Datagram {
    ip::parse(Bytes::copy_from_slice(octets), Offload::default()).unwrap()
}

fn update() -> BindingUpdate {
    BindingUpdate {
        sequence: 0xfffe,
        acknowledge: true,
        lifetime: Lifetime::MAX_ROUTABILITY,
        options: Options {
            nonce_indices: Some((0x1234, 0x1235)),
            authorization: Some(AUTHENTICATOR),
            ..Options::default()
        },
        ..BindingUpdate::default()
    }
}

fn known() -> [(&'static str, Message); 9] {
    let test = |nonce_index| Test { nonce_index, cookie: COOKIE, token: TOKEN };
    let options =
        Options { refresh_advice: Some(90), authorization: Some(AUTHENTICATOR), ..Options::default() };
    let refused =
        BindingAcknowledgement { status: Status::SEQUENCE, sequence: 7, lifetime: Lifetime::ZERO, options };
    let registration = BindingUpdate {
        sequence: 1,
        acknowledge: true,
        home_registration: true,
        lifetime: Lifetime(10),
        options: Options { alternate_care_of: Some(CARE_OF), ..Options::default() },
        ..BindingUpdate::default()
    };
    let error = Message::BindingError { status: BindingErrorStatus::NO_BINDING, home_address: HOME };
    [
        (REFRESH_REQUEST, Message::BindingRefreshRequest),
        (HOME_TEST_INIT, Message::HomeTestInit(COOKIE)),
        (CARE_OF_TEST_INIT, Message::CareOfTestInit(COOKIE)),
        (HOME_TEST, Message::HomeTest(test(0x1234))),
        (CARE_OF_TEST, Message::CareOfTest(test(0x1235))),
        (UPDATE, Message::BindingUpdate(update())),
        (ACKNOWLEDGEMENT, Message::BindingAcknowledgement(refused)),
        (ERROR, error),
        (HOME_REGISTRATION, Message::BindingUpdate(registration)),
    ]
}

#[test]
fn messages_are_read_and_written_as_another_implementation_does() {
    for (hex, message) in known() {
        let packet = octets(hex);
        let datagram = datagram(&packet);
        let received = open(&datagram).unwrap();
        assert_eq!(received.message, message, "{}", message.name());
        let from = received.home_address.unwrap_or(received.source);
        let to = received.routed_home.unwrap_or(received.destination);
        assert_eq!(message.emit(from, to), datagram.upper_bytes(), "{}", message.name());
    }
}

#[test]
fn home_addresses_are_found_where_the_headers_carry_them() {
    let bound = open(&datagram(&octets(UPDATE))).unwrap();
    assert_eq!((bound.source, bound.home_address, bound.routed_home), (CARE_OF, Some(HOME), None));
    let answered = open(&datagram(&octets(ACKNOWLEDGEMENT))).unwrap();
    assert_eq!(
        (answered.destination, answered.home_address, answered.routed_home),
        (CARE_OF, None, Some(HOME))
    );
}

/// A packet with its Mobility Header changed at one place, and the checksum made right again.
fn changed(hex: &str, at: usize, octet: u8) -> Result<Received, Fault> {
    let mut packet = octets(hex);
    let upper_at = datagram(&packet).upper_at;
    packet[upper_at + at] = octet;
    let mut changed = datagram(&packet);
    changed.offload.checksum = Checksum::Verified;
    open(&changed)
}

#[test]
fn what_is_wrong_draws_what_the_rfc_says() {
    // Section 9.2: something follows the header; the header is too short for its type, or too long for the packet.
    assert_eq!(changed(UPDATE, 0, 6), Err(Fault::Problem(64)));
    assert_eq!(changed(UPDATE, 1, 0), Err(Fault::Problem(65)));
    assert_eq!(changed(UPDATE, 1, 4), Err(Fault::Problem(65)));
    assert_eq!(changed(HOME_TEST, 1, 1), Err(Fault::Problem(41)));
    assert_eq!(changed(UPDATE, 2, 99), Err(Fault::UnknownType(99)));
    let mut packet = octets(HOME_TEST_INIT);
    *packet.last_mut().unwrap() ^= 1;
    assert_eq!(open(&datagram(&packet)), Err(Fault::Checksum));
}

#[test]
fn nobody_answers_what_was_sent_to_many() {
    let mut packet = octets(HOME_TEST_INIT);
    packet[24] = 0xff;
    assert_eq!(open(&datagram(&packet)), Err(Fault::Address));
}

#[test]
fn a_signature_that_is_not_the_last_option_is_none() {
    // The nonce indices become an option that nobody knows, which is skipped; the signature's length goes wrong.
    let Ok(Received { message: Message::BindingUpdate(update), .. }) = changed(UPDATE, 12, 200) else {
        panic!()
    };
    assert_eq!((update.options.nonce_indices, update.options.authorization), (None, Some(AUTHENTICATOR)));
    for len in [0, 11, 13, 255] {
        assert_eq!(changed(UPDATE, 19, len), Err(Fault::Option), "{len}");
    }
}

#[test]
fn a_signature_holds_for_its_key_its_addresses_and_its_octets_only() {
    let key = Key::new(&TOKEN, Some(&Token([9; 8])));
    let mut message = Message::BindingUpdate(update());
    message.authorize(&key, CARE_OF, CORRESPONDENT);
    let signed = |message: &Message| {
        let mut packet = octets(UPDATE);
        let upper_at = datagram(&packet).upper_at;
        packet.splice(upper_at.., message.emit(HOME, CORRESPONDENT));
        open(&datagram(&packet)).unwrap()
    };
    let received = signed(&message);
    assert!(received.is_authorized(&key, CARE_OF, CORRESPONDENT));
    assert!(!received.is_authorized(&key, HOME, CORRESPONDENT));
    assert!(!received.is_authorized(&key, CARE_OF, HOME));
    assert!(!received.is_authorized(&Key::new(&TOKEN, None), CARE_OF, CORRESPONDENT));
    let Message::BindingUpdate(update) = &mut message else { unreachable!() };
    update.sequence += 1;
    assert!(!signed(&message).is_authorized(&key, CARE_OF, CORRESPONDENT));
}

#[test]
fn a_shared_key_signs_up_to_its_spi() {
    let authentication = Authentication { spi: 1000, ..Authentication::default() };
    let options = Options {
        alternate_care_of: Some(CARE_OF),
        timestamp: Some(0x0102_0304_0506_0708),
        authentication: Some(authentication),
        ..Options::default()
    };
    let update = BindingUpdate { home_registration: true, options, ..update() };
    let mut message = Message::BindingUpdate(update);
    message.authenticate(b"a shared key", CARE_OF, HOME);
    let mut packet = octets(HOME_REGISTRATION);
    let upper_at = datagram(&packet).upper_at;
    packet.splice(upper_at.., message.emit(HOME, CORRESPONDENT));
    let payload_len = u16::try_from(packet.len() - ip::HEADER_LEN).unwrap();
    packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
    let received = open(&datagram(&packet)).unwrap();
    assert_eq!(received.message, message);
    assert!(received.is_authentic(b"a shared key", CARE_OF, HOME));
    assert!(!received.is_authentic(b"another key", CARE_OF, HOME));
    assert!(!received.is_authentic(b"a shared key", HOME, HOME));
}

proptest! {
    #[test]
    fn any_octets_are_read_or_refused(kind in 0_u8..9, len in 0_u8..6, rest in prop::collection::vec(any::<u8>(), 0..64)) {
        let header = [&[ip::NO_NEXT_HEADER, len, kind, 0, 0, 0][..], &rest].concat();
        let fields = ip::Header { source: CARE_OF, destination: CORRESPONDENT, next_header: ip::MOBILITY, ..ip::Header::default() };
        let mut packet = fields.emit(header.len());
        packet.extend(&header);
        if let Ok(mut datagram) = ip::parse(packet.into(), Offload::default()) {
            datagram.offload.checksum = Checksum::Verified;
            if let Ok(received) = open(&datagram) {
                // What was understood is written so that it is understood in the same way.
                let octets = received.message.emit(CARE_OF, CORRESPONDENT);
                let mut packet = fields.emit(octets.len());
                packet.extend(octets);
                prop_assert_eq!(open(&self::datagram(&packet)).unwrap().message, received.message);
            }
        }
    }
}
