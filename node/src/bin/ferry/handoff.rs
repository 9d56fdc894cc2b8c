//! `ferry handoff` and `ferry drain`: asks for the move, and looks how it goes meanwhile.

use core::time::Duration;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use ferry_node::driver::{AskError, Client};
use ferry_node::{Command, Reply, Status, Which};

use crate::Outcome;
use crate::args::{HandoffArgs, NodeAndFormat};
use crate::progress::{Progress, summary};
use crate::socket;

/// Between two looks at the node.
const LOOK: Duration = Duration::from_millis(100);

type Answer = Result<(Reply, String), AskError>;

pub(crate) fn run(args: &HandoffArgs) -> Outcome {
    let which = match (args.client, args.port) {
        (Some(client), Some(port)) => Which::One { client, port },
        _ => Which::All,
    };
    carry_out(&args.common, Command::Handoff { to: args.to.clone(), which })
}

pub(crate) fn drain(args: &NodeAndFormat) -> Outcome {
    carry_out(args, Command::Drain)
}

fn carry_out(args: &NodeAndFormat, command: Command) -> Outcome {
    let path = socket::path(&args.node)?;
    let mut mover = Client::connect(&path)?;
    let (sender, answer) = channel();
    std::thread::spawn(move || {
        // Nobody waits any more only if the process is ending.
        let _ = sender.send(mover.ask(&command));
    });
    let (reply, line) = wait(&path, &answer)??;
    if args.json {
        println!("{line}");
    }
    match reply {
        Reply::Moved(moved) => {
            if !args.json {
                println!("{}", summary(&moved));
            }
            Ok(if moved.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Reply::Error { .. } if args.json => Ok(ExitCode::FAILURE),
        Reply::Error { why } => Err(why.into()),
        other => Err(format!("the node answered something else: {other:?}").into()),
    }
}

/// Waits for the answer, and shows how far the node is if that takes a while.
fn wait(path: &Path, answer: &Receiver<Answer>) -> Result<Answer, Box<dyn Error>> {
    let mut watcher = None;
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err("the question was not asked".into()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if watcher.is_none() {
            watcher = Some((Client::connect(path)?, Progress::new(0)));
        }
        if let Some((client, progress)) = &mut watcher
            && let (Reply::Status(status), _) = client.ask(&Command::Status)?
        {
            let Status { connections, moving, .. } = *status;
            progress.update(connections, moving);
        }
    }
}
