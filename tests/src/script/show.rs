//! Segments as scripts write them, and what is different about two of them.

use core::fmt;

use super::ast::{Echo, Ecn, Flags, Opt, Segment};

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ecn {
            Some(Ecn::Not) => {}
            Some(ecn) => write!(f, "{ecn} ")?,
            None => f.write_str("[*] ")?,
        }
        match self.flags {
            Some(flags) => write!(f, "{flags} ")?,
            None => f.write_str("* ")?,
        }
        match self.seq {
            Some((first, octets)) => {
                write!(f, "{first}:{}({octets})", first.saturating_add_unsigned(octets as u64))?;
            }
            None => f.write_str("*")?,
        }
        match self.ack {
            Some(ack) => write!(f, " ack {ack}")?,
            None if self.flags.is_some_and(|flags| flags.has(Flags::ACK)) => f.write_str(" ack *")?,
            None => {}
        }
        if let Some(window) = self.window {
            write!(f, " win {window}")?;
        }
        if self.urgent > 0 {
            write!(f, " urg {}", self.urgent)?;
        }
        let any = self.any_options.then(|| "*".to_owned());
        let options: Vec<_> = self.options.iter().map(ToString::to_string).chain(any).collect();
        if !options.is_empty() {
            write!(f, " <{}>", options.join(", "))?;
        }
        for (set, word) in [(self.forged, " forged"), (self.corrupt, " corrupt")] {
            f.write_str(if set { word } else { "" })?;
        }
        if self.fragments > 0 {
            write!(f, " fragments {}", self.fragments)?;
        }
        Ok(())
    }
}

impl fmt::Display for Ecn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Not => "[not-ect]",
            Self::Ect1 => "[ect1]",
            Self::Ect0 => "[ect0]",
            Self::Ce => "[ce]",
        })
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = Self::LETTERS.iter().filter(|(_, bit)| self.has(*bit)).map(|(letter, _)| *letter);
        let letters: String = set.collect();
        f.write_str(if letters.is_empty() { "-" } else { &letters })
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mss(mss) => write!(f, "mss {mss}"),
            Self::Nop => f.write_str("nop"),
            Self::End => f.write_str("eol"),
            Self::WindowScale(shift) => write!(f, "wscale {shift}"),
            Self::SackPermitted => f.write_str("sackOK"),
            Self::Sack(blocks) => {
                f.write_str("sack")?;
                blocks.iter().try_for_each(|(from, to)| write!(f, " {from}:{to}"))
            }
            Self::Timestamps(value, echo) => {
                match value {
                    Some(value) => write!(f, "TS val {value} ecr ")?,
                    None => f.write_str("TS val * ecr ")?,
                }
                match echo {
                    Echo::Is(echo) => write!(f, "{echo}"),
                    Echo::Last => f.write_str("last"),
                    Echo::Any => f.write_str("*"),
                }
            }
            Self::Other(kind, data) => {
                write!(f, "kind {kind}")?;
                data.iter().try_for_each(|octet| write!(f, " {octet:02x}"))
            }
        }
    }
}

/// In what respects a segment is not what is expected.
pub(super) fn differences(expected: &Segment, seen: &Segment) -> Vec<&'static str> {
    let differs = |same: bool, what: &'static str| (!same).then_some(what);
    let codepoint = expected.ecn.is_none() || expected.ecn == seen.ecn;
    let flags = expected.flags.is_none() || expected.flags == seen.flags;
    let seq = expected.seq.is_none() || expected.seq == seen.seq;
    let ack = expected.ack.is_none() || expected.ack == seen.ack;
    let window = expected.window.is_none() || expected.window == seen.window;
    [
        differs(codepoint, "the ECN codepoint"),
        differs(flags, "the flags"),
        differs(seq, "SEG.SEQ or the octets"),
        differs(ack, "the acknowledgement"),
        differs(window, "the window"),
        differs(expected.urgent == seen.urgent, "the urgent pointer"),
        differs(options_fit(expected, seen), "the options"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Order and padding do not matter; each option that is expected must be there, and no other unless `*` says so.
fn options_fit(expected: &Segment, seen: &Segment) -> bool {
    let wanted: Vec<_> =
        expected.options.iter().filter(|option| !matches!(option, Opt::Nop | Opt::End)).collect();
    let all = wanted.iter().all(|wanted| seen.options.iter().any(|option| fits(wanted, option)));
    all && (expected.any_options || wanted.len() == seen.options.len())
}

fn fits(expected: &Opt, seen: &Opt) -> bool {
    match (expected, seen) {
        (Opt::Timestamps(value, echo), Opt::Timestamps(seen_value, seen_echo)) => {
            (value.is_none() || value == seen_value) && (!matches!(echo, Echo::Is(_)) || echo == seen_echo)
        }
        _ => expected == seen,
    }
}
