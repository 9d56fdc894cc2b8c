//! `ferry-testbed`: demos and benchmarks of ferry on real kernels, in a world that goes away by itself.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use ferry_testbed::demo::{self, Options};
use ferry_testbed::link::Profile;
use ferry_testbed::report::{self, DemoReport};
use ferry_testbed::world::World;
use ferry_testbed::{Error, Result, bench, calibrate, enter, ferry, nodes, privileges, simulated, trial};

/// Network namespaces, real kernels and an emulated link: the demos, experiments and benchmarks of ferry.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show that a client's connections cross between nodes. Without a name: every demo there is.
    Demo(DemoArguments),
    /// Measure, and check the result against its bar.
    Bench(BenchArguments),
    /// Give the nodes bad input and show how they refuse it.
    Trial(TrialArguments),
    /// Say whether this machine can make the world, and what stands in the way.
    Probe,
    /// Measure what the world itself can do: an ordinary kernel's server instead of the nodes.
    Calibrate(LinkArguments),
    /// Give up all privileges and become a node's process.
    #[command(hide = true)]
    BecomeNode(privileges::Arguments),
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// Which.
    #[arg(value_parser = demo::NAMES)]
    name: Option<String>,
    /// Go on until so many connections have moved; by default 40, or 2000 in `any-moment`.
    #[arg(long, value_name = "N")]
    handoffs: Option<usize>,
    /// The mean time between two handoffs.
    #[arg(long, default_value_t = 200, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    interval_ms: u64,
    /// Decides the moments of the handoffs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The size of the file that is downloaded.
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    file_mib: u64,
    /// The size of the stream that goes through `echo`.
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    echo_mib: u64,
    /// Kill so many nodes, in the demos about that.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    crashes: u16,
    /// Write the results here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep a capture of each host, the events, the logs and a picture here.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The node's binary; by default the one beside this one, which is built if it must be.
    #[arg(long, value_name = "PATH")]
    ferry: Option<PathBuf>,
    #[command(flatten)]
    link: LinkArguments,
}

#[derive(Debug, Args)]
struct BenchArguments {
    /// Which.
    #[arg(value_parser = bench::NAMES)]
    name: String,
    /// How often each side of a comparison runs.
    #[arg(long, default_value_t = 5, value_name = "N")]
    runs: usize,
    /// Write the results here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put pictures and tables here (not `handoff-first`).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only these rows (not `handoff-first`).
    #[arg(long = "row", value_name = "NAME", num_args = 1.., value_parser = PossibleValuesParser::new(bench::row_names()))]
    rows: Vec<String>,
    /// Only see whether each row can be measured: short runs, no bars (not `handoff-first`).
    #[arg(long)]
    quick: bool,
    /// The node's binary; by default the one beside this one, which is built if it must be.
    #[arg(long, value_name = "PATH")]
    ferry: Option<PathBuf>,
    #[command(flatten)]
    link: LinkArguments,
}

#[derive(Debug, Args)]
struct TrialArguments {
    /// Which.
    #[arg(value_parser = trial::NAMES)]
    name: String,
    /// The node's binary; by default the one beside this one, which is built if it must be.
    #[arg(long, value_name = "PATH")]
    ferry: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Args)]
struct LinkArguments {
    /// The delay of the client's link, one way.
    #[arg(long, default_value_t = Profile::default().delay_us, value_name = "US")]
    delay_us: u64,
    /// The rate of the client's link.
    #[arg(long, default_value_t = Profile::default().rate_mbit, value_name = "MBIT")]
    rate_mbit: u64,
    /// The queue before the client's link.
    #[arg(long, default_value_t = Profile::default().queue_bytes >> 10, value_name = "KIB")]
    queue_kib: u64,
    /// The share of frames that the client's link loses.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    loss: f64,
}

impl LinkArguments {
    fn profile(self, seed: u64) -> Profile {
        let Self { delay_us, rate_mbit, queue_kib, loss } = self;
        Profile { delay_us, rate_mbit, queue_bytes: queue_kib << 10, loss, seed, ..Profile::GOOD }
    }
}

/// The exit code when this machine cannot make what is asked for.
const CANNOT: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(Cli::parse().command, arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ferry-testbed: {error}");
            ExitCode::from(if matches!(error, Error::Machine(_)) { CANNOT } else { 2 })
        }
    }
}

fn run(command: Command, mut arguments: Vec<OsString>) -> Result<ExitCode> {
    if let Command::BecomeNode(arguments) = command {
        return Err(privileges::become_node(&arguments));
    }
    if enter::inside() {
        enter::settle()?;
        return inside(command);
    }
    match &command {
        Command::Demo(demo) => {
            [&demo.json, &demo.out].into_iter().flatten().try_for_each(|path| enter::check_visible(path))?;
            demo.json.as_deref().map(report::check_writable).transpose()?;
            if let Some(why) = obstacle()? {
                return without_namespaces(demo, &why);
            }
        }
        Command::Bench(BenchArguments { json, out, .. }) => {
            [json, out].into_iter().flatten().try_for_each(|path| enter::check_visible(path))?;
            json.as_deref().map(report::check_writable).transpose()?;
        }
        _ => {}
    }
    let (Command::Demo(DemoArguments { ferry: given, .. })
    | Command::Bench(BenchArguments { ferry: given, .. })
    | Command::Trial(TrialArguments { ferry: given, .. })) = &command
    else {
        return enter::enter(&arguments);
    };
    let needed = !matches!(&command, Command::Bench(bench) if !bench::needs_ferry(&bench.name));
    if given.is_none() && needed {
        arguments.extend(["--ferry".into(), ferry::find()?.into()]);
    }
    enter::enter(&arguments)
}

fn obstacle() -> Result<Option<String>> {
    let obstacle = enter::obstacle()?;
    match obstacle {
        Some(why) if std::env::var("FERRY_REQUIRE_NETNS").is_ok_and(|value| value == "1") => {
            Err(Error::Machine(format!("{why} (and FERRY_REQUIRE_NETNS=1 forbids to do without)")))
        }
        obstacle => Ok(obstacle),
    }
}

fn without_namespaces(arguments: &DemoArguments, why: &str) -> Result<ExitCode> {
    eprintln!("No network namespaces with TAPs here: {why}");
    eprintln!("Running in the simulated world instead: the same nodes, on simulated links and clocks.");
    if arguments.out.is_some() {
        eprintln!("There is nothing to capture in it: --out stays empty.");
    }
    finish(simulated::run(arguments.name.as_deref(), arguments.handoffs, arguments.seed), arguments)
}

fn inside(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(arguments) => {
            let options = options(&arguments)?;
            let names = arguments.name.as_deref().map_or(demo::NAMES.to_vec(), |name| vec![name]);
            let usual = |name| arguments.handoffs.unwrap_or_else(|| demo::usual_handoffs(name));
            let crashes = arguments.crashes.into();
            let run = |name| demo::run(name, &Options { handoffs: usual(name), ..options.clone() }, crashes);
            finish(names.into_iter().map(run).collect(), &arguments)
        }
        Command::Bench(arguments) => {
            let BenchArguments { name, runs, json, out, rows, quick, ferry, link } = arguments;
            let ferry = if bench::needs_ferry(&name) { required(ferry)? } else { PathBuf::new() };
            let options = bench::Options { runs, out, rows, quick, link: link.profile(1) };
            let report = bench::run(&name, &options, &ferry)?;
            print!("{report}");
            if let Some(path) = json {
                report::write(&report, &path)?;
            }
            Ok(if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Trial(TrialArguments { name, ferry }) => {
            println!("{}", trial::run(&name, &required(ferry)?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Probe => {
            World::probe()?;
            println!("this machine can make the world");
            Ok(ExitCode::SUCCESS)
        }
        Command::Calibrate(link) => {
            print!("{}", calibrate::run(link.profile(1))?);
            Ok(ExitCode::SUCCESS)
        }
        Command::BecomeNode(arguments) => Err(privileges::become_node(&arguments)),
    }
}

fn finish(demos: Vec<report::Demo>, arguments: &DemoArguments) -> Result<ExitCode> {
    let report = DemoReport::new(demos);
    for demo in &report.demos {
        print!("{demo}");
    }
    if let Some(path) = &arguments.json {
        report::write(&report, path)?;
    }
    Ok(if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(arguments: &DemoArguments) -> Result<Options> {
    Ok(Options {
        handoffs: 0,
        interval: core::time::Duration::from_millis(arguments.interval_ms),
        seed: arguments.seed,
        file_bytes: arguments.file_mib << 20,
        echo_bytes: arguments.echo_mib << 20,
        out: arguments.out.clone(),
        ferry: required(arguments.ferry.clone())?,
        link: arguments.link.profile(arguments.seed),
        group: nodes::Options::default(),
        aware: false,
    })
}

fn required(ferry: Option<PathBuf>) -> Result<PathBuf> {
    ferry.ok_or_else(|| Error::Usage("inside the world --ferry must be given".to_owned()))
}
