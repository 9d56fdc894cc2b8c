//! The scripts of `tests/scripts`, in every mode, and that scripts can fail.

#![allow(clippy::unwrap_used, reason = "a tree that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_tests::script::{self, Mode, Report};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

fn scripts() -> Vec<(String, String)> {
    let files = script::scripts_below(&folder()).unwrap();
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(folder()).unwrap().display().to_string();
        (format!("tests/scripts/{name}"), fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

fn play_all(mode: Mode) -> Vec<Report> {
    let played: Vec<_> = scripts().iter().map(|(name, text)| script::play(name, text, mode)).collect();
    let failures: Vec<_> = played.iter().filter_map(|played| played.as_ref().err().cloned()).collect();
    assert!(failures.is_empty(), "{} scripts failed\n\n{}", failures.len(), failures.join("\n\n"));
    played.into_iter().flatten().collect()
}

#[test]
fn every_script_passes() {
    let reports = play_all(Mode::default());
    assert!(reports.len() >= 150, "only {} scripts", reports.len());
    assert!(reports.iter().all(|report| report.moves == 0));
}

#[test]
fn a_connection_that_moves_after_every_event_sends_the_same_segments() {
    let reports = play_all(Mode { handoff: true, wrap: false });
    let moved = reports.iter().filter(|report| report.moves > 0).count();
    assert!(moved * 10 >= reports.len() * 9, "only {moved} of {} scripts can move", reports.len());
}

#[test]
fn every_script_passes_across_the_wrap_of_sequence_numbers() {
    play_all(Mode { handoff: false, wrap: true });
    play_all(Mode { handoff: true, wrap: true });
}

#[test]
fn every_script_says_in_its_first_line_which_rule_it_shows() {
    for (name, text) in scripts() {
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("// ") && first.contains("RFC ") && first.ends_with('.'),
            "{name}: {first}"
        );
    }
}

#[test]
fn no_two_scripts_show_the_same() {
    let mut known = BTreeSet::new();
    for (name, text) in scripts() {
        assert!(known.insert(text.lines().next().unwrap_or_default().to_owned()), "{name}");
    }
}

/// The message with which a script fails.
fn failure(text: &str) -> String {
    script::play("here", text, Mode::default()).unwrap_err()
}

#[test]
fn a_script_fails_where_the_engine_does_something_else() {
    let cases = [
        ("establish\n < P. 1:101(100) ack 1\n > . 1:1(0) ack 100", "here:3: expected was"),
        ("establish\n < P. 1:101(100) ack 1\n > P. 1:1(0) ack 101", "what differs: the flags"),
        ("establish\n < P. 1:101(100) ack 1\n > . 1:1(0) ack 101 win 7", "what differs: the window"),
        ("establish\n < P. 1:101(100) ack 1\n > . 1:1(0) ack 101 <nop, mss 3>", "what differs: the options"),
        ("establish\n < P. 1:101(100) ack 1\n > [ect0] . 1:1(0) ack 101", "what differs: the ECN codepoint"),
        ("establish\n < P. 1:101(100) ack 1\n+0.1 > . 1:1(0) ack 101", "what differs: the time"),
        ("establish\n < P. 1:101(100) ack 1\n+0.1 silence", "here:3: nothing was expected, but there came"),
        ("establish\n < P. 1:101(100) ack 1", "here:2: nothing was expected, but there came"),
        ("establish\n+5 > . 1:1(0) ack 1", "here:2: nothing was sent by 5.1"),
        ("establish\n = CLOSE-WAIT", "the state should be CLOSE-WAIT, but is ESTABLISHED"),
        ("establish\n = cwnd < 10000", "`cwnd` should be at most 9999.9"),
        ("establish\n = srtt 0.2~0.3", "`srtt` should be 0.2~0.3, but is 0.1"),
        ("establish\n read 1", "1 octets should be there to be read, but there are 0"),
        (
            "establish\n < P. 1:101(100) ack 1 forged\n > . 1:1(0) ack 101\n read 100",
            "not what the peer's stream has",
        ),
        ("establish\n+5 silence\n 1 silence", "the script goes back in time"),
    ];
    for (text, expected) in cases {
        let message = failure(text);
        assert!(message.contains(expected), "{text}\n\n{message}");
    }
}

#[test]
fn a_failure_shows_what_had_happened_before() {
    let message = failure("establish\n < P. 1:101(100) ack 1\n > . 1:1(0) ack 100");
    for line in ["0.000000 > S. 0:0(0) ack 1", "0.100000 < P. 1:101(100) ack 1 win 50000"] {
        assert!(message.contains(line), "{message}");
    }
}

#[test]
fn a_line_that_cannot_be_read_is_marked_and_says_what_would_be_right() {
    let cases = [
        ("listen\n < SA 0:0(0) win 5", "here:2:4:", "ACK is written `.`"),
        ("listen\n < S. 0:0(0) win 5", "here:2:4:", "the flag `.` needs `ack`"),
        ("listen\n < . 1:1001(999) ack 1", "here:2:6:", "from 1 to 1001 are 1000 octets, not 999"),
        ("listen\n < . 1:1(0) ack *", "here:2:4:", "`*` stands only in what is expected"),
        ("listen\n+x > . 1:1(0) ack 1", "here:2:1:", "a time is seconds"),
        ("listen\n < S 0:0(0) <mss>", "here:2:17:", "the segment size is a number that fits"),
        ("listen\n < S 0:0(0) <mss 5, wsale 3>", "here:2:21:", "no option; known are mss N"),
        ("set cwnd 3\nlisten", "here:1:5:", "`cwnd` cannot be set; known are cc"),
        ("set cc vegas\nlisten", "here:1:5:", "`cc` is one of reno, cubic"),
        ("listen\nset cc reno", "here:2:1:", "`set` belongs to the head"),
        ("lisen", "here:1:1:", "listen, unlisten, accept"),
        ("listen backlog", "here:1:15:", "the length of the accept queue is a number"),
        ("listen\n = ESTABLISHD", "here:2:4:", "none of the states SYN-SENT"),
        ("listen\n = ended well", "here:2:10:", "one of finished, reset"),
        ("listen\n* silence", "here:2:1:", "`*` stands only before `>`"),
        ("// nothing", "here:1:1:", "a script needs a step"),
    ];
    for (text, place, expected) in cases {
        let message = failure(text);
        assert!(message.contains(place) && message.contains(expected), "{text}\n\n{message}");
    }
}
