//! Writes what the node's core traces, one JSON object a line, without ever holding the data plane up.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tracing::warn;

use super::gather;
use crate::Trace;

/// How long they are gathered: no longer than who reads along would take for the present.
const GATHER: Duration = Duration::from_millis(2);

/// The data plane's end.
#[derive(Debug)]
pub(crate) struct Tracer {
    sender: Sender<Trace>,
    lost: Arc<AtomicU64>,
}

/// The thread that writes; ends when the [`Tracer`] is dropped.
#[derive(Debug)]
pub(crate) struct TraceWriter(JoinHandle<()>);

/// Opens the file, which is emptied, and starts the thread.
pub(crate) fn tracer(file: &Path) -> io::Result<(Tracer, TraceWriter)> {
    let output = BufWriter::new(File::create(file)?);
    let (sender, receiver) = unbounded();
    let lost = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&lost);
    let thread = std::thread::Builder::new().name("ferry-trace".to_owned()).spawn(move || {
        if let Err(why) = write(output, &receiver) {
            warn!("the trace is cut short: {why}");
        }
        match counter.load(Ordering::Relaxed) {
            0 => {}
            lost => warn!("the trace lacks {lost} events: the disk was too slow"),
        }
    })?;
    Ok((Tracer { sender, lost }, TraceWriter(thread)))
}

impl Tracer {
    /// Never blocks.
    pub(crate) fn put(&self, trace: Trace) {
        if !gather::put(&self.sender, trace) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl TraceWriter {
    /// Waits until everything is written; the [`Tracer`] must be gone.
    pub(crate) fn finish(self) {
        // A panic has told its own story.
        let _ = self.0.join();
    }
}

/// Flushes whenever there is nothing more to write, so that a reader sees whole lines soon.
fn write(mut output: BufWriter<File>, events: &Receiver<Trace>) -> io::Result<()> {
    while let Some(some) = gather::next(events, GATHER) {
        for event in some {
            serde_json::to_writer(&mut output, &event)?;
            output.write_all(b"\n")?;
        }
        output.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceEvent;

    #[test]
    fn every_event_is_one_line_and_can_be_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace.jsonl");
        let (tracer, writer) = tracer(&file).unwrap();
        let event = |at_ns| Trace { at_ns, event: TraceEvent::Peer { peer: "b".into(), up: at_ns % 2 == 0 } };
        for at_ns in 0..1000 {
            tracer.put(event(at_ns));
        }
        drop(tracer);
        writer.finish();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().next(), Some(r#"{"at_ns":0,"event":"peer","peer":"b","up":true}"#));
        let read: Vec<Trace> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, (0..1000).map(event).collect::<Vec<_>>());
    }
}
