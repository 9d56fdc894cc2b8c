//! `ferry correspondent`: the client's half of Mobile IPv6, and a look at it.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use ferry_node::correspondent::{Bound, Counters, Daemon, Mode, Options, Status};
use ferry_node::daemon::ask;

use crate::Outcome;
use crate::args::{CorrespondentArgs, CorrespondentTask, Way};
use crate::show::table;

pub(crate) fn run(args: &CorrespondentArgs) -> Outcome {
    match &args.task {
        Some(CorrespondentTask::Status { json }) => status(args, *json),
        None => serve(args),
    }
}

fn serve(args: &CorrespondentArgs) -> Outcome {
    crate::log::to_stderr()?;
    let end = crate::end_of_signals()?;
    let mode = match args.mode {
        Way::Auto => None,
        Way::Xfrm => Some(Mode::Xfrm),
        Way::Tun => Some(Mode::Tun),
    };
    let (services, control) = (args.services.clone(), args.control.clone());
    let mut daemon = Daemon::start(&Options { mode, services, mtu: args.mtu, control })?;
    println!("ready {}", name(daemon.mode()));
    std::io::stdout().flush()?;
    daemon.run(end.as_fd())?;
    Ok(ExitCode::SUCCESS)
}

fn status(args: &CorrespondentArgs, json: bool) -> Outcome {
    let status: Status = ask("correspondent", &args.control)?;
    if json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print!("{}", text(&status));
    }
    Ok(ExitCode::SUCCESS)
}

const fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Xfrm => "xfrm",
        Mode::Tun => "tun",
    }
}

fn text(status: &Status) -> String {
    let Status { mode, bindings, counters } = status;
    let Counters { signalling, optimised_out, optimised_in, dropped } = counters;
    let row = |bound: &Bound| {
        let Bound { client, service, care_of, seconds_left, sequence } = bound;
        [
            client.to_string(),
            service.to_string(),
            care_of.to_string(),
            format!("{seconds_left} s"),
            sequence.to_string(),
        ]
    };
    let rows: Vec<_> = bindings.iter().map(row).collect();
    let titles = ["CLIENT", "SERVICE", "IS AT", "FOR", "SEQUENCE"];
    let list = if rows.is_empty() { "no bindings\n".to_owned() } else { table(&titles, &rows) };
    let counted = format!(
        "mode {}; {signalling} Mobility Headers, {optimised_out} packets sent straight and {optimised_in} received, {dropped} dropped\n",
        name(*mode)
    );
    counted + &list
}
