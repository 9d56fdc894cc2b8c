//! Every state times every event (RFC 9293 section 3.10). What is pinned here was read against the RFC line by
//! line; a change of behaviour is a change of this table.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::harness::{Make, Solo, Start, plain};
use crate::tcp::{Segment, State};

type Build = fn(Start) -> Solo;
type Act = fn(&mut Solo) -> Result<(), String>;

const STATES: [Build; 9] = [
    Solo::syn_sent,
    Solo::syn_received,
    Solo::established,
    Solo::fin_wait_1,
    Solo::fin_wait_2,
    Solo::close_wait,
    Solo::closing,
    Solo::last_ack,
    Solo::time_wait,
];

/// The next sequence numbers of both sides, counted from the ISNs: the peer's, and ours.
fn edges(solo: &Solo) -> (u32, u32) {
    let theirs =
        if solo.tcb.state == State::SynSent { 0 } else { solo.tcb.rcv.nxt.0.wrapping_sub(solo.irs.0) };
    (theirs, solo.tcb.snd.nxt.0.wrapping_sub(solo.iss.0))
}

fn gets(solo: &mut Solo, segment: Segment) -> Result<(), String> {
    solo.gets(segment).map_err(|reason| format!("{reason:?}").split('(').next().unwrap().to_string())
}

fn next(solo: &Solo) -> Segment {
    let (theirs, ours) = edges(solo);
    solo.ack(theirs, ours)
}

fn at(solo: &Solo, seq: i32, ack: i32) -> Segment {
    let (theirs, ours) = edges(solo);
    solo.ack(theirs.wrapping_add_signed(seq), ours.wrapping_add_signed(ack))
}

fn without_ack(segment: Segment) -> Segment {
    Segment { ack: None, ..segment }
}

const EVENTS: [(&str, Act); 31] = [
    ("SYN again", |solo| gets(solo, without_ack(solo.ack(0, 0)).syn_bit())),
    ("SYN in the window", |solo| gets(solo, without_ack(at(solo, 5, 0)).syn_bit())),
    ("SYN and ACK again", |solo| gets(solo, solo.ack(0, 1).syn_bit())),
    ("ACK of all", |solo| gets(solo, next(solo))),
    ("ACK of nothing new", |solo| gets(solo, at(solo, 0, -1))),
    ("ACK of the unsent", |solo| gets(solo, at(solo, 0, 1))),
    ("ACK of long ago", |solo| gets(solo, at(solo, 0, -70_000))),
    ("no ACK bit", |solo| gets(solo, without_ack(next(solo)))),
    ("RST exact", |solo| gets(solo, next(solo).rst())),
    ("RST exact, no ACK", |solo| gets(solo, without_ack(next(solo)).rst())),
    ("RST in the window", |solo| gets(solo, at(solo, 9, 0).rst())),
    ("RST before it", |solo| gets(solo, at(solo, -1, 0).rst())),
    ("RST beyond it", |solo| gets(solo, at(solo, 60_000, 0).rst())),
    ("FIN", |solo| gets(solo, next(solo).fin())),
    ("FIN again", |solo| gets(solo, at(solo, -1, 0).fin())),
    ("FIN behind a gap", |solo| gets(solo, at(solo, 9, 0).fin())),
    ("FIN beyond it", |solo| gets(solo, at(solo, 60_000, 0).fin())),
    ("new octets", |solo| gets(solo, next(solo).data(b"abc"))),
    ("new octets, old ACK", |solo| gets(solo, at(solo, 0, -1).data(b"abc"))),
    ("old octets", |solo| gets(solo, at(solo, -3, 0).data(b"abc"))),
    ("octets partly old", |solo| gets(solo, at(solo, -1, 0).data(b"abc"))),
    ("octets behind a gap", |solo| gets(solo, at(solo, 9, 0).data(b"abc"))),
    ("octets beyond it", |solo| gets(solo, at(solo, 60_000, 0).data(b"abc"))),
    ("octets and FIN", |solo| gets(solo, next(solo).data(b"abc").fin())),
    ("keep-alive", |solo| gets(solo, at(solo, -1, 0))),
    ("finish", |solo| {
        solo.tcb.finish();
        Ok(())
    }),
    ("close", |solo| {
        solo.tcb.close(solo.now);
        Ok(())
    }),
    ("abort", |solo| {
        solo.tcb.abort();
        Ok(())
    }),
    ("write", |solo| {
        let rest = solo.tcb.write(b"abc".as_slice().into());
        if rest.is_empty() { Ok(()) } else { Err("no room".to_string()) }
    }),
    ("kick", |solo| {
        solo.tcb.kick();
        Ok(())
    }),
    ("time", |solo| {
        let at = solo.tcb.deadline().ok_or("no deadline")?;
        solo.now = at;
        solo.tcb.handle_timeout(at);
        Ok(())
    }),
];

fn row(build: Build, start: Start, (name, act): (&str, Act)) -> String {
    let mut solo = build(start);
    let before = solo.tcb.state.to_string();
    let result = act(&mut solo).err().unwrap_or_default();
    solo.tcb.check().unwrap();
    let after = match solo.tcb.state {
        State::Closed(ending) => format!("CLOSED {ending:?}"),
        state => state.to_string(),
    };
    let after = if after == before { "=".to_string() } else { after };
    format!("{before:<12} | {name:<20} | {after:<15} | {:<16} | {result}", solo.sent().join(", "))
        .trim_end()
        .to_string()
}

#[test]
fn every_state_treats_every_event_as_the_table_says() {
    let expected: Vec<_> = TABLE.trim().lines().collect();
    // The same wherever on the circle of sequence numbers the connection begins.
    for (iss, irs) in
        [(1000, 5000), (u32::MAX, u32::MAX), (u32::MAX - 1, 3), (7, u32::MAX - 4), (1 << 31, 1 << 31)]
    {
        let start = Start { config: plain(), iss, irs };
        let rows: Vec<_> = STATES
            .iter()
            .flat_map(|build| EVENTS.iter().map(move |event| row(*build, start, *event)))
            .collect();
        for (row, expected) in rows.iter().zip(&expected) {
            assert_eq!(row, expected, "ISNs {iss} and {irs}");
        }
        assert_eq!(rows.len(), expected.len(), "\n{}", rows.join("\n"));
    }
}

#[rustfmt::skip]
const TABLE: &str = "
SYN-SENT     | SYN again            | SYN-RECEIVED    | SYN 0 ack 1      |
SYN-SENT     | SYN in the window    | SYN-RECEIVED    | SYN 0 ack 6      |
SYN-SENT     | SYN and ACK again    | ESTABLISHED     | 1 ack 1          |
SYN-SENT     | ACK of all           | =               |                  | NoSyn
SYN-SENT     | ACK of nothing new   | =               |                  | AckOfNothing
SYN-SENT     | ACK of the unsent    | =               |                  | AckOfNothing
SYN-SENT     | ACK of long ago      | =               |                  | AckOfNothing
SYN-SENT     | no ACK bit           | =               |                  | NoSyn
SYN-SENT     | RST exact            | CLOSED Refused  |                  |
SYN-SENT     | RST exact, no ACK    | =               |                  | BlindReset
SYN-SENT     | RST in the window    | CLOSED Refused  |                  |
SYN-SENT     | RST before it        | CLOSED Refused  |                  |
SYN-SENT     | RST beyond it        | CLOSED Refused  |                  |
SYN-SENT     | FIN                  | =               |                  | NoSyn
SYN-SENT     | FIN again            | =               |                  | NoSyn
SYN-SENT     | FIN behind a gap     | =               |                  | NoSyn
SYN-SENT     | FIN beyond it        | =               |                  | NoSyn
SYN-SENT     | new octets           | =               |                  | NoSyn
SYN-SENT     | new octets, old ACK  | =               |                  | AckOfNothing
SYN-SENT     | old octets           | =               |                  | NoSyn
SYN-SENT     | octets partly old    | =               |                  | NoSyn
SYN-SENT     | octets behind a gap  | =               |                  | NoSyn
SYN-SENT     | octets beyond it     | =               |                  | NoSyn
SYN-SENT     | octets and FIN       | =               |                  | NoSyn
SYN-SENT     | keep-alive           | =               |                  | NoSyn
SYN-SENT     | finish               | CLOSED Aborted  |                  |
SYN-SENT     | close                | CLOSED Aborted  |                  |
SYN-SENT     | abort                | CLOSED Aborted  |                  |
SYN-SENT     | write                | =               |                  |
SYN-SENT     | kick                 | =               | SYN 0            |
SYN-SENT     | time                 | =               | SYN 0            |
SYN-RECEIVED | SYN again            | =               | SYN 0 ack 1      |
SYN-RECEIVED | SYN in the window    | =               | 1 ack 1          | UnexpectedSyn
SYN-RECEIVED | SYN and ACK again    | =               | 1 ack 1          | OutOfWindow
SYN-RECEIVED | ACK of all           | ESTABLISHED     |                  |
SYN-RECEIVED | ACK of nothing new   | =               |                  | AckOfNothing
SYN-RECEIVED | ACK of the unsent    | =               |                  | AckOfNothing
SYN-RECEIVED | ACK of long ago      | =               |                  | AckOfNothing
SYN-RECEIVED | no ACK bit           | =               |                  | NoAck
SYN-RECEIVED | RST exact            | CLOSED Refused  |                  |
SYN-RECEIVED | RST exact, no ACK    | CLOSED Refused  |                  |
SYN-RECEIVED | RST in the window    | =               | 1 ack 1          | BlindReset
SYN-RECEIVED | RST before it        | =               |                  | OutOfWindow
SYN-RECEIVED | RST beyond it        | =               |                  | OutOfWindow
SYN-RECEIVED | FIN                  | CLOSE-WAIT      | 1 ack 2          |
SYN-RECEIVED | FIN again            | =               | 1 ack 1          | OutOfWindow
SYN-RECEIVED | FIN behind a gap     | ESTABLISHED     | 1 ack 1          |
SYN-RECEIVED | FIN beyond it        | =               | 1 ack 1          | OutOfWindow
SYN-RECEIVED | new octets           | ESTABLISHED     | 1 ack 4          |
SYN-RECEIVED | new octets, old ACK  | =               |                  | AckOfNothing
SYN-RECEIVED | old octets           | =               | 1 ack 1          | OutOfWindow
SYN-RECEIVED | octets partly old    | ESTABLISHED     | 1 ack 3          |
SYN-RECEIVED | octets behind a gap  | ESTABLISHED     | 1 ack 1          |
SYN-RECEIVED | octets beyond it     | =               | 1 ack 1          | OutOfWindow
SYN-RECEIVED | octets and FIN       | CLOSE-WAIT      | 1 ack 5          |
SYN-RECEIVED | keep-alive           | =               | 1 ack 1          | OutOfWindow
SYN-RECEIVED | finish               | =               |                  |
SYN-RECEIVED | close                | =               |                  |
SYN-RECEIVED | abort                | CLOSED Aborted  | RST 1 ack 1      |
SYN-RECEIVED | write                | =               |                  |
SYN-RECEIVED | kick                 | =               | SYN 0 ack 1      |
SYN-RECEIVED | time                 | =               | SYN 0 ack 1      |
ESTABLISHED  | SYN again            | =               | 1 ack 1          | OutOfWindow
ESTABLISHED  | SYN in the window    | =               | 1 ack 1          | UnexpectedSyn
ESTABLISHED  | SYN and ACK again    | =               | 1 ack 1          | OutOfWindow
ESTABLISHED  | ACK of all           | =               |                  |
ESTABLISHED  | ACK of nothing new   | =               |                  |
ESTABLISHED  | ACK of the unsent    | =               | 1 ack 1          | AckBeyondNxt
ESTABLISHED  | ACK of long ago      | =               | 1 ack 1          | AckTooOld
ESTABLISHED  | no ACK bit           | =               |                  | NoAck
ESTABLISHED  | RST exact            | CLOSED Reset    |                  |
ESTABLISHED  | RST exact, no ACK    | CLOSED Reset    |                  |
ESTABLISHED  | RST in the window    | =               | 1 ack 1          | BlindReset
ESTABLISHED  | RST before it        | =               |                  | OutOfWindow
ESTABLISHED  | RST beyond it        | =               |                  | OutOfWindow
ESTABLISHED  | FIN                  | CLOSE-WAIT      | 1 ack 2          |
ESTABLISHED  | FIN again            | =               | 1 ack 1          | OutOfWindow
ESTABLISHED  | FIN behind a gap     | =               | 1 ack 1          |
ESTABLISHED  | FIN beyond it        | =               | 1 ack 1          | OutOfWindow
ESTABLISHED  | new octets           | =               | 1 ack 4          |
ESTABLISHED  | new octets, old ACK  | =               | 1 ack 4          |
ESTABLISHED  | old octets           | =               | 1 ack 1          | OutOfWindow
ESTABLISHED  | octets partly old    | =               | 1 ack 3          |
ESTABLISHED  | octets behind a gap  | =               | 1 ack 1          |
ESTABLISHED  | octets beyond it     | =               | 1 ack 1          | OutOfWindow
ESTABLISHED  | octets and FIN       | CLOSE-WAIT      | 1 ack 5          |
ESTABLISHED  | keep-alive           | =               | 1 ack 1          | OutOfWindow
ESTABLISHED  | finish               | FIN-WAIT-1      | FIN 1 ack 1      |
ESTABLISHED  | close                | FIN-WAIT-1      | FIN 1 ack 1      |
ESTABLISHED  | abort                | CLOSED Aborted  | RST 1 ack 1      |
ESTABLISHED  | write                | =               | 1+3 ack 1        |
ESTABLISHED  | kick                 | =               | 1 ack 1          |
ESTABLISHED  | time                 | =               |                  | no deadline
FIN-WAIT-1   | SYN again            | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-1   | SYN in the window    | =               | 2 ack 1          | UnexpectedSyn
FIN-WAIT-1   | SYN and ACK again    | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-1   | ACK of all           | FIN-WAIT-2      |                  |
FIN-WAIT-1   | ACK of nothing new   | =               |                  |
FIN-WAIT-1   | ACK of the unsent    | =               | 2 ack 1          | AckBeyondNxt
FIN-WAIT-1   | ACK of long ago      | =               | 2 ack 1          | AckTooOld
FIN-WAIT-1   | no ACK bit           | =               |                  | NoAck
FIN-WAIT-1   | RST exact            | CLOSED Reset    |                  |
FIN-WAIT-1   | RST exact, no ACK    | CLOSED Reset    |                  |
FIN-WAIT-1   | RST in the window    | =               | 2 ack 1          | BlindReset
FIN-WAIT-1   | RST before it        | =               |                  | OutOfWindow
FIN-WAIT-1   | RST beyond it        | =               |                  | OutOfWindow
FIN-WAIT-1   | FIN                  | TIME-WAIT       | 2 ack 2          |
FIN-WAIT-1   | FIN again            | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-1   | FIN behind a gap     | FIN-WAIT-2      | 2 ack 1          |
FIN-WAIT-1   | FIN beyond it        | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-1   | new octets           | FIN-WAIT-2      | 2 ack 4          |
FIN-WAIT-1   | new octets, old ACK  | =               | 2 ack 4          |
FIN-WAIT-1   | old octets           | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-1   | octets partly old    | FIN-WAIT-2      | 2 ack 3          |
FIN-WAIT-1   | octets behind a gap  | FIN-WAIT-2      | 2 ack 1          |
FIN-WAIT-1   | octets beyond it     | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-1   | octets and FIN       | TIME-WAIT       | 2 ack 5          |
FIN-WAIT-1   | keep-alive           | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-1   | finish               | =               |                  |
FIN-WAIT-1   | close                | =               |                  |
FIN-WAIT-1   | abort                | CLOSED Aborted  | RST 2 ack 1      |
FIN-WAIT-1   | write                | =               |                  | no room
FIN-WAIT-1   | kick                 | =               | FIN 1 ack 1      |
FIN-WAIT-1   | time                 | =               | FIN 1 ack 1      |
FIN-WAIT-2   | SYN again            | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-2   | SYN in the window    | =               | 2 ack 1          | UnexpectedSyn
FIN-WAIT-2   | SYN and ACK again    | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-2   | ACK of all           | =               |                  |
FIN-WAIT-2   | ACK of nothing new   | =               |                  |
FIN-WAIT-2   | ACK of the unsent    | =               | 2 ack 1          | AckBeyondNxt
FIN-WAIT-2   | ACK of long ago      | =               | 2 ack 1          | AckTooOld
FIN-WAIT-2   | no ACK bit           | =               |                  | NoAck
FIN-WAIT-2   | RST exact            | CLOSED Reset    |                  |
FIN-WAIT-2   | RST exact, no ACK    | CLOSED Reset    |                  |
FIN-WAIT-2   | RST in the window    | =               | 2 ack 1          | BlindReset
FIN-WAIT-2   | RST before it        | =               |                  | OutOfWindow
FIN-WAIT-2   | RST beyond it        | =               |                  | OutOfWindow
FIN-WAIT-2   | FIN                  | TIME-WAIT       | 2 ack 2          |
FIN-WAIT-2   | FIN again            | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-2   | FIN behind a gap     | =               | 2 ack 1          |
FIN-WAIT-2   | FIN beyond it        | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-2   | new octets           | =               | 2 ack 4          |
FIN-WAIT-2   | new octets, old ACK  | =               | 2 ack 4          |
FIN-WAIT-2   | old octets           | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-2   | octets partly old    | =               | 2 ack 3          |
FIN-WAIT-2   | octets behind a gap  | =               | 2 ack 1          |
FIN-WAIT-2   | octets beyond it     | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-2   | octets and FIN       | TIME-WAIT       | 2 ack 5          |
FIN-WAIT-2   | keep-alive           | =               | 2 ack 1          | OutOfWindow
FIN-WAIT-2   | finish               | =               |                  |
FIN-WAIT-2   | close                | =               |                  |
FIN-WAIT-2   | abort                | CLOSED Aborted  | RST 2 ack 1      |
FIN-WAIT-2   | write                | =               |                  | no room
FIN-WAIT-2   | kick                 | =               | 2 ack 1          |
FIN-WAIT-2   | time                 | =               |                  | no deadline
CLOSE-WAIT   | SYN again            | =               | 1 ack 2          | OutOfWindow
CLOSE-WAIT   | SYN in the window    | =               | 1 ack 2          | UnexpectedSyn
CLOSE-WAIT   | SYN and ACK again    | =               | 1 ack 2          | OutOfWindow
CLOSE-WAIT   | ACK of all           | =               |                  |
CLOSE-WAIT   | ACK of nothing new   | =               |                  |
CLOSE-WAIT   | ACK of the unsent    | =               | 1 ack 2          | AckBeyondNxt
CLOSE-WAIT   | ACK of long ago      | =               | 1 ack 2          | AckTooOld
CLOSE-WAIT   | no ACK bit           | =               |                  | NoAck
CLOSE-WAIT   | RST exact            | CLOSED Reset    |                  |
CLOSE-WAIT   | RST exact, no ACK    | CLOSED Reset    |                  |
CLOSE-WAIT   | RST in the window    | =               | 1 ack 2          | BlindReset
CLOSE-WAIT   | RST before it        | =               |                  | OutOfWindow
CLOSE-WAIT   | RST beyond it        | =               |                  | OutOfWindow
CLOSE-WAIT   | FIN                  | =               |                  |
CLOSE-WAIT   | FIN again            | =               | 1 ack 2          | OutOfWindow
CLOSE-WAIT   | FIN behind a gap     | =               |                  |
CLOSE-WAIT   | FIN beyond it        | =               | 1 ack 2          | OutOfWindow
CLOSE-WAIT   | new octets           | =               |                  |
CLOSE-WAIT   | new octets, old ACK  | =               |                  |
CLOSE-WAIT   | old octets           | =               | 1 ack 2          | OutOfWindow
CLOSE-WAIT   | octets partly old    | =               |                  |
CLOSE-WAIT   | octets behind a gap  | =               |                  |
CLOSE-WAIT   | octets beyond it     | =               | 1 ack 2          | OutOfWindow
CLOSE-WAIT   | octets and FIN       | =               |                  |
CLOSE-WAIT   | keep-alive           | =               | 1 ack 2          | OutOfWindow
CLOSE-WAIT   | finish               | LAST-ACK        | FIN 1 ack 2      |
CLOSE-WAIT   | close                | LAST-ACK        | FIN 1 ack 2      |
CLOSE-WAIT   | abort                | CLOSED Aborted  | RST 1 ack 2      |
CLOSE-WAIT   | write                | =               | 1+3 ack 2        |
CLOSE-WAIT   | kick                 | =               | 1 ack 2          |
CLOSE-WAIT   | time                 | =               |                  | no deadline
CLOSING      | SYN again            | =               | 2 ack 2          | OutOfWindow
CLOSING      | SYN in the window    | =               | 2 ack 2          | UnexpectedSyn
CLOSING      | SYN and ACK again    | =               | 2 ack 2          | OutOfWindow
CLOSING      | ACK of all           | TIME-WAIT       |                  |
CLOSING      | ACK of nothing new   | =               |                  |
CLOSING      | ACK of the unsent    | =               | 2 ack 2          | AckBeyondNxt
CLOSING      | ACK of long ago      | =               | 2 ack 2          | AckTooOld
CLOSING      | no ACK bit           | =               |                  | NoAck
CLOSING      | RST exact            | CLOSED Reset    |                  |
CLOSING      | RST exact, no ACK    | CLOSED Reset    |                  |
CLOSING      | RST in the window    | =               | 2 ack 2          | BlindReset
CLOSING      | RST before it        | =               |                  | OutOfWindow
CLOSING      | RST beyond it        | =               |                  | OutOfWindow
CLOSING      | FIN                  | TIME-WAIT       |                  |
CLOSING      | FIN again            | =               | 2 ack 2          | OutOfWindow
CLOSING      | FIN behind a gap     | TIME-WAIT       |                  |
CLOSING      | FIN beyond it        | =               | 2 ack 2          | OutOfWindow
CLOSING      | new octets           | TIME-WAIT       |                  |
CLOSING      | new octets, old ACK  | =               |                  |
CLOSING      | old octets           | =               | 2 ack 2          | OutOfWindow
CLOSING      | octets partly old    | TIME-WAIT       |                  |
CLOSING      | octets behind a gap  | TIME-WAIT       |                  |
CLOSING      | octets beyond it     | =               | 2 ack 2          | OutOfWindow
CLOSING      | octets and FIN       | TIME-WAIT       |                  |
CLOSING      | keep-alive           | =               | 2 ack 2          | OutOfWindow
CLOSING      | finish               | =               |                  |
CLOSING      | close                | =               |                  |
CLOSING      | abort                | CLOSED Aborted  |                  |
CLOSING      | write                | =               |                  | no room
CLOSING      | kick                 | =               | FIN 1 ack 2      |
CLOSING      | time                 | =               | FIN 1 ack 2      |
LAST-ACK     | SYN again            | =               | 2 ack 2          | OutOfWindow
LAST-ACK     | SYN in the window    | =               | 2 ack 2          | UnexpectedSyn
LAST-ACK     | SYN and ACK again    | =               | 2 ack 2          | OutOfWindow
LAST-ACK     | ACK of all           | CLOSED Finished |                  |
LAST-ACK     | ACK of nothing new   | =               |                  |
LAST-ACK     | ACK of the unsent    | =               | 2 ack 2          | AckBeyondNxt
LAST-ACK     | ACK of long ago      | =               | 2 ack 2          | AckTooOld
LAST-ACK     | no ACK bit           | =               |                  | NoAck
LAST-ACK     | RST exact            | CLOSED Reset    |                  |
LAST-ACK     | RST exact, no ACK    | CLOSED Reset    |                  |
LAST-ACK     | RST in the window    | =               | 2 ack 2          | BlindReset
LAST-ACK     | RST before it        | =               |                  | OutOfWindow
LAST-ACK     | RST beyond it        | =               |                  | OutOfWindow
LAST-ACK     | FIN                  | CLOSED Finished |                  |
LAST-ACK     | FIN again            | =               | 2 ack 2          | OutOfWindow
LAST-ACK     | FIN behind a gap     | CLOSED Finished |                  |
LAST-ACK     | FIN beyond it        | =               | 2 ack 2          | OutOfWindow
LAST-ACK     | new octets           | CLOSED Finished |                  |
LAST-ACK     | new octets, old ACK  | =               |                  |
LAST-ACK     | old octets           | =               | 2 ack 2          | OutOfWindow
LAST-ACK     | octets partly old    | CLOSED Finished |                  |
LAST-ACK     | octets behind a gap  | CLOSED Finished |                  |
LAST-ACK     | octets beyond it     | =               | 2 ack 2          | OutOfWindow
LAST-ACK     | octets and FIN       | CLOSED Finished |                  |
LAST-ACK     | keep-alive           | =               | 2 ack 2          | OutOfWindow
LAST-ACK     | finish               | =               |                  |
LAST-ACK     | close                | =               |                  |
LAST-ACK     | abort                | CLOSED Aborted  |                  |
LAST-ACK     | write                | =               |                  | no room
LAST-ACK     | kick                 | =               | FIN 1 ack 2      |
LAST-ACK     | time                 | =               | FIN 1 ack 2      |
TIME-WAIT    | SYN again            | =               | 2 ack 2          | OutOfWindow
TIME-WAIT    | SYN in the window    | =               | 2 ack 2          | UnexpectedSyn
TIME-WAIT    | SYN and ACK again    | =               | 2 ack 2          | OutOfWindow
TIME-WAIT    | ACK of all           | =               |                  |
TIME-WAIT    | ACK of nothing new   | =               |                  |
TIME-WAIT    | ACK of the unsent    | =               | 2 ack 2          | AckBeyondNxt
TIME-WAIT    | ACK of long ago      | =               | 2 ack 2          | AckTooOld
TIME-WAIT    | no ACK bit           | =               |                  | NoAck
TIME-WAIT    | RST exact            | CLOSED Finished |                  |
TIME-WAIT    | RST exact, no ACK    | CLOSED Finished |                  |
TIME-WAIT    | RST in the window    | =               | 2 ack 2          | BlindReset
TIME-WAIT    | RST before it        | =               |                  | OutOfWindow
TIME-WAIT    | RST beyond it        | =               |                  | OutOfWindow
TIME-WAIT    | FIN                  | =               |                  |
TIME-WAIT    | FIN again            | =               | 2 ack 2          | OutOfWindow
TIME-WAIT    | FIN behind a gap     | =               |                  |
TIME-WAIT    | FIN beyond it        | =               | 2 ack 2          | OutOfWindow
TIME-WAIT    | new octets           | =               |                  |
TIME-WAIT    | new octets, old ACK  | =               |                  |
TIME-WAIT    | old octets           | =               | 2 ack 2          | OutOfWindow
TIME-WAIT    | octets partly old    | =               |                  |
TIME-WAIT    | octets behind a gap  | =               |                  |
TIME-WAIT    | octets beyond it     | =               | 2 ack 2          | OutOfWindow
TIME-WAIT    | octets and FIN       | =               |                  |
TIME-WAIT    | keep-alive           | =               |                  | OutOfWindow
TIME-WAIT    | finish               | =               |                  |
TIME-WAIT    | close                | =               |                  |
TIME-WAIT    | abort                | CLOSED Aborted  |                  |
TIME-WAIT    | write                | =               |                  | no room
TIME-WAIT    | kick                 | =               |                  |
TIME-WAIT    | time                 | CLOSED Finished |                  |
";
