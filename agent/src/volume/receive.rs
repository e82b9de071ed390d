//! The receiving end: takes frames one by one and makes the tree they describe, from nothing or from what is there.
//!
//! Owns every rule of the stream; see `volume_stream.proto` for them in prose. Trusts nothing in a frame: what breaks a rule,
//! a digest or a limit is refused, and after a refusal nothing more is taken. Nor does it trust its own notes of what is there:
//! whatever is kept is looked at on disk, and read again where the notes prove nothing. Memory: the frame at hand, the names of
//! the directories on the way, and the path of each hard-linked inode whose other names have not come yet.

mod base;
mod content;
mod crew;

use std::{collections::BTreeMap, os::fd::OwnedFd};

use bytes::Bytes;

use super::{
    Error,
    digest::{ContentHasher, Summary, TreeHasher},
    entry::{
        BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, BaseUse, Batch, Body, Entry, Frame, Header, Inode, Kind, Node, Step,
        Trailer, VERSION,
    },
    error::show,
    inode::Identity,
    manifest::{Reader, Record},
    notes::Draft,
    stamp::{Moment, Stamp},
    writer::TreeWriter,
};
use base::OwnBase;
use content::OpenFile;
use crew::Crew;

/// What a volume may take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of file content that are not holes, written by this stream.
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
    /// What is being done.
    pub phase: Phase,
    /// Regular files dealt with.
    pub files: u64,
    /// Names dealt with.
    pub entries: u64,
    /// Apparent bytes of regular files dealt with.
    pub bytes: u64,
    /// The sender's estimate of all bytes, 0 when unknown.
    pub total_bytes_hint: u64,
    /// The sender's estimate of all files, 0 when unknown.
    pub total_files_hint: u64,
    /// Bytes of messages that came; counted by whoever feeds the frames.
    pub wire_bytes: u64,
    /// Frames wait for the disk here, not for the link.
    pub behind: bool,
}

/// What a transfer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Finding out what is there.
    #[default]
    Preparing,
    /// Taking frames.
    Receiving,
    /// Bringing everything to disk.
    Syncing,
}

/// How a received volume came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Regular files that were sent or got other metadata.
    pub files_changed: u64,
    /// Apparent bytes of them.
    pub bytes_changed: u64,
    /// Apparent bytes of content that was there.
    pub bytes_reused: u64,
}

enum State {
    Start,
    Steps,
    Content(Box<OpenFile>),
    Done(Trailer, Summary),
    /// A frame was refused.
    Failed,
}

struct LinkSource {
    path: Vec<u8>,
    remaining: u32,
    /// Of an inode that was there, with its position in the base.
    noted: Option<(Identity, u64)>,
}

/// What a receiver begins with.
pub(super) struct Onto {
    pub(super) root: OwnedFd,
    /// What is noted of what lies there; `None`: it must be empty.
    pub(super) base: Option<Reader>,
    /// Where this pass is noted.
    pub(super) draft: Option<Draft>,
    pub(super) limits: Limits,
}

/// Writes one volume from frames.
pub struct Receiver {
    writer: TreeWriter,
    limits: Limits,
    state: State,
    tree: TreeHasher,
    content: ContentHasher,
    moment: Moment,
    base: Option<OwnBase>,
    draft: Option<Draft>,
    /// For each directory on the way: the last name in it.
    last_names: Vec<Bytes>,
    crew: Crew,
    links: BTreeMap<u64, LinkSource>,
    link_bytes: usize,
    written_bytes: u64,
    changes: Changes,
    hints: (u64, u64),
}

/// A volume that was received whole.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) trailer: Trailer,
    pub(super) summary: Summary,
    pub(super) changes: Changes,
    pub(super) draft: Option<Draft>,
}

impl Receiver {
    /// Starts in an empty directory.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Io`].
    pub fn new(root: OwnedFd, limits: Limits) -> Result<Self, Error> {
        Self::onto(Onto { root, base: None, draft: None, limits })
    }

    /// Starts in an empty directory, or where everything is noted.
    pub(super) fn onto(onto: Onto) -> Result<Self, Error> {
        let Onto { root, base, draft, limits } = onto;
        let writer = if base.is_some() { TreeWriter::begin_onto(root)? } else { TreeWriter::begin(root)? };
        Ok(Self {
            writer,
            limits,
            state: State::Start,
            tree: TreeHasher::new(),
            content: ContentHasher::new(),
            moment: Moment::now(),
            base: base.map(OwnBase::new),
            draft,
            last_names: Vec::new(),
            crew: Crew::default(),
            links: BTreeMap::new(),
            link_bytes: 0,
            written_bytes: 0,
            changes: Changes::default(),
            hints: (0, 0),
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
            (State::Done(..), _) => Err(self.refused(b"", "there is a frame after the trailer")),
            (State::Content(open), Frame::Chunk(chunk)) => self.chunk(open, &chunk),
            (State::Content(open), _) => Err(self.refused(&open.entry.name, "the content of a file is incomplete")),
            (State::Steps, Frame::Header(_)) => Err(self.refused(b"", "there is a second header")),
            (State::Steps, Frame::Batch(batch)) => self.batch(batch),
            (State::Steps, Frame::Chunk(_)) => Err(self.refused(b"", "there is content without a file")),
            (State::Steps, Frame::Trailer(trailer)) => self.trailer(trailer),
        };
        self.state = next.map_err(|error| self.with_needed_space(error))?;
        Ok(())
    }

    /// Ends the stream; the summary of what was written.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the trailer has not come.
    pub fn finish(self) -> Result<Summary, Error> {
        self.received().map(|received| received.summary)
    }

    /// The same, with everything there is to say about it.
    pub(super) fn received(self) -> Result<Received, Error> {
        match self.state {
            State::Done(trailer, summary) => {
                Ok(Received { trailer, summary, changes: self.changes, draft: self.draft })
            }
            _ => Err(Error::Truncated { entries: self.tree.tally().entries }),
        }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let tally = if let State::Done(_, summary) = &self.state { summary } else { self.tree.tally() };
        let open = if let State::Content(open) = &self.state { open.position } else { 0 };
        Progress {
            phase: Phase::Receiving,
            files: tally.files,
            entries: tally.entries,
            bytes: tally.bytes.saturating_add(open),
            total_files_hint: self.hints.0,
            total_bytes_hint: self.hints.1,
            wire_bytes: 0,
            behind: false,
        }
    }

    fn header(&mut self, header: &Header) -> Result<State, Error> {
        if header.version != VERSION {
            return Err(self.refused(b"", "its format version is unknown here; upgrade the older agent"));
        }
        if self.base.is_none() && header.base != BaseUse::Nothing {
            return Err(self.refused(b"", "it builds on something, and there is nothing here"));
        }
        self.hints = (header.total_files, header.total_bytes);
        Ok(State::Steps)
    }

    fn batch(&mut self, batch: Batch) -> Result<State, Error> {
        if batch.steps.is_empty() || batch.steps.len() > BATCH_ENTRIES_MAX {
            return Err(self.refused(b"", "a batch is empty or has too many entries"));
        }
        if batch.steps.iter().map(Step::weight).sum::<usize>() > BATCH_BYTES_MAX {
            return Err(self.refused(b"", "a batch is too large"));
        }
        let mut state = State::Steps;
        for step in batch.steps {
            if let State::Content(open) = state {
                return Err(self.refused(&open.entry.name, "a streamed file is followed by another entry"));
            }
            state = match step {
                Step::Entry(entry) => self.entry(entry)?,
                Step::Keep(count) => self.keep(count)?,
                Step::Drop(count) => self.drop_entries(count)?,
            };
        }
        self.catch_up()?;
        Ok(state)
    }

    fn entry(&mut self, entry: Entry) -> Result<State, Error> {
        self.count_entry()?;
        entry.check().map_err(|problem| self.refused(&entry.name, problem))?;
        self.nothing_passed_over(&entry)?;
        self.go_to_directory_of(&entry)?;
        match entry.node.clone() {
            Node::HardLink { first } => {
                self.place_is_free(&entry)?;
                self.hard_link(&entry.name, first)?;
                self.add(Record::new(entry, None, None));
                Ok(State::Steps)
            }
            Node::Inode(inode) => self.inode(entry, inode),
        }
    }

    fn count_entry(&self) -> Result<(), Error> {
        if self.tree.tally().entries >= self.limits.max_entries {
            return Err(Error::TooLarge { what: "entries", limit: self.limits.max_entries });
        }
        Ok(())
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
            self.leave()?;
        }
        if self.last_names.last().is_some_and(|last| *last >= entry.name) {
            return Err(self.refused(&entry.name, "names are out of order"));
        }
        if let Some(last) = self.last_names.last_mut() {
            *last = entry.name.clone();
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Error> {
        self.writer.leave_unsealed()?;
        self.last_names.pop();
        Ok(())
    }

    fn inode(&mut self, entry: Entry, inode: Inode) -> Result<State, Error> {
        let Inode { metadata, links, kind } = inode;
        match kind {
            Kind::Directory => {
                if self.is_noted_directory(&entry)? {
                    self.change_directory(&entry, &metadata)?;
                } else if entry.depth == 0 {
                    self.writer.set_directory_metadata(metadata);
                } else {
                    self.place_is_free(&entry)?;
                    self.writer.create_directory(entry.name.clone(), metadata)?;
                }
                self.last_names.push(Bytes::new());
                self.add(Record::new(entry, None, None));
                Ok(State::Steps)
            }
            Kind::Regular { body: Body::Held { digest }, .. } => self.change_file(entry, &metadata, links, digest),
            Kind::Regular { size, body: Body::Patched } => self.begin_patch(entry, metadata, links, size),
            Kind::Regular { size, body } => {
                self.place_is_free(&entry)?;
                self.remember_link(&entry.name, links, None)?;
                if let Body::Inline { extents, digest } = body {
                    return self.new_file(entry, metadata, size, (extents, digest));
                }
                let file = self.writer.create_file(&entry.name)?;
                Ok(State::Content(Box::new(OpenFile { file, entry, metadata, size, position: 0, older: None })))
            }
            kind => {
                self.place_is_free(&entry)?;
                self.remember_link(&entry.name, links, None)?;
                let status = self.writer.create_special(&entry.name, &kind, &metadata)?;
                let stamp = Stamp::of_own(&status, self.moment);
                self.add(Record::new(entry, None, Some(stamp)));
                Ok(State::Steps)
            }
        }
    }

    fn remember_link(&mut self, name: &[u8], links: u32, noted: Option<(Identity, u64)>) -> Result<(), Error> {
        if links < 2 {
            return Ok(());
        }
        let path = self.writer.path_of(name);
        self.link_bytes += path.len() + LINK_BYTES;
        if self.link_bytes > self.limits.max_link_bytes {
            let limit = self.limits.max_link_bytes as u64;
            return Err(Error::TooLarge { what: "bytes of paths of hard-linked files", limit });
        }
        let now = self.tree.tally().entries;
        if let (Some((_, position)), Some(base)) = (noted, &mut self.base) {
            base.held.insert(position, now);
        }
        self.links.insert(now, LinkSource { path, remaining: links - 1, noted });
        Ok(())
    }

    fn hard_link(&mut self, name: &[u8], first: u64) -> Result<(), Error> {
        let Some(source) = self.links.get(&first) else {
            return Err(self.refused(name, "a hard link names no earlier entry that may have one"));
        };
        let path = source.path.clone();
        // Its first name may be among what was put off.
        self.catch_up()?;
        self.writer.create_link(&path, name)?;
        self.forget_link(first);
        Ok(())
    }

    /// One more name of a hard-linked inode has come.
    fn forget_link(&mut self, first: u64) {
        let Some(source) = self.links.get_mut(&first) else { return };
        source.remaining -= 1;
        if source.remaining == 0 {
            self.link_bytes -= source.path.len() + LINK_BYTES;
            if let (Some((_, position)), Some(base)) = (source.noted, &mut self.base) {
                base.held.remove(&position);
            }
            self.links.remove(&first);
        }
    }

    fn trailer(&mut self, trailer: Trailer) -> Result<State, Error> {
        if self.tree.tally().entries == 0 {
            return Err(self.refused(b"", "the stream has no root"));
        }
        self.nothing_left()?;
        self.writer.finish()?;
        let tree = std::mem::replace(&mut self.tree, TreeHasher::new());
        // The receiver never sees a socket; all else is its own count.
        let received = tree.finish(trailer.summary.skipped_sockets);
        if !received.same_content(&trailer.summary) {
            return Err(Error::Disagree { sent: Box::new(trailer.summary), received: Box::new(received) });
        }
        if let Some(draft) = &mut self.draft {
            draft.finish(&received);
        }
        Ok(State::Done(trailer, received))
    }

    fn refused(&self, name: &[u8], problem: &'static str) -> Error {
        Error::Refused { ordinal: self.tree.tally().entries, path: show(&self.writer.path_of(name)), problem }
    }

    /// On a full disk, says how much is still to come.
    fn with_needed_space(&self, error: Error) -> Error {
        match error {
            Error::NoSpace { path, free_bytes, .. } => {
                let needed_bytes = self.hints.1.saturating_sub(self.tree.tally().bytes);
                Error::NoSpace { path, free_bytes, needed_bytes }
            }
            other => other,
        }
    }
}

/// What a remembered link takes beside its path.
const LINK_BYTES: usize = 64;
