//! A random conversation of the scripted peer with two stacks at once: each step is the same for both, and what they
//! say to it is compared before the next one is drawn.

use super::differences::{self, After, Context, Known};
use super::segment::Raw;
use super::side::{Plan, Side, SynOptions};
use super::subject::Subject;
use crate::rng::Rng;

/// Sequence numbers behind a SYN, and the peer's clock, go on by this much at most in a conversation.
const STEPS: u64 = 30;

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The peer sends a segment.
    Send(Plan),
    /// The application writes so many octets.
    Write(usize),
    /// The application reads so many octets at most.
    Read(usize),
    /// The application writes no more.
    Finish,
    /// The application neither writes nor reads any more.
    Close,
    /// The application gives the connection up.
    Abort,
}

/// Who opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer does; the stacks are servers.
    Server,
    /// The stacks do.
    Client,
}

/// What came of a conversation.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps in which both said the same.
    pub steps: u64,
    /// Segments that the stacks sent in those, together.
    pub segments: u64,
    /// Octets that the applications got, together.
    pub octets: u64,
    /// Differences that are known, and for which one.
    pub known: Vec<&'static str>,
}

/// A conversation.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent thing to remember")]
pub struct Conversation<'a> {
    pub(super) rng: Rng,
    /// Ours, and the kernel's.
    pub(super) sides: [Side<'a>; 2],
    pub(super) role: Role,
    pub(super) offer: SynOptions,
    /// Whether both know of each other's SYN.
    pub(super) open: bool,
    /// Whether timestamps were agreed on.
    pub(super) stamps: bool,
    pub(super) clock: u32,
    /// Behind the last octet that the peer sent, in order or not.
    pub(super) sent: u32,
    /// Behind the last of all octets.
    pub(super) furthest: u32,
    /// Whether there are octets behind its FIN.
    pub(super) lies: bool,
    /// Whether it has ever shut its window.
    pub(super) shut: bool,
    /// Whether it has sent an old acknowledgement.
    pub(super) old: bool,
    /// Whether it has sent a segment that begins at the right edge of the window.
    pub(super) edge: bool,
    /// Where the peer's FIN is, once it was sent.
    pub(super) fin: Option<u32>,
    /// What the peer acknowledged last.
    pub(super) acked: u32,
    pub(super) window: u16,
    /// What the applications did.
    pub(super) finished: bool,
    pub(super) closed: bool,
    pub(super) reset: bool,
    /// Whether this has become another connection.
    pub(super) over: bool,
    pub(super) nodelay: bool,
    pub(super) lines: Vec<String>,
    pub(super) log: bool,
}

impl<'a> Conversation<'a> {
    /// Between the peer and two stacks of which nothing is known.
    pub fn new(
        mut rng: Rng,
        ours: Box<dyn Subject + 'a>,
        kernel: Box<dyn Subject + 'a>,
        nodelay: bool,
        log: bool,
    ) -> Self {
        let irs = if rng.chance(200) { u32::MAX - 700 } else { u32::try_from(rng.any() >> 32).unwrap_or(0) };
        let sides = [Side::new(ours, irs), Side::new(kernel, irs)];
        let role = rng.pick(&[Role::Server, Role::Client]);
        let offer = SynOptions {
            mss: (!rng.chance(100)).then(|| rng.pick(&[536, 1000, 1220, 1440])),
            scale: rng.chance(700).then(|| rng.pick(&[0, 3, 14])),
            sack: rng.chance(800),
            timestamps: rng.chance(700),
        };
        Self {
            clock: u32::try_from(rng.any() >> 32).unwrap_or(0),
            rng,
            sides,
            role,
            offer,
            open: false,
            stamps: offer.timestamps,
            sent: 1,
            furthest: 1,
            lies: false,
            shut: false,
            old: false,
            edge: false,
            fin: None,
            acked: 0,
            window: 20_000,
            finished: false,
            closed: false,
            reset: false,
            over: false,
            nodelay,
            lines: Vec::new(),
            log,
        }
    }

    /// Holds it. The error is the whole of it up to the step in which the stacks differ.
    pub fn hold(&mut self) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        self.lines.push(format!("{:?}, the peer offers {:?}", self.role, self.offer));
        for side in &mut self.sides {
            match self.role {
                Role::Server => side.subject.listen(),
                Role::Client => side.subject.connect(),
            }
        }
        self.compare(&Step::Read(0), &[String::new(), String::new()], &mut outcome)?;
        for _ in 0..self.rng.within(5..=STEPS) {
            let step = self.draw();
            let told = [0, 1].map(|nth| self.carry_out(nth, &step));
            if !self.compare(&step, &told, &mut outcome)? {
                break;
            }
        }
        outcome.octets = u64::from(self.sides[0].read) + u64::from(self.sides[1].read);
        Ok(outcome)
    }

    fn carry_out(&mut self, nth: usize, step: &Step) -> String {
        let side = &mut self.sides[nth];
        match step {
            Step::Send(plan) => {
                let raw = side.concrete(plan);
                side.subject.take(&raw);
            }
            Step::Write(len) => return side.write(*len),
            Step::Read(max) => return side.read(*max),
            Step::Finish => side.subject.finish(),
            Step::Close => side.subject.close(),
            Step::Abort => side.subject.abort(),
        }
        String::new()
    }

    /// Compares what the two said to a step. `false`: what they are now is known to differ.
    fn compare(&mut self, step: &Step, told: &[String; 2], outcome: &mut Outcome) -> Result<bool, String> {
        let heard = [0, 1].map(|nth| self.sides[nth].subject.heard());
        let (rcv_nxt, snd_nxt) = (self.sides[0].rcv_nxt, self.sides[0].snd_nxt);
        self.reset |=
            matches!(step, Step::Send(plan) if plan.bits.rst) || self.sides.iter().any(|side| side.reset);
        for (side, heard) in self.sides.iter_mut().zip(&heard) {
            for raw in heard {
                side.note(raw, self.open);
            }
        }
        self.learn(&heard[0]);
        let words = [0, 1].map(|nth| self.sides[nth].words(&heard[nth]));
        let line = format!(
            "{step:?}\n      ours: {} {:?}\n    kernel: {} {:?}",
            told[0], words[0], told[1], words[1]
        );
        if self.log {
            eprintln!("{line}");
        }
        self.lines.push(line);
        outcome.segments += heard.iter().map(|heard| heard.len() as u64).sum::<u64>();
        let same = told[0] == told[1] && words[0] == words[1];
        let context = Context {
            step,
            told,
            words: &words,
            rcv_nxt,
            fin: self.fin,
            shut: self.shut,
            open: self.open,
            nodelay: self.nodelay,
            reset: self.reset,
            stamps: self.stamps,
            acked: self.acked,
            old: self.old,
            edge: self.edge,
            furthest: self.furthest,
            scaled: self.offer.scale.is_some(),
            closed: self.closed,
            lies: self.lies,
            clock: self.clock,
            snd_nxt,
        };
        outcome.steps += u64::from(same);
        match differences::known(&context, same) {
            Some(Known { name, after, .. }) => {
                outcome.known.push(name);
                Ok(*after == After::Same && !self.over)
            }
            None if same => Ok(!self.over),
            None => Err(self.lines.join("\n")),
        }
    }

    fn learn(&mut self, heard: &[Raw]) {
        for raw in heard.iter().filter(|raw| raw.bits.syn) {
            self.over |= self.open;
            self.stamps = self.offer.timestamps && raw.timestamps.is_some();
            if self.offer.scale.is_none() {
                self.sides.iter_mut().for_each(Side::no_scaling);
            }
        }
        self.open |= self.role == Role::Server && self.sides[0].rcv_nxt > 0 && self.acked > 0;
    }
}
