//! Nodes in the demos' world, for figures that a capture or a file to download would only disturb.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::broken;
use crate::Result;
use crate::error::Doing;
use crate::nodes::{self, Node};
use crate::world::{SERVICE, World};

pub(super) const ECHO: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(20);
const LEAVE: Duration = Duration::from_secs(10);

/// A world, and node processes in it.
pub(super) struct Group {
    pub(super) nodes: Vec<Node>,
    pub(super) world: World,
}

impl Group {
    /// Starts the first so many nodes, and waits until they have found each other.
    pub(super) fn start(world: World, ferry: &Path, count: usize, options: nodes::Options) -> Result<Self> {
        nodes::prepare(&world, ferry, options)?;
        let nodes = world.hosts[..count].iter().map(Node::start).collect::<Result<Vec<_>>>()?;
        let mut group = Self { nodes, world };
        nodes::await_links(&mut group.nodes, count - 1)?;
        Ok(group)
    }

    /// A connection to `echo` that has carried something.
    pub(super) fn connect(&self) -> Result<TcpStream> {
        self.world.client.run(|| {
            let to = SocketAddrV6::new(SERVICE, ECHO, 0, 0);
            let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE).doing("connect to echo")?;
            stream.set_nodelay(true).doing("send at once")?;
            stream.set_read_timeout(Some(PATIENCE)).doing("limit the wait")?;
            probe(&mut stream)?;
            Ok(stream)
        })
    }

    /// Moves everything from one node to another; fails if that is not so many connections.
    pub(super) fn move_all(&mut self, from: usize, to: usize, expected: usize) -> Result<()> {
        let name = self.nodes[to].name;
        let moved = self.nodes[from].control.handoff_all(name)?;
        if moved.moved == expected { Ok(()) } else { Err(broken(format!("not {expected}: {moved:?}"))) }
    }

    /// Ends the nodes. Fails if one did not leave as it must, or has sent a RST.
    pub(super) fn end(mut self) -> Result<World> {
        for node in &mut self.nodes {
            let resets = node.control.status()?.counters.resets_sent;
            if resets > 0 {
                return Err(broken(format!("node {} sent {resets} RST", node.name)));
            }
        }
        for node in &mut self.nodes {
            let status = node.stop(LEAVE)?;
            if !status.success() {
                return Err(broken(format!("node {} left with {status}", node.name)));
            }
        }
        Ok(self.world)
    }
}

/// Sends something through `echo`, and fails if it does not come back.
pub(super) fn probe(stream: &mut TcpStream) -> Result<()> {
    let (sent, mut back) = ([7; 64], [0; 64]);
    stream.write_all(&sent).doing("send to echo")?;
    stream.read_exact(&mut back).doing("receive from echo")?;
    if back == sent { Ok(()) } else { Err(broken("octets came back changed")) }
}
