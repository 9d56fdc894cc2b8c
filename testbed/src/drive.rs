//! Handing connections over at random moments.

use core::time::Duration;

use crate::Result;
use crate::clock::{nanos, now_ns};
use crate::nodes::Node;

/// Moves the connections of the demo from node to node, A→B→C→A, at moments that a seed decides.
#[derive(Debug)]
pub struct Driver {
    random: fastrand::Rng,
    mean: Duration,
    due_ns: u64,
    owner: usize,
    moved: usize,
    refused: Vec<String>,
}

impl Driver {
    /// `mean` lies between two handoffs on average; each pause is between half of it and one and a half.
    pub fn new(mean: Duration, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, mean, due_ns: 0, owner: 0, moved: 0, refused: Vec::new() }
    }

    /// A new connection was opened to the contact node, which serves it itself.
    pub fn restart(&mut self) {
        self.owner = 0;
        self.plan();
    }

    /// How many connections moved so far.
    pub fn moved(&self) -> usize {
        self.moved
    }

    /// Why connections could not be moved.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// The node that has the connection, as far as we know.
    pub fn owner<'a>(&self, nodes: &'a [Node]) -> &'a str {
        nodes[self.owner].name
    }

    /// Carries a handoff out if one is due.
    pub fn beat(&mut self, nodes: &mut [Node]) -> Result<()> {
        if now_ns() < self.due_ns {
            return Ok(());
        }
        let next = (self.owner + 1) % nodes.len();
        let to = nodes[next].name;
        let donor = &mut nodes[self.owner];
        let moved = donor.control.handoff_all(to)?;
        let from = donor.name;
        self.refused.extend(moved.failed.iter().map(|failed| format!("{from} to {to}: {}", failed.why)));
        if moved.moved > 0 {
            self.moved += moved.moved;
            self.owner = next;
        }
        self.plan();
        Ok(())
    }

    fn plan(&mut self) {
        let share = 0.5 + self.random.f64();
        self.due_ns = now_ns() + nanos(self.mean.mul_f64(share));
    }
}
