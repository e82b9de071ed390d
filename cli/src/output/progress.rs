//! What a person sees while something takes a while: a bar on a terminal, plain lines elsewhere, nothing with JSON.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::units;

use super::{printable, write_stderr};

const TICK: Duration = Duration::from_millis(100);

enum Display {
    Bars(ProgressBar),
    Plain,
    Silent,
}

/// A display that is cleared when dropped; lines written to it stay.
pub(crate) struct Progress {
    display: Display,
    colour: bool,
    /// Quarters of a transfer that plain lines have told of.
    quarters_told: u64,
    measuring: bool,
    /// Pass that is being measured.
    round: u32,
}

/// How much of something is through. The total may be unknown (0) or too small.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Amount {
    pub(crate) done: u64,
    pub(crate) total: u64,
}

impl Progress {
    pub(super) fn bars(colour: bool) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(TICK);
        Self::new(Display::Bars(bar), colour)
    }

    pub(super) fn plain() -> Self {
        Self::new(Display::Plain, false)
    }

    /// Nothing, whatever happens.
    pub(crate) fn silent() -> Self {
        Self::new(Display::Silent, false)
    }

    fn new(display: Display, colour: bool) -> Self {
        Self { display, colour, quarters_told: 0, measuring: false, round: 0 }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        let text = printable(text);
        match &self.display {
            // The bar is taken off the screen for the moment, so that the line does not end in it.
            Display::Bars(bar) => bar.suspend(|| write_stderr(&format!("{text}\n"))),
            Display::Plain => write_stderr(&format!("{text}\n")),
            Display::Silent => {}
        }
    }

    /// What is going on right now.
    pub(crate) fn step(&mut self, name: &str) {
        self.quarters_told = 0;
        if let Display::Bars(bar) = &self.display {
            if std::mem::take(&mut self.measuring) {
                bar.set_style(ProgressStyle::default_spinner());
            }
            bar.set_message(printable(name));
        }
    }

    /// Which pass of a transfer what follows is about, and how many files are through.
    pub(crate) fn pass(&mut self, name: &str, round: u32, files: Amount) {
        let next = std::mem::replace(&mut self.round, round) != round;
        if let Display::Bars(bar) = &self.display {
            if next {
                bar.reset();
                self.measuring = false;
            }
            bar.set_message(printable(&format!("{name}{}", counted(files))));
        }
    }

    /// How much of a transfer is through. The total may be unknown (0) or too small.
    pub(crate) fn transfer(&mut self, done: u64, total: u64) {
        match &self.display {
            Display::Bars(bar) => {
                if !std::mem::replace(&mut self.measuring, true) {
                    bar.set_style(style(total > 0, self.colour));
                }
                bar.set_length(total.max(done));
                bar.set_position(done);
            }
            Display::Plain if total > 0 => {
                let quarter = u64::try_from(u128::from(done) * 4 / u128::from(total)).unwrap_or(4).min(4);
                if quarter > self.quarters_told && quarter < 4 {
                    self.quarters_told = quarter;
                    self.line(&format!("  {} of {} sent", units::bytes(done), units::bytes(total)));
                }
            }
            Display::Plain | Display::Silent => {}
        }
    }
}

fn counted(files: Amount) -> String {
    match (files.done, files.total) {
        (0, 0) => String::new(),
        (done, 0) => format!(" ({})", units::counted(done, "file")),
        (done, total) => format!(" ({done} of {})", units::counted(total.max(done), "file")),
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bars(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

fn style(total_known: bool, colour: bool) -> ProgressStyle {
    let template = match (total_known, colour) {
        (true, true) => {
            "{spinner} {msg} {bar:30.cyan} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
        }
        (true, false) => {
            "{spinner} {msg} {bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
        }
        (false, _) => "{spinner} {msg} {binary_bytes}, {binary_bytes_per_sec}",
    };
    // A template that does not parse would only cost the bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
