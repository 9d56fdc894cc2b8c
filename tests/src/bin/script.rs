//! Plays scripts against our TCP: `cargo run -p ferry-tests --bin script -- FILE…`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ferry_tests::script::{self, Mode};

/// Plays scripts against ferry's TCP, in virtual time and without sockets.
///
/// The language is described in tests/scripts/README.md.
#[derive(Debug, Parser)]
#[command(name = "script", version)]
struct Args {
    /// Scripts, or folders of them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Shows every segment and call.
    #[arg(long, short)]
    verbose: bool,
    /// Moves every connection, as octets, to a host with another clock after every event.
    #[arg(long)]
    handoff: bool,
    /// Lets the sequence numbers of both sides begin just before the wrap.
    #[arg(long)]
    wrap: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mode = Mode { handoff: args.handoff, wrap: args.wrap };
    let (mut passed, mut failed, mut compared) = (0, 0, 0);
    for file in expand(&args.files) {
        let name = file.display().to_string();
        let played = std::fs::read_to_string(&file)
            .map_err(|why| format!("{name}: {why}"))
            .and_then(|text| script::play(&name, &text, mode));
        match played {
            Ok(report) => {
                passed += 1;
                compared += report.compared;
                if args.verbose {
                    println!("{name}");
                    report.events.iter().for_each(|event| println!("    {event}"));
                }
            }
            Err(message) => {
                failed += 1;
                eprintln!("{message}\n");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {compared} segments compared");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Folders stand for the scripts below them.
fn expand(files: &[PathBuf]) -> Vec<PathBuf> {
    let below = |path: &PathBuf| {
        let folder = path.is_dir().then(|| script::scripts_below(path).ok()).flatten();
        folder.unwrap_or_else(|| vec![path.clone()])
    };
    files.iter().flat_map(below).collect()
}
