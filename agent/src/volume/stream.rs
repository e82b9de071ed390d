//! The async ends: blocking work behind bounded channels.
//!
//! Owns threads, back-pressure and cancellation. A slow reader holds the thread at its next frame; a dropped end makes the
//! thread's next send or receive fail, so that it ends by itself and closes what it had open.

use std::{
    io::{self, Read, Write},
    os::fd::OwnedFd,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinHandle},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{Error, Expect, Frame, Limits, Progress, Receiver, Summary, read_tar, send, write_tar};

/// Frames or pieces on the way between a thread and its async end, each at most about 1 MiB.
const IN_FLIGHT: usize = 4;
/// Size of the pieces of an archive.
const PIECE_BYTES: usize = 256 * 1024;

/// The error of whoever feeds a stream.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Reads a still volume as frames. `total_bytes` is a hint for the receiver's progress, 0 when unknown.
///
/// The stream ends after the trailer or after its first error. Must be called within a Tokio runtime. Dropping the stream
/// ends the reading thread at its next frame.
pub fn frames(root: OwnedFd, total_bytes: u64) -> impl Stream<Item = Result<Frame, Error>> + Send + Unpin + 'static {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    task::spawn_blocking(move || {
        let mut sink = |frame| sender.blocking_send(Ok(frame)).map_err(|_| Error::Cancelled);
        if let Err(error) = send(root, total_bytes, &mut sink) {
            // Nobody listens any more when the caller gave up.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

/// Writes the volume that `frames` describes into an empty directory; returns after everything is on disk.
///
/// Dropping the future ends the writing thread at its next frame; the directory then holds a part of a volume that must not
/// be used, as after any error.
///
/// # Errors
/// [`Error::Transport`] with what `frames` failed with, and everything that [`Receiver`] refuses.
pub async fn receive<S, E>(
    frames: S,
    root: OwnedFd,
    limits: Limits,
    progress: watch::Sender<Progress>,
) -> Result<Summary, Error>
where
    S: Stream<Item = Result<Frame, E>> + Send,
    E: Into<Cause>,
{
    let (sender, mut receiver) = mpsc::channel(IN_FLIGHT);
    let writing = task::spawn_blocking(move || {
        let mut volume = Receiver::new(root, limits)?;
        while let Some(frame) = receiver.blocking_recv() {
            volume.push(frame)?;
            progress.send_replace(volume.progress());
        }
        volume.finish()
    });
    feed(frames, sender, writing).await
}

/// Reads a volume as a tar archive that `podman volume import` reads, in pieces of at most 1 MiB.
///
/// The stream ends after the archive's end marker or after its first error. Must be called within a Tokio runtime. Dropping
/// the stream ends the reading thread at its next piece.
pub fn export_tar(root: OwnedFd, expect: Expect) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + 'static {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    task::spawn_blocking(move || {
        let mut pieces = PieceWriter { sender: sender.clone(), piece: Vec::new() };
        if let Err(error) = write_tar(root, expect, &mut pieces) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

/// Reads a tar archive, in pieces of any size, into an empty directory; returns after everything is on disk.
///
/// Dropping the future ends the writing thread at its next piece; the directory then holds a part of a volume that must not
/// be used, as after any error.
///
/// # Errors
/// [`Error::Transport`] with what `pieces` failed with, and everything that [`read_tar`] refuses.
pub async fn import_tar<S, E>(
    pieces: S,
    root: OwnedFd,
    limits: Limits,
    progress: watch::Sender<Progress>,
) -> Result<Summary, Error>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<Cause>,
{
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let writing = task::spawn_blocking(move || {
        let mut reader = PieceReader { receiver, piece: Bytes::new() };
        read_tar(root, &mut reader, &limits, &mut |so_far| {
            progress.send_replace(so_far);
        })
    });
    feed(pieces, sender, writing).await
}

/// Passes items on to the thread until they end, fail, or the thread has given up; then its result.
async fn feed<S, T, E>(
    items: S,
    sender: mpsc::Sender<T>,
    writing: JoinHandle<Result<Summary, Error>>,
) -> Result<Summary, Error>
where
    S: Stream<Item = Result<T, E>> + Send,
    E: Into<Cause>,
{
    let mut items = std::pin::pin!(items);
    let mut failure = None;
    loop {
        let next = tokio::select! {
            next = items.next() => next,
            // The thread refused something while the other side was silent.
            () = sender.closed() => None,
        };
        match next {
            Some(Ok(item)) => {
                if sender.send(item).await.is_err() {
                    break;
                }
            }
            Some(Err(error)) => {
                failure = Some(Error::Transport(error.into()));
                break;
            }
            None => break,
        }
    }
    drop(sender);
    let result = writing.await.unwrap_or(Err(Error::Panicked));
    // A stream that failed is cut off for the thread too, but the cause says more. A refusal before that stays what it is.
    match (result, failure) {
        (Ok(_) | Err(Error::Truncated { .. } | Error::ArchiveTruncated { .. }), Some(failure)) => Err(failure),
        (result, _) => result,
    }
}

/// Collects what is written into pieces for the channel.
struct PieceWriter {
    sender: mpsc::Sender<Result<Bytes, Error>>,
    piece: Vec<u8>,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads from the pieces in the channel.
struct PieceReader {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
