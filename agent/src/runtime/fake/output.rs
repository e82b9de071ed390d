//! Output of a fake container: lines that can be read again and followed until its process ends.

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::watch;

use crate::runtime::{Error, LogLine};

#[derive(Default)]
struct Written {
    lines: Vec<LogLine>,
    open: bool,
}

/// Dropped with its container, which ends whoever follows it.
#[derive(Default)]
pub(super) struct Output(watch::Sender<Written>);

impl Output {
    pub(super) fn open(&self) {
        self.0.send_modify(|written| written.open = true);
    }

    pub(super) fn close(&self) {
        self.0.send_modify(|written| written.open = false);
    }

    pub(super) fn write(&self, text: &str, stderr: bool) {
        self.0.send_modify(|written| written.lines.push(LogLine { text: text.to_owned(), stderr }));
    }

    pub(super) fn read(&self, lines: u32, follow: bool) -> BoxStream<'static, Result<LogLine, Error>> {
        let reader = self.0.subscribe();
        let written = reader.borrow().lines.len();
        let first = written.saturating_sub(usize::try_from(lines).unwrap_or(usize::MAX));
        if !follow {
            let last: Vec<_> = reader.borrow().lines[first..].iter().cloned().map(Ok).collect();
            return stream::iter(last).boxed();
        }
        stream::unfold((reader, first), |(mut reader, next)| async move {
            loop {
                let (line, open) = {
                    let written = reader.borrow_and_update();
                    (written.lines.get(next).cloned(), written.open)
                };
                match line {
                    Some(line) => return Some((Ok(line), (reader, next + 1))),
                    None if !open => return None,
                    None => reader.changed().await.ok()?,
                }
            }
        })
        .boxed()
    }
}
