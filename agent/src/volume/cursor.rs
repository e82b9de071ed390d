//! Following a list of entries beside a walk: both are in wire order, so one look at each entry is enough.
//!
//! Owns the comparison of places and the order that a list must have. Knows nothing of what is done with what is found.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{
    Error,
    entry::{Kind, Node},
    manifest::{Reader, Record},
};

/// Names in one list at most: far more than any disk has inodes, and an end to a list that has none.
const ENTRIES_MAX: u64 = 1 << 32;

/// Where a list comes from.
pub(super) enum Source {
    /// A manifest of our own.
    File(Reader),
    /// Somebody else, who is not trusted to keep the order.
    Told(Box<dyn FnMut() -> Result<Option<Record>, Error> + Send>),
}

/// A place in a list.
pub(super) struct Cursor {
    source: Source,
    next: Option<Record>,
    order: Order,
    taken: u64,
    /// Nothing follows: it has ended, or cannot be read on.
    ended: bool,
}

impl Cursor {
    pub(super) fn new(source: Source) -> Self {
        Self { source, next: None, order: Order::default(), taken: 0, ended: false }
    }

    /// Entries taken so far, which is the position of the next one.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The next entry, which stays.
    pub(super) fn peek(&mut self) -> Result<Option<&Record>, Error> {
        if self.next.is_none() && !self.ended {
            self.next = self.read()?;
            self.ended = self.next.is_none();
        }
        Ok(self.next.as_ref())
    }

    /// The next entry.
    pub(super) fn take(&mut self) -> Result<Option<Record>, Error> {
        self.peek()?;
        let taken = self.next.take();
        self.taken += u64::from(taken.is_some());
        Ok(taken)
    }

    /// Goes to a place, the next one of the walk; returns how many entries lie before it and are not on the way, and the entry at
    /// it if there is one.
    pub(super) fn go_to(&mut self, depth: u32, name: &[u8]) -> Result<(u64, Option<Record>), Error> {
        let mut passed = 0;
        while let Some(next) = self.peek()? {
            match next.entry.depth.cmp(&depth).then_with(|| name.cmp(&next.entry.name)) {
                // In a directory that the walk has left or never saw, or before the place in the same directory.
                Ordering::Greater => {
                    self.take()?;
                    passed += 1;
                }
                Ordering::Equal => return Ok((passed, self.take()?)),
                // Behind the place, or above it.
                Ordering::Less => break,
            }
        }
        Ok((passed, None))
    }

    /// Passes everything below the entry of this depth that was taken last; returns how much that was.
    pub(super) fn pass_below(&mut self, depth: u32) -> Result<u64, Error> {
        let mut passed = 0;
        while self.peek()?.is_some_and(|next| next.entry.depth > depth) {
            self.take()?;
            passed += 1;
        }
        Ok(passed)
    }

    fn read(&mut self) -> Result<Option<Record>, Error> {
        let next = match &mut self.source {
            Source::File(reader) => reader.next().map_err(|damage| Error::BaseLost { cause: damage.to_string() })?,
            Source::Told(next) => next()?,
        };
        if let Some(record) = &next {
            self.order.check(record).map_err(|problem| Error::Malformed { problem })?;
        }
        Ok(next)
    }
}

/// The order of entries in any list or stream.
#[derive(Default)]
struct Order {
    entries: u64,
    /// The last name in each directory on the way.
    last_names: Vec<Bytes>,
    /// Whether the last entry was a directory, into which the next may go.
    into: bool,
}

impl Order {
    fn check(&mut self, record: &Record) -> Result<(), &'static str> {
        let depth = usize::try_from(record.entry.depth).unwrap_or(usize::MAX);
        let name = &record.entry.name;
        self.entries += 1;
        let expected = if self.entries == 1 {
            depth == 0
        } else {
            depth > 0 && depth <= self.last_names.len() + usize::from(self.into)
        };
        if !expected || self.entries > ENTRIES_MAX {
            return Err("the list of the base has no order");
        }
        if depth > 0 {
            if self.last_names.get(depth - 1).is_some_and(|last| last >= name) {
                return Err("the list of the base has no order");
            }
            self.last_names.truncate(depth - 1);
            self.last_names.push(name.clone());
        }
        self.into = matches!(&record.entry.node, Node::Inode(inode) if inode.kind == Kind::Directory);
        Ok(())
    }
}
