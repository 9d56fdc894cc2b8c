//! `ferry keygen`.

use std::process::ExitCode;

use ferry_node::keygen::{Plan, generate};

use crate::Outcome;
use crate::args::KeygenArgs;

pub(crate) fn run(args: &KeygenArgs) -> Outcome {
    let KeygenArgs { group, nodes, out, ca } = args;
    for file in generate(&Plan { group, nodes, out, ca: ca.as_deref() })? {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
