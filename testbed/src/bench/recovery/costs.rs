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
/// Requests of one figure.
const ROUNDS: usize = 2000;
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
    let rounds = means.scale.count(ROUNDS);
    let ask = |port| {
        crew.world.client.run(|| {
            pin(OTHER_CORE)?;
            let mut stream = connect(service(port))?;
            round_trips(&mut stream, rounds)
        })
    };
    let (a, b) = (crew.world.host(NODES[0])?, crew.world.host(NODES[1])?);
    let to = SocketAddrV6::new(b.link_address, 9000, 0, 0);
    let listener = b.namespace.run(|| TcpListener::bind(to).doing("listen"))?;
    let between = || {
        std::thread::scope(|scope| {
            let echo = scope.spawn(|| {
                pin(OTHER_CORE)?;
                let (stream, _) = listener.accept().doing("accept")?;
                stream.set_nodelay(true).doing("send at once")?;
                std::io::copy(&mut &stream, &mut &stream).doing("echo")
            });
            let trips = a.namespace.run(|| {
                pin(OWNER_CORE)?;
                round_trips(&mut connect(to)?, rounds)
            });
            echo.join().map_err(|_| broken("the echo panicked"))??;
            trips
        })
    };
    Figures::alternate(means.scale.runs, || Ok(ask(ECHO_STRICT)? - ask(ECHO)?), between)
}

fn connect(to: SocketAddrV6) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.into(), PATIENCE).doing(format!("connect to {to}"))?;
    stream.set_nodelay(true).doing("send at once")?;
    stream.set_read_timeout(Some(PATIENCE)).doing("wait for an answer")?;
    Ok(stream)
}

/// The median time of a request and its answer, in microseconds.
fn round_trips(stream: &mut TcpStream, rounds: usize) -> Result<f64> {
    let (request, mut answer) = ([7; REQUEST], [0; REQUEST]);
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = now_ns();
        stream.write_all(&request).doing("ask")?;
        stream.read_exact(&mut answer).doing("wait for an answer")?;
        #[allow(clippy::cast_precision_loss)] // Nanoseconds of a round trip.
        times.push((now_ns() - begun) as f64 * 1e-3);
    }
    median(&times).ok_or_else(|| broken("nothing was asked"))
}
