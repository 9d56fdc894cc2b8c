//! `ferry node`: runs a node until it is told to end, and then until it is empty.

use core::time::Duration;
use std::io::Write as _;
use std::process::ExitCode;

use ferry_node::config::Config;
use ferry_node::driver::{Asker, Options, Running, start};
use ferry_node::{Command, Moved, Reply, Status};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{interval, sleep};

use crate::Outcome;
use crate::args::NodeArgs;
use crate::log::say;
use crate::progress::{Progress, summary};

/// Between two looks at a node that is emptying itself.
const LOOK: Duration = Duration::from_millis(100);

/// Between two attempts to hand off what could not be moved.
const AGAIN: Duration = Duration::from_secs(1);

/// How long an empty node still forwards late segments of connections that have left.
const LINGER: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &NodeArgs) -> Outcome {
    let config = Config::load(&args.config)?;
    if args.check {
        println!("ok");
        return Ok(ExitCode::SUCCESS);
    }
    crate::log::to_stderr()?;
    // One thread is enough for the control plane, and leaves the other cores to data planes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = Options { tap_fd: args.tap_fd, trace: args.trace.clone(), policy: None };
    runtime.block_on(serve(&config, &options))
}

async fn serve(config: &Config, options: &Options) -> Outcome {
    let mut signals = Signals::new()?;
    let mut running = start(config, options).await?;
    println!("ready {} {}", config.name, config.tap.address.address);
    std::io::stdout().flush()?;
    let end = live(&mut running, &mut signals).await;
    running.stop();
    end
}

async fn live(running: &mut Running, signals: &mut Signals) -> Outcome {
    tokio::select! {
        failed = running.failed() => return Err(failed.into()),
        () = signals.next() => {}
    }
    let asker = running.asker();
    tokio::select! {
        failed = running.failed() => Err(failed.into()),
        () = signals.next() => {
            say("leaving at once; connections that are still here are lost");
            Ok(ExitCode::FAILURE)
        }
        () = empty(&asker) => Ok(ExitCode::SUCCESS),
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Hands everything off; goes on trying for as long as something is left.
async fn empty(asker: &Asker) {
    say("draining; Ctrl-C again leaves at once");
    let mut progress = Progress::new(0);
    let mut told = String::new();
    loop {
        let moved = drain(asker, &mut progress).await;
        let status = status(asker).await;
        if status.as_ref().is_none_or(|status| status.connections == 0 && status.moving == 0) {
            break;
        }
        if moved.failed.is_empty() {
            sleep(LOOK).await;
            continue;
        }
        let summary = summary(&moved);
        if summary != told {
            progress.note(&format!("{summary}\nwaiting for them to end or to become movable"));
            told = summary;
        }
        sleep(AGAIN).await;
    }
    drop(progress);
    linger(asker).await;
    asker.ask(Command::Leave).await;
    say("empty");
}

async fn drain(asker: &Asker, progress: &mut Progress) -> Moved {
    let moved = async {
        match asker.ask(Command::Drain).await {
            Reply::Moved(moved) => moved,
            _ => Moved::default(),
        }
    };
    tokio::select! {
        moved = moved => moved,
        never = watch(asker, progress) => match never {},
    }
}

async fn watch(asker: &Asker, progress: &mut Progress) -> core::convert::Infallible {
    let mut looks = interval(LOOK);
    loop {
        looks.tick().await;
        if let Some(status) = status(asker).await {
            progress.update(status.connections, status.moving);
        }
    }
}

/// An empty node forwards late segments for a moment. A contact node that nobody has relieved stays until the connections that it relays
/// have ended: without it their clients would not find the way to their owners.
async fn linger(asker: &Asker) {
    let mut looks = interval(LOOK);
    let mut told = 0;
    for look in 0.. {
        looks.tick().await;
        let Some(Status { contact, relayed, .. }) = status(asker).await else { return };
        let late = LOOK * look < LINGER;
        if relayed == 0 || !(contact || late) {
            return;
        }
        if contact && !late && relayed != told {
            say(&format!("empty, but the contact node: relaying {relayed} connections until they end"));
            told = relayed;
        }
    }
}

/// `None` if the node has ended.
async fn status(asker: &Asker) -> Option<Status> {
    match asker.ask(Command::Status).await {
        Reply::Status(status) => Some(*status),
        _ => None,
    }
}
