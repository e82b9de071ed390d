//! Cuts a container's output into lines. The engine's pieces end where it likes.

use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use crate::runtime::{Error, LogLine};

/// A line that does not end is cut here, so that memory is bounded.
const LINE_BYTES_MAX: usize = 64 * 1024;

type Piece = Result<(Bytes, bool), Error>;

#[derive(Default)]
struct Cutter {
    /// What has come of an unfinished line, by stream.
    unfinished: [BytesMut; 2],
}

impl Cutter {
    fn push(&mut self, piece: &[u8], stderr: bool) -> Vec<LogLine> {
        let unfinished = &mut self.unfinished[usize::from(stderr)];
        unfinished.extend_from_slice(piece);
        let mut lines = Vec::new();
        loop {
            let end = unfinished.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    let line = unfinished.split_to(end + 1);
                    lines.push(line_of(&line[..end], stderr));
                }
                None if unfinished.len() >= LINE_BYTES_MAX => {
                    lines.push(line_of(&unfinished.split_to(LINE_BYTES_MAX), stderr));
                }
                None => return lines,
            }
        }
    }

    fn finish(&mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for stderr in [false, true] {
            let rest = std::mem::take(&mut self.unfinished[usize::from(stderr)]);
            if !rest.is_empty() {
                lines.push(line_of(&rest, stderr));
            }
        }
        lines
    }
}

fn line_of(bytes: &[u8], stderr: bool) -> LogLine {
    let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned();
    LogLine { text, stderr }
}

pub(super) fn split(pieces: BoxStream<'static, Piece>) -> BoxStream<'static, Result<LogLine, Error>> {
    // The end is a piece of its own, because what is left then is a line too.
    let pieces = pieces.map(Some).chain(stream::iter([None]));
    pieces
        .scan(Cutter::default(), |cutter, piece| {
            let lines = match piece {
                Some(Ok((bytes, stderr))) => cutter.push(&bytes, stderr).into_iter().map(Ok).collect(),
                Some(Err(error)) => vec![Err(error)],
                None => cutter.finish().into_iter().map(Ok).collect(),
            };
            std::future::ready(Some(stream::iter(lines)))
        })
        .flatten()
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::{Cutter, LINE_BYTES_MAX};

    #[test]
    fn lines_come_whole_whatever_the_pieces() {
        let mut cutter = Cutter::default();
        let mut lines = cutter.push(b"on", false);
        lines.extend(cutter.push(b"err\n", true));
        lines.extend(cutter.push(b"e\r\ntwo\nthr", false));
        lines.extend(cutter.finish());
        let lines: Vec<_> = lines.iter().map(|line| (line.text.as_str(), line.stderr)).collect();
        assert_eq!(lines, [("err", true), ("one", false), ("two", false), ("thr", false)]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut cutter = Cutter::default();
        assert_eq!(cutter.push(&vec![b'x'; 2 * LINE_BYTES_MAX + 1], false).len(), 2);
        assert_eq!(cutter.finish().len(), 1);
    }
}
