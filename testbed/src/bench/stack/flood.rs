//! A flood of SYN segments from addresses that nobody has, and clients that want to be served all the same.

use core::net::Ipv6Addr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use ferry_stack::Seq;
use ferry_stack::tcp::{Control, Flow, Options, Segment};

use super::client::honest;
use super::ground::{CLIENT_CORE, Ground, TAP, broken, on};
use super::ours::{ECHO, MAC, Ours};
use super::{Figures, Scale};
use crate::Result;
use crate::clock::{now_ns, pause};
use crate::cores::pin;
use crate::error::Doing;
use crate::sys::packet;

/// Clients that mean it.
pub(super) const CLIENTS: u32 = 100;
/// How many milliseconds each of them tries: their kernel sends a SYN that gets lost again after 1, 2, 3, 4, 5, 7, 11 s.
const PATIENCE_MS: u64 = 30_000;
/// The flood alone, before the clients come; milliseconds.
const BEFORE_MS: u64 = 500;
/// Frames between two looks at the clock.
const BURST: usize = 256;

/// How many of the clients are served while one core does nothing but send SYN segments.
pub(super) fn served(ground: &Ground, scale: Scale) -> Result<Figures> {
    let ours = Ours::start(ground, TAP, Duration::ZERO)?;
    let interface = ground.near.interface(TAP.device)?;
    let (mut figures, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..scale.runs.min(3) {
        let (served, rate) = one_run(ground, interface, ours.at(ECHO), scale)?;
        figures.push(served);
        rates.push(rate);
    }
    ours.stop()?;
    let rate = crate::report::median(&rates).unwrap_or(0.0);
    let note = format!("{CLIENTS} that tried, amid {rate:.0} thousand SYN a second");
    Ok(Figures { ours: figures, peer: Vec::new(), note: Some(note) })
}

#[allow(clippy::cast_precision_loss)] // Counts of a run.
fn one_run(ground: &Ground, interface: u32, to: core::net::SocketAddrV6, scale: Scale) -> Result<(f64, f64)> {
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = now_ns();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            ground.near.run(|| {
                pin(CLIENT_CORE)?;
                flood(interface, &stop, &sent)
            })
        });
        pause(scale.span(BEFORE_MS));
        let served = on(&ground.near, CLIENT_CORE, || Ok(honest(to, CLIENTS, scale.span(PATIENCE_MS))));
        let seconds = (now_ns() - begun) as f64 * 1e-9;
        stop.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| broken("the flood panicked"))??;
        Ok((served? as f64, sent.load(Ordering::Relaxed) as f64 * 1e-3 / seconds))
    })
}

fn flood(interface: u32, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let socket = packet::sender(interface).doing("open a packet socket")?;
    let mut frame = frame();
    let mut random = fastrand::Rng::with_seed(now_ns());
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            vary(&mut frame, random.u64(..));
            // What finds no room is lost, as the flood on any wire.
            if rustix::io::write(&socket, &frame).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// An Ethernet frame with a SYN, its checksum complete.
fn frame() -> Vec<u8> {
    let source = Ipv6Addr::new(0x2001, 0xdb8, 0xee, 0, 0, 0, 0, 0);
    let flow = Flow {
        local: core::net::SocketAddrV6::new(source, 2000, 0, 0),
        remote: core::net::SocketAddrV6::new(TAP.service(), ECHO, 0, 0),
    };
    let mut syn = Segment::bare(Seq(0), None, Some(Control::Syn));
    syn.window = 0xffff;
    syn.options =
        Options { mss: Some(1440), sack_permitted: true, window_scale: Some(7), ..Options::default() };
    let packet = syn.emit(&flow, 0, false).to_bytes();
    [MAC.as_bytes(), &[2, 0xfc, 0, 0, 0, 9], &[0x86, 0xdd], &packet].concat()
}

/// Another sender and another sequence number, with the same checksum: what one word gains, another loses.
fn vary(frame: &mut [u8], random: u64) {
    const SOURCE: usize = 14 + 8;
    const SEQ: usize = 14 + 40 + 4;
    let random = random.to_be_bytes();
    let (words, _) = random.as_chunks::<2>();
    let places = [(SOURCE + 8, SOURCE + 10), (SOURCE + 12, SOURCE + 14), (SEQ, SEQ + 2)];
    for (word, (at, opposite)) in words.iter().zip(places) {
        frame[at..at + 2].copy_from_slice(word);
        frame[opposite..opposite + 2].copy_from_slice(&(!u16::from_be_bytes(*word)).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use ferry_stack::{Offload, ip};

    use super::*;

    #[test]
    fn every_syn_of_the_flood_is_another_and_has_the_right_checksum() {
        let mut frame = frame();
        let mut seen = std::collections::BTreeSet::new();
        for random in [1 << 40, 2 << 40, u64::MAX, 0x0123_4567_89ab_cdef] {
            vary(&mut frame, random);
            let packet = bytes::Bytes::copy_from_slice(&frame[14..]);
            let datagram = ip::parse(packet, Offload::default()).expect("a packet");
            let (flow, segment) = Segment::parse(&datagram).expect("a segment with a right checksum");
            assert!(segment.is_syn() && flow.local.port() == ECHO);
            assert!(seen.insert((*flow.remote.ip(), segment.seq.0)));
        }
    }
}
