//! A host of the simulated world with its applications: clients that play scripts, services that answer.

use core::net::SocketAddrV6;

use ferry_stack::{Frame, Instant};

use crate::serve::Serving;
use crate::stack::{Phase, Stack};
use crate::talk::{Script, Talk};

/// A host with its applications.
#[derive(Debug)]
pub struct Machine {
    /// Its TCP.
    pub stack: Box<dyn Stack>,
    /// What its clients do.
    pub talks: Vec<Talk>,
    /// What its services do, and on which connection.
    servings: Vec<(usize, Serving)>,
}

impl Machine {
    /// A host without applications.
    pub fn new(stack: Box<dyn Stack>) -> Self {
        Self { stack, talks: Vec::new(), servings: Vec::new() }
    }

    /// Takes a frame.
    pub fn receive(&mut self, frame: Frame, now: Instant) {
        self.stack.receive(frame, now);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.stack.handle_timeout(now);
    }

    /// Lets every application do what it can. Gives back what was opened: the client's end and the server's.
    pub fn run(&mut self, now: Instant) -> Vec<(SocketAddrV6, SocketAddrV6, usize)> {
        let opened = self.open(now);
        for talk in &mut self.talks {
            let Some(connection) = talk.connection.filter(|_| !talk.is_over()) else { continue };
            if self.stack.phase(connection) != Phase::Opening {
                self.stack.act(connection, now, &mut |io| talk.play(io, now));
            }
            if !talk.is_given_up() {
                talk.see(self.stack.phase(connection));
            }
        }
        while let Some((connection, port)) = self.stack.accept() {
            self.servings.push((connection, Serving::at(port)));
        }
        for (connection, serving) in &mut self.servings {
            self.stack.act(*connection, now, &mut |io| serving.handle(io));
        }
        let stack = &self.stack;
        self.servings.retain(|(connection, _)| !matches!(stack.phase(*connection), Phase::Over(_)));
        opened
    }

    fn open(&mut self, now: Instant) -> Vec<(SocketAddrV6, SocketAddrV6, usize)> {
        let mut opened = Vec::new();
        for nth in 0..self.talks.len() {
            if self.talks[nth].connection.is_some() || self.talks[nth].script.start > now {
                continue;
            }
            let Some((connection, local)) = self.open_one(nth, now) else { continue };
            let talk = &mut self.talks[nth];
            (talk.connection, talk.local) = (Some(connection), Some(local));
            opened.push((local, talk.script.server, nth));
        }
        opened
    }

    /// Its number in the stack, and the client's end. `None` if it waits for the end of another.
    fn open_one(&mut self, nth: usize, now: Instant) -> Option<(usize, SocketAddrV6)> {
        let Script { server, again, .. } = self.talks[nth].script;
        let Some(before) = again.map(|before| &self.talks[before]) else {
            return Some(self.stack.connect(server, now));
        };
        let local = before.local.filter(|_| before.is_over())?;
        Some((self.stack.connect_again(local, server, now)?, local))
    }

    /// When there is something to do that no frame would bring about.
    pub fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let talks = self.talks.iter().filter_map(|talk| talk.deadline(now)).min();
        [self.stack.deadline(now), talks].into_iter().flatten().min()
    }

    /// Gives up a connection of a client.
    pub fn give_up(&mut self, talk: usize, now: Instant) {
        let talk = &mut self.talks[talk];
        if let Some(connection) = talk.connection.filter(|_| !talk.is_over()) {
            self.stack.act(connection, now, &mut |io| talk.give_up(io));
        }
    }

    /// Whether no service has a connection.
    pub fn is_idle(&self) -> bool {
        self.servings.is_empty()
    }

    /// Whether every client has what it wanted.
    pub fn is_done(&self) -> bool {
        self.talks.iter().all(|talk| talk.is_over() || talk.excused)
    }
}
