//! What becomes of the entries that are there already.
//!
//! Owns the place in the receiver's own notes, and the rule that they are used up in order: each entry is kept, changed on the
//! spot or dropped, none twice and none silently. Whatever is kept is found on disk as it was noted, or the pass ends.

use std::collections::BTreeMap;

use super::{
    super::{
        cursor::{Cursor, Source},
        digest::{Content, ContentHasher, Digest},
        entry::{Entry, Kind, Metadata, Node},
        error::show,
        manifest::{Reader, Record},
        stamp::Stamp,
    },
    Error, Receiver, State,
    content::{Older, OpenFile, hash_file},
};

const PASSED_OVER: &str = "it passes over something that is here";

/// The receiver's own notes of what is there.
pub(super) struct OwnBase {
    cursor: Cursor,
    /// Depth of a directory that is being dropped: everything below it is gone with it.
    dropping: Option<u32>,
    /// By position in the base: position in this pass of a hard-linked inode that stays where it is.
    pub(super) held: BTreeMap<u64, u64>,
}

impl OwnBase {
    pub(super) fn new(reader: Reader) -> Self {
        Self { cursor: Cursor::new(Source::File(reader)), dropping: None, held: BTreeMap::new() }
    }
}

impl Receiver {
    /// The next entries of the base stay.
    pub(super) fn keep(&mut self, count: u64) -> Result<State, Error> {
        if count == 0 {
            return Err(self.refused(b"", "it keeps nothing"));
        }
        for _ in 0..count {
            self.count_entry()?;
            let (position, record) = self.next_noted()?;
            self.go_to_directory_of(&record.entry)?;
            self.keep_one(position, record)?;
        }
        Ok(State::Steps)
    }

    /// The next entries of the base go.
    pub(super) fn drop_entries(&mut self, count: u64) -> Result<State, Error> {
        if count == 0 {
            return Err(self.refused(b"", "it drops nothing"));
        }
        for _ in 0..count {
            let Some(base) = &mut self.base else {
                return Err(self.refused(b"", "it drops something, and there is nothing here"));
            };
            let Some(record) = base.cursor.take()? else {
                return Err(self.refused(b"", "it drops more than there is"));
            };
            let entry = &record.entry;
            if base.dropping.is_some_and(|depth| entry.depth > depth) {
                continue;
            }
            let is_directory = record.inode().is_some_and(|inode| inode.kind == Kind::Directory);
            base.dropping = is_directory.then_some(entry.depth);
            if entry.depth == 0 {
                return Err(self.refused(b"", "it drops the root"));
            }
            self.go_to_parent_of(entry)?;
            self.writer.remove_noted(&entry.name)?;
        }
        Ok(State::Steps)
    }

    /// The directory of an entry that goes is entered, or the stream has passed it over.
    fn go_to_parent_of(&mut self, entry: &Entry) -> Result<(), Error> {
        let depth = usize::try_from(entry.depth).unwrap_or(usize::MAX);
        if depth > self.writer.depth() {
            return Err(self.refused(&entry.name, "it drops something in a directory that it has not entered"));
        }
        while self.writer.depth() > depth {
            self.leave()?;
        }
        if self.last_names.last().is_some_and(|last| *last >= entry.name) {
            return Err(self.refused(&entry.name, "it drops something that it has passed over"));
        }
        Ok(())
    }

    /// The base's next entry and its position; not one that has gone with its directory.
    fn next_noted(&mut self) -> Result<(u64, Record), Error> {
        let Some(base) = &mut self.base else {
            return Err(self.refused(b"", "it keeps something, and there is nothing here"));
        };
        let position = base.cursor.taken();
        let Some(record) = base.cursor.take()? else {
            return Err(self.refused(b"", "it keeps more than there is"));
        };
        if base.dropping.is_some_and(|depth| record.entry.depth > depth) {
            return Err(self.refused(&record.entry.name, "it keeps something in a directory that it drops"));
        }
        base.dropping = None;
        Ok((position, record))
    }

    /// The base's next entry, which must be a regular file at the place of this one.
    fn noted_file(&mut self, entry: &Entry) -> Result<(u64, Record, Content, Stamp), Error> {
        let (position, record) = self.next_noted()?;
        let same_place = record.entry.depth == entry.depth && record.entry.name == entry.name;
        match (same_place, record.content.clone(), record.stamp) {
            (true, Some(content), Some(stamp)) => Ok((position, record, content, stamp)),
            _ => Err(self.refused(&entry.name, "it stands on a file that is not here")),
        }
    }

    /// An entry comes: everything of the base before it has been dealt with.
    pub(super) fn nothing_passed_over(&mut self, entry: &Entry) -> Result<(), Error> {
        let Some(base) = &mut self.base else { return Ok(()) };
        let passed = base.cursor.peek()?.is_some_and(|next| {
            next.entry.depth > entry.depth || next.entry.depth == entry.depth && next.entry.name < entry.name
        });
        if passed { Err(self.refused(&entry.name, PASSED_OVER)) } else { Ok(()) }
    }

    /// Something new comes: there must be nothing of the base in its place.
    pub(super) fn place_is_free(&mut self, entry: &Entry) -> Result<(), Error> {
        let Some(base) = &mut self.base else { return Ok(()) };
        let taken =
            base.cursor.peek()?.is_some_and(|next| next.entry.depth == entry.depth && next.entry.name == entry.name);
        if taken { Err(self.refused(&entry.name, PASSED_OVER)) } else { Ok(()) }
    }

    /// The stream ends: everything of the base has been dealt with.
    pub(super) fn nothing_left(&mut self) -> Result<(), Error> {
        let Some(base) = &mut self.base else { return Ok(()) };
        if base.cursor.peek()?.is_some() { Err(self.refused(b"", PASSED_OVER)) } else { Ok(()) }
    }

    /// Whether the base has a directory at the place of this one.
    pub(super) fn is_noted_directory(&mut self, entry: &Entry) -> Result<bool, Error> {
        let Some(base) = &mut self.base else { return Ok(false) };
        Ok(base.cursor.peek()?.is_some_and(|next| {
            let is_directory = next.inode().is_some_and(|inode| inode.kind == Kind::Directory);
            is_directory && next.entry.depth == entry.depth && next.entry.name == entry.name
        }))
    }

    fn account_for(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.depth == 0 { Ok(()) } else { self.writer.account_for(&entry.name) }
    }

    fn keep_one(&mut self, position: u64, mut record: Record) -> Result<(), Error> {
        self.account_for(&record.entry)?;
        let name = record.entry.name.clone();
        match &mut record.entry.node {
            Node::HardLink { first } => {
                let now = self.base.as_ref().and_then(|base| base.held.get(first)).copied();
                let source = now.and_then(|now| self.links.get(&now)).and_then(|source| source.noted);
                let (Some(now), Some((identity, _))) = (now, source) else {
                    return Err(self.refused(&name, "it keeps a hard link without what it is one to"));
                };
                *first = now;
                if self.writer.status_of(&name)?.identity != identity {
                    return Err(lost(&self.writer.path_of(&name), "is another inode"));
                }
                self.forget_link(now);
            }
            Node::Inode(inode) if inode.kind == Kind::Directory => {
                self.writer.enter_noted(&name, &inode.metadata, None)?;
                self.last_names.push(bytes::Bytes::new());
            }
            Node::Inode(inode) => {
                let links = inode.links;
                let stamp = self.require_stamp(&record)?;
                let status = self.writer.noted(&name, &stamp)?;
                if let (Some(content), false) = (&record.content, stamp.proves) {
                    self.prove(&name, content, &stamp)?;
                    record.stamp = Some(Stamp::of_own(&status, self.moment));
                }
                if record.content.is_some() {
                    self.changes.bytes_reused += record.regular_size();
                }
                self.remember_link(&name, links, Some((status.identity, position)))?;
            }
        }
        self.add(record);
        Ok(())
    }

    fn require_stamp(&self, record: &Record) -> Result<Stamp, Error> {
        record.stamp.ok_or_else(|| lost(&self.writer.path_of(&record.entry.name), "was noted without its stamp"))
    }

    /// A note that proves nothing is checked against the disk.
    fn prove(&mut self, name: &[u8], content: &Content, stamp: &Stamp) -> Result<(), Error> {
        let (file, status) = self.writer.open_noted(name, stamp, false)?;
        let found = hash_file(&file, &status, &mut ContentHasher::new(), &self.writer.path_of(name))?;
        if found.digest == content.digest { Ok(()) } else { Err(lost(&self.writer.path_of(name), "has other content")) }
    }

    /// A directory that stays and gets other metadata.
    pub(super) fn change_directory(&mut self, entry: &Entry, metadata: &Metadata) -> Result<(), Error> {
        let (_, record) = self.next_noted()?;
        self.account_for(entry)?;
        let Some(noted) = record.inode() else { return Ok(()) };
        self.writer.enter_noted(&entry.name, &noted.metadata, Some(metadata))
    }

    /// A regular file that keeps its content and gets other metadata.
    pub(super) fn change_file(
        &mut self,
        entry: Entry,
        metadata: &Metadata,
        links: u32,
        digest: Digest,
    ) -> Result<State, Error> {
        let (position, record, content, stamp) = self.noted_file(&entry)?;
        let size = record.regular_size();
        let same = Node::Inode(super::Inode {
            metadata: metadata.clone(),
            links,
            kind: Kind::Regular { size, body: super::Body::Held { digest } },
        });
        if content.digest != digest || same != entry.node {
            return Err(self.refused(&entry.name, "it holds content that is not here"));
        }
        self.account_for(&entry)?;
        let (file, status) = self.writer.open_noted(&entry.name, &stamp, true)?;
        if !stamp.proves {
            self.prove(&entry.name, &content, &stamp)?;
        }
        self.remember_link(&entry.name, links, Some((status.identity, position)))?;
        self.writer.strip_file(&entry.name, &file)?;
        let status = self.writer.finish_file(&entry.name, &file, metadata, size)?;
        self.changes.files_changed += 1;
        self.changes.bytes_changed += size;
        self.changes.bytes_reused += size;
        let stamp = Stamp::of_own(&status, self.moment);
        self.add(Record::new(entry, Some(content), Some(stamp)));
        Ok(State::Steps)
    }

    /// A regular file that keeps some of its blocks.
    pub(super) fn begin_patch(
        &mut self,
        entry: Entry,
        metadata: Metadata,
        links: u32,
        size: u64,
    ) -> Result<State, Error> {
        let (position, record, content, stamp) = self.noted_file(&entry)?;
        self.account_for(&entry)?;
        let (file, status) = self.writer.open_noted(&entry.name, &stamp, true)?;
        if !stamp.proves {
            self.prove(&entry.name, &content, &stamp)?;
        }
        self.remember_link(&entry.name, links, Some((status.identity, position)))?;
        let older = Older { blocks: content.blocks, size: record.regular_size() };
        Ok(State::Content(Box::new(OpenFile { file, entry, metadata, size, position: 0, older: Some(older) })))
    }
}

fn lost(path: &[u8], what: &str) -> Error {
    Error::BaseLost { cause: format!("`{}` {what}", show(path)) }
}
