//! Plays a script: time passes, segments come and go, and each one of ours must be expected.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::Failure;
use super::ast::{Action, Claim, Icmp, Script, Segment, Step, When};
use super::peer::Peer;
use super::show::differences;
use super::subject::{self, Subject, flow};
use super::wire::{self, Outgoing, Raw};

mod calls;
mod establish;

/// How scripts are played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// After every event all connections move, as octets, to a host with another clock: nothing may change.
    pub handoff: bool,
    /// Sequence numbers of both sides begin just before the wrap.
    pub wrap: bool,
}

/// What came of a script.
#[derive(Clone, Debug)]
pub struct Report {
    /// Everything that happened, in the notation of scripts.
    pub events: Vec<String>,
    /// Segments of ours that were compared.
    pub compared: usize,
    /// How often connections moved.
    pub moves: usize,
}

/// Times are met if they are not further off: scripts are written with six decimals.
const TOLERANCE: Duration = Duration::from_micros(1);
/// How long something that may come at any time is waited for.
const PATIENCE: Duration = Duration::from_hours(24 * 30);
/// Events that a failure shows.
const SHOWN: usize = 16;
/// Timers that fire in a row without anything being sent: more is a loop.
const MOST_TIMERS: usize = 100_000;

/// Plays a script.
pub fn run(script: &Script, mode: Mode) -> Result<Report, Failure> {
    let mut settings = script.settings.clone();
    if mode.wrap {
        settings.irs = Subject::irs_before_wrap();
    }
    let mut run = Run {
        script,
        mode: Mode { handoff: mode.handoff && !settings.stays, ..mode },
        subject: Subject::new(&settings, mode.wrap),
        settings,
        peers: BTreeMap::new(),
        now: Duration::ZERO,
        last: Duration::ZERO,
        sent: VecDeque::new(),
        events: Vec::new(),
        compared: 0,
        moves: 0,
        copies: BTreeMap::new(),
    };
    for step in &script.steps {
        run.step(step).map_err(|message| run.failure(step.line, message))?;
    }
    let end = script.steps.last().map_or(0, |step| step.line);
    run.nothing_unexpected().map_err(|message| run.failure(end, message))?;
    Ok(Report { events: run.events, compared: run.compared, moves: run.moves })
}

/// A segment of ours that no step has expected yet.
#[derive(Debug)]
struct Waiting {
    at: Duration,
    peer: usize,
    segment: Segment,
    /// Whether its octets are those that were written.
    genuine: bool,
}

struct Run<'a> {
    script: &'a Script,
    settings: super::settings::Settings,
    mode: Mode,
    subject: Subject,
    peers: BTreeMap<usize, Peer>,
    /// How far time has come.
    now: Duration,
    /// When the last step was.
    last: Duration,
    sent: VecDeque<Waiting>,
    events: Vec<String>,
    compared: usize,
    moves: usize,
    /// What backups have of the connections.
    copies: BTreeMap<usize, calls::Copy>,
}

impl Run<'_> {
    fn failure(&self, line: usize, message: String) -> Failure {
        let from = self.events.len().saturating_sub(SHOWN);
        let before = self.events[from..].to_vec();
        Failure { name: self.script.name.clone(), line, message, before }
    }

    fn peer(&mut self, number: usize) -> &mut Peer {
        let irs = self.settings.irs;
        self.peers.entry(number).or_insert_with(|| Peer::new(number, irs))
    }

    fn flow(&mut self, number: usize) -> ferry_stack::tcp::Flow {
        let peer = self.peer(number);
        flow(peer.local_port, peer.remote_port)
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        if let Action::Expect(peer, expected) = &step.action {
            return self.expect(step.when, *peer, expected);
        }
        let (at, _) = self.window(step.when);
        self.advance(at)?;
        // Between two claims at the same moment what was sent may wait for its line.
        let claim = matches!(step.action, Action::Claim(..));
        if !claim || self.sent.front().is_some_and(|sent| sent.at < at) {
            self.nothing_unexpected()?;
        }
        self.last = at;
        let text = self.script.lines[step.line - 1].trim();
        match &step.action {
            Action::Expect(..) | Action::Silence => Ok(()),
            Action::Claim(peer, claims) => claims.iter().try_for_each(|claim| self.claim(*peer, claim)),
            Action::Arrive(peer, segment) => self.arrive(*peer, segment.clone()),
            Action::Icmp(peer, icmp) => self.icmp(*peer, icmp),
            Action::Establish(peer, how) => self.establish(*peer, how),
            Action::Call(peer, call) => {
                self.log(text);
                self.call(*peer, call)?;
                self.settle()
            }
            Action::Handoff => {
                self.log(text);
                self.subject.move_all(self.now, true)?;
                self.settle()
            }
        }
    }

    fn log(&mut self, text: &str) {
        self.events.push(format!("{:>10.6} {text}", self.now.as_secs_f64()));
    }

    /// From when to when a step may be.
    fn window(&self, when: When) -> (Duration, Duration) {
        match when {
            When::After(from, to) => (self.last + from, self.last + to),
            When::At(from, to) => (from, to),
            When::Any => (Duration::ZERO, self.now + PATIENCE),
        }
    }

    /// Lets time pass up to a moment, everything that is due by then included.
    fn advance(&mut self, to: Duration) -> Result<(), String> {
        if to < self.now {
            return Err(format!(
                "the script goes back in time: it is {:.6} already, not {:.6}",
                self.now.as_secs_f64(),
                to.as_secs_f64()
            ));
        }
        for _ in 0..MOST_TIMERS {
            if !self.fire_next(to)? {
                self.now = to;
                return Ok(());
            }
            self.nothing_unexpected()?;
        }
        Err(format!("timers fire for ever at {:.6}", self.now.as_secs_f64()))
    }

    /// Does what is due next, if that is not after `to`.
    fn fire_next(&mut self, to: Duration) -> Result<bool, String> {
        let Some(due) = self.subject.deadline(self.now).filter(|due| *due <= to) else { return Ok(false) };
        self.now = due.max(self.now);
        // Timers below TCP belong to the host, and would begin anew on each.
        let moves = self.subject.is_tcp_due(self.now);
        self.subject.handle_timeout(self.now);
        if moves {
            self.settle()?;
        } else {
            self.collect()?;
        }
        Ok(true)
    }

    /// Something has happened: collects what is sent, and checks what must always hold. Where connections move after
    /// every event, they do so before they can send and after it.
    fn settle(&mut self) -> Result<(), String> {
        self.moved()?;
        self.collect()?;
        if self.mode.handoff {
            self.moved()?;
            self.collect()?;
        }
        self.subject.check(self.now).map_err(|sentence| format!("this does not hold any more: {sentence}"))
    }

    fn collect(&mut self) -> Result<(), String> {
        while let Some(frame) = self.subject.transmit(self.now) {
            self.take(&frame)?;
        }
        Ok(())
    }

    fn take(&mut self, frame: &[u8]) -> Result<(), String> {
        match wire::read(frame)? {
            Outgoing::Tcp(port, raw) => self.note(port, &raw)?,
            Outgoing::Solicitation(target) => {
                self.subject.receive(wire::advertisement(target), self.now);
            }
            Outgoing::Other => {}
        }
        Ok(())
    }

    /// In the mode that is about it, everything moves.
    fn moved(&mut self) -> Result<(), String> {
        if !self.mode.handoff {
            return Ok(());
        }
        // What is on its way already belongs to no connection any more.
        while let Some(frame) = self.subject.left() {
            self.take(&frame)?;
        }
        self.moves += 1;
        self.subject.move_all(self.now, false).map_err(|why| format!("the connection cannot move: {why}"))
    }

    fn note(&mut self, port: u16, raw: &Raw) -> Result<(), String> {
        let number = usize::from(port.wrapping_sub(40_000));
        if port < 40_000 {
            return Err(format!("a segment went to port {port}, where nobody is"));
        }
        let peer = self.peer(number);
        peer.note(raw);
        let segment = wire::relative(peer, raw);
        let first = segment.seq.map_or(0, |(first, _)| first);
        let genuine = peer.is_ours(first, &raw.payload) && raw.local_port == peer.local_port;
        self.log(&format!(">{} {segment}", shown(number)));
        self.sent.push_back(Waiting { at: self.now, peer: number, segment, genuine });
        Ok(())
    }

    fn nothing_unexpected(&self) -> Result<(), String> {
        match self.sent.front() {
            None => Ok(()),
            Some(Waiting { at, peer, segment, .. }) => Err(format!(
                "nothing was expected, but there came\n    {:.6} >{} {segment}",
                at.as_secs_f64(),
                shown(*peer)
            )),
        }
    }

    fn expect(&mut self, when: When, peer: usize, expected: &Segment) -> Result<(), String> {
        let (from, to) = self.window(when);
        for _ in 0..MOST_TIMERS {
            if !self.sent.is_empty() || !self.fire_next(to + TOLERANCE)? {
                break;
            }
        }
        let wanted = format!(">{} {expected}", shown(peer));
        let Some(seen) = self.sent.pop_front() else {
            return Err(format!(
                "nothing was sent by {:.6}, but expected was\n    {wanted}",
                to.as_secs_f64()
            ));
        };
        let mut wrong = differences(expected, &seen.segment);
        let (early, late) = (seen.at + TOLERANCE < from, seen.at > to + TOLERANCE);
        let time = format!("the time ({:.6}~{:.6} is right)", from.as_secs_f64(), to.as_secs_f64());
        if early || late {
            wrong.insert(0, &time);
        }
        if peer != seen.peer {
            wrong.push("the peer");
        }
        if !seen.genuine {
            wrong.push("the octets themselves");
        }
        self.compared += 1;
        self.last = seen.at;
        if wrong.is_empty() {
            return Ok(());
        }
        let came = format!("{:.6} >{} {}", seen.at.as_secs_f64(), shown(seen.peer), seen.segment);
        let wrong = wrong.join(", ");
        Err(format!("expected was\n    {wanted}\nbut there came\n    {came}\nwhat differs: {wrong}"))
    }

    fn arrive(&mut self, number: usize, mut segment: Segment) -> Result<(), String> {
        segment.window.get_or_insert(self.settings.window);
        self.log(&format!("<{} {segment}", shown(number)));
        let frames = wire::arriving(self.peer(number), &segment);
        for frame in frames {
            self.subject.receive(frame, self.now);
        }
        self.settle()
    }

    fn icmp(&mut self, number: usize, icmp: &Icmp) -> Result<(), String> {
        self.log(&format!("<{} icmp {}/{} seq {}", shown(number), icmp.kind, icmp.code, icmp.seq));
        let quoted = self.peer(number).quotable(icmp.seq);
        let quoted = quoted.ok_or("there is no segment of ours yet that could be quoted")?;
        self.subject.receive(wire::error(icmp, &quoted), self.now);
        self.settle()
    }

    fn claim(&mut self, number: usize, claim: &Claim) -> Result<(), String> {
        let flow = self.flow(number);
        let tcb = self.subject.get(&flow);
        let (what, wanted, is) = match claim {
            Claim::State(wanted) => {
                ("the state", wanted.clone(), tcb.map_or("CLOSED".to_owned(), |tcb| tcb.state.to_string()))
            }
            Claim::Ended(wanted) => {
                let ending = self.subject.ending(&flow).map_or("not at all", subject::ending);
                ("how it ended", wanted.clone(), ending.to_owned())
            }
            Claim::Recovery(wanted) => {
                ("recovery", wanted.clone(), tcb.map_or("none", subject::recovery).to_owned())
            }
            Claim::Quantity(name, least, most) => return self.claim_quantity(name, *least, *most, &flow),
        };
        if wanted == is { Ok(()) } else { Err(format!("{what} should be {wanted}, but is {is}")) }
    }

    fn claim_quantity(
        &self,
        name: &str,
        least: f64,
        most: f64,
        flow: &ferry_stack::tcp::Flow,
    ) -> Result<(), String> {
        let Some(is) = self.subject.quantity(name, flow) else {
            return Err(format!("`{name}` should have a value, but has none"));
        };
        let near = TOLERANCE.as_secs_f64() / 20.0;
        if is >= least - near && is <= most + near {
            return Ok(());
        }
        let wanted = match (least, most) {
            (least, most) if (most - least).abs() < near => format!("{least}"),
            (f64::MIN, most) => format!("at most {most}"),
            (least, f64::MAX) => format!("at least {least}"),
            (least, most) => format!("{least}~{most}"),
        };
        Err(format!("`{name}` should be {wanted}, but is {is}"))
    }
}

/// How a peer's number is shown: the first has none.
fn shown(number: usize) -> String {
    if number == 1 { String::new() } else { format!("#{number}") }
}
