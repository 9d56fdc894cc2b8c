//! Packets in pieces, at the interface.

use super::*;

fn fragment(kind: u8, offset: u16, more: bool, data: &[u8]) -> Frame {
    let field = (offset | u16::from(more)).to_be_bytes();
    let header = [kind, 0, field[0], field[1], 0, 0, 0, 9];
    framed(MAC, &packet(US, 44, &[&header[..], data].concat()))
}

fn echo(len: usize) -> Vec<u8> {
    let icmp = Icmp {
        to_mac: MAC,
        source: PEER,
        destination: US,
        hop_limit: 64,
        kind: 128,
        code: 0,
        body: vec![5; len],
    };
    icmp.frame().head[54..].to_vec()
}

#[test]
fn an_echo_request_in_pieces_is_answered() {
    let mut interface = acquainted();
    let whole = echo(84);
    interface.receive(fragment(58, 48, false, &whole[48..]), at(0));
    assert_eq!(sent(&mut interface), []);
    interface.receive(fragment(58, 0, true, &whole[..48]), at(1));
    let (kind, code, body) = sent(&mut interface).remove(0).icmp.unwrap();
    assert_eq!((kind, code, body), (129, 0, vec![5; 84]));
    assert_eq!((interface.counters().fragments, interface.counters().reassembled), (2, 1));
    assert_eq!(interface.deadline(), None);
}

#[test]
fn a_packet_whose_pieces_do_not_come_is_told_after_a_minute_if_its_first_did() {
    for (offset, told) in [(0, 1), (48, 0)] {
        let mut interface = acquainted();
        interface.receive(fragment(58, offset, true, &echo(84)[..48]), at(5));
        assert_eq!(interface.deadline(), Some(at(60_005)));
        interface.handle_timeout(at(60_004));
        assert_eq!(sent(&mut interface), []);
        interface.neighbours.confirm(PEER, at(60_004));
        interface.handle_timeout(at(60_005));
        let errors: Vec<_> = sent(&mut interface).into_iter().filter_map(|it| it.icmp).collect();
        let time_exceeded = errors.iter().filter(|(kind, code, _)| (*kind, *code) == (3, 1)).count();
        assert_eq!(time_exceeded, told, "{errors:?}");
        assert_eq!(interface.counters().reassembly_failed, 1);
    }
}

#[test]
fn neighbour_discovery_in_pieces_is_met_with_silence() {
    let mut interface = interface();
    let whole = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &US.octets(), &[1, 1, 2, 0, 0, 0, 0, 2]].concat();
    interface.receive(fragment(58, 0, true, &whole[..24]), at(0));
    assert_eq!(interface.receive(fragment(58, 24, false, &whole[24..]), at(0)), None);
    assert_eq!(sent(&mut interface), []);
    assert_eq!(interface.counters().reassembled, 0);
}

#[test]
fn a_first_piece_without_the_whole_chain_is_refused() {
    let mut interface = acquainted();
    interface.receive(fragment(6, 0, true, &[0; 16]), at(0));
    let errors: Vec<_> = sent(&mut interface).into_iter().filter_map(|it| it.icmp).collect();
    assert_eq!((errors[0].0, errors[0].1), (4, 3));
}
