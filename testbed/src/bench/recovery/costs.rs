//! What it costs to have each connection held by another node.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use super::{ECHO, ECHO_STRICT, FILE, LAN, Means, broken};
use crate::Result;
use crate::bench::stack::Figures;
use crate::clients::{Download, digest, make_file};
use crate::clock::{now_ns, pause};
use crate::cores::pin;
use crate::crash::{Crew, service};
use crate::error::Doing;
use crate::nodes::{self, FILES};
use crate::report::median;
use crate::world::{NODES, SERVICE};

const NAME: &str = "file.bin";
const OCTETS: usize = 256 << 20;
/// Requests of each kind in a row, and how often.
const BLOCK: usize = 50;
const BLOCKS: usize = 40;
const REQUEST: usize = 200;
/// The contact node owns the connection.
const OWNER_CORE: usize = 0;
const OTHER_CORE: usize = 1;
const PATIENCE: Duration = Duration::from_secs(10);

/// A download whose connection is held by another node, and one that is not, in turn.
pub(super) fn throughput(means: &Means<'_>, port: u16) -> Result<Figures> {
    let mut crew = Crew::prepare(means.ferry, LAN, Means::group())?;
    let file = Path::new(FILES).join(NAME);
    let right = make_file(&file, means.scale.count(OCTETS) as u64, 1)?;
    nodes::publish(&crew.world, &file, NAME)?;
    crew.start()?;
    let client = &crew.world.client;
    let download = |port| {
        let to = Path::new(FILES).join("downloaded");
        let mut download = Download::start(client, SERVICE, port, NAME, &to)?;
        while !download.ended()? {
            pause(Duration::from_millis(2));
        }
        let mbit = download.finish()?.mbit();
        if digest(&to)? == right { Ok(mbit) } else { Err(broken("the download differs from the file")) }
    };
    Figures::alternate(means.scale.runs, || download(port), || download(FILE))
}

/// What a request takes longer when its answer waits for a copy; beside it, a round trip between two processes on the hosts
/// of two nodes. The host of the owner has a core of its own, here as there, because two processes that take turns on the
/// same core wake each other in a tenth of the time.
pub(super) fn latency(means: &Means<'_>) -> Result<Figures> {
    let mut crew = Crew::gather(means.ferry, LAN, Means::group())?;
    for (index, core) in [OWNER_CORE, OTHER_CORE, OTHER_CORE].into_iter().enumerate() {
        crew.node(index)?.keep_on(core)?;
    }
    let runs = (0..means.scale.runs).map(|_| added(&crew, means.scale.count(BLOCKS)));
    let (ours, peer) = runs.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    Ok(Figures { ours, peer, note: None })
}

/// Of one run, in microseconds: what is added, and a round trip. All of them in turn, a few at a time, because what else the
/// machine has to do changes.
fn added(crew: &Crew, blocks: usize) -> Result<(f64, f64)> {
    let (a, b) = (crew.world.host(NODES[0])?, crew.world.host(NODES[1])?);
    let to = SocketAddrV6::new(b.link_address, 9000, 0, 0);
    let listener = b.namespace.run(|| TcpListener::bind(to).doing("listen"))?;
    let client = |port| crew.world.client.run(|| connect(service(port)));
    let (mut strict, mut plain) = (client(ECHO_STRICT)?, client(ECHO)?);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            pin(OTHER_CORE)?;
            let (stream, _) = listener.accept().doing("accept")?;
            stream.set_nodelay(true).doing("send at once")?;
            std::io::copy(&mut &stream, &mut &stream).doing("echo")
        });
        let mut between = a.namespace.run(|| connect(to))?;
        let asked = scope.spawn(move || {
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..blocks {
                let turns = [(&mut strict, OTHER_CORE), (&mut plain, OTHER_CORE), (&mut between, OWNER_CORE)];
                for ((stream, core), times) in turns.into_iter().zip(&mut times) {
                    pin(core)?;
                    round_trips(stream, times)?;
                }
            }
            Ok(times)
        });
        let times: [_; 3] = asked.join().map_err(|_| broken("who asks panicked"))??;
        echo.join().map_err(|_| broken("the echo panicked"))??;
        let medians: Vec<f64> = times.iter().filter_map(|times| median(times)).collect();
        let [strict, plain, between] = medians[..] else { return Err(broken("nothing was asked")) };
        Ok((strict - plain, between))
    })
}

fn connect(to: SocketAddrV6) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.into(), PATIENCE).doing(format!("connect to {to}"))?;
    stream.set_nodelay(true).doing("send at once")?;
    stream.set_read_timeout(Some(PATIENCE)).doing("wait for an answer")?;
    Ok(stream)
}

/// Adds the times of some requests and their answers, in microseconds.
fn round_trips(stream: &mut TcpStream, times: &mut Vec<f64>) -> Result<()> {
    let (request, mut answer) = ([7; REQUEST], [0; REQUEST]);
    for _ in 0..BLOCK {
        let begun = now_ns();
        stream.write_all(&request).doing("ask")?;
        stream.read_exact(&mut answer).doing("wait for an answer")?;
        #[allow(clippy::cast_precision_loss)] // Nanoseconds of a round trip.
        times.push((now_ns() - begun) as f64 * 1e-3);
    }
    Ok(())
}
