//! From text to a [`Script`]: lines, times, calls and claims. Segments are read by [`super::notation`].

use core::time::Duration;

use ferry_stack::tcp::Commit;

use super::ast::{Action, Call, Claim, Establish, Flags, Script, SetOpt, Step, When};
use super::lex::{Cursor, ParseError, Wrong, column};
use super::notation;
use super::settings::{Settings, keep_alive, seconds};

/// Reads a script.
pub fn parse(name: &str, text: &str) -> Result<Script, ParseError> {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut settings = Settings::default();
    let mut steps = Vec::new();
    for (nth, line) in lines.iter().enumerate() {
        let wrong =
            |(place, message): Wrong| ParseError { line: nth + 1, column: column(line, place), message };
        let mut cursor = Cursor::new(line);
        if cursor.is_empty() {
            continue;
        }
        if cursor.eat_word("set") {
            if !steps.is_empty() {
                return Err(wrong((0, "`set` belongs to the head, before the first step".to_owned())));
            }
            head(&mut cursor, &mut settings).map_err(wrong)?;
            continue;
        }
        let (when, action) = step(&mut cursor).map_err(wrong)?;
        steps.push(Step { line: nth + 1, when, action });
    }
    if steps.is_empty() {
        let message = "a script needs a step, such as `listen`".to_owned();
        return Err(ParseError { line: lines.len().max(1), column: 1, message });
    }
    Ok(Script { name: name.to_owned(), lines, settings, steps })
}

/// `set key value, key value …`
fn head(cursor: &mut Cursor<'_>, settings: &mut Settings) -> Result<(), Wrong> {
    loop {
        let place = cursor.place();
        let words = cursor.words();
        let Some((key, values)) = words.split_first() else {
            return Err((place, "`set` takes a key and its value, such as `set sack on`".to_owned()));
        };
        settings.set(key, values).map_err(|message| (place, message))?;
        if !cursor.eat(",") {
            return cursor.end();
        }
    }
}

fn step(cursor: &mut Cursor<'_>) -> Result<(When, Action), Wrong> {
    let place = cursor.place();
    let when = time(cursor)?;
    let action = action(cursor)?;
    if when == When::Any && !matches!(action, Action::Expect(..)) {
        return Err((place, "`*` stands only before `>`: everything else has a time".to_owned()));
    }
    let exact =
        matches!(when, When::Any) || matches!(when, When::After(from, to) | When::At(from, to) if from == to);
    if !exact && !matches!(action, Action::Expect(..)) {
        return Err((place, "a range of time stands only before `>`".to_owned()));
    }
    cursor.end()?;
    Ok((when, action))
}

/// `+0.1`, `0.1`, `+0.1~0.2`, `0.1~0.2`, `*`, or nothing, which is `+0`.
fn time(cursor: &mut Cursor<'_>) -> Result<When, Wrong> {
    if cursor.eat("*") {
        return Ok(When::Any);
    }
    let timed = cursor.rest().starts_with(|c: char| c == '+' || c.is_ascii_digit());
    if !timed {
        return Ok(When::After(Duration::ZERO, Duration::ZERO));
    }
    let place = cursor.place();
    let word = cursor.word();
    let relative = word.strip_prefix('+');
    let (from, to) = relative.unwrap_or(word).split_once('~').unwrap_or((word, word));
    let (from, to) = (from.strip_prefix('+').unwrap_or(from), to.strip_prefix('+').unwrap_or(to));
    match (seconds(from), seconds(to)) {
        (Some(from), Some(to)) if from <= to => {
            Ok(if relative.is_some() { When::After(from, to) } else { When::At(from, to) })
        }
        (Some(_), Some(_)) => Err((place, "a range goes from the earlier to the later".to_owned())),
        _ => Err((place, format!("a time is seconds, as in `+0.01`, `1.5` or `+0.1~0.2`, not `{word}`"))),
    }
}

fn action(cursor: &mut Cursor<'_>) -> Result<Action, Wrong> {
    if cursor.eat("<") {
        let peer = notation::peer(cursor)?;
        return if cursor.eat_word("icmp") {
            Ok(Action::Icmp(peer, notation::icmp(cursor)?))
        } else {
            Ok(Action::Arrive(peer, notation::segment(cursor, true)?))
        };
    }
    if cursor.eat(">") {
        let peer = notation::peer(cursor)?;
        return Ok(Action::Expect(peer, notation::segment(cursor, false)?));
    }
    if cursor.eat("=") {
        let peer = notation::peer(cursor)?;
        return Ok(Action::Claim(peer, claims(cursor)?));
    }
    let place = cursor.place();
    let word = cursor.word();
    let (word, peer) = match word.split_once('#') {
        Some((word, peer)) => {
            let wrong = || (place, "`#` is followed by the number of a peer".to_owned());
            (word, peer.parse().map_err(|_| wrong())?)
        }
        None => (word, 1),
    };
    match word {
        "handoff" => Ok(Action::Handoff),
        "silence" => Ok(Action::Silence),
        "establish" => Ok(Action::Establish(peer, establish(cursor)?)),
        _ => Ok(Action::Call(peer, call(word, place, cursor)?)),
    }
}

const CALLS: &str = "listen, unlisten, accept, connect, establish, write, read, shutdown, close, abort, setopt, \
                     handoff, hold, copy, release, unhold, crash, silence";

fn call(word: &str, place: usize, cursor: &mut Cursor<'_>) -> Result<Call, Wrong> {
    Ok(match word {
        "listen" => listen(cursor)?,
        "unlisten" => Call::Unlisten,
        "accept" => Call::Accept,
        "connect" => Call::Connect,
        "write" => {
            let octets = cursor.number("what is written, in octets,")?;
            let taken = if cursor.eat_word("takes") { cursor.number("what is taken")? } else { octets };
            Call::Write(octets, taken)
        }
        "read" if cursor.eat_word("end") => Call::ReadEnd,
        "read" => Call::Read(cursor.number("what is read, in octets (or `end`),")?),
        "shutdown" => Call::Shutdown,
        "close" => Call::Close,
        "abort" => Call::Abort,
        "setopt" => Call::SetOpt(set_option(cursor)?),
        "hold" => Call::Hold(commit(cursor)?),
        "copy" => Call::Copy,
        "release" => Call::Release,
        "unhold" => Call::Unhold,
        "crash" => Call::Crash(commit(cursor)?),
        other => {
            let message = format!("`{other}` is none of `<`, `>`, `=`, {CALLS}");
            return Err((place, message));
        }
    })
}

fn commit(cursor: &mut Cursor<'_>) -> Result<Commit, Wrong> {
    let place = cursor.place();
    match cursor.word() {
        "strict" => Ok(Commit::Strict),
        "regenerate" => Ok(Commit::Regenerate),
        other => Err((place, format!("what is held back is `strict` or `regenerate`, not `{other}`"))),
    }
}

fn listen(cursor: &mut Cursor<'_>) -> Result<Call, Wrong> {
    let (mut waiting, mut half_open) = (None, None);
    while !cursor.is_empty() {
        let place = cursor.place();
        match cursor.word() {
            "backlog" => waiting = Some(cursor.number("the length of the accept queue")?),
            "half-open" => half_open = Some(cursor.number("the length of the SYN queue")?),
            other => {
                return Err((place, format!("`listen` takes `backlog N` and `half-open N`, not `{other}`")));
            }
        }
    }
    Ok(Call::Listen(waiting, half_open))
}

fn set_option(cursor: &mut Cursor<'_>) -> Result<SetOpt, Wrong> {
    let place = cursor.place();
    let words = cursor.words();
    let wrong = |message: &str| Err((place, message.to_owned()));
    match words.as_slice() {
        ["nodelay", "on"] => Ok(SetOpt::NoDelay(true)),
        ["nodelay", "off"] => Ok(SetOpt::NoDelay(false)),
        ["quickack", "on"] => Ok(SetOpt::QuickAck(true)),
        ["quickack", "off"] => Ok(SetOpt::QuickAck(false)),
        ["keepalive", "off"] => Ok(SetOpt::KeepAlive(None)),
        ["keepalive", rest @ ..] => {
            keep_alive(rest).map(|all| SetOpt::KeepAlive(Some(all))).map_err(|message| (place, message))
        }
        ["rcvbuf", octets] => match octets.parse() {
            Ok(octets) => Ok(SetOpt::ReceiveBuffer(octets)),
            Err(_) => wrong("`rcvbuf` takes octets"),
        },
        _ => wrong(
            "`setopt` knows `nodelay on|off`, `quickack on|off`, `keepalive IDLE INTERVAL COUNT|off`, `rcvbuf N`",
        ),
    }
}

/// `[active] [rtt T] [win N] [E] [<options>]`
fn establish(cursor: &mut Cursor<'_>) -> Result<Establish, Wrong> {
    let rtt = Duration::from_millis(100);
    let mut all = Establish { active: false, rtt, window: None, options: None, flags: 0 };
    while !cursor.is_empty() && !cursor.sees("<") {
        let place = cursor.place();
        match cursor.word() {
            "active" => all.active = true,
            "rtt" => {
                let place = cursor.place();
                let word = cursor.word();
                let wrong = || (place, format!("`rtt` takes seconds, not `{word}`"));
                all.rtt = seconds(word).ok_or_else(wrong)?;
            }
            "win" => all.window = Some(cursor.number("the window")?),
            "ecn" => all.flags = Flags(0x040 | 0x080).0,
            other => {
                let message = format!(
                    "`establish` takes `active`, `rtt T`, `win N`, `ecn`, `<options>`, not `{other}`"
                );
                return Err((place, message));
            }
        }
    }
    if cursor.sees("<") {
        let (options, any) = notation::options(cursor)?;
        if any {
            return Err((cursor.place(), "what the peer offers is exact".to_owned()));
        }
        all.options = Some(options);
    }
    Ok(all)
}

/// States by their names (RFC 9293 section 3.3.2).
const STATES: &[&str] = &[
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
    "CLOSED",
];

/// What can be counted or measured; [`super::subject`] says of what.
const QUANTITIES: &[&str] = &[
    "cwnd",
    "ssthresh",
    "in_flight",
    "sacked",
    "lost",
    "unsent",
    "queued",
    "readable",
    "writable",
    "srtt",
    "rttvar",
    "rto",
    "min_rtt",
    "backoff",
    "mss",
    "path_mtu",
    "snd_wnd",
    "rcv_wnd",
    "una",
    "nxt",
    "rcv_nxt",
    "retransmitted",
    "timeouts",
    "probes",
    "waiting",
    "half_open",
    "connections",
    "islands",
];

fn claims(cursor: &mut Cursor<'_>) -> Result<Vec<Claim>, Wrong> {
    let mut claims = Vec::new();
    loop {
        claims.push(claim(cursor)?);
        if !cursor.eat(",") {
            return Ok(claims);
        }
    }
}

fn claim(cursor: &mut Cursor<'_>) -> Result<Claim, Wrong> {
    let place = cursor.place();
    let word = cursor.word();
    if STATES.contains(&word) {
        return Ok(Claim::State(word.to_owned()));
    }
    if word == "ended" {
        return one_of(cursor, &["finished", "reset", "refused", "timed-out", "aborted"]).map(Claim::Ended);
    }
    if word == "recovery" {
        return one_of(cursor, &["open", "fast", "loss"]).map(Claim::Recovery);
    }
    if !QUANTITIES.contains(&word) {
        let message = format!(
            "`{word}` is none of the states {}, nor `ended`, `recovery`, nor any of {}",
            STATES.join(", "),
            QUANTITIES.join(", ")
        );
        return Err((place, message));
    }
    let (least, most) = range(cursor)?;
    Ok(Claim::Quantity(word.to_owned(), least, most))
}

fn one_of(cursor: &mut Cursor<'_>, words: &[&str]) -> Result<String, Wrong> {
    let place = cursor.place();
    let word = cursor.word();
    if words.contains(&word) {
        return Ok(word.to_owned());
    }
    Err((place, format!("one of {} should stand here, not `{word}`", words.join(", "))))
}

/// `5`, `5~7`, `< 5`, `<= 5`, `> 5`, `>= 5`.
fn range(cursor: &mut Cursor<'_>) -> Result<(f64, f64), Wrong> {
    // Quantities are whole numbers, or times that are never so close.
    let above = |x: f64| x + 1e-7;
    let below = |x: f64| x - 1e-7;
    for (sign, bounds) in [
        ("<=", (|x| (f64::MIN, x)) as fn(f64) -> (f64, f64)),
        (">=", |x| (x, f64::MAX)),
        ("<", |x| (f64::MIN, x)),
        (">", |x| (x, f64::MAX)),
    ] {
        if cursor.eat(sign) {
            let limit = number(cursor)?;
            let limit = match sign {
                "<" => below(limit),
                ">" => above(limit),
                _ => limit,
            };
            return Ok(bounds(limit));
        }
    }
    let place = cursor.place();
    let word = cursor.word();
    let (least, most) = word.split_once('~').unwrap_or((word, word));
    match (least.parse(), most.parse()) {
        (Ok(least), Ok(most)) => Ok((least, most)),
        _ => Err((place, format!("a number or a range such as 5~7 should stand here, not `{word}`"))),
    }
}

fn number(cursor: &mut Cursor<'_>) -> Result<f64, Wrong> {
    cursor.number("the limit")
}
