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
