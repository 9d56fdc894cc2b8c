//! The usual handshake, so that scripts about something else can begin behind it.

use super::super::ast::{Call, Echo, Ecn, Establish, Flags, Opt, Segment, When};
use super::Run;

impl Run<'_> {
    pub(super) fn establish(&mut self, number: usize, how: &Establish) -> Result<(), String> {
        if how.active { self.establish_active(number, how) } else { self.establish_passive(number, how) }
    }

    fn establish_passive(&mut self, number: usize, how: &Establish) -> Result<(), String> {
        self.subject.listen(None, None);
        let mut syn = bare(Flags::SYN | how.flags, 0, None);
        syn.options = self.offer(how, 100, false);
        syn.window = how.window;
        self.arrive(number, syn)?;
        let answer = Flags::SYN | Flags::ACK | (how.flags & 0x40);
        self.expect(now(), number, &any_options(bare(answer, 0, Some(1))))?;
        self.advance(self.now + how.rtt)?;
        self.nothing_unexpected()?;
        let mut ack = bare(Flags::ACK, 1, Some(1));
        ack.options = self.stamp(how, 101);
        ack.window = how.window;
        self.arrive(number, ack)?;
        self.last = self.now;
        self.log("accept");
        self.call(number, &Call::Accept)?;
        self.settle()
    }

    fn establish_active(&mut self, number: usize, how: &Establish) -> Result<(), String> {
        self.log("connect");
        self.call(number, &Call::Connect)?;
        self.settle()?;
        self.expect(now(), number, &any_options(bare(Flags::SYN | how.flags, 0, None)))?;
        self.advance(self.now + how.rtt)?;
        self.nothing_unexpected()?;
        let mut answer = bare(Flags::SYN | Flags::ACK | (how.flags & 0x40), 0, Some(1));
        answer.options = self.offer(how, 100, true);
        answer.window = how.window;
        self.arrive(number, answer)?;
        self.expect(now(), number, &any_options(bare(Flags::ACK, 1, Some(1))))?;
        self.last = self.now;
        Ok(())
    }

    /// What the peer offers: by default all that we would take.
    fn offer(&self, how: &Establish, stamp: i64, answering: bool) -> Vec<Opt> {
        if let Some(options) = &how.options {
            return options.clone();
        }
        let settings = &self.settings;
        let config = &settings.config;
        let echo = if answering { Echo::Last } else { Echo::Is(0) };
        let options = [
            Some(Opt::Mss(settings.peer_mss)),
            config.sack.then_some(Opt::SackPermitted),
            config.timestamps.then_some(Opt::Timestamps(Some(stamp), echo)),
            config.window_scaling.then_some(Opt::WindowScale(settings.peer_wscale)),
        ];
        options.into_iter().flatten().collect()
    }

    /// The timestamp of a segment after the handshake, if both agreed to it.
    fn stamp(&self, how: &Establish, value: i64) -> Vec<Opt> {
        let offered = how.options.as_ref();
        let theirs = offered.is_none_or(|all| all.iter().any(|one| matches!(one, Opt::Timestamps(..))));
        let both = self.settings.config.timestamps && theirs;
        both.then_some(Opt::Timestamps(Some(value), Echo::Last)).into_iter().collect()
    }
}

fn now() -> When {
    When::After(core::time::Duration::ZERO, core::time::Duration::ZERO)
}

fn bare(flags: u16, seq: i64, ack: Option<i64>) -> Segment {
    Segment { ecn: Some(Ecn::Not), flags: Some(Flags(flags)), seq: Some((seq, 0)), ack, ..Segment::default() }
}

fn any_options(segment: Segment) -> Segment {
    Segment { any_options: true, ..segment }
}
