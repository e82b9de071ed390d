//! The only place that prints. Data goes to stdout, everything else to stderr; with `--output json` both are JSON.
//!
//! Knows nothing of servers and tenants.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::error::{Failure, Kind};

mod progress;
pub(crate) mod screen;
mod table;

pub(crate) use progress::{Amount, Progress};
pub(crate) use table::{pairs, table};

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    // Documentation of the values would spread every help page over many lines.
    // Aligned columns, for people.
    Table,
    // The same with more columns, where a list has more to show.
    Wide,
    // Stable JSON, for programs.
    Json,
}

/// Where to print, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    colour: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { format, colour: io::stderr().is_terminal() && !refused && !dumb }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Are lists to be shown with all their columns?
    pub(crate) fn is_wide(self) -> bool {
        self.format == Format::Wide
    }

    /// Data: `text` for people, or the value as JSON.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.line(&text()),
            Format::Json => self.bytes(format!("{}\n", pretty(value)?).as_bytes()),
        }
    }

    /// Data in streams: a line of text, or one line of JSON.
    pub(crate) fn stream<T: Serialize>(self, value: &T, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.line(text),
            Format::Json => self.bytes(format!("{}\n", compact(value)?).as_bytes()),
        }
    }

    /// One or more lines of data; nothing at all when there is no text.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        let text = text.trim_end_matches('\n');
        // What tenants write must not steer the terminal; a file or pipe gets it as it is.
        if io::stdout().is_terminal() {
            return self.bytes(format!("{}\n", printable(text)).as_bytes());
        }
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Raw data.
    pub(crate) fn bytes(self, data: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(data).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::output_closed(),
            _ => Failure::file(
                "cannot write to standard output",
                &error,
                "free some space or write elsewhere, then try again",
            ),
        })
    }

    /// A remark for people.
    pub(crate) fn note(self, text: &str) {
        if !self.is_json() {
            write_stderr(&format!("{}\n", printable(text)));
        }
    }

    /// The id of an operation that has begun, before anything else is said about it.
    pub(crate) fn operation(self, id: &str) {
        match self.format {
            Format::Table | Format::Wide => write_stderr(&format!("operation {}\n", printable(id))),
            Format::Json => write_stderr(&format!("{}\n", serde_json::json!({ "operation": id }))),
        }
    }

    /// Asks for a line; none when standard input has ended.
    pub(crate) fn ask(self, question: &str) -> Option<String> {
        write_stderr(&format!("{} ", printable(question)));
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(1..) => Some(line.trim().to_owned()),
            _ => None,
        }
    }

    /// May a person be asked?
    pub(crate) fn can_ask(self) -> bool {
        !self.is_json() && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Would data on stdout be shown on a screen?
    pub(crate) fn stdout_is_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// Is there a person at a screen that may be taken?
    pub(crate) fn can_show_a_screen(self) -> bool {
        !self.is_json() && screen::is_possible()
    }

    /// Takes the whole screen, until it is dropped.
    pub(crate) fn screen(self) -> Result<screen::Screen, Failure> {
        screen::Screen::take(self.colour)
    }

    /// A display for something that takes a while.
    pub(crate) fn progress(self) -> Progress {
        match self.format {
            Format::Table | Format::Wide if io::stderr().is_terminal() => Progress::bars(self.colour),
            Format::Table | Format::Wide => Progress::plain(),
            Format::Json => Progress::silent(),
        }
    }

    pub(crate) fn failure(self, failure: &Failure) {
        if failure.kind == Kind::OutputClosed {
            return;
        }
        if self.is_json() {
            write_stderr(&format!("{}\n", failure.json()));
            return;
        }
        let (strong, hint, end) = if self.colour { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let message = printable(&failure.message);
        let mut text = format!("{strong}{}:{end} {message}\n", failure.heading());
        if !failure.hint.is_empty() && !failure.hint_said {
            text.push_str(&format!("{hint}next:{end} {}\n", printable(&failure.hint)));
        }
        write_stderr(&text);
    }
}

fn pretty<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::bug(format!("cannot write JSON: {error}")))
}

fn compact<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::bug(format!("cannot write JSON: {error}")))
}

/// Nothing can be told to a person whose stderr is closed, so an error is dropped.
fn write_stderr(text: &str) {
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// Without characters that steer a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() && !matches!(letter, '\n' | '\t') { '\u{fffd}' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(super::printable("a\tb\n\x1b[2J\u{9b}c\r"), "a\tb\n\u{fffd}[2J\u{fffd}c\u{fffd}");
    }
}
