//! The receiving end: takes frames one by one and writes the tree they describe.
//!
//! Owns every rule of the stream; see `volume_stream.proto` for them in prose. Trusts nothing in a frame: what breaks a rule,
//! a digest or a limit is refused, and after a refusal nothing more is taken. Memory: the frame at hand, one name per level,
//! and the path of each hard-linked inode whose other names have not come yet.

use std::{collections::BTreeMap, fs::File, os::fd::OwnedFd, os::unix::fs::FileExt as _};

use bytes::Bytes;

use super::{
    Error,
    digest::{ContentHasher, Digest, Summary, TreeHasher},
    entry::{
        BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, Batch, Body, CHUNK_BYTES_MAX, Chunk, Entry, Extent, Frame, Header, Inode,
        Kind, Metadata, Node, VERSION, check_extents,
    },
    error::show,
    writer::TreeWriter,
};

/// What a volume may take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of file content that are not holes.
    pub max_bytes: u64,
    /// Names.
    pub max_entries: u64,
    /// Memory for the paths of hard-linked files whose other names have not come yet.
    pub max_link_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: u64::MAX, max_entries: u64::MAX, max_link_bytes: 256 << 20 }
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Regular files written.
    pub files: u64,
    /// Names written.
    pub entries: u64,
    /// Apparent bytes of regular files written.
    pub bytes: u64,
    /// The sender's estimate of all bytes, 0 when unknown.
    pub total_bytes_hint: u64,
}

/// A streamed or inline file while its content comes.
struct OpenFile {
    file: File,
    entry: Entry,
    metadata: Metadata,
    size: u64,
    /// End of what was written or skipped so far.
    position: u64,
}

enum State {
    Start,
    Entries,
    Content(Box<OpenFile>),
    Done(Summary),
    /// A frame was refused.
    Failed,
}

struct LinkSource {
    path: Vec<u8>,
    remaining: u32,
}

/// Writes one volume from frames.
pub struct Receiver {
    writer: TreeWriter,
    limits: Limits,
    state: State,
    tree: TreeHasher,
    content: ContentHasher,
    /// For each directory on the way: the last name in it.
    last_names: Vec<Bytes>,
    links: BTreeMap<u64, LinkSource>,
    link_bytes: usize,
    total_bytes_hint: u64,
}

impl Receiver {
    /// Starts in an empty directory.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Io`].
    pub fn new(root: OwnedFd, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            writer: TreeWriter::begin(root)?,
            limits,
            state: State::Start,
            tree: TreeHasher::new(),
            content: ContentHasher::new(),
            last_names: Vec::new(),
            links: BTreeMap::new(),
            link_bytes: 0,
            total_bytes_hint: 0,
        })
    }

    /// Takes the next frame. After the trailer everything is on disk.
    ///
    /// # Errors
    /// Any refusal; then the directory holds a part of a volume that must not be used, and no further frame is taken.
    pub fn push(&mut self, frame: Frame) -> Result<(), Error> {
        let state = std::mem::replace(&mut self.state, State::Failed);
        let next = match (state, frame) {
            (State::Start, Frame::Header(header)) => self.header(&header),
            (State::Start, _) => Err(self.refused(b"", "the stream does not begin with its header")),
            (State::Failed, _) => Err(self.refused(b"", "an earlier frame was refused already")),
            (State::Done(_), _) => Err(self.refused(b"", "there is a frame after the trailer")),
            (State::Content(open), Frame::Chunk(chunk)) => self.chunk(open, chunk),
            (State::Content(open), _) => Err(self.refused(&open.entry.name, "the content of a file is incomplete")),
            (State::Entries, Frame::Header(_)) => Err(self.refused(b"", "there is a second header")),
            (State::Entries, Frame::Batch(batch)) => self.batch(batch),
            (State::Entries, Frame::Chunk(_)) => Err(self.refused(b"", "there is content without a file")),
            (State::Entries, Frame::Trailer(sent)) => self.trailer(sent),
        };
        self.state = next.map_err(|error| self.with_needed_space(error))?;
        Ok(())
    }

    /// Ends the stream; the summary of what was written.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the trailer has not come.
    pub fn finish(self) -> Result<Summary, Error> {
        match self.state {
            State::Done(summary) => Ok(summary),
            _ => Err(Error::Truncated { entries: self.tree.tally().entries }),
        }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let tally = if let State::Done(summary) = &self.state { summary } else { self.tree.tally() };
        let open = if let State::Content(open) = &self.state { open.position } else { 0 };
        Progress {
            files: tally.files,
            entries: tally.entries,
            bytes: tally.bytes.saturating_add(open),
            total_bytes_hint: self.total_bytes_hint,
        }
    }

    fn header(&mut self, header: &Header) -> Result<State, Error> {
        if header.version != VERSION {
            return Err(self.refused(b"", "its format version is unknown here; upgrade the older agent"));
        }
        self.total_bytes_hint = header.total_bytes;
        Ok(State::Entries)
    }

    fn batch(&mut self, batch: Batch) -> Result<State, Error> {
        if batch.entries.is_empty() || batch.entries.len() > BATCH_ENTRIES_MAX {
            return Err(self.refused(b"", "a batch is empty or has too many entries"));
        }
        if batch.entries.iter().map(Entry::weight).sum::<usize>() > BATCH_BYTES_MAX {
            return Err(self.refused(b"", "a batch is too large"));
        }
        let mut state = State::Entries;
        for entry in batch.entries {
            if let State::Content(open) = state {
                return Err(self.refused(&open.entry.name, "a streamed file is followed by another entry"));
            }
            state = self.entry(entry)?;
        }
        Ok(state)
    }

    fn entry(&mut self, entry: Entry) -> Result<State, Error> {
        if self.tree.tally().entries >= self.limits.max_entries {
            return Err(Error::TooLarge { what: "entries", limit: self.limits.max_entries });
        }
        entry.check().map_err(|problem| self.refused(&entry.name, problem))?;
        self.go_to_directory_of(&entry)?;
        match &entry.node {
            Node::HardLink { first } => {
                self.hard_link(&entry.name, *first)?;
                self.tree.add(&entry, NO_CONTENT);
                Ok(State::Entries)
            }
            Node::Inode(inode) => {
                let inode = inode.clone();
                self.inode(entry, inode)
            }
        }
    }

    /// Leaves directories until the entry's own is the current one, and checks the order of names.
    fn go_to_directory_of(&mut self, entry: &Entry) -> Result<(), Error> {
        let depth = usize::try_from(entry.depth).unwrap_or(usize::MAX);
        let started = self.tree.tally().entries > 0;
        match (started, depth) {
            (false, 0) => return Ok(()),
            (false, _) => return Err(self.refused(&entry.name, "the first entry is not the root")),
            (true, 0) => return Err(self.refused(&entry.name, "there is a second root")),
            (true, _) => {}
        }
        if depth > self.writer.depth() {
            return Err(self.refused(&entry.name, "it lies in no directory of the stream"));
        }
        while self.writer.depth() > depth {
            self.writer.leave()?;
            self.last_names.pop();
        }
        if self.last_names.last().is_some_and(|last| *last >= entry.name) {
            return Err(self.refused(&entry.name, "names are out of order"));
        }
        if let Some(last) = self.last_names.last_mut() {
            *last = entry.name.clone();
        }
        Ok(())
    }

    fn inode(&mut self, entry: Entry, inode: Inode) -> Result<State, Error> {
        let Inode { metadata, links, kind } = inode;
        match kind {
            Kind::Directory => {
                if entry.depth == 0 {
                    self.writer.set_directory_metadata(metadata);
                } else {
                    self.writer.create_directory(entry.name.clone(), metadata)?;
                }
                self.last_names.push(Bytes::new());
                self.tree.add(&entry, NO_CONTENT);
                Ok(State::Entries)
            }
            Kind::Regular { size, body } => {
                self.remember_link(&entry.name, links)?;
                let file = self.writer.create_file(&entry.name)?;
                let mut open = Box::new(OpenFile { file, entry, metadata, size, position: 0 });
                match body {
                    Body::Streamed => Ok(State::Content(open)),
                    Body::Inline { extents, digest } => {
                        self.extents(&mut open, &extents)?;
                        self.end_of_content(*open, digest)
                    }
                }
            }
            kind => {
                self.remember_link(&entry.name, links)?;
                self.writer.create_special(&entry.name, &kind, &metadata)?;
                self.tree.add(&entry, NO_CONTENT);
                Ok(State::Entries)
            }
        }
    }

    fn chunk(&mut self, mut open: Box<OpenFile>, chunk: Chunk) -> Result<State, Error> {
        let bytes: usize = chunk.extents.iter().map(|extent| extent.data.len()).sum();
        if bytes > CHUNK_BYTES_MAX {
            return Err(self.refused(&open.entry.name, "a chunk is too large"));
        }
        if chunk.extents.is_empty() && chunk.end.is_none() {
            return Err(self.refused(&open.entry.name, "a chunk is empty"));
        }
        self.extents(&mut open, &chunk.extents)?;
        match chunk.end {
            Some(digest) => self.end_of_content(*open, digest),
            None => Ok(State::Content(open)),
        }
    }

    /// Writes pieces of a file, and hashes them with the holes between them.
    fn extents(&mut self, open: &mut OpenFile, extents: &[Extent]) -> Result<(), Error> {
        check_extents(extents, open.position, open.size).map_err(|problem| self.refused(&open.entry.name, problem))?;
        for extent in extents {
            let length = extent.data.len() as u64;
            self.tree.add_data(length);
            if self.tree.tally().data_bytes > self.limits.max_bytes {
                return Err(Error::TooLarge { what: "bytes of data", limit: self.limits.max_bytes });
            }
            self.content.zeros(extent.offset - open.position);
            self.content.update(&extent.data);
            open.file
                .write_all_at(&extent.data, extent.offset)
                .map_err(|error| self.writer.failed("write the file", &open.entry.name, error))?;
            open.position = extent.offset + length;
        }
        Ok(())
    }

    fn end_of_content(&mut self, open: OpenFile, expected: Digest) -> Result<State, Error> {
        let OpenFile { file, entry, metadata, size, position } = open;
        self.content.zeros(size - position);
        let digest = self.content.finish();
        if digest != expected {
            return Err(Error::Corrupt { path: show(&self.writer.path_of(&entry.name)) });
        }
        if position < size {
            // A hole at the end.
            file.set_len(size).map_err(|error| self.writer.failed("write the file", &entry.name, error))?;
        }
        self.writer.finish_file(&entry.name, &file, &metadata, size)?;
        self.tree.add(&entry, digest);
        Ok(State::Entries)
    }

    fn remember_link(&mut self, name: &[u8], links: u32) -> Result<(), Error> {
        if links < 2 {
            return Ok(());
        }
        let path = self.writer.path_of(name);
        self.link_bytes += path.len() + LINK_BYTES;
        if self.link_bytes > self.limits.max_link_bytes {
            let limit = self.limits.max_link_bytes as u64;
            return Err(Error::TooLarge { what: "bytes of paths of hard-linked files", limit });
        }
        self.links.insert(self.tree.tally().entries, LinkSource { path, remaining: links - 1 });
        Ok(())
    }

    fn hard_link(&mut self, name: &[u8], first: u64) -> Result<(), Error> {
        let Some(source) = self.links.get_mut(&first) else {
            return Err(self.refused(name, "a hard link names no earlier entry that may have one"));
        };
        self.writer.create_link(&source.path, name)?;
        source.remaining -= 1;
        if source.remaining == 0 {
            self.link_bytes -= source.path.len() + LINK_BYTES;
            self.links.remove(&first);
        }
        Ok(())
    }

    fn trailer(&mut self, sent: Summary) -> Result<State, Error> {
        if self.tree.tally().entries == 0 {
            return Err(self.refused(b"", "the stream has no root"));
        }
        self.writer.finish()?;
        let tree = std::mem::replace(&mut self.tree, TreeHasher::new());
        // The receiver never sees a socket; all else is its own count.
        let received = tree.finish(sent.skipped_sockets);
        if received != sent {
            return Err(Error::Disagree { sent: Box::new(sent), received: Box::new(received) });
        }
        Ok(State::Done(received))
    }

    fn refused(&self, name: &[u8], problem: &'static str) -> Error {
        Error::Refused { ordinal: self.tree.tally().entries, path: show(&self.writer.path_of(name)), problem }
    }

    /// On a full disk, says how much is still to come.
    fn with_needed_space(&self, error: Error) -> Error {
        match error {
            Error::NoSpace { path, free_bytes, .. } => {
                let needed_bytes = self.total_bytes_hint.saturating_sub(self.tree.tally().bytes);
                Error::NoSpace { path, free_bytes, needed_bytes }
            }
            other => other,
        }
    }
}

/// Stands for the content of what has none.
const NO_CONTENT: Digest = Digest([0; 32]);
/// What a remembered link takes beside its path.
const LINK_BYTES: usize = 64;
