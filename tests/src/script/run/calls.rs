//! What the application does.

use core::time::Duration;

use ferry_stack::tcp::{Commit, Flow, KeepAlive, Tcb};

use super::super::ast::{Call, SetOpt};
use super::super::peer::Peer;
use super::super::subject::flow;
use super::Run;

const NO_COPY: &str = "no backup has a copy of it";

/// What a backup has of a connection: how it was, when, and how far the application had come.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    tcb: Tcb<Duration>,
    at: Duration,
    written: u64,
    read: u64,
}

/// Segments that a new connection acknowledges at once: more than any script has.
const QUICK: u8 = 200;

impl Run<'_> {
    pub(super) fn call(&mut self, number: usize, call: &Call) -> Result<(), String> {
        let flow = self.flow(number);
        match call {
            Call::Listen(waiting, half_open) => self.subject.listen(*waiting, *half_open),
            Call::Unlisten => self.subject.unlisten(),
            Call::Accept => return self.accept(&flow),
            Call::Connect => return self.connect(number),
            Call::Write(octets, taken) => return self.write(number, *octets, *taken),
            Call::Read(octets) => return self.read(number, *octets),
            Call::ReadEnd => {
                let end = self.with(&flow, |tcb, _| tcb.at_end())?;
                return if end {
                    Ok(())
                } else {
                    Err("the peer has not finished, or there is more to read".into())
                };
            }
            Call::Shutdown => self.with(&flow, |tcb, _| tcb.finish())?,
            Call::Close => self.with(&flow, Tcb::close)?,
            Call::Abort => self.with(&flow, |tcb, _| tcb.abort())?,
            Call::SetOpt(option) => self.with(&flow, |tcb, _| set_option(tcb, *option))?,
            Call::Hold(commit) => self.with(&flow, |tcb, _| tcb.hold(*commit))?,
            Call::Unhold => self.with(&flow, |tcb, _| tcb.unhold())?,
            Call::Copy => return self.copy(number),
            Call::Release => {
                let Some(copy) = self.copies.get(&number) else { return Err(NO_COPY.to_owned()) };
                let point = copy.tcb.point();
                self.with(&flow, |tcb, _| tcb.release(point))?;
            }
            Call::Crash(commit) => return self.crash(number, *commit),
        }
        Ok(())
    }

    fn copy(&mut self, number: usize) -> Result<(), String> {
        let flow = self.flow(number);
        let tcb = self.with(&flow, |tcb, now| tcb.clone().freeze(now))?;
        let (at, peer) = (self.now, self.peer(number));
        let copy = Copy { tcb, at, written: peer.written, read: peer.read };
        self.copies.insert(number, copy);
        Ok(())
    }

    /// What the application had written and read since the copy, it does again.
    fn crash(&mut self, number: usize, commit: Commit) -> Result<(), String> {
        let Some(Copy { tcb, at, written, read }) = self.copies.get(&number).cloned() else {
            return Err(NO_COPY.to_owned());
        };
        let peer = self.peer(number);
        (peer.written, peer.read) = (written, read);
        let spent = self.now.saturating_sub(at);
        self.subject.crash(tcb.recovered(commit, spent), self.now)
    }

    fn with<R>(
        &mut self,
        flow: &Flow,
        act: impl FnOnce(&mut Tcb, ferry_stack::Instant) -> R,
    ) -> Result<R, String> {
        self.subject.with(flow, self.now, act).ok_or_else(|| "there is no such connection".to_owned())
    }

    fn accept(&mut self, expected: &Flow) -> Result<(), String> {
        match self.subject.accept() {
            None => Err("there is no connection to be accepted".to_owned()),
            Some(flow) if flow == *expected => Ok(()),
            Some(flow) => Err(format!("another connection is the next, that of port {}", flow.remote.port())),
        }
    }

    fn connect(&mut self, number: usize) -> Result<(), String> {
        let irs = self.settings.irs;
        let mut peer = Peer::new(number, irs);
        peer.local_port = self.subject.connect(peer.remote_port, self.now)?;
        self.peers.insert(number, peer);
        Ok(())
    }

    fn write(&mut self, number: usize, octets: usize, taken: usize) -> Result<(), String> {
        let peer = self.peer(number);
        let flow = flow(peer.local_port, peer.remote_port);
        let written = peer.our_octets(peer.written, octets);
        let rest = self.with(&flow, |tcb, _| tcb.write(written))?;
        let took = octets - rest.len();
        self.peer(number).written += took as u64;
        if took == taken { Ok(()) } else { Err(format!("{taken} octets should be taken, but {took} were")) }
    }

    fn read(&mut self, number: usize, octets: usize) -> Result<(), String> {
        let peer = self.peer(number);
        let (flow, offset) = (flow(peer.local_port, peer.remote_port), peer.read);
        let mut all = Vec::new();
        while all.len() < octets {
            let chunk = self.with(&flow, |tcb, _| tcb.read(octets - all.len()))?;
            if chunk.is_empty() {
                return Err(format!(
                    "{octets} octets should be there to be read, but there are {}",
                    all.len()
                ));
            }
            all.extend_from_slice(&chunk);
        }
        let peer = self.peer(number);
        peer.read += octets as u64;
        let right = peer.is_theirs(offset, &all);
        if right { Ok(()) } else { Err("what was read is not what the peer's stream has there".to_owned()) }
    }
}

fn set_option(tcb: &mut Tcb, option: SetOpt) {
    match option {
        SetOpt::NoDelay(on) => tcb.config_mut().nodelay = on,
        SetOpt::QuickAck(on) => tcb.rcv.quick = if on { QUICK } else { 0 },
        SetOpt::ReceiveBuffer(octets) => tcb.config_mut().receive_buffer = octets,
        SetOpt::KeepAlive(all) => {
            tcb.config_mut().keep_alive =
                all.map(|(idle, interval, count)| KeepAlive { idle, interval, count });
        }
    }
}
