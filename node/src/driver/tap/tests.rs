use ferry_stack::tcp::{Flow, Segment};
use ferry_stack::{Checksum, Gso, Seq};

use super::*;

fn filled(octets: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(MAX_READ);
    buffer.resize(octets, 7);
    buffer
}

#[test]
fn a_small_frame_does_not_pin_the_big_buffer() {
    let mut buffer = filled(header::LEN + 60);
    let frame = take(&mut buffer);
    assert_eq!(frame.len(), 60);
    assert_eq!((buffer.len(), buffer.capacity()), (0, MAX_READ));
}

#[test]
fn a_big_frame_is_not_copied() {
    let mut buffer = filled(header::LEN + 65_000);
    let at = buffer.as_ptr();
    let frame = take(&mut buffer);
    assert_eq!((frame.len(), frame.as_ptr()), (65_000, at.wrapping_add(header::LEN)));
    assert_eq!(buffer.capacity(), 0);
}

#[test]
fn a_device_that_is_not_there_is_not_made() {
    let error = Tap::open("ferry-no-such", true).unwrap_err();
    let text = error.to_string();
    match error {
        TapError::NoDevice { .. } => {
            assert!(text.contains("sudo ip tuntap add dev ferry-no-such mode tap user"), "{text}");
        }
        TapError::NoDriver | TapError::NoPermission => assert!(text.contains("/dev/net/tun"), "{text}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_descriptor_that_is_no_tap_is_refused_with_what_it_is() {
    let closed = Tap::inherit(9_999, "ferry0").unwrap_err().to_string();
    assert!(closed.starts_with("descriptor 9999 of --tap-fd is not open; it must be"), "{closed}");
    let file = std::os::fd::IntoRawFd::into_raw_fd(std::fs::File::open("/dev/null").unwrap());
    let text = Tap::inherit(file, "ferry0").unwrap_err().to_string();
    assert!(text.contains("is not attached to a device"), "{text}");
}

/// The frames of a connection's octets from `from` on, in segments of 1000, as a device without offloads has them.
fn frames(octets: usize, from: u32) -> Vec<Vec<u8>> {
    let flow =
        Flow { local: "[2001:db8::1]:80".parse().unwrap(), remote: "[2001:db8::2]:8080".parse().unwrap() };
    let payload: Vec<u8> = (0..octets).map(|at| u8::try_from((at * 7 + at / 1000) % 251).unwrap()).collect();
    let segment = |(nth, part): (usize, &[u8])| {
        let mut segment = Segment::bare(Seq(from) + nth * 1000, Some(Seq(7)), None);
        segment.payload = Bytes::copy_from_slice(part);
        [&[0; header::LEN][..], &[2; 12], &[0x86, 0xdd], &segment.emit(&flow, 0, false).to_bytes()].concat()
    };
    payload.chunks(1000).enumerate().map(segment).collect()
}

/// What a driver makes of frames that wait on a device without offloads.
fn received(frames: &[Vec<u8>]) -> Vec<Frame> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    for frame in frames {
        rustix::io::write(&far, frame).unwrap();
    }
    let mut tap = Tap { offload: false, ..Tap::over(near) };
    let all = core::iter::from_fn(|| tap.receive().unwrap()).collect();
    assert_eq!(tap.unusable(), 0);
    all
}

#[test]
fn segments_that_follow_each_other_come_as_one_and_nothing_else_is_changed() {
    let (sent, other) = (frames(5500, 1), frames(1500, 90_000));
    let together = received(&[&sent[..], &other].concat());
    assert_eq!(together.len(), 2, "one of each");
    for (whole, parts) in together.iter().zip([&sent, &other]) {
        let octets: Vec<u8> = parts.iter().flat_map(|frame| &frame[header::LEN + 74..]).copied().collect();
        assert_eq!(whole.head[74..], octets);
        assert_eq!(whole.head[..18], parts[0][header::LEN..header::LEN + 18]);
        assert_eq!(whole.offload, Offload { checksum: Checksum::Verified, gso: Some(Gso { size: 1000 }) });
    }
    // A gap, and a segment whose checksum is wrong: it comes as it is, for the stack to drop.
    let mut broken = sent.clone();
    broken[3][200] ^= 1;
    broken.remove(1);
    let lens: Vec<_> = received(&broken).iter().map(|frame| frame.len() - 74).collect();
    assert_eq!(lens, [1000, 1000, 1000, 1500]);
}

#[test]
fn a_long_train_is_handed_on_in_parts() {
    let sent = frames(80_000, 1);
    let whole = received(&sent);
    assert!(whole.len() > 1 && whole.iter().all(|frame| frame.len() < TRAIN + 2000), "{}", whole.len());
    assert_eq!(whole.iter().map(|frame| frame.len() - 74).sum::<usize>(), 80_000);
}
