//! `ferry home-agent`: answers for service addresses on the home link, and a look at it.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use ferry_node::config::HomeAgentConfig;
use ferry_node::daemon::ask;
use ferry_node::home_agent::{Counters, Daemon, Home, Status};

use crate::Outcome;
use crate::args::{HomeAgentArgs, HomeAgentTask};
use crate::show::table;

pub(crate) fn run(args: &HomeAgentArgs) -> Outcome {
    match &args.task {
        Some(HomeAgentTask::Status { control: Some(control), json }) => status(control, *json),
        Some(HomeAgentTask::Status { control: None, json }) => {
            status(&HomeAgentConfig::load(&args.config)?.control, *json)
        }
        None => serve(args),
    }
}

fn serve(args: &HomeAgentArgs) -> Outcome {
    let config = HomeAgentConfig::load(&args.config)?;
    if args.check {
        println!("ok");
        return Ok(ExitCode::SUCCESS);
    }
    crate::log::to_stderr()?;
    let end = crate::end_of_signals()?;
    let mut daemon = Daemon::start(&config)?;
    println!("ready {}", config.tap.address.address);
    std::io::stdout().flush()?;
    daemon.run(end.as_fd())?;
    Ok(ExitCode::SUCCESS)
}

fn status(control: &Path, json: bool) -> Outcome {
    let status: Status = ask("home-agent", control)?;
    if json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print!("{}", text(&status));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Status) -> String {
    let Status { address, homes, counters } = status;
    let Counters { signalling, tunnelled_out, tunnelled_in, dropped } = counters;
    let row = |home: &Home| {
        let Home { address, care_of, seconds_left, sequence } = home;
        [address.to_string(), care_of.to_string(), format!("{seconds_left} s"), sequence.to_string()]
    };
    let rows: Vec<_> = homes.iter().map(row).collect();
    let titles = ["SERVICE ADDRESS", "IS AT", "FOR", "SEQUENCE"];
    let list = if rows.is_empty() { "nothing is registered\n".to_owned() } else { table(&titles, &rows) };
    let counted = format!(
        "home agent {address}; {signalling} Mobility Headers, {tunnelled_out} packets tunnelled to nodes and {tunnelled_in} from them, {dropped} dropped\n"
    );
    counted + &list
}
