//! A home agent of its own in the world: it stands on the home link instead of the contact node, may be started anew,
//! and outlives the contact node.

use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_mipv6::header::Lifetime;
use ferry_mipv6::home_agent::{Group, Now, Timestamp};
use ferry_node::home_agent::{Agent, Setup, Status};
use ferry_node::{Command, HomeAgent, Which};
use ferry_stack::interface::Address;
use ferry_stack::{Frame, Instant};

use super::agenda::Event;
use super::group::{EPOCH, HOME_ROUTER, SERVICE_ADDRESS};
use super::{Attachment, Body, World};
use crate::watch::Sender;

/// The home agent's address.
const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xa);
const SPI: u32 = 256;
const KEY: &[u8] = b"what the group and its agent know";
/// Between two looks whether the contact node can be lost.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A home agent as a machine of the simulated world.
#[derive(Debug)]
pub(super) struct Standing {
    agent: Agent,
    setup: Setup,
    /// By how much its clock is ahead of the world's, in nanoseconds.
    ahead: u64,
}

impl Standing {
    fn now(&self, now: Instant) -> Now {
        let wall = EPOCH + Duration::from_nanos(now.nanos() + self.ahead);
        Now { monotonic: now, wall: Timestamp::from_unix(wall) }
    }

    pub(super) fn receive(&mut self, frame: Frame, now: Instant) {
        let now = self.now(now);
        self.agent.receive(frame, now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.agent.handle_timeout(now);
    }

    pub(super) fn transmit(&mut self) -> Option<Frame> {
        self.agent.poll_transmit()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.agent.deadline()
    }

    pub(super) fn status(&self, now: Instant) -> Status {
        self.agent.status(now)
    }

    /// It has forgotten everything.
    fn start_anew(&mut self) {
        self.agent = Agent::new(self.setup.clone());
    }
}

impl World {
    /// Attaches a home agent, with which the group that is attached later registers.
    pub fn attach_home_agent(&mut self, attachment: Attachment) {
        let interface = self.next_interface(attachment.mtu);
        let group = Group { key: KEY.to_vec(), homes: [SERVICE_ADDRESS].into() };
        let setup = Setup {
            mac: interface.mac,
            address: Address { address: AGENT, prefix_len: 64 },
            gateway: HOME_ROUTER.address,
            mtu: attachment.mtu,
            groups: [(SPI, group)].into(),
            max_lifetime: Lifetime(100),
        };
        // What is registered holds for a little longer, or for a little less, than nodes believe.
        let ahead = Duration::from_millis(self.rng.within(0..=20_000)).as_nanos();
        let ahead = u64::try_from(ahead).unwrap_or_default();
        let standing = Standing { agent: Agent::new(setup.clone()), setup, ahead };
        let nth =
            self.attach_body(Body::Agent(Box::new(standing)), Sender::Ours, attachment, vec![HOME_ROUTER]);
        self.agent = Some(nth);
        // What enters a tunnel to the contact node enters another one there.
        self.watch.relayed_twice = true;
    }

    /// How a node registers, if there is a home agent.
    pub(super) fn home_agent(&self) -> Option<HomeAgent> {
        let lifetime = Lifetime(15);
        self.agent.map(|_| HomeAgent { address: AGENT, spi: SPI, key: KEY.to_vec(), lifetime })
    }

    /// How the home agent is.
    pub fn agent_status(&self) -> Option<Status> {
        match &self.places[self.agent?].body {
            Body::Agent(standing) => Some(standing.status(self.now)),
            _ => None,
        }
    }

    pub(super) fn restart_agent(&mut self) {
        let Some(nth) = self.agent else { return };
        self.say(|| "the home agent starts anew".to_owned());
        if let Body::Agent(standing) = &mut self.places[nth].body {
            standing.start_anew();
        }
        self.settle(nth);
    }

    /// The contact node is lost once it owns nothing: connections do not survive their owner yet.
    pub(super) fn lose_contact(&mut self) {
        let leads = |nth: &usize| match &self.places[*nth].body {
            Body::Node(member) => {
                member.node.is_contact()
                    && member
                        .node
                        .status(member.clock(self.now))
                        .home_agent
                        .is_some_and(|agent| agent.registered)
            }
            _ => false,
        };
        let members = self.group.members();
        let Some(contact) = members.iter().copied().find(leads) else {
            return self.schedule(self.now + LOOK_AGAIN, Event::LoseContact);
        };
        let Body::Node(member) = &self.places[contact].body else { return };
        let status = member.node.status(member.clock(self.now));
        let idle = status.connections == 0 && status.moving == 0 && self.group.is_idle();
        if idle {
            return self.lose(contact);
        }
        if status.connections > 0 && self.group.is_idle() {
            let up = status.peers.iter().find(|peer| peer.up);
            if let Some(peer) = up {
                let command = Command::Handoff { to: peer.name.clone(), which: Which::All };
                self.command(contact, None, command);
            }
        }
        self.schedule(self.now + LOOK_AGAIN, Event::LoseContact);
    }

    fn lose(&mut self, nth: usize) {
        self.say(|| format!("{} is lost", self.places[nth].name));
        for other in self.group.members() {
            if other != nth {
                self.peers_part(nth, other);
            }
        }
        self.places[nth].body = Body::Gone;
        self.lost_nodes += 1;
    }
}
