//! The sending end: walks a volume and hands out frames.
//!
//! Owns batching and hashing while reading. Refuses to know where frames go: a sink takes them one by one and may say stop. A
//! source that changes meanwhile is an error, never a wrong stream.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;

use super::{
    Error,
    content::{self, Pieces, Stop},
    digest::{ContentHasher, Digest, Summary, TreeHasher},
    entry::{
        BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX, Batch, Body, CHUNK_BYTES_MAX, Chunk, EXTENTS_MAX, Entry, Extent,
        FILE_BYTES_MAX, Frame, Header, INLINE_BYTES_MAX, Inode, Kind, Node, VERSION,
    },
    walk::{Expect, Found, Item, Walk},
};

/// Reads a still volume in wire order and gives every frame to `sink`; returns what the trailer said.
///
/// `total_bytes` is a hint for the receiver's progress, 0 when unknown.
///
/// # Errors
/// [`Error::Changed`] when the source was not still, [`Error::Io`], [`Error::MountInside`], [`Error::Unsupported`], and
/// whatever `sink` returns.
pub fn send(
    root: OwnedFd,
    total_bytes: u64,
    sink: &mut dyn FnMut(Frame) -> Result<(), Error>,
) -> Result<Summary, Error> {
    let mut sender = Sender {
        walk: Walk::new(root, Expect::Still),
        tree: TreeHasher::new(),
        content: ContentHasher::new(),
        batch: Batch::default(),
        batch_bytes: 0,
        sink,
    };
    (sender.sink)(Frame::Header(Header { version: VERSION, total_bytes }))?;
    while let Some(item) = sender.walk.next()? {
        sender.item(&item)?;
    }
    sender.flush()?;
    let Sender { walk, tree, sink, .. } = sender;
    let summary = tree.finish(walk.skipped_sockets);
    sink(Frame::Trailer(summary.clone()))?;
    Ok(summary)
}

/// Reads a whole volume again from disk and returns its summary, root digest included.
///
/// # Errors
/// As [`send`].
pub fn scan(root: OwnedFd) -> Result<Summary, Error> {
    send(root, 0, &mut |_| Ok(()))
}

struct Sender<'a> {
    walk: Walk,
    tree: TreeHasher,
    content: ContentHasher,
    batch: Batch,
    batch_bytes: usize,
    sink: &'a mut dyn FnMut(Frame) -> Result<(), Error>,
}

impl Sender<'_> {
    fn item(&mut self, item: &Item) -> Result<(), Error> {
        let device = item.status.device_number;
        let kind = match &item.found {
            Found::HardLink(first) => {
                let node = Node::HardLink { first: *first };
                return self.add(Entry { depth: item.depth, name: item.name.clone(), node }, None);
            }
            Found::Regular => return self.regular(item),
            Found::Directory => Kind::Directory,
            Found::Symlink(target) => Kind::Symlink { target: target.clone() },
            Found::Fifo => Kind::Fifo,
            Found::CharacterDevice => Kind::CharacterDevice(device),
            Found::BlockDevice => Kind::BlockDevice(device),
        };
        let entry = self.entry(item, kind, None)?;
        self.add(entry, None)
    }

    fn entry(&self, item: &Item, kind: Kind, file: Option<BorrowedFd<'_>>) -> Result<Entry, Error> {
        let metadata = self.walk.metadata(item, file)?;
        // A directory's count is about its subdirectories, and differs between file systems.
        let links = if kind == Kind::Directory { 1 } else { item.status.links.max(1) };
        let inode = Inode { metadata, links, kind };
        Ok(Entry { depth: item.depth, name: item.name.clone(), node: Node::Inode(inode) })
    }

    fn regular(&mut self, item: &Item) -> Result<(), Error> {
        let size = item.status.size;
        if size > FILE_BYTES_MAX {
            let path = super::error::show(&self.walk.path_of(item));
            return Err(Error::Unsupported { path, problem: "it is larger than any file system allows" });
        }
        let Some(file) = self.walk.open(item)? else {
            return Err(Error::changed(&self.walk.path_of(item), "vanished"));
        };
        let mut pieces = Pieces::new(file.as_fd(), size, item.status.allocated);
        if size > INLINE_BYTES_MAX {
            let entry = self.entry(item, Kind::Regular { size, body: Body::Streamed }, Some(file.as_fd()))?;
            return self.streamed(item, file.as_fd(), entry, pieces);
        }
        let mut reading = Reading::default();
        while reading
            .next(&mut pieces, &mut self.content, file.as_fd(), INLINE_BYTES_MAX)
            .map_err(|stop| self.stopped(item, stop))?
        {}
        let extents = reading.take();
        let digest = reading.finish(&mut self.content, size);
        let entry =
            self.entry(item, Kind::Regular { size, body: Body::Inline { extents, digest } }, Some(file.as_fd()))?;
        self.walk.check_unchanged(item, file.as_fd())?;
        self.tree.add_data(reading.total);
        self.add(entry, Some(digest))
    }

    fn streamed(
        &mut self,
        item: &Item,
        file: BorrowedFd<'_>,
        entry: Entry,
        mut pieces: Pieces<'_>,
    ) -> Result<(), Error> {
        self.batch.entries.push(entry.clone());
        self.flush()?;
        let mut reading = Reading::default();
        loop {
            let room = (CHUNK_BYTES_MAX - reading.pending_bytes) as u64;
            let more =
                reading.next(&mut pieces, &mut self.content, file, room).map_err(|stop| self.stopped(item, stop))?;
            if !more {
                break;
            }
            if reading.pending_bytes == CHUNK_BYTES_MAX || reading.extents.len() == EXTENTS_MAX {
                (self.sink)(Frame::Chunk(Chunk { extents: reading.take(), end: None }))?;
            }
        }
        let extents = reading.take();
        let digest = reading.finish(&mut self.content, item.status.size);
        // Before the digest goes out, so that the receiver never accepts a file that changed under our hands.
        self.walk.check_unchanged(item, file)?;
        self.tree.add_data(reading.total);
        self.tree.add(&entry, digest);
        (self.sink)(Frame::Chunk(Chunk { extents, end: Some(digest) }))
    }

    /// Adds a whole entry to the batch, and to the tree.
    fn add(&mut self, entry: Entry, content: Option<Digest>) -> Result<(), Error> {
        let weight = entry.weight();
        if self.batch_bytes + weight > BATCH_BYTES_TARGET || self.batch.entries.len() >= BATCH_ENTRIES_MAX - 1 {
            self.flush()?;
        }
        self.tree.add(&entry, content.unwrap_or(Digest([0; 32])));
        self.batch_bytes += weight;
        self.batch.entries.push(entry);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.entries.is_empty() { Ok(()) } else { (self.sink)(Frame::Batch(batch)) }
    }

    fn stopped(&self, item: &Item, stop: Stop) -> Error {
        let path = self.walk.path_of(item);
        match stop {
            Stop::Shrunk => Error::changed(&path, "became shorter"),
            Stop::Failed(errno) => Error::io("read", &path, errno),
        }
    }
}

/// Extents read but not handed out yet, and how far the hash is.
#[derive(Default)]
struct Reading {
    extents: Vec<Extent>,
    pending_bytes: usize,
    hashed: u64,
    total: u64,
}

impl Reading {
    /// Reads the next piece; false at the end of the data.
    fn next(
        &mut self,
        pieces: &mut Pieces<'_>,
        hasher: &mut ContentHasher,
        file: BorrowedFd<'_>,
        room: u64,
    ) -> Result<bool, Stop> {
        let Some((offset, length)) = pieces.next(room)? else { return Ok(false) };
        // A piece is never longer than one message.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut buffer = Vec::with_capacity(length);
        content::read_exactly(file, offset, length, &mut buffer)?;
        hasher.zeros(offset - self.hashed);
        hasher.update(&buffer);
        self.hashed = offset + length as u64;
        self.total += length as u64;
        self.pending_bytes += length;
        self.extents.push(Extent { offset, data: Bytes::from(buffer) });
        Ok(true)
    }

    fn take(&mut self) -> Vec<Extent> {
        self.pending_bytes = 0;
        std::mem::take(&mut self.extents)
    }

    fn finish(&self, hasher: &mut ContentHasher, size: u64) -> Digest {
        hasher.zeros(size - self.hashed);
        hasher.finish()
    }
}
