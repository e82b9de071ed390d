//! The content of one regular file as it comes: pieces to write, stretches that are there already, and holes between them.

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
};

use rustix::{
    fs::{self, FallocateFlags},
    io::Errno,
};

use super::{
    super::{
        content::{self, Pieces},
        digest::{BLOCK_BYTES, Content, ContentHasher, Digest, block_end},
        entry::{CHUNK_BYTES_MAX, Chunk, Entry, Extent, Metadata, Span, check_extents, check_spans},
        error::show,
        inode::Status,
        manifest::Record,
        stamp::Stamp,
    },
    Error, Receiver, State,
};

/// What was there of a file that is patched.
pub(super) struct Older {
    pub(super) blocks: Vec<Digest>,
    pub(super) size: u64,
}

/// A file while its content comes.
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) entry: Entry,
    pub(super) metadata: Metadata,
    pub(super) size: u64,
    /// End of what was written or skipped so far.
    pub(super) position: u64,
    /// It was there, and is changed on the spot.
    pub(super) older: Option<Older>,
}

impl Receiver {
    pub(super) fn chunk(&mut self, mut open: Box<OpenFile>, chunk: &Chunk) -> Result<State, Error> {
        let bytes: usize = chunk.extents.iter().map(|extent| extent.data.len()).sum();
        if bytes > CHUNK_BYTES_MAX {
            return Err(self.refused(&open.entry.name, "a chunk is too large"));
        }
        if chunk.extents.is_empty() && chunk.held.is_empty() && chunk.end.is_none() {
            return Err(self.refused(&open.entry.name, "a chunk is empty"));
        }
        self.pieces(&mut open, &chunk.extents, &chunk.held)?;
        match chunk.end {
            Some(digest) => self.end_of_content(*open, digest),
            None => Ok(State::Content(open)),
        }
    }

    /// Writes pieces of a file, leaves what is held, and hashes both with the holes between them.
    fn pieces(&mut self, open: &mut OpenFile, extents: &[Extent], held: &[Span]) -> Result<(), Error> {
        let older_size = open.older.as_ref().map_or(0, |older| older.size);
        check_extents(extents, open.position, open.size)
            .and_then(|()| check_spans(held, open.position, open.size, older_size))
            .map_err(|problem| self.refused(&open.entry.name, problem))?;
        let (mut extents, mut held) = (extents.iter().peekable(), held.iter().peekable());
        loop {
            let span_first = match (extents.peek(), held.peek()) {
                (None, None) => return Ok(()),
                (Some(extent), Some(span)) => span.offset < extent.offset,
                (one, _) => one.is_none(),
            };
            if span_first {
                if let Some(span) = held.next() {
                    self.span(open, *span)?;
                }
            } else if let Some(extent) = extents.next() {
                self.extent(open, extent)?;
            }
        }
    }

    fn extent(&mut self, open: &mut OpenFile, extent: &Extent) -> Result<(), Error> {
        let length = extent.data.len() as u64;
        self.hole(open, extent.offset)?;
        self.written_bytes += length;
        if self.written_bytes > self.limits.max_bytes {
            return Err(Error::TooLarge { what: "bytes of data", limit: self.limits.max_bytes });
        }
        self.content.update(&extent.data);
        open.file
            .write_all_at(&extent.data, extent.offset)
            .map_err(|error| self.writer.failed("write the file", &open.entry.name, error))?;
        open.position = extent.offset + length;
        Ok(())
    }

    /// Blocks that are there: what is noted of them was proved when the file was opened.
    fn span(&mut self, open: &mut OpenFile, span: Span) -> Result<(), Error> {
        self.hole(open, span.offset)?;
        let Some(older) = &open.older else { return Ok(()) };
        let end = span.offset + span.length;
        let mut start = span.offset;
        while start < end {
            let number = usize::try_from(start / BLOCK_BYTES).unwrap_or(usize::MAX);
            let (Some(block), true) = (older.blocks.get(number), self.content.at_block()) else {
                return Err(self.refused(&open.entry.name, "it holds blocks that are not here"));
            };
            let next = block_end(start, open.size);
            self.content.known_block(*block, next - start);
            start = next;
        }
        self.changes.bytes_reused += span.length;
        open.position = end;
        Ok(())
    }

    /// Everything up to `end` is a hole; what was there goes.
    fn hole(&mut self, open: &mut OpenFile, end: u64) -> Result<(), Error> {
        let Some(length) = end.checked_sub(open.position) else {
            return Err(self.refused(&open.entry.name, "extents overlap or are out of order"));
        };
        self.content.zeros(length);
        let filled = open.older.as_ref().map_or(0, |older| older.size).min(end).saturating_sub(open.position);
        if filled > 0 {
            punch(&open.file, open.position, filled)
                .map_err(|error| self.writer.failed("make a hole in", &open.entry.name, error))?;
        }
        open.position = end;
        Ok(())
    }

    fn end_of_content(&mut self, mut open: OpenFile, expected: Digest) -> Result<State, Error> {
        let written = open.position;
        let size = open.size;
        self.hole(&mut open, size)?;
        let OpenFile { file, entry, metadata, older, .. } = open;
        let content = self.content.finish();
        if content.digest != expected {
            return Err(Error::Corrupt { path: show(&self.writer.path_of(&entry.name)) });
        }
        if older.as_ref().map_or(written, |older| older.size) != size {
            // A hole at the end, or what is too much.
            file.set_len(size).map_err(|error| self.writer.failed("write the file", &entry.name, error))?;
        }
        if older.is_some() {
            self.writer.strip_file(&entry.name, &file)?;
        }
        let status = self.writer.finish_file(&entry.name, &file, &metadata, size)?;
        self.changes.files_changed += 1;
        self.changes.bytes_changed += size;
        let stamp = Stamp::of_own(&status, self.moment);
        self.add(Record::new(entry, Some(content), Some(stamp)));
        Ok(State::Steps)
    }
}

/// Makes a hole; where the file system has none, zeros.
fn punch(file: &File, offset: u64, length: u64) -> std::io::Result<()> {
    match fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        punched => return punched.map_err(Into::into),
    }
    let zeros = [0; 64 * 1024];
    let mut at = offset;
    while at < offset + length {
        let step = (offset + length - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..usize::try_from(step).unwrap_or(zeros.len())], at)?;
        at += step;
    }
    Ok(())
}

/// Reads and hashes a file that lies still.
pub(super) fn hash_file(
    file: &File,
    status: &Status,
    hasher: &mut ContentHasher,
    path: &[u8],
) -> Result<Content, Error> {
    let mut pieces = Pieces::new(file.as_fd(), status.size, status.allocated);
    let (mut position, mut buffer) = (0, Vec::new());
    while let Some((offset, length)) = pieces.next(BLOCK_BYTES).map_err(|stop| stop.at(path))? {
        buffer.clear();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        content::read_exactly(file.as_fd(), offset, length, &mut buffer).map_err(|stop| stop.at(path))?;
        hasher.zeros(offset - position);
        hasher.update(&buffer);
        position = offset + buffer.len() as u64;
    }
    hasher.zeros(status.size - position);
    Ok(hasher.finish())
}
