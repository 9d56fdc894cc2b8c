//! A home agent of its own, and nodes that end at a message.

use ferry_mipv6::header::Lifetime;
use ferry_mipv6::home_agent::{Group, Now, Timestamp};

use super::*;
use crate::HomeAgent;
use crate::home_agent::Setup as AgentSetup;

const KEY: &[u8] = b"what the group and its agent know";
const SPI: u32 = 256;
const AGENT: u16 = 77;

/// How a node registers.
pub(in crate::node::tests) fn home_agent() -> HomeAgent {
    HomeAgent { address: address(AGENT).address, spi: SPI, key: KEY.to_vec(), lifetime: Lifetime(15) }
}

impl Lan {
    /// The service address is with a home agent of its own, on the same link.
    pub(in crate::node::tests) fn with_agent(change: impl Fn(&mut Setup)) -> Self {
        let mut lan = Self::new(|setup| {
            setup.home_agent = Some(home_agent());
            change(setup);
        });
        let groups = [(SPI, Group { key: KEY.to_vec(), homes: [service_address()].into() })].into();
        lan.agent = Some(Agent::new(AgentSetup {
            mac: mac(AGENT),
            address: address(AGENT),
            gateway: address(99).address,
            mtu: 1500,
            groups,
            max_lifetime: Lifetime(100),
        }));
        lan.pass(2_000);
        lan
    }

    pub(super) fn put_to_agent(&mut self, from: usize, frame: &Frame) {
        let wall = Timestamp::from_unix(Duration::from_nanos(GroupClock::default().at(self.now).nanos()));
        let now = Now { monotonic: self.now, wall };
        if let Some(agent) = self.agent.as_mut().filter(|_| from <= NAMES.len()) {
            agent.receive(frame.clone(), now);
        }
    }

    /// Who has the service address, in the eyes of the home agent.
    pub(in crate::node::tests) fn registered(&self) -> Option<&'static str> {
        let home = self.agent.as_ref()?.status(self.now).homes.first().map(|home| home.care_of)?;
        NAMES.into_iter().find(|name| address(index(name)).address == home)
    }

    /// These nodes end when so many more messages have been sent between nodes.
    pub(in crate::node::tests) fn doom(&mut self, names: &'static [&'static str], messages: usize) {
        self.doomed = Some((messages, names));
    }

    /// Whether they have ended. They will not any more.
    pub(in crate::node::tests) fn has_come_true(&mut self) -> bool {
        self.doomed.take().is_none()
    }

    pub(super) fn count_down(&mut self, from: NodeId) {
        let Some((left, names)) = &mut self.doomed else { return };
        if let Some(fewer) = left.checked_sub(1) {
            *left = fewer;
            return;
        }
        self.dead.extend(names.iter());
        // Of what it has just said nothing leaves its kernel.
        let cut = names.iter().filter(|name| NodeId::of(name) == from);
        self.cut.extend(cut.flat_map(|_| NAMES.map(|to| (from, NodeId::of(to)))));
        self.doomed = None;
    }

    /// The links of those that have ended close, and everybody is told that they have.
    pub(in crate::node::tests) fn let_die(&mut self, names: &[&'static str]) {
        for name in names {
            self.kill(name);
        }
        for name in names {
            self.prove_to_all(name);
        }
    }
}
