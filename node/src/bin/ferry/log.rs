//! The log of a daemon. A thread of its own writes it: a disk that is full, or a reader that reads no more, holds nothing up and
//! ends nothing.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written; more are lost, and counted.
const WAITING: usize = 4096;
/// For so long the end of a daemon waits for its last words.
const LAST_WORDS: Duration = Duration::from_millis(500);

static LINES: OnceLock<Sender<Said>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

enum Said {
    Line(Vec<u8>),
    /// Everything before is written.
    End(Sender<()>),
}

/// What a daemon has to say goes to standard error, as much of it as `FERRY_LOG` asks for.
pub(crate) fn to_stderr() -> io::Result<()> {
    let filter = EnvFilter::try_from_env("FERRY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let (sender, lines) = bounded(WAITING);
    std::thread::Builder::new()
        .name("ferry-log".to_owned())
        .spawn(move || write(&lines, &mut io::stderr()))?;
    // There is one log.
    let _ = LINES.set(sender);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Lines)
        .init();
    Ok(())
}

/// A line for whoever runs a daemon, in the order of the log.
pub(crate) fn say(line: &str) {
    put(format!("{line}\n").into_bytes());
}

/// Waits, not for long, until all is written.
pub(crate) fn end() {
    let (done, told) = bounded(1);
    if LINES.get().is_some_and(|lines| lines.send_timeout(Said::End(done), LAST_WORDS).is_ok()) {
        // Whoever does not read by now does not get it.
        let _ = told.recv_timeout(LAST_WORDS);
    }
}

fn put(line: Vec<u8>) {
    match LINES.get() {
        Some(lines) => {
            let lost = lines.try_send(Said::Line(line)).is_err();
            LOST.fetch_add(lost.into(), Ordering::Relaxed);
        }
        // Nothing runs that could be held up.
        None => drop(io::stderr().write_all(&line)),
    }
}

fn write(lines: &Receiver<Said>, to: &mut impl Write) {
    for said in lines {
        match said {
            // A line that cannot be written cannot be complained about either.
            Said::Line(line) => drop(to.write_all(&line)),
            Said::End(done) => drop(done.try_send(())),
        }
        match LOST.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => drop(writeln!(to, "the log lacks {lost} lines: it was too slow")),
        }
    }
}

/// Each write is a line.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with no room.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_without_room_is_written_to_the_end_all_the_same() {
        let (sender, lines) = bounded(8);
        let (done, told) = bounded(1);
        sender.send(Said::Line(b"a word".to_vec())).unwrap();
        sender.send(Said::End(done)).unwrap();
        drop(sender);
        write(&lines, &mut Full);
        assert_eq!(told.try_recv(), Ok(()));
    }
}
