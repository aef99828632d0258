//! Progress on standard error: a bar with rate and time left on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::count;

/// A plain line at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// One long piece of work, told while it goes on.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    unit: &'static str,
    total: u64,
    begun: Instant,
    last_line: Instant,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Bar(ProgressBar),
    Lines,
    Quiet,
}

impl Progress {
    /// Begins to tell of `label`, which is done at `total` (steps of any kind) and makes `unit`s on its way.
    pub(crate) fn new(label: impl Into<String>, total: u64, unit: &'static str, quiet: bool) -> Self {
        let kind = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Kind::Quiet,
            (false, true) => Kind::Bar(bar(total)),
            (false, false) => Kind::Lines,
        };
        let now = Instant::now();
        Progress { label: label.into(), unit, total, begun: now, last_line: now, kind }
    }

    /// Tells that `position` of the total is reached, and `made` units are made.
    pub(crate) fn set(&mut self, position: u64, made: u64) {
        match &self.kind {
            Kind::Bar(bar) => {
                bar.set_position(position.min(self.total));
                bar.set_message(self.text(made));
            }
            Kind::Lines if self.last_line.elapsed() >= LINE_INTERVAL => {
                let percent = position.min(self.total) * 100 / self.total.max(1);
                eprintln!("{percent:3} %  {}", self.text(made));
                self.last_line = Instant::now();
            }
            Kind::Lines | Kind::Quiet => {}
        }
    }

    fn text(&self, made: u64) -> String {
        let rate = made as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
        format!("{}: {} {}, {} a second", self.label, count(made), self.unit, count(rate as u64))
    }

    /// Ends without a word.
    pub(crate) fn clear(self) {
        if let Kind::Bar(bar) = self.kind {
            bar.finish_and_clear();
        }
    }

    /// Tells that it is done.
    pub(crate) fn finish(self, made: u64) {
        let text = self.text(made);
        match self.kind {
            Kind::Bar(bar) => {
                bar.finish_and_clear();
                eprintln!("{text}");
            }
            Kind::Lines => eprintln!("{text}"),
            Kind::Quiet => {}
        }
    }
}

fn bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}, {eta} left");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
