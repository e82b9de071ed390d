//! Walking a volume in wire order, by descriptors.
//!
//! Owns the order, hard link detection and the two ways to look at a source: still (any change is an error) and live (what
//! vanishes was not there). Reads no content. Memory: the names of the directories on the way down, and one small record per
//! hard-linked inode whose other names have not come yet.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{fs::FileType, io::Errno};

use super::{
    Error,
    descent::Descent,
    entry::Metadata,
    inode::{self, Identity, Names, Place, Status},
};

/// What the caller knows about the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing writes to it: a change seen while reading is an error.
    Still,
    /// It is in use: what vanishes on the way is left out, and the result is what a reader saw.
    Live,
}

/// What a name turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Directory,
    Regular,
    Symlink(Bytes),
    Fifo,
    CharacterDevice,
    BlockDevice,
    /// Another name of the inode that was found at this position.
    HardLink(u64),
}

/// One name of the volume.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) depth: u32,
    pub(super) name: Bytes,
    pub(super) status: Status,
    pub(super) found: Found,
    /// Position in walk order; the root is 0.
    pub(super) ordinal: u64,
}

struct Visit {
    names: Names,
    status: Status,
}

struct Link {
    first: u64,
    remaining: u32,
}

/// A walk in progress.
pub(super) struct Walk {
    expect: Expect,
    root: Option<OwnedFd>,
    descent: Descent<Visit>,
    mount: Option<u64>,
    links: BTreeMap<Identity, Link>,
    ordinal: u64,
    pub(super) skipped_sockets: u64,
}

impl Walk {
    pub(super) fn new(root: OwnedFd, expect: Expect) -> Self {
        Self {
            expect,
            root: Some(root),
            descent: Descent::new(),
            mount: None,
            links: BTreeMap::new(),
            ordinal: 0,
            skipped_sockets: 0,
        }
    }

    /// The next name in wire order: the root, then every directory before its content.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Error> {
        if let Some(root) = self.root.take() {
            let status = inode::status(root.as_fd()).map_err(|errno| Error::io("look at", b"", errno))?;
            self.mount = status.mount;
            self.enter(Bytes::new(), status, root)?;
            return Ok(Some(self.item(0, Bytes::new(), status, Found::Directory)));
        }
        while let Some((directory, visit)) = self.descent.current_mut() {
            let Some(name) = visit.names.take() else {
                self.leave()?;
                continue;
            };
            let looked = inode::status_at(directory, &name);
            if let Some(status) = self.still_there(looked, "look at", &name)?
                && let Some(item) = self.visit(name, status)?
            {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// Opens the regular file that was returned last, and looks at what was opened; `None` when it has vanished from a live
    /// source.
    pub(super) fn open(&self, item: &Item) -> Result<Option<(OwnedFd, Status)>, Error> {
        let Some((directory, _)) = self.descent.current() else { return Ok(None) };
        let Some(file) = self.still_there(inode::open_file(directory, &item.name), "open", &item.name)? else {
            return Ok(None);
        };
        if self.expect == Expect::Live {
            // A write that began before has set its time then, and may still be under way: this waits for its end.
            inode::await_writers(file.as_fd());
        }
        let opened = inode::status(file.as_fd()).map_err(|errno| Error::io("look at", &self.path_of(item), errno))?;
        match self.expect {
            Expect::Still if !opened.unchanged(&item.status) => Err(Error::changed(&self.path_of(item), "changed")),
            Expect::Live if opened.file_type != FileType::RegularFile => Ok(None),
            _ => Ok(Some((file, opened))),
        }
    }

    /// Owner, mode, time (from `status`) and attributes of the item returned last; `file` is its descriptor when it is a regular
    /// file.
    pub(super) fn metadata(
        &self,
        item: &Item,
        status: &Status,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Metadata, Error> {
        let Some((directory, _)) = self.descent.current() else { return Ok(status.metadata(Vec::new())) };
        let place = match (&item.found, file) {
            (Found::Directory, _) => Place::Open(directory),
            (_, Some(file)) => Place::Open(file),
            (_, None) => Place::Named(directory, &item.name),
        };
        let xattrs = self.still_there(place.xattrs(), "read the extended attributes of", &item.name)?;
        let metadata = status.metadata(xattrs.unwrap_or_default());
        metadata
            .check()
            .map_err(|problem| Error::Unsupported { path: super::error::show(&self.path_of(item)), problem })?;
        Ok(metadata)
    }

    /// Whether nobody wrote to the file since `before`; in a still source an error if somebody did.
    pub(super) fn is_unchanged(&self, item: &Item, before: &Status, file: BorrowedFd<'_>) -> Result<bool, Error> {
        let now = inode::status(file).map_err(|errno| Error::io("look at", &self.path_of(item), errno))?;
        let unchanged = now.unchanged(before);
        if self.expect == Expect::Still && !unchanged {
            return Err(Error::changed(&self.path_of(item), "changed"));
        }
        Ok(unchanged)
    }

    /// The item's path, for display and for archives.
    pub(super) fn path_of(&self, item: &Item) -> Vec<u8> {
        // A directory is on the way down already.
        if item.found == Found::Directory { self.descent.path() } else { self.descent.path_of(&item.name) }
    }

    fn visit(&mut self, name: Bytes, status: Status) -> Result<Option<Item>, Error> {
        let depth = u32::try_from(self.descent.len()).unwrap_or(u32::MAX);
        if status.file_type == FileType::Directory {
            let Some((directory, _)) = self.descent.current() else { return Ok(None) };
            if status.mount != self.mount {
                return Err(Error::MountInside { path: super::error::show(&self.descent.path_of(&name)) });
            }
            let opened = inode::open_directory(directory, &name);
            let Some(opened) = self.still_there(opened, "open", &name)? else { return Ok(None) };
            let now = inode::status(opened.as_fd())
                .map_err(|errno| Error::io("look at", &self.descent.path_of(&name), errno))?;
            if self.expect == Expect::Still && !now.unchanged(&status) {
                return Err(Error::changed(&self.descent.path_of(&name), "changed"));
            }
            self.enter(name.clone(), now, opened)?;
            return Ok(Some(self.item(depth, name, now, Found::Directory)));
        }
        if status.file_type == FileType::Socket {
            self.skipped_sockets += 1;
            tracing::debug!(name = %name.escape_ascii(), "socket left out");
            return Ok(None);
        }
        if let Some(first) = self.linked(&status) {
            return Ok(Some(self.item(depth, name, status, Found::HardLink(first))));
        }
        let found = match status.file_type {
            FileType::RegularFile => Found::Regular,
            FileType::Symlink => match self.read_link(&name)? {
                Some(target) => Found::Symlink(target),
                None => return Ok(None),
            },
            FileType::Fifo => Found::Fifo,
            FileType::CharacterDevice => Found::CharacterDevice,
            FileType::BlockDevice => Found::BlockDevice,
            _ => {
                let path = super::error::show(&self.descent.path_of(&name));
                return Err(Error::Unsupported { path, problem: "its type is unknown" });
            }
        };
        if status.links > 1 {
            self.links.insert(status.identity, Link { first: self.ordinal, remaining: status.links - 1 });
        }
        Ok(Some(self.item(depth, name, status, found)))
    }

    fn read_link(&self, name: &[u8]) -> Result<Option<Bytes>, Error> {
        let Some((directory, _)) = self.descent.current() else { return Ok(None) };
        match self.still_there(inode::read_link(directory, name), "read the link", name)? {
            Some(None) => {
                let path = super::error::show(&self.descent.path_of(name));
                Err(Error::Unsupported { path, problem: "its target is too long" })
            }
            target => Ok(target.flatten()),
        }
    }

    /// Position of the first name of an inode that was seen before.
    fn linked(&mut self, status: &Status) -> Option<u64> {
        if status.links < 2 {
            return None;
        }
        let link = self.links.get_mut(&status.identity)?;
        let first = link.first;
        link.remaining -= 1;
        if link.remaining == 0 {
            self.links.remove(&status.identity);
        }
        Some(first)
    }

    fn enter(&mut self, name: Bytes, status: Status, directory: OwnedFd) -> Result<(), Error> {
        let names = Names::read(directory.as_fd())
            .map_err(|errno| Error::io("list the directory", &self.descent.path_of(&name), errno))?;
        self.descent.push(name, status.identity, directory, Visit { names, status });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Error> {
        let Some((name, directory, visit)) = self.descent.pop()? else { return Ok(()) };
        let now = inode::status(directory.as_fd())
            .map_err(|errno| Error::io("look at", &self.descent.path_of(&name), errno))?;
        if self.expect == Expect::Still && !now.unchanged(&visit.status) {
            return Err(Error::changed(&self.descent.path_of(&name), "changed"));
        }
        Ok(())
    }

    fn item(&mut self, depth: u32, name: Bytes, status: Status, found: Found) -> Item {
        let ordinal = self.ordinal;
        self.ordinal += 1;
        Item { depth, name, status, found, ordinal }
    }

    /// Tells a vanished name from a failure: `None` in a live source, an error in a still one.
    fn still_there<T>(&self, result: Result<T, Errno>, action: &'static str, name: &[u8]) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => match self.expect {
                Expect::Live => Ok(None),
                Expect::Still => Err(Error::changed(&self.descent.path_of(name), "vanished")),
            },
            Err(errno) => Err(Error::io(action, &self.descent.path_of(name), errno)),
        }
    }
}

/// How much a volume holds, by its metadata alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Names, hard links included.
    pub entries: u64,
    /// Regular files; a hard-linked one counts once.
    pub files: u64,
    /// Apparent bytes of regular files.
    pub bytes: u64,
    /// Bytes on disk, directories included.
    pub disk_bytes: u64,
}

/// Measures a volume, in use or not, without reading its contents.
///
/// # Errors
/// [`Error::Io`] and [`Error::MountInside`].
pub fn measure(root: OwnedFd) -> Result<Usage, Error> {
    let mut walk = Walk::new(root, Expect::Live);
    let mut usage = Usage::default();
    while let Some(item) = walk.next()? {
        usage.count(&item);
    }
    Ok(usage)
}

impl Usage {
    pub(super) fn count(&mut self, item: &Item) {
        self.entries += 1;
        if matches!(item.found, Found::HardLink(_)) {
            return;
        }
        self.disk_bytes += item.status.allocated;
        self.files += u64::from(item.found == Found::Regular);
        self.bytes = self.bytes.saturating_add(item.regular_bytes());
    }
}

impl Item {
    /// Apparent bytes of a regular file; 0 of anything else.
    pub(super) fn regular_bytes(&self) -> u64 {
        if self.found == Found::Regular { self.status.size } else { 0 }
    }
}
