//! `ferry doctor`.

use std::process::ExitCode;

use ferry_node::doctor::{Report, examine};

use crate::Outcome;
use crate::args::DoctorArgs;

pub(crate) fn run(args: &DoctorArgs) -> Outcome {
    let report = examine(&args.config, args.control.as_deref());
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", text(&report));
    }
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let mark = if check.ok { "ok  " } else { "MISS" };
        let line = format!("{mark}  {:width$}  {}\n", check.name, check.what, width = report.widest());
        text.push_str(&line);
        if let Some(mend) = &check.mend {
            text.extend(["      mend it with: ", mend, "\n"]);
        }
    }
    text
}
