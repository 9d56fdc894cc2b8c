//! The line that says how far a demo is.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock::now_ns;

const SECOND: u64 = 1_000_000_000;

/// On a terminal a line that is drawn again and again; elsewhere a line every few seconds. Both on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    on_terminal: bool,
    next_ns: u64,
}

impl Progress {
    /// Of a demo with this name.
    pub fn new(name: &'static str) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::new_spinner().with_prefix(name);
        bar.set_draw_target(if on_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        // The template is ours and right; a wrong one would only look plainer.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})") {
            bar.set_style(style);
        }
        Self { bar, on_terminal, next_ns: 0 }
    }

    /// A new step begins.
    pub fn step(&mut self, what: &str) {
        self.next_ns = 0;
        self.show(|| what.to_owned());
    }

    /// Shows how far it is, not more often than a person can read.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let now = now_ns();
        if now < self.next_ns {
            return;
        }
        let line = line();
        if self.on_terminal {
            self.bar.set_message(line);
            self.bar.tick();
            self.next_ns = now + SECOND / 10;
        } else {
            eprintln!("{}: {line}", self.bar.prefix());
            self.next_ns = now + 3 * SECOND;
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
