//! How far a move of many connections is: a bar on a terminal, plain lines otherwise.

use std::io::IsTerminal as _;

use ferry_node::Moved;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress {
    total: usize,
    shown: Option<(usize, usize)>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of so many connections, none has moved yet.
    pub(crate) fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} connections {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { total, shown: None, bar }
    }

    /// So many are left, so many of them are on their way.
    pub(crate) fn update(&mut self, left: usize, moving: usize) {
        if self.shown.replace((left, moving)) == Some((left, moving)) {
            return;
        }
        self.total = self.total.max(left);
        let gone = self.total - left;
        match &self.bar {
            Some(bar) => {
                bar.set_length(self.total as u64);
                bar.set_position(gone as u64);
                bar.set_message(format!("({moving} moving)"));
            }
            None => eprintln!("{gone} of {} connections have left, {moving} are moving", self.total),
        }
    }

    /// A line beside the progress.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What became of the connections.
pub(crate) fn summary(moved: &Moved) -> String {
    let mut text = format!("{} moved", moved.moved);
    if !moved.failed.is_empty() {
        text += &format!(", {} stayed:", moved.failed.len());
    }
    for failed in &moved.failed {
        text += &format!("\n  {} to port {}: {}", failed.client, failed.port, failed.why);
    }
    text
}
