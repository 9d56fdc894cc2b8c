//! `ferry`: runs a node, makes the keys of a group, and talks to a node that runs.

mod args;
mod correspondent;
mod doctor;
mod handoff;
mod home_agent;
mod keygen;
mod log;
mod node;
mod progress;
mod show;
mod socket;

use std::error::Error;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use clap::Parser as _;
use signal_hook::consts::{SIGINT, SIGTERM};

use args::{Args, Task};

/// A task's end: what went wrong is told in one place, here.
type Outcome = Result<ExitCode, Box<dyn Error>>;

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Keygen(args) => keygen::run(&args),
        Task::Node(args) => node::run(&args),
        Task::Status(args) => show::status(&args),
        Task::Connections(args) => show::connections(&args),
        Task::Handoff(args) => handoff::run(&args),
        Task::Drain(args) => handoff::drain(&args),
        Task::Rebalance(args) => handoff::rebalance(&args),
        Task::Contact(args) => show::contact(&args),
        Task::Doctor(args) => doctor::run(&args),
        Task::Correspondent(args) => correspondent::run(&args),
        Task::HomeAgent(args) => home_agent::run(&args),
    };
    let code = outcome.unwrap_or_else(|error| {
        log::say(&format!("ferry: {error}"));
        ExitCode::FAILURE
    });
    log::end();
    code
}

/// What becomes readable on Ctrl-C and SIGTERM. To be had first: whoever ends a daemon must find that it cleans up.
fn end_of_signals() -> std::io::Result<UnixStream> {
    let (end, told) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    Ok(end)
}
