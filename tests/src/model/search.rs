//! Going through every state of the model.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Bounds, CONNECTIONS, Link, Step, World, pairs};

/// How much was searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Different states.
    pub states: u64,
    /// Steps from one to another.
    pub steps: u64,
    /// The longest way to a state.
    pub longest: usize,
    /// States from which it was tried how all ends when nothing more goes wrong.
    pub ended: u64,
}

/// After so many rounds in which nothing goes wrong everything is over: a donor repeats itself every two seconds, and
/// forgets after two minutes; what was decided is forgotten after five.
const ROUNDS: u32 = 2_000;

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Goes through everything that can happen. The error is the way to a state in which a sentence does not hold, and
/// the sentence.
pub fn search(bounds: Bounds) -> Result<Found, (Vec<Step>, String)> {
    let mut first = World::new(bounds);
    let (mut found, mut known) = (Found::default(), HashSet::from([fingerprint(&first)]));
    let mut way: Vec<(World, Vec<Step>, Option<Step>)> = vec![(first.clone(), first.steps(), None)];
    while let Some((world, steps, _)) = way.last_mut() {
        let Some(step) = steps.pop() else {
            way.pop();
            continue;
        };
        let mut next = world.clone();
        let taken = next.take(step);
        found.steps += 1;
        let told = |sentence| (way.iter().filter_map(|(.., step)| *step).chain([step]).collect(), sentence);
        taken.map_err(told)?;
        let print = fingerprint(&next);
        if !known.insert(print) {
            continue;
        }
        // Where all is well, all ends well; tried in every sixteenth state, whichever they are.
        if print.is_multiple_of(16) {
            found.ended += 1;
            next.clone().all_ends_well().map_err(told)?;
        }
        let steps = next.steps();
        way.push((next, steps, Some(step)));
        found.longest = found.longest.max(way.len());
    }
    found.states = known.len() as u64;
    Ok(found)
}

impl World {
    /// Nothing more goes wrong: everybody lives, every link comes up, every message arrives, every timer fires.
    fn all_ends_well(&mut self) -> Result<(), String> {
        self.left = Bounds {
            gives: 0,
            losses: 0,
            doubles: 0,
            deaths: 0,
            breaks: 0,
            timeouts: u8::MAX,
            refusals: 0,
            steps: 0,
            ends: 0,
        };
        for _ in 0..ROUNDS {
            let Some(step) = self.next_good() else { break };
            self.left.timeouts = u8::MAX;
            self.take(step)?;
            if self.is_settled() {
                break;
            }
        }
        self.every_connection_has_its_owner()?;
        for nth in 0..CONNECTIONS {
            if self.owner(nth).is_some() {
                self.end(nth);
            }
        }
        for _ in 0..ROUNDS {
            let Some(step) = self.next_good() else { break };
            self.left.timeouts = u8::MAX;
            self.take(step)?;
        }
        let remembered: usize = self
            .nodes
            .iter()
            .flatten()
            .map(|node| node.handoffs.remembered() + node.holdings.len() + node.early.len())
            .sum();
        if remembered > 0 {
            return Err(format!("everything is forgotten in the end: {remembered} things are not: {self:?}"));
        }
        Ok(())
    }

    /// What is next when nothing goes wrong: links, then messages, then timers, each when it is due.
    fn next_good(&mut self) -> Option<Step> {
        let steps = self.steps();
        let deadlines = self.deadlines();
        let rank = |step: &Step| match step {
            Step::Restart(_) => (0, None),
            Step::Notice(..) => (1, None),
            Step::Meet(..) => (2, None),
            Step::Deliver(_) => (3, None),
            Step::Timeout(node) => (4, deadlines[*node]),
            _ => (5, None),
        };
        steps.into_iter().min_by_key(rank)
    }

    fn is_settled(&self) -> bool {
        let up = pairs().all(|(a, b)| self.links[a][b] == Link::Up && self.links[b][a] == Link::Up);
        let busy =
            self.nodes.iter().flatten().any(|node| node.handoffs.under_way() + node.holdings.len() > 0);
        up && self.letters.is_empty() && !busy
    }

    fn every_connection_has_its_owner(&self) -> Result<(), String> {
        if !self.is_settled() {
            return Err(format!("nothing hangs: {self:?}"));
        }
        let lost = (0..CONNECTIONS).find(|nth| {
            let truth = &self.truth[*nth];
            !truth.ended && !truth.lost && self.owner(*nth).is_none()
        });
        lost.map_or(Ok(()), |nth| Err(format!("what a living node holds goes on: {nth} does not: {self:?}")))
    }
}
