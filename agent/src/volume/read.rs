//! Reading the content of regular files: small ones whole, large ones block by block.
//!
//! Owns hashing while reading, and what becomes of a file that is written to meanwhile: what is gone counts as a hole, and the
//! reading says that it is not whole. Knows nothing of entries and order.

use std::os::fd::BorrowedFd;

use bytes::Bytes;

use super::{
    Error,
    content::{self, Pieces, Stop},
    digest::{BLOCK_BYTES, Content, ContentHasher, Digest, block_end},
    entry::{Body, CHUNK_BYTES_MAX, Chunk, EXTENTS_MAX, Extent, INLINE_BYTES_MAX, Span},
    inode::Status,
    walk::Expect,
};

/// A file up to this size is read before anything is said about it: it fits into one chunk.
pub(super) const SMALL_BYTES_MAX: u64 = BLOCK_BYTES;

/// A hasher that is used again for each file.
pub(super) struct Contents {
    expect: Expect,
    hasher: ContentHasher,
}

/// A small file.
pub(super) struct Small {
    pub(super) extents: Vec<Extent>,
    pub(super) content: Content,
    /// False when it became shorter while it was read.
    pub(super) whole: bool,
}

/// How a small file travels.
pub(super) struct SmallFile {
    pub(super) body: Body,
    pub(super) chunk: Option<Chunk>,
}

/// In its batch, or behind it.
pub(super) fn small_file(size: u64, extents: Vec<Extent>, digest: Digest) -> SmallFile {
    if size <= INLINE_BYTES_MAX {
        return SmallFile { body: Body::Inline { extents, digest }, chunk: None };
    }
    let chunk = Chunk { extents, held: Vec::new(), end: Some(digest) };
    SmallFile { body: Body::Streamed, chunk: Some(chunk) }
}

impl Contents {
    pub(super) fn new(expect: Expect) -> Self {
        Self { expect, hasher: ContentHasher::new() }
    }

    /// Reads a file that fits into one block.
    pub(super) fn small(&mut self, file: BorrowedFd<'_>, status: &Status) -> Result<Small, Stop> {
        let mut pieces = Pieces::new(file, status.size, status.allocated);
        let (mut extents, mut position, mut whole) = (Vec::new(), 0, true);
        while let Some((offset, length)) = pieces.next(SMALL_BYTES_MAX)? {
            let (data, complete) = self.read(file, offset, length)?;
            whole &= complete;
            if !data.is_empty() {
                self.hasher.zeros(offset - position);
                self.hasher.update(&data);
                position = offset + data.len() as u64;
                extents.push(Extent { offset, data });
            }
            if !complete {
                break;
            }
        }
        self.hasher.zeros(status.size - position);
        Ok(Small { extents, content: self.hasher.finish(), whole })
    }

    /// Begins to read a file of several blocks. `older` has the digests of the blocks that the receiver has, and that file's size.
    pub(super) fn large<'a>(
        &'a mut self,
        file: BorrowedFd<'a>,
        status: &Status,
        older: Option<(Vec<Digest>, u64)>,
    ) -> Large<'a> {
        let pieces = Pieces::new(file, status.size, status.allocated);
        let (older, older_size) = older.unwrap_or_default();
        let chunk = Chunk::default();
        Large {
            contents: self,
            file,
            size: status.size,
            pieces,
            ahead: None,
            older,
            older_size,
            chunk,
            chunk_bytes: 0,
            whole: true,
        }
    }

    /// Reads up to `length` bytes; whether all of them were there.
    fn read(&self, file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(Bytes, bool), Stop> {
        // A piece is never longer than a block.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut buffer = Vec::with_capacity(length);
        match content::read_exactly(file, offset, length, &mut buffer) {
            Ok(()) => Ok((Bytes::from(buffer), true)),
            Err(Stop::Shrunk) if self.expect == Expect::Live => Ok((Bytes::from(buffer), false)),
            Err(stop) => Err(stop),
        }
    }
}

/// A large file while it is read.
pub(super) struct Large<'a> {
    contents: &'a mut Contents,
    file: BorrowedFd<'a>,
    size: u64,
    pieces: Pieces<'a>,
    /// Data that lies ahead, as offset and length.
    ahead: Option<(u64, u64)>,
    older: Vec<Digest>,
    older_size: u64,
    chunk: Chunk,
    chunk_bytes: usize,
    /// False when it became shorter while it was read.
    pub(super) whole: bool,
}

impl Large<'_> {
    /// Reads all blocks and hands out chunks, all but the last.
    pub(super) fn blocks(
        &mut self,
        sink: &mut dyn FnMut(Chunk) -> Result<(), Error>,
        path: &[u8],
    ) -> Result<(), Error> {
        let mut start = 0;
        while start < self.size {
            let end = block_end(start, self.size);
            let extents = self.block(start, end).map_err(|stop| stop.at(path))?;
            let digest = self.contents.hasher.digest_of_block(&extents, start, end);
            let data_bytes = extents.iter().map(|extent| extent.data.len()).sum::<usize>();
            self.contents.hasher.known_block(digest, data_bytes as u64);
            let number = usize::try_from(start / BLOCK_BYTES).unwrap_or(usize::MAX);
            let same_length = block_end(start, self.older_size) == end;
            if same_length && self.older.get(number) == Some(&digest) {
                self.held(start, end, sink)?;
            } else {
                self.sent(extents, data_bytes, sink)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Hands out the last chunk; what is known of the content.
    pub(super) fn finish(self, sink: &mut dyn FnMut(Chunk) -> Result<(), Error>) -> Result<Content, Error> {
        let content = self.contents.hasher.finish();
        sink(Chunk { end: Some(content.digest), ..self.chunk })?;
        Ok(content)
    }

    /// The data of one block. What can no longer be read counts as a hole.
    fn block(&mut self, start: u64, end: u64) -> Result<Vec<Extent>, Stop> {
        let mut extents = Vec::new();
        while self.whole {
            if self.ahead.is_none() {
                self.ahead = self.pieces.next(u64::MAX)?;
            }
            let Some((offset, length)) = self.ahead.filter(|(offset, _)| *offset < end) else { break };
            debug_assert!(offset >= start, "data behind the block");
            let now = length.min(end - offset);
            let (data, complete) = self.contents.read(self.file, offset, now)?;
            self.whole = complete;
            if !data.is_empty() {
                extents.push(Extent { offset, data });
            }
            self.ahead = (now < length).then_some((offset + now, length - now));
        }
        Ok(extents)
    }

    fn held(&mut self, start: u64, end: u64, sink: &mut dyn FnMut(Chunk) -> Result<(), Error>) -> Result<(), Error> {
        match self.chunk.held.last_mut() {
            Some(last) if last.offset + last.length == start => last.length += end - start,
            _ => {
                if self.chunk.held.len() == EXTENTS_MAX {
                    self.flush(sink)?;
                }
                self.chunk.held.push(Span { offset: start, length: end - start });
            }
        }
        Ok(())
    }

    fn sent(
        &mut self,
        extents: Vec<Extent>,
        data_bytes: usize,
        sink: &mut dyn FnMut(Chunk) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.chunk_bytes + data_bytes > CHUNK_BYTES_MAX || self.chunk.extents.len() + extents.len() > EXTENTS_MAX {
            self.flush(sink)?;
        }
        self.chunk_bytes += data_bytes;
        self.chunk.extents.extend(extents);
        Ok(())
    }

    fn flush(&mut self, sink: &mut dyn FnMut(Chunk) -> Result<(), Error>) -> Result<(), Error> {
        self.chunk_bytes = 0;
        sink(std::mem::take(&mut self.chunk))
    }
}

impl Stop {
    /// As an error of the file at `path`.
    pub(super) fn at(self, path: &[u8]) -> Error {
        match self {
            Self::Shrunk => Error::changed(path, "became shorter"),
            Self::Failed(errno) => Error::io("read", path, errno),
        }
    }
}
