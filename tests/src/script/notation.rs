//! How segments, their options and ICMPv6 errors are written.

use super::ast::{Echo, Ecn, Flags, Icmp, Opt, Segment};
use super::lex::{Cursor, Wrong};

/// `#2`, or nothing for the first peer.
pub(super) fn peer(cursor: &mut Cursor<'_>) -> Result<usize, Wrong> {
    if cursor.eat("#") { cursor.number("a peer") } else { Ok(1) }
}

/// `[ecn] flags seq:end(len) [ack n] [win n] [urg n] [<options>] [forged] [corrupt] [fragments n]`. Whatever arrives
/// is exact, whatever is expected may have `*` in places.
pub(super) fn segment(cursor: &mut Cursor<'_>, exact: bool) -> Result<Segment, Wrong> {
    let place = cursor.place();
    let mut segment = Segment { ecn: codepoint(cursor)?, ..Segment::default() };
    segment.flags = flags(cursor)?;
    segment.seq = sequence(cursor)?;
    let (mut acknowledges, mut open) = (false, segment.flags.is_none() || segment.seq.is_none());
    while !cursor.is_empty() {
        if cursor.sees("<") {
            (segment.options, segment.any_options) = options(cursor)?;
            open |= segment.any_options;
            continue;
        }
        let place = cursor.place();
        match cursor.word() {
            "ack" => {
                acknowledges = true;
                segment.ack = starred(cursor, "an acknowledgement")?;
                open |= segment.ack.is_none();
            }
            "win" => segment.window = starred(cursor, "a window")?,
            "urg" => segment.urgent = cursor.number("the urgent pointer")?,
            "forged" => segment.forged = true,
            "corrupt" => segment.corrupt = true,
            "fragments" => segment.fragments = cursor.number("the count of fragments")?,
            other => {
                let known = "`ack`, `win`, `urg`, `<options>`, `forged`, `corrupt`, `fragments`";
                return Err((place, format!("after SEG.SEQ come {known}, not `{other}`")));
            }
        }
    }
    if let Some(flags) = segment.flags
        && flags.has(Flags::ACK) != acknowledges
    {
        let message = if acknowledges { "`ack` needs the flag `.`" } else { "the flag `.` needs `ack`" };
        return Err((place, message.to_owned()));
    }
    if exact && open {
        return Err((place, "what arrives is exact: `*` stands only in what is expected".to_owned()));
    }
    if exact && segment.ecn.is_none() {
        return Err((
            place,
            "what arrives has one codepoint: `[*]` stands only in what is expected".to_owned(),
        ));
    }
    Ok(segment)
}

/// A number, or `*` for any.
fn starred<T: core::str::FromStr>(cursor: &mut Cursor<'_>, what: &str) -> Result<Option<T>, Wrong> {
    if cursor.eat("*") { Ok(None) } else { cursor.number(what).map(Some) }
}

/// `[ect0]`, `[ect1]`, `[ce]`, `[*]`, or nothing, which is not ECN-capable.
fn codepoint(cursor: &mut Cursor<'_>) -> Result<Option<Ecn>, Wrong> {
    if !cursor.sees("[") {
        return Ok(Some(Ecn::Not));
    }
    let place = cursor.place();
    match cursor.word() {
        "[ect0]" => Ok(Some(Ecn::Ect0)),
        "[ect1]" => Ok(Some(Ecn::Ect1)),
        "[ce]" => Ok(Some(Ecn::Ce)),
        "[*]" => Ok(None),
        other => Err((place, format!("a codepoint is [ect0], [ect1], [ce] or [*], not `{other}`"))),
    }
}

fn flags(cursor: &mut Cursor<'_>) -> Result<Option<Flags>, Wrong> {
    let place = cursor.place();
    let word = cursor.word();
    match word {
        "*" => return Ok(None),
        "-" => return Ok(Some(Flags(0))),
        "" => return Err((place, "flags should stand here, such as `S`, `.` or `P.`".to_owned())),
        _ => {}
    }
    let mut bits = 0;
    for letter in word.chars() {
        let Some((_, bit)) = Flags::LETTERS.iter().find(|(known, _)| *known == letter) else {
            let hint = if letter == 'A' { "; ACK is written `.`" } else { "" };
            let message =
                format!("`{letter}` is none of the flags S, F, R, P, U, E (ECE), W (CWR), N (AE), `.`{hint}");
            return Err((place, message));
        };
        bits |= bit;
    }
    Ok(Some(Flags(bits)))
}

/// `first:end(octets)`, or `*`.
fn sequence(cursor: &mut Cursor<'_>) -> Result<Option<(i64, usize)>, Wrong> {
    let place = cursor.place();
    let word = cursor.word();
    if word == "*" {
        return Ok(None);
    }
    let parts = || {
        let (first, rest) = word.split_once(':')?;
        let (end, octets) = rest.strip_suffix(')')?.split_once('(')?;
        Some((first.parse::<i64>().ok()?, end.parse::<i64>().ok()?, octets.parse::<usize>().ok()?))
    };
    let Some((first, end, octets)) = parts() else {
        return Err((
            place,
            format!("SEG.SEQ is written `first:end(octets)`, as in `1:1001(1000)`, not `{word}`"),
        ));
    };
    if end - first != i64::try_from(octets).unwrap_or(i64::MAX) {
        return Err((place, format!("from {first} to {end} are {} octets, not {octets}", end - first)));
    }
    Ok(Some((first, octets)))
}

/// `<mss 1000, nop, *>`: the options, and whether there may be others.
pub(super) fn options(cursor: &mut Cursor<'_>) -> Result<(Vec<Opt>, bool), Wrong> {
    let (mut options, mut any) = (Vec::new(), false);
    cursor.eat("<");
    loop {
        if cursor.eat("*") {
            any = true;
        } else {
            options.push(option(cursor)?);
        }
        if cursor.eat(">") {
            return Ok((options, any));
        }
        if !cursor.eat(",") {
            return Err((cursor.place(), "options are separated by `,` and end with `>`".to_owned()));
        }
    }
}

fn option(cursor: &mut Cursor<'_>) -> Result<Opt, Wrong> {
    let place = cursor.place();
    Ok(match cursor.word() {
        "mss" => Opt::Mss(cursor.number("the segment size")?),
        "nop" => Opt::Nop,
        "eol" => Opt::End,
        "wscale" => Opt::WindowScale(cursor.number("the window scale")?),
        "sackOK" => Opt::SackPermitted,
        "sack" => Opt::Sack(blocks(cursor)?),
        "TS" => timestamps(cursor)?,
        "kind" => {
            let kind = cursor.number("the kind of an option")?;
            let data = cursor.words().iter().map(|octet| u8::from_str_radix(octet, 16)).collect();
            let data: Result<Vec<u8>, _> = data;
            Opt::Other(kind, data.map_err(|_| (place, "data of an option is octets in hex".to_owned()))?)
        }
        other => {
            let known = "mss N, nop, eol, wscale N, sackOK, sack FROM:TO …, TS val N ecr N, kind N OCTETS, *";
            return Err((place, format!("`{other}` is no option; known are {known}")));
        }
    })
}

fn blocks(cursor: &mut Cursor<'_>) -> Result<Vec<(i64, i64)>, Wrong> {
    let place = cursor.place();
    let words = cursor.words();
    let read = |word: &&str| {
        let (from, to) = word.split_once(':')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    let blocks: Option<Vec<_>> = words.iter().map(read).collect();
    blocks.filter(|blocks| !blocks.is_empty() && blocks.len() <= 4).ok_or_else(|| {
        (place, "`sack` takes up to four ranges such as `1001:2001`, with spaces between".to_owned())
    })
}

fn timestamps(cursor: &mut Cursor<'_>) -> Result<Opt, Wrong> {
    let place = cursor.place();
    let wrong = || (place, "timestamps are written `TS val N ecr N`; `ecr last` echoes the last".to_owned());
    if !cursor.eat_word("val") {
        return Err(wrong());
    }
    let value = starred(cursor, "TSval")?;
    if !cursor.eat_word("ecr") {
        return Err(wrong());
    }
    let echo = if cursor.eat_word("last") {
        Echo::Last
    } else {
        starred(cursor, "TSecr")?.map_or(Echo::Any, Echo::Is)
    };
    Ok(Opt::Timestamps(value, echo))
}

/// `ptb N seq N`, `unreachable CODE seq N`, `time-exceeded CODE seq N`, `parameter CODE seq N`.
pub(super) fn icmp(cursor: &mut Cursor<'_>) -> Result<Icmp, Wrong> {
    let place = cursor.place();
    let mut icmp = match cursor.word() {
        "ptb" => Icmp { kind: 2, code: 0, rest: cursor.number("the MTU")?, seq: 0 },
        "unreachable" => Icmp { kind: 1, code: cursor.number("the code")?, rest: 0, seq: 0 },
        "time-exceeded" => Icmp { kind: 3, code: cursor.number("the code")?, rest: 0, seq: 0 },
        "parameter" => Icmp { kind: 4, code: cursor.number("the code")?, rest: 0, seq: 0 },
        other => {
            let known = "`ptb MTU`, `unreachable CODE`, `time-exceeded CODE`, `parameter CODE`";
            return Err((place, format!("after `icmp` comes {known}, not `{other}`")));
        }
    };
    if !cursor.eat_word("seq") {
        return Err((cursor.place(), "`seq N` says which segment of ours is quoted".to_owned()));
    }
    icmp.seq = cursor.number("a sequence number")?;
    Ok(icmp)
}
