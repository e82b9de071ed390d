//! The sending end: one pass over a volume, as frames.
//!
//! Owns the decision what of a volume the receiver has already, reading and hashing what it has not, and the manifest of what
//! was seen. Refuses to know where frames go: a sink takes them one by one and may say stop. A still source that changes
//! meanwhile is an error; one in use is sent as it was seen, and the next pass finds what has changed since.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use tokio_util::sync::CancellationToken;

use super::{
    Error,
    cursor::{Cursor, Source},
    digest::{Content, Summary, TreeHasher},
    entry::{
        BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX, BaseUse, Batch, Body, Entry, FILE_BYTES_MAX, Frame, Header, Inode, Kind,
        Node, Step, Trailer, VERSION,
    },
    inode::Status,
    manifest::{Reader, Record},
    notes::Draft,
    read::{Contents, SMALL_BYTES_MAX, Small},
    stamp::{Moment, Stamp},
    walk::{Expect, Found, Item, Walk},
};

/// Takes frames, one by one.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Frame) -> Result<(), Error>;

/// What the receiver of a pass has.
pub(super) enum Base {
    /// Nothing.
    Nothing,
    /// What the first of the known manifests lists.
    Shared,
    /// What it tells.
    Listed(Box<dyn FnMut() -> Result<Option<Record>, Error> + Send>),
}

/// How a pass over a source is made.
pub(super) struct Pass {
    pub(super) expect: Expect,
    /// When it began; for a source in use, before everything was brought to disk.
    pub(super) moment: Moment,
    /// Manifests in which digests may be found, the likeliest first.
    pub(super) known: Vec<Reader>,
    pub(super) base: Base,
    /// Where the manifest of this pass is written.
    pub(super) draft: Option<Draft>,
    /// Files and bytes to expect, for progress.
    pub(super) expected: (u64, u64),
    /// Ends the pass at the next entry or block. Who has a sink may refuse there as well.
    pub(super) stop: CancellationToken,
}

impl Pass {
    /// Everything is read, nothing is known, nothing is kept.
    pub(super) fn plain(expect: Expect) -> Self {
        let (known, base) = (Vec::new(), Base::Nothing);
        Self {
            expect,
            moment: Moment::now(),
            known,
            base,
            draft: None,
            expected: (0, 0),
            stop: CancellationToken::new(),
        }
    }
}

/// What a pass did.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) summary: Summary,
    /// To be published by whoever is content with the pass.
    pub(super) draft: Option<Draft>,
}

/// Reads a still volume whole and gives every frame to `sink`; returns what the trailer said.
///
/// # Errors
/// [`Error::Changed`] when the source was not still, [`Error::Io`], [`Error::MountInside`], [`Error::Unsupported`], and
/// whatever `sink` returns.
pub fn send(root: OwnedFd, sink: &mut dyn FnMut(Frame) -> Result<(), Error>) -> Result<Summary, Error> {
    pass(root, Pass::plain(Expect::Still), Some(sink)).map(|passed| passed.summary)
}

/// Reads a whole volume again from disk and returns its summary, root digest included.
///
/// # Errors
/// As [`send`].
pub fn scan(root: OwnedFd) -> Result<Summary, Error> {
    pass(root, Pass::plain(Expect::Still), None).map(|passed| passed.summary)
}

/// Goes over a volume once. Without a sink it is only hashed.
pub(super) fn pass(root: OwnedFd, pass: Pass, sink: Option<Sink<'_>>) -> Result<Passed, Error> {
    let Pass { expect, moment, known, base, draft, expected, stop } = pass;
    let mut known: Vec<_> = known.into_iter().map(|reader| Cursor::new(Source::File(reader))).collect();
    let (base, shared) = match base {
        Base::Listed(next) => (Some(Cursor::new(Source::Told(next))), false),
        Base::Shared if !known.is_empty() => (Some(known.remove(0)), true),
        Base::Nothing | Base::Shared => (None, false),
    };
    let uses = match (&base, shared) {
        (None, _) => BaseUse::Nothing,
        (Some(_), true) => BaseUse::Shared,
        (Some(_), false) => BaseUse::Listed,
    };
    let mut sender = Sender {
        walk: Walk::new(root, expect),
        expect,
        moment,
        known,
        base: base.map(|cursor| BaseList { cursor, shared, held: BTreeMap::new() }),
        tree: TreeHasher::new(),
        contents: Contents::new(expect),
        draft,
        left_out: Vec::new(),
        out: sink.map(|sink| Out { sink, batch: Batch::default(), batch_bytes: 0 }),
        read: (0, 0),
        stop,
    };
    sender.header(Header { version: VERSION, total_files: expected.0, total_bytes: expected.1, base: uses })?;
    while let Some(item) = sender.walk.next()? {
        go_on(&sender.stop)?;
        sender.item(item)?;
    }
    sender.finish()
}

fn go_on(stop: &CancellationToken) -> Result<(), Error> {
    if stop.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

/// The receiver's list, and which of its hard-linked inodes stay where they are.
struct BaseList {
    cursor: Cursor,
    /// It is our own last manifest, with stamps.
    shared: bool,
    /// By position in the base: position in this pass, and names that may still follow.
    held: BTreeMap<u64, (u64, u32)>,
}

/// What the receiver has at a place.
struct Had {
    /// Position in its list.
    position: u64,
    record: Record,
}

struct Sender<'a> {
    walk: Walk,
    expect: Expect,
    moment: Moment,
    known: Vec<Cursor>,
    base: Option<BaseList>,
    tree: TreeHasher,
    contents: Contents,
    draft: Option<Draft>,
    /// Positions of the walk that were left out of the stream, because they vanished.
    left_out: Vec<u64>,
    out: Option<Out<'a>>,
    read: (u64, u64),
    stop: CancellationToken,
}

/// What an item looks like now, before its content is read.
struct Sight {
    item: Item,
    had: Option<Had>,
    /// An earlier look at the same untouched inode.
    known: Option<Record>,
}

impl Sender<'_> {
    fn header(&mut self, header: Header) -> Result<(), Error> {
        self.out.as_mut().map_or(Ok(()), |out| (out.sink)(Frame::Header(header)))
    }

    fn item(&mut self, item: Item) -> Result<(), Error> {
        let had = self.had(&item)?;
        let known = self.known(&item, had.as_ref())?;
        let sight = Sight { item, had, known };
        match &sight.item.found {
            Found::HardLink(first) => match self.position_of(*first) {
                Some(first) => {
                    let node = Node::HardLink { first };
                    self.settled(sight, node, None, None)
                }
                // The first name vanished before it could be read: the next pass will see this one as the first.
                None => self.leave_out(sight),
            },
            Found::Regular => match sight.known.as_ref().and_then(|known| known.content.clone()) {
                Some(content) => self.known_file(sight, content),
                None => self.unknown_file(sight),
            },
            Found::Directory => self.plain(sight, Kind::Directory),
            Found::Symlink(target) => {
                let target = target.clone();
                self.plain(sight, Kind::Symlink { target })
            }
            Found::Fifo => self.plain(sight, Kind::Fifo),
            Found::CharacterDevice => {
                let number = sight.item.status.device_number;
                self.plain(sight, Kind::CharacterDevice(number))
            }
            Found::BlockDevice => {
                let number = sight.item.status.device_number;
                self.plain(sight, Kind::BlockDevice(number))
            }
        }
    }

    /// What the receiver has at this place. What it has before it, and the walk did not find, goes.
    fn had(&mut self, item: &Item) -> Result<Option<Had>, Error> {
        let Some(base) = &mut self.base else { return Ok(None) };
        let (gone, record) = base.cursor.go_to(item.depth, &item.name)?;
        let position = base.cursor.taken().saturating_sub(1);
        if gone > 0 {
            self.step(Step::Drop(gone))?;
        }
        Ok(record.map(|record| Had { position, record }))
    }

    /// An earlier look at the inode, if it proves that nothing has changed since.
    fn known(&mut self, item: &Item, had: Option<&Had>) -> Result<Option<Record>, Error> {
        let proves = |record: &Record| record.stamp.is_some_and(|stamp| stamp.proves(&item.status));
        if self.base.as_ref().is_some_and(|base| base.shared)
            && let Some(had) = had
            && proves(&had.record)
        {
            return Ok(Some(had.record.clone()));
        }
        let mut found = None;
        let mut lost = Vec::new();
        for (index, cursor) in self.known.iter_mut().enumerate() {
            match cursor.go_to(item.depth, &item.name) {
                Ok((_, record)) => found = found.or_else(|| record.filter(|record| proves(record))),
                // What cannot be read on helps no further; what it said so far was checked.
                Err(_) => lost.push(index),
            }
        }
        lost.into_iter().rev().for_each(|index| drop(self.known.remove(index)));
        Ok(found)
    }

    /// Anything whose content is not read.
    fn plain(&mut self, sight: Sight, kind: Kind) -> Result<(), Error> {
        let known = sight.known.as_ref().and_then(|known| match &known.entry.node {
            Node::Inode(inode) if inode.kind == kind => Some(inode.metadata.xattrs.clone()),
            _ => None,
        });
        let metadata = match known {
            Some(xattrs) => sight.item.status.metadata(xattrs),
            None => self.walk.metadata(&sight.item, &sight.item.status, None)?,
        };
        let is_directory = kind == Kind::Directory;
        // A directory's count is about its subdirectories, and its time about what happens in it.
        let links = if is_directory { 1 } else { sight.item.status.links.max(1) };
        let stamp = (!is_directory).then(|| Stamp::of_shared(&sight.item.status, self.moment));
        self.settled(sight, Node::Inode(Inode { metadata, links, kind }), None, stamp)
    }

    /// A regular file whose content was hashed before and has not changed.
    fn known_file(&mut self, sight: Sight, content: Content) -> Result<(), Error> {
        let held = sight.had.as_ref().is_some_and(|had| had.record.has(&content));
        let Some(Record { entry: Entry { node: Node::Inode(known), .. }, stamp, .. }) = &sight.known else {
            return self.unknown_file(sight);
        };
        if !held && self.out.is_some() {
            // The receiver lacks it, so it has to be read after all.
            return self.unknown_file(sight);
        }
        let stamp = *stamp;
        let metadata = sight.item.status.metadata(known.metadata.xattrs.clone());
        let kind = Kind::Regular { size: sight.item.status.size, body: Body::Held { digest: content.digest } };
        let inode = Inode { metadata, links: sight.item.status.links.max(1), kind };
        self.settled(sight, Node::Inode(inode), Some(content), stamp)
    }

    fn unknown_file(&mut self, sight: Sight) -> Result<(), Error> {
        let Some((file, status)) = self.walk.open(&sight.item)? else {
            return match self.expect {
                Expect::Live => self.leave_out(sight),
                Expect::Still => Err(Error::changed(&self.walk.path_of(&sight.item), "vanished")),
            };
        };
        if status.size > FILE_BYTES_MAX {
            let path = super::error::show(&self.walk.path_of(&sight.item));
            return Err(Error::Unsupported { path, problem: "it is larger than any file system allows" });
        }
        self.read.0 += 1;
        self.read.1 += status.size;
        if status.size <= SMALL_BYTES_MAX {
            self.small(sight, file.as_fd(), &status)
        } else {
            self.large(sight, file.as_fd(), &status)
        }
    }

    /// Read before anything is said about it: it may turn out to be what the receiver has.
    fn small(&mut self, sight: Sight, file: BorrowedFd<'_>, status: &Status) -> Result<(), Error> {
        let read = self.contents.small(file, status).map_err(|stop| stop.at(&self.walk.path_of(&sight.item)))?;
        let Small { extents, content, whole } = read;
        let metadata = self.walk.metadata(&sight.item, status, Some(file))?;
        let untouched = self.walk.is_unchanged(&sight.item, status, file)? && whole;
        let kind = Kind::Regular { size: status.size, body: Body::Held { digest: content.digest } };
        let inode = Inode { metadata, links: status.links.max(1), kind };
        let stamp = self.stamp(status, untouched);
        let held = sight.had.as_ref().is_some_and(|had| had.record.has(&content));
        if held || self.out.is_none() {
            return self.settled(sight, Node::Inode(inode), Some(content), Some(stamp));
        }
        let steps = super::read::small_file(status.size, extents, content.digest);
        self.new_file(sight, inode, steps, content, stamp)
    }

    /// Sent while it is read, by the block where the receiver has an older one.
    fn large(&mut self, sight: Sight, file: BorrowedFd<'_>, status: &Status) -> Result<(), Error> {
        let metadata = self.walk.metadata(&sight.item, status, Some(file))?;
        let older = sight
            .had
            .as_ref()
            .filter(|had| had.record.content.as_ref().is_some_and(|content| !content.blocks.is_empty()));
        let older = older.map(|had| (had.record.content.clone().unwrap_or_default().blocks, had.record.regular_size()));
        let body = if older.is_some() { Body::Patched } else { Body::Streamed };
        let kind = Kind::Regular { size: status.size, body };
        let inode = Inode { metadata, links: status.links.max(1), kind };
        let entry = Entry { depth: sight.item.depth, name: sight.item.name.clone(), node: Node::Inode(inode) };
        match (&sight.had, older.is_some()) {
            (Some(had), true) => self.hold(had, &entry),
            (Some(had), false) => self.give_up(had)?,
            (None, _) => {}
        }
        self.step(Step::Entry(entry.clone()))?;
        self.flush()?;
        let path = self.walk.path_of(&sight.item);
        let mut sink = self.out.as_mut().map(|out| &mut *out.sink);
        let stop = &self.stop;
        let mut chunks = |chunk| {
            go_on(stop)?;
            sink.as_mut().map_or(Ok(()), |sink| sink(Frame::Chunk(chunk)))
        };
        let mut reading = self.contents.large(file, status, older);
        reading.blocks(&mut chunks, &path)?;
        // Before the digest goes out, so that the receiver never accepts a file that changed under our hands.
        let untouched = self.walk.is_unchanged(&sight.item, status, file)? && reading.whole;
        let content = reading.finish(&mut chunks)?;
        let stamp = self.stamp(status, untouched);
        self.record(entry, Some(content), Some(stamp))
    }

    fn stamp(&self, status: &Status, untouched: bool) -> Stamp {
        let stamp = Stamp::of_shared(status, self.moment);
        Stamp { proves: stamp.proves && untouched, ..stamp }
    }

    /// A file that the receiver lacks, ready to be sent.
    fn new_file(
        &mut self,
        sight: Sight,
        inode: Inode,
        steps: super::read::SmallFile,
        content: Content,
        stamp: Stamp,
    ) -> Result<(), Error> {
        if let Some(had) = &sight.had {
            self.give_up(had)?;
        }
        let Inode { metadata, links, .. } = inode;
        let kind = Kind::Regular { size: stamp.size, body: steps.body };
        let node = Node::Inode(Inode { metadata, links, kind });
        let entry = Entry { depth: sight.item.depth, name: sight.item.name, node };
        self.step(Step::Entry(entry.clone()))?;
        if let Some(chunk) = steps.chunk {
            self.flush()?;
            if let Some(out) = &mut self.out {
                (out.sink)(Frame::Chunk(chunk))?;
            }
        }
        self.record(entry, Some(content), Some(stamp))
    }

    /// An entry of which everything is known: kept, changed on the spot, or new.
    fn settled(
        &mut self,
        sight: Sight,
        node: Node,
        content: Option<Content>,
        stamp: Option<Stamp>,
    ) -> Result<(), Error> {
        let Sight { item, had, .. } = sight;
        let entry = Entry { depth: item.depth, name: item.name, node };
        if self.out.is_some() {
            match had {
                Some(had) if self.same(&had, &entry) => {
                    self.hold(&had, &entry);
                    self.step(Step::Keep(1))?;
                }
                Some(had) if stands_on(&had.record.entry, &entry) => {
                    self.hold(&had, &entry);
                    self.step(Step::Entry(entry.clone()))?;
                }
                had => {
                    if let Some(had) = &had {
                        self.give_up(had)?;
                    }
                    self.step(Step::Entry(entry.clone()))?;
                }
            }
        }
        self.record(entry, content, stamp)
    }

    /// Whether the receiver has exactly this. The names of an inode are the same as before only if its first name is.
    fn same(&self, had: &Had, entry: &Entry) -> bool {
        match (&had.record.entry.node, &entry.node) {
            (Node::HardLink { first: before }, Node::HardLink { first }) => {
                let held = self.base.as_ref().and_then(|base| base.held.get(before));
                held.is_some_and(|(now, _)| now == first)
            }
            (before, now) => before == now,
        }
    }

    /// What the receiver has at this place goes; a directory with everything in it.
    fn give_up(&mut self, had: &Had) -> Result<(), Error> {
        let Some(base) = &mut self.base else { return Ok(()) };
        let below = base.cursor.pass_below(had.record.entry.depth)?;
        self.step(Step::Drop(1 + below))
    }

    /// The receiver's inode at this place stays: other names of it may stay, too.
    fn hold(&mut self, had: &Had, entry: &Entry) {
        let Some(base) = &mut self.base else { return };
        match (&had.record.entry.node, &entry.node) {
            (Node::Inode(before), Node::Inode(_)) if before.links > 1 && before.kind != Kind::Directory => {
                base.held.insert(had.position, (self.tree.tally().entries, before.links - 1));
            }
            (Node::HardLink { first }, _) => {
                if let Some((_, left)) = base.held.get_mut(first) {
                    *left -= 1;
                    if *left == 0 {
                        base.held.remove(first);
                    }
                }
            }
            _ => {}
        }
    }

    /// A name of a live source that vanished between being listed and being read.
    fn leave_out(&mut self, sight: Sight) -> Result<(), Error> {
        self.left_out.push(sight.item.ordinal);
        sight.had.as_ref().map_or(Ok(()), |had| self.give_up(had))
    }

    /// Position in the stream of what the walk found at one of its own.
    fn position_of(&self, ordinal: u64) -> Option<u64> {
        let before = self.left_out.partition_point(|left| *left < ordinal);
        (self.left_out.get(before) != Some(&ordinal)).then(|| ordinal - before as u64)
    }

    fn record(&mut self, entry: Entry, content: Option<Content>, stamp: Option<Stamp>) -> Result<(), Error> {
        self.tree.add(&entry, content.as_ref());
        if let Some(draft) = &mut self.draft {
            draft.add(&Record::new(entry, content, stamp));
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Error> {
        self.out.as_mut().map_or(Ok(()), |out| out.step(step))
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.out.as_mut().map_or(Ok(()), Out::flush)
    }

    fn finish(mut self) -> Result<Passed, Error> {
        let mut gone = 0;
        if let Some(base) = &mut self.base {
            while base.cursor.take()?.is_some() {
                gone += 1;
            }
        }
        if gone > 0 {
            self.step(Step::Drop(gone))?;
        }
        self.flush()?;
        let Self { walk, tree, out, mut draft, read: (files_read, bytes_read), .. } = self;
        let summary = tree.finish(walk.skipped_sockets);
        if let Some(out) = out {
            (out.sink)(Frame::Trailer(Trailer { summary: summary.clone(), files_read, bytes_read }))?;
        }
        if let Some(draft) = &mut draft {
            draft.finish(&summary);
        }
        Ok(Passed { summary, draft })
    }
}

/// Whether an entry can take the place of the receiver's on the same inode, with other metadata at most.
fn stands_on(before: &Entry, now: &Entry) -> bool {
    match (&before.node, &now.node) {
        (Node::Inode(before), Node::Inode(now)) => match (&before.kind, &now.kind) {
            (Kind::Directory, Kind::Directory) => true,
            (Kind::Regular { size: before, body: one }, Kind::Regular { size: now, body: other }) => {
                before == now && one == other
            }
            _ => false,
        },
        _ => false,
    }
}

/// Collects steps into batches.
struct Out<'a> {
    sink: Sink<'a>,
    batch: Batch,
    batch_bytes: usize,
}

impl Out<'_> {
    fn step(&mut self, step: Step) -> Result<(), Error> {
        match (self.batch.steps.last_mut(), &step) {
            (Some(Step::Keep(count)), Step::Keep(more)) | (Some(Step::Drop(count)), Step::Drop(more)) => {
                *count += more;
                return Ok(());
            }
            _ => {}
        }
        let weight = step.weight();
        if self.batch_bytes + weight > BATCH_BYTES_TARGET || self.batch.steps.len() >= BATCH_ENTRIES_MAX - 1 {
            self.flush()?;
        }
        self.batch_bytes += weight;
        self.batch.steps.push(step);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.steps.is_empty() { Ok(()) } else { (self.sink)(Frame::Batch(batch)) }
    }
}
