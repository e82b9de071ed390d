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
use tokio_util::sync::CancellationToken;

use super::{
    Changes, Digest, Error, Expect, Frame, Limits, Listing, Phase, Progress, Summary, Trailer, Trust, Volume,
    ends::Told,
    pack::{Gauge, Pace, Packer, Parcel},
    read_tar,
    receive::Received,
    stamp::Moment,
    write_tar,
};

/// Frames or pieces on the way between a thread and its async end, each at most about 1 MiB.
const IN_FLIGHT: usize = 4;
/// Size of the pieces of an archive.
const PIECE_BYTES: usize = 256 * 1024;

/// A pass that was received whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// What the sender said at the end.
    pub trailer: Trailer,
    /// What is on disk.
    pub received: Summary,
    /// How it came about.
    pub changes: Changes,
}

/// The error of whoever feeds a stream.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One pass over a volume, as frames.
pub struct Sending {
    /// Which.
    pub volume: Volume,
    /// Its directory.
    pub root: OwnedFd,
    /// Whether it is in use.
    pub expect: Expect,
    /// Root digest of what the receiver has; `None` when it has nothing.
    pub base: Option<Digest>,
    /// Its list, in case it is asked for.
    pub listing: mpsc::Receiver<Result<Listing, Error>>,
    /// How the receiver keeps up; `None` when it takes no packed frames.
    pub packs: Option<Pace>,
}

/// Reads a volume as frames, packed where that helps.
///
/// The stream ends after the trailer or after its first error. Must be called within a Tokio runtime. Dropping the stream
/// ends the reading thread at its next frame.
pub fn parcels(sending: Sending) -> impl Stream<Item = Result<Parcel, Error>> + Send + Unpin + 'static {
    let Sending { volume, root, expect, base, mut listing, packs } = sending;
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    task::spawn_blocking(move || {
        let told = Told { digest: base, listing: Box::new(move || listing.blocking_recv()) };
        let mut packer = Packer::new(&sender, packs);
        let mut sink = |frame| packer.send(frame);
        if let Err(error) = volume.send(root, expect, Moment::now(), told, &mut sink) {
            // Nobody listens any more when the caller gave up.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

/// The list of what a receiver has, as [`Volume::prepare`] left it.
///
/// The stream ends after the last part or after its first error. Must be called within a Tokio runtime.
pub fn listing(volume: Volume, root: OwnedFd) -> impl Stream<Item = Result<Listing, Error>> + Send + Unpin + 'static {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    task::spawn_blocking(move || {
        let mut sink = |part| sender.blocking_send(Ok(part)).map_err(|_| Error::Cancelled);
        if let Err(error) = volume.list(&root, &mut sink) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

/// Where a pass is received.
pub struct Receiving {
    /// Which.
    pub volume: Volume,
    /// Its directory.
    pub root: OwnedFd,
    /// What [`Volume::prepare`] found there.
    pub base: Option<Digest>,
    /// What it may take.
    pub limits: Limits,
}

/// Makes the volume that `frames` describe; returns after everything is on disk.
///
/// Dropping the future ends the writing thread at its next frame; the directory then holds a part of a volume that must not
/// be used, as after any error. The next pass builds on it.
///
/// # Errors
/// [`Error::Transport`] with what `frames` failed with, and everything that the receiver refuses.
pub async fn receive<S, E>(
    frames: S,
    receiving: Receiving,
    progress: watch::Sender<Progress>,
) -> Result<Transferred, Error>
where
    S: Stream<Item = Result<Frame, E>> + Send,
    E: Into<Cause>,
{
    let (sender, mut receiver) = mpsc::channel(IN_FLIGHT);
    let pace = progress.clone();
    let writing = task::spawn_blocking(move || {
        let Receiving { volume, root, base, limits } = receiving;
        let mut volume_receiver = volume.receiver(root, base, limits)?;
        while let Some(frame) = receiver.blocking_recv() {
            if matches!(frame, Frame::Trailer(_)) {
                progress.send_modify(|now| now.phase = Phase::Syncing);
            }
            volume_receiver.push(frame)?;
            let so_far = volume_receiver.progress();
            progress.send_modify(|now| {
                *now = Progress { wire_bytes: now.wire_bytes, behind: now.behind, ..so_far };
            });
        }
        let Received { trailer, summary, changes, draft } = volume_receiver.received()?;
        match draft {
            Some(draft) => draft.publish(&volume.notes, &volume.name),
            None => volume.notes.forget(&volume.name),
        }
        Ok(Transferred { trailer, received: summary, changes })
    });
    let mut gauge = Gauge::default();
    let watching = |queue_is_full| {
        if gauge.note(queue_is_full) {
            pace.send_modify(|now| now.behind = gauge.is_behind());
        }
    };
    feed(frames, sender, writing, watching).await
}

/// Finds out what a receiver has. On return no thread looks any more, also when it was stopped.
///
/// # Errors
/// As [`Volume::prepare`].
pub async fn prepare(
    volume: Volume,
    root: OwnedFd,
    trust: Trust,
    stop: CancellationToken,
) -> Result<Option<Digest>, Error> {
    task::spawn_blocking(move || volume.prepare(&root, trust, &stop)).await.unwrap_or(Err(Error::Panicked))
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
    feed(pieces, sender, writing, |_| {}).await
}

/// Passes items on to the thread until they end, fail, or the thread has given up; then its result. Says of each item whether it
/// has to wait for the thread.
async fn feed<S, T, R, E>(
    items: S,
    sender: mpsc::Sender<T>,
    writing: JoinHandle<Result<R, Error>>,
    mut waits: impl FnMut(bool),
) -> Result<R, Error>
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
                waits(sender.capacity() == 0);
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
