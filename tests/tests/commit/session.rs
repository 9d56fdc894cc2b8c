//! What applications do: a client with a script of its own, and a session that is a function of its state.

use ferry_stack::tcp::Tcb;
use ferry_tests::pattern;

/// Keys of the two streams.
pub(crate) const UP: u64 = 11;
pub(crate) const DOWN: u64 = 22;

/// One side's plan, and how far it has come. All that it will ever write follows from this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Keys of what it writes and reads.
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    /// Octets that it will write, and those that the other side will.
    pub(crate) total: u64,
    pub(crate) expected: u64,
    /// It may be so many octets ahead of what was read.
    pub(crate) ahead: u64,
    /// Whether it waits for the other side to finish before it does.
    pub(crate) second: bool,
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) finished: bool,
    pub(crate) ended: bool,
}

impl Side {
    /// Does what it can. The error says what came that should not.
    pub(crate) fn act(&mut self, tcb: &mut Tcb, at_once: usize) -> Result<(), String> {
        self.take(tcb, at_once)?;
        while let Some(left) = self.due() {
            let octets = pattern::octets(self.writes, self.written, left.min(at_once));
            let len = octets.len();
            let taken = len - tcb.write(octets).len();
            self.written += taken as u64;
            if taken < len {
                break;
            }
        }
        if self.written == self.total && (self.ended || !self.second) && !self.finished {
            tcb.finish();
            self.finished = true;
        }
        Ok(())
    }

    fn take(&mut self, tcb: &mut Tcb, at_once: usize) -> Result<(), String> {
        loop {
            let octets = tcb.read(at_once);
            if octets.is_empty() {
                break;
            }
            if let Some(at) = pattern::first_difference(self.reads, self.read, &octets) {
                return Err(format!("octet {at} is not the right one"));
            }
            self.read += octets.len() as u64;
        }
        if tcb.at_end() && !self.ended && !tcb.state.is_closed() {
            self.ended = true;
            if self.read != self.expected {
                return Err(format!("it ended after {} of {} octets", self.read, self.expected));
            }
        }
        Ok(())
    }

    /// Octets to be written now.
    fn due(&self) -> Option<usize> {
        let may = self.total.min(self.read.saturating_add(self.ahead));
        let may = if self.read == self.expected { self.total } else { may };
        usize::try_from(may.saturating_sub(self.written)).ok().filter(|left| *left > 0)
    }

    /// Whether everything is written, and everything read.
    pub(crate) fn is_done(&self) -> bool {
        self.finished && self.ended
    }
}
