//! Paths that change while the world goes on, for experiments.

use core::time::Duration;

use ferry_node::{Command, Which};

use super::World;

impl World {
    /// How long every frame is on its way from now on between a machine and the router, each way.
    pub fn set_distance(&mut self, nth: usize, distance: Duration) {
        let place = &mut self.places[nth];
        place.up.quality.delay = distance;
        place.down.quality.delay = distance;
    }

    /// How long every message is on its way from now on between two nodes, each way.
    pub fn set_peer_distance(&mut self, one: usize, other: usize, distance: Duration) {
        for pair in [(one, other), (other, one)] {
            if let Some(channel) = self.group.channels.get_mut(&pair) {
                channel.manner.delay = distance;
            }
        }
    }

    /// Everything that one node owns goes to another.
    pub fn hand_over(&mut self, from: usize, to: usize) {
        let to = self.places[to].name.clone();
        self.command(from, None, Command::Handoff { to, which: Which::All });
    }

    /// The load of the group is evened.
    pub fn rebalance(&mut self, nth: usize) {
        self.command(nth, None, Command::Rebalance);
    }

    /// Whether every command is answered.
    pub fn is_settled(&self) -> bool {
        self.group.is_idle()
    }
}
