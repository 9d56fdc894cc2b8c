//! How far a move of many connections is: a bar on a terminal, plain lines otherwise.

use std::io::IsTerminal as _;

use ferry_node::{Moved, NotMoved};
use indicatif::{ProgressBar, ProgressStyle};

use crate::log::say;

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
            None => say(&format!("{gone} of {} connections have left, {moving} are moving", self.total)),
        }
    }

    /// A line beside the progress.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => say(line),
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
    let stayed = match moved.failed.len() {
        0 => String::new(),
        count => format!(", {count} stayed:"),
    };
    let left = match moved.left {
        0 => String::new(),
        count => format!(", {count} left where they were"),
    };
    let first = format!("{} moved{left}{stayed}", moved.moved);
    let rest =
        moved.failed.iter().map(|NotMoved { client, port, why }| format!("  {client} to port {port}: {why}"));
    core::iter::once(first).chain(rest).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_each_connection_that_stayed_and_why() {
        let failed =
            NotMoved { client: "[2001:db8::c]:4".parse().unwrap(), port: 80, why: "it is full".into() };
        assert_eq!(summary(&Moved { moved: 3, ..Moved::default() }), "3 moved");
        assert_eq!(
            summary(&Moved { moved: 3, left: 7, ..Moved::default() }),
            "3 moved, 7 left where they were"
        );
        let expected = "3 moved, 1 stayed:\n  [2001:db8::c]:4 to port 80: it is full";
        assert_eq!(summary(&Moved { moved: 3, failed: vec![failed], left: 0 }), expected);
    }
}
