//! Where the kernel deliberately does something else than we do, and why. Nothing else may differ, and each of these
//! must be seen to differ: a line that is never needed is taken out.

use std::collections::BTreeSet;

use super::conversation::Step;
use super::side::{At, Plan};

/// A step that the two stacks answered differently.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
pub struct Context<'a> {
    /// The step.
    pub step: &'a Step,
    /// What the applications were told: ours, the kernel's.
    pub told: &'a [String; 2],
    /// What the stacks said: ours, the kernel.
    pub words: &'a [Vec<String>; 2],
    /// RCV.NXT before the step.
    pub rcv_nxt: u32,
    /// Where the peer's FIN is, if it sent one.
    pub fin: Option<u32>,
    /// Whether the peer has ever shut its window.
    pub shut: bool,
    /// Whether the handshake is over.
    pub open: bool,
    /// Whether the application waits for no acknowledgement (no Nagle).
    pub nodelay: bool,
    /// Whether a RST was sent, in whichever direction.
    pub reset: bool,
    /// Whether timestamps were agreed on.
    pub stamps: bool,
    /// What the peer acknowledged last.
    pub acked: u32,
    /// Whether the peer has sent an old acknowledgement.
    pub old: bool,
    /// Whether the peer has sent a segment that begins at the right edge of the window.
    pub edge: bool,
    /// Behind the last octet that the peer sent, in order or not.
    pub furthest: u32,
    /// Whether windows are scaled.
    pub scaled: bool,
    /// SND.NXT before the step.
    pub snd_nxt: u32,
    /// Whether the application has closed.
    pub closed: bool,
    /// Whether the peer has sent octets behind its FIN.
    pub lies: bool,
    /// The peer's clock.
    pub clock: u32,
}

/// A difference that is known.
#[derive(Debug)]
pub struct Known {
    /// What the kernel does, as a sentence.
    pub name: &'static str,
    /// Why we do not.
    pub why: &'static str,
    /// Whether this is it.
    pub is: fn(&Context<'_>) -> bool,
    /// Whether the conversation can go on.
    pub after: After,
}

/// What the two stacks are after a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// In the same state all the same.
    Same,
    /// In different states.
    Other,
    /// In different states, although they said the same.
    Unsaid,
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        name: "Linux reports the sequence numbers of FIN and SYN in SACK blocks",
        why: "RFC 2018 speaks of data; a FIN behind a gap is remembered by us as well, and sent again it costs one \
              small segment",
        is: |it| it.same_without(&[" sack "]) && it.blocks_differ_by_controls(),
        after: After::Same,
    },
    Known {
        name: "Linux acknowledges with a sequence number inside of a window that was taken back",
        why: "RFC 9293 section 3.8.6 forbids the peer to shrink its window; SND.NXT is the sequence number of an \
              acknowledgement (section 3.10.7.4)",
        is: |it| it.shut && it.same_without(&[]),
        after: After::Same,
    },
    Known {
        name: "Linux takes a segment that begins at the right edge, or as far behind it as the window field cannot tell, \
               as one in the window",
        why: "RFC 9293 section 3.10.7.4: RCV.NXT =< SEG.SEQ < RCV.NXT+RCV.WND, if it has octets; and what we promise \
              is what we said",
        is: |it| it.plan().is_some_and(|plan| is_hardly_outside(plan, it.scaled)),
        after: After::Other,
    },
    Known {
        name: "Linux remembers the window of a segment that begins at the right edge, and then none from before it",
        why: "as above: what is outside of the window sets neither SND.WL1 nor SND.WND. That the peer shuts its window \
              in a segment with an earlier sequence number is news to us, and none to Linux",
        is: |it| {
            it.edge && it.shut && it.words[0].is_empty() && !it.words[1].is_empty() && it.plan().is_none()
        },
        after: After::Other,
    },
    Known {
        name: "Linux takes the window of a segment with a new acknowledgement, however old its sequence number is",
        why: "RFC 9293 section 3.10.7.4, fifth: SND.WL1 =< SEG.SEQ. That the peer shuts its window in a segment that \
              was overtaken is news to Linux, and none to us",
        is: |it| it.shut && it.words[1].is_empty() && !it.words[0].is_empty() && it.plan().is_none(),
        after: After::Other,
    },
    Known {
        name: "Linux resets without an acknowledgement when octets come that nobody reads",
        why: "the sequence number is what counts; with the acknowledgement the RST is as any segment of the \
              connection",
        is: |it| it.only_form_of_reset_differs(),
        after: After::Other,
    },
    Known {
        name: "Linux lets the application read on after a RST",
        why: "RFC 9293 section 3.10.7.4, second: all segment queues should be flushed",
        is: |it| it.reset && it.told[0] == "read Broken" && matches!(it.step, Step::Read(_)),
        after: After::Other,
    },
    Known {
        name: "Linux resets, or moves the FIN, when octets come that lie behind it",
        why: "RFC 9293 section 3.10.7.4, seventh: ignore the segment text. Where a FIN is, the stream ends",
        is: |it| it.lies && it.plan().is_some(),
        after: After::Other,
    },
    Known {
        name: "Linux lets octets push a FIN on that waits behind a gap",
        why: "as above",
        is: |it| it.lies && it.fin.is_some_and(|fin| it.rcv_nxt.wrapping_sub(fin).cast_signed() <= 0),
        after: After::Unsaid,
    },
    Known {
        name: "Linux resets at once when a FIN tells of octets that nobody will read",
        why: "we reset when they come",
        is: |it| it.closed && it.plan().is_some_and(|plan| plan.bits.fin) && it.said_only("RST "),
        after: After::Other,
    },
    Known {
        name: "Linux reports a fourth SACK block where there are no timestamps",
        why: "three say as much: RFC 2018 section 3 wants three at least",
        is: |it| {
            let count = |words: &Vec<String>| words.iter().flat_map(|word| blocks(word)).count();
            !it.stamps && it.same_without(&[" sack "]) && count(&it.words[0]) == 3 && count(&it.words[1]) == 4
        },
        after: After::Same,
    },
    Known {
        name: "Linux does not report a duplicate inside of a segment that it joins to octets before it",
        why: "RFC 2883 section 4 asks for it",
        is: |it| {
            let [ours, kernel] = it
                .words
                .each_ref()
                .map(|words| words.iter().flat_map(|word| blocks(word)).collect::<Vec<_>>());
            it.same_without(&[" sack "]) && ours.len() > 1 && ours[1..] == kernel[..]
        },
        after: After::Same,
    },
    Known {
        name: "Linux takes an ACK of nothing, not even its SYN, for one that is too old",
        why: "it is an old one, in the range of RFC 5961 section 5.2",
        is: |it| it.plan().is_some_and(|plan| plan.ack == 0 && it.words[0].is_empty()),
        after: After::Other,
    },
    Known {
        name: "Linux takes acknowledgements with another window for duplicates",
        why: "RFC 5681 section 2, (e): the window is the same",
        is: |it| it.repeat() == [false, true],
        after: After::Other,
    },
    Known {
        name: "Linux takes no acknowledgement with a later sequence number for a duplicate, even if it has no octets",
        why: "RFC 5681 section 2: the window is the same, which is all that counts",
        is: |it| it.edge && it.repeat() == [true, false],
        after: After::Other,
    },
    Known {
        name: "Linux takes the timestamp of a segment that ends at RCV.NXT or has an unacceptable ACK",
        why: "RFC 7323 section 5.3, R2 before R3: what is outside of the window is refused first. And what may be a \
              blind attack (RFC 5961 section 5) should not set the clock that PAWS reads",
        is: |it| {
            let blocks = it.same_without(&[" ecr ", " sack "]) && it.blocks_differ_by_controls();
            (blocks || it.same_without(&[" ecr "]))
                && it.plan().is_some_and(|plan| it.words[1].iter().any(|word| echoes(word, plan)))
        },
        after: After::Other,
    },
    Known {
        name: "Linux does not take the timestamp of a segment with an old ACK",
        why: "RFC 7323 section 5.3, R3 asks for SEG.TSval and SEG.SEQ only",
        is: |it| it.old && it.same_without(&[" ecr "]),
        after: After::Other,
    },
    Known {
        name: "Linux takes a segment without the timestamp that was agreed on",
        why: "RFC 7323 section 3.2: it should be dropped silently",
        is: |it| {
            let bare = it.plan().is_some_and(|plan| plan.stamp.is_none() && !plan.bits.rst);
            it.stamps && bare && it.words[0].is_empty()
        },
        after: After::Other,
    },
    Known {
        name: "Linux takes octets in order whatever their ACK says, if nothing else is special about the segment",
        why: "RFC 5961 section 5.2: an unacceptable ACK is challenged, and the segment dropped",
        is: |it| {
            let far = |plan: &Plan| it.acked.wrapping_sub(plan.ack).cast_signed() > 0;
            it.plan().is_some_and(|plan| plan.len > 0 && far(plan) && plan.at == At::Seq(it.rcv_nxt))
        },
        after: After::Other,
    },
    Known {
        name: "Linux takes a RST with the sequence number of the FIN before it",
        why: "RFC 5961 section 3.2: only one at RCV.NXT is not blind",
        is: |it| {
            it.plan().is_some_and(|plan| plan.bits.rst && it.fin.is_some_and(|fin| plan.at == At::Seq(fin)))
                && it.fin.is_some_and(|fin| fin + 1 == it.rcv_nxt)
        },
        after: After::Unsaid,
    },
    Known {
        name: "Linux takes a RST at the end of the last SACK block that it sent",
        why: "RFC 5961 section 3.2: only one at RCV.NXT is not blind",
        is: |it| {
            let last = |at: u32| at == it.furthest || it.fin.is_some_and(|fin| at == fin + 1);
            it.words[1].is_empty()
                && it.plan().is_some_and(|plan| plan.bits.rst && matches!(plan.at, At::Seq(at) if last(at)))
        },
        after: After::Other,
    },
    Known {
        name: "Linux does not answer a RST in TIME-WAIT",
        why: "RFC 5961 section 3.2 in every synchronised state: one in the window that is not at RCV.NXT is challenged",
        is: |it| {
            let ended = it.fin.is_some_and(|fin| fin + 1 == it.rcv_nxt);
            ended
                && it.plan().is_some_and(|plan| plan.bits.rst)
                && it.words[1].is_empty()
                && it.words[0].len() == 1
        },
        after: After::Same,
    },
    Known {
        name: "Linux does not look at the sequence number of a segment without ACK, and may repeat its last ACK",
        why: "RFC 9293 section 3.10.7.4, first: check sequence number, and acknowledge if it is not acceptable",
        is: |it| it.plan().is_some_and(|plan| !plan.bits.ack && !plan.bits.syn && !plan.bits.rst),
        after: After::Same,
    },
    Known {
        name: "Linux resets what is given up with unread octets although both have finished",
        why: "RFC 9293 section 3.10.5: in CLOSING and LAST-ACK there is no RST",
        is: |it| *it.step == Step::Abort && it.words[0].is_empty(),
        after: After::Other,
    },
    Known {
        name: "Linux counts segments in its congestion window",
        why: "RFC 5681 counts octets",
        is: |it| it.nodelay && matches!(it.step, Step::Write(_)) && it.told[0] == it.told[1],
        after: After::Other,
    },
    Known {
        name: "Linux does not answer an old acknowledgement that PAWS refuses",
        why: "RFC 7323 section 5.3, R1: send an acknowledgement",
        is: |it| {
            let bare = it.plan().is_some_and(|plan| {
                plan.len == 0 && !plan.bits.fin && plan.stamp.is_some_and(|stamp| stamp != it.clock)
            });
            bare && it.words[1].is_empty() && it.words[0].len() == 1
        },
        after: After::Same,
    },
    Known {
        name: "Linux holds a short segment back only behind another short one (Minshall)",
        why: "RFC 9293 section 3.7.4: behind any octet that is not acknowledged",
        is: |it| {
            let more = it.words[0].is_empty() && it.said_only(&format!("{}..", it.snd_nxt));
            !it.nodelay && (matches!(it.step, Step::Write(_)) || more)
        },
        after: After::Other,
    },
    Known {
        name: "Linux looks at the ACK before the sequence number as long as a handshake is under way",
        why: "RFC 9293 section 3.10.7.4, first: check sequence number, in SYN-RECEIVED too",
        is: |it| !it.open && it.said_only("RST ") && !it.words[0].is_empty(),
        after: After::Same,
    },
    Known {
        name: "Linux takes a SYN with a FIN as a SYN once there is a connection",
        why: "no TCP sends one; it is dropped unread wherever it comes to",
        is: |it| it.plan().is_some_and(|plan| plan.bits.syn && plan.bits.fin) && it.words[0].is_empty(),
        after: After::Same,
    },
];

/// Whether a segment begins where Linux's window may still be: it promises units of scale and thinks of octets, and
/// without scaling it thinks of more than 16 bits can tell.
pub fn is_hardly_outside(plan: &Plan, scaled: bool) -> bool {
    matches!(plan.at, At::Edge(by) if by >= 0 && (by < 1024 || !scaled))
}

/// Which of the known differences this is.
pub fn known(context: &Context<'_>, same: bool) -> Option<&'static Known> {
    let unsaid = |known: &&Known| known.after == After::Unsaid && (known.is)(context);
    let said = |known: &&Known| !same && (known.is)(context);
    KNOWN.iter().find(unsaid).or_else(|| KNOWN.iter().find(said))
}

impl Context<'_> {
    fn plan(&self) -> Option<&Plan> {
        match self.step {
            Step::Send(plan) => Some(plan),
            _ => None,
        }
    }

    /// Whether both say the same without what follows each of `marks`, and without the sequence numbers that are
    /// said to be too high while the window is shut.
    fn same_without(&self, marks: &[&str]) -> bool {
        let plain = |word: &String| {
            let word = marks.iter().fold(word.clone(), |word, mark| without(&word, mark));
            match word.split_once(" ack ") {
                Some((head, rest)) if self.shut && !head.contains("..") => rest.to_owned(),
                _ => word,
            }
        };
        let plain = |words: &Vec<String>| words.iter().map(plain).collect::<Vec<_>>();
        self.told[0] == self.told[1] && plain(&self.words[0]) == plain(&self.words[1])
    }

    /// Whether the SACK blocks are the same, in whatever order, without the peer's FIN and without duplicates that
    /// are but a control. Once the FIN is in order, Linux forgets all blocks.
    fn blocks_differ_by_controls(&self) -> bool {
        let Some(fin) = self.fin.map(|fin| i64::from(fin.cast_signed())) else {
            return self.plan().is_some_and(|plan| plan.bits.syn || plan.bits.fin);
        };
        if self.words[1].iter().all(|word| word.contains(&format!(" ack {}", fin + 1))) {
            return true;
        }
        let dropped = self.plan().filter(|plan| plan.bits.fin || plan.bits.syn).map(|plan| match plan.at {
            At::Seq(from) => i64::from(from.wrapping_add(plan.len).cast_signed()),
            At::Edge(_) => fin,
        });
        let end = |to: i64| if to == fin + 1 || Some(to - 1) == dropped { to - 1 } else { to };
        let plain = |words: &Vec<String>| -> BTreeSet<(i64, i64)> {
            let blocks = words.iter().flat_map(|word| blocks(word)).map(|(from, to)| (from, end(to)));
            blocks.filter(|(from, to)| from < to).collect()
        };
        let (ours, kernel) = (plain(&self.words[0]), plain(&self.words[1]));
        // Linux's FIN can take the room of a third block.
        kernel.is_subset(&ours) && ours.len() <= kernel.len() + 1
    }

    /// Whether each answers a segment by sending again what is not acknowledged: ours, the kernel.
    fn repeat(&self) -> [bool; 2] {
        let again = |word: &String| word.contains(&format!("{}..", self.acked));
        self.words.each_ref().map(|words| self.plan().is_some() && words.iter().any(again))
    }

    fn said_only(&self, what: &str) -> bool {
        matches!(&self.words[1][..], [word] if word.starts_with(what))
    }

    fn only_form_of_reset_differs(&self) -> bool {
        let [ours, kernel] = self.words;
        match (&ours[..], &kernel[..]) {
            ([ours], [kernel]) => {
                ours.starts_with("RST ")
                    && [" sack ", " ecr ", " ack "]
                        .iter()
                        .fold(ours.clone(), |word, mark| without(&word, mark))
                        == *kernel
            }
            _ => false,
        }
    }
}

fn without(word: &str, mark: &str) -> String {
    let mut word = word.to_owned();
    while let Some(at) = word.find(mark) {
        let end = word[at + mark.len()..].find(' ').map_or(word.len(), |len| at + mark.len() + len);
        word.replace_range(at..end, "");
    }
    word
}

fn echoes(word: &str, plan: &Plan) -> bool {
    plan.stamp.is_some_and(|stamp| word.ends_with(&format!(" ecr {stamp}")))
}

/// The SACK blocks in what a stack said. Numbers can be negative: "-5--3".
fn blocks(word: &str) -> Vec<(i64, i64)> {
    let block = |text: &str| {
        let text = text.split(' ').next()?;
        let dash = text[1..].find('-')? + 1;
        Some((text[..dash].parse().ok()?, text[dash + 1..].parse().ok()?))
    };
    word.split(" sack ").skip(1).filter_map(block).collect()
}
