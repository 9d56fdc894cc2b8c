//! `ferry handoff`, `ferry drain` and `ferry rebalance`: asks for the moves, looks how they go meanwhile, and stops them on Ctrl-C.

use core::time::Duration;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use ferry_node::driver::{AskError, Client};
use ferry_node::{Command, Reply, Status, Which};

use crate::Outcome;
use crate::args::{DrainArgs, HandoffArgs, NodeAndFormat};
use crate::progress::{Progress, summary};
use crate::socket;

/// Between two looks at the node.
const LOOK: Duration = Duration::from_millis(100);

type Answer = Result<(Reply, String), AskError>;

/// What is counted while connections move.
enum Count {
    /// The connections that the node owns.
    Own,
    /// Those of another node.
    Of(String),
    /// Those that nodes own beyond the mean. With weights that differ it never reaches zero.
    Beyond,
}

pub(crate) fn run(args: &HandoffArgs) -> Outcome {
    let which = match (args.client, args.port) {
        (Some(client), Some(port)) => Which::One { client, port },
        _ => Which::All,
    };
    carry_out(&args.common, Command::Handoff { to: args.to.clone(), which }, &Count::Own)
}

pub(crate) fn drain(args: &DrainArgs) -> Outcome {
    match &args.name {
        Some(node) => {
            let command = Command::DrainNode { node: node.clone() };
            carry_out(&args.common, command, &Count::Of(node.clone()))
        }
        None => carry_out(&args.common, Command::Drain, &Count::Own),
    }
}

pub(crate) fn rebalance(args: &NodeAndFormat) -> Outcome {
    carry_out(args, Command::Rebalance, &Count::Beyond)
}

fn carry_out(args: &NodeAndFormat, command: Command, count: &Count) -> Outcome {
    let path = socket::path(&args.node)?;
    let mut end = crate::end_of_signals()?;
    end.set_nonblocking(true)?;
    let mut mover = Client::connect(&path)?;
    let (sender, answer) = channel();
    std::thread::spawn(move || {
        // Nobody waits any more only if the process is ending.
        let _ = sender.send(mover.ask(&command));
    });
    let (answer, stopped) = wait(&path, &answer, count, &mut end)?;
    let (reply, line) = answer?;
    if args.json {
        println!("{line}");
    }
    match reply {
        Reply::Moved(moved) => {
            if !args.json {
                println!("{}{}", if stopped { "stopped: " } else { "" }, summary(&moved));
            }
            let all = moved.failed.is_empty() && moved.left == 0;
            Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Reply::Error { .. } if args.json => Ok(ExitCode::FAILURE),
        Reply::Error { why } => Err(why.into()),
        other => Err(format!("the node answered something else: {other:?}").into()),
    }
}

/// Waits for the answer, and shows how far it is if that takes a while; whether it was stopped. A second Ctrl-C leaves
/// without the answer.
fn wait(
    path: &Path,
    answer: &Receiver<Answer>,
    count: &Count,
    end: &mut UnixStream,
) -> Result<(Answer, bool), Box<dyn std::error::Error>> {
    let (mut watcher, mut stopped) = (None, false);
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(answer) => return Ok((answer, stopped)),
            Err(RecvTimeoutError::Disconnected) => return Err("the question was not asked".into()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if watcher.is_none() {
            watcher = Some((Client::connect(path)?, Progress::new(0)));
        }
        let Some((client, progress)) = &mut watcher else { continue };
        if end.read(&mut [0; 1]).is_ok_and(|octets| octets > 0) {
            if stopped {
                return Err("left at once; what is under way still ends, `ferry status` shows it".into());
            }
            progress.note("stopping; what is under way still moves (Ctrl-C again does not wait for it)");
            client.ask(&Command::Stop)?;
            stopped = true;
        }
        if let (Reply::Status(status), _) = client.ask(&Command::Status)? {
            progress.update(left(&status, count), status.moving);
        }
    }
}

/// How many connections are still to leave.
fn left(status: &Status, count: &Count) -> usize {
    match count {
        Count::Own => status.connections,
        Count::Of(name) => {
            let other = status.peers.iter().find(|peer| peer.name == *name);
            other.map_or(status.connections, |peer| peer.connections)
        }
        Count::Beyond => {
            let up = status.peers.iter().filter(|peer| peer.up).map(|peer| peer.connections);
            let loads: Vec<_> = up.chain([status.connections]).collect();
            let mean = loads.iter().sum::<usize>().div_ceil(loads.len());
            loads.iter().map(|load| load.saturating_sub(mean)).sum()
        }
    }
}
