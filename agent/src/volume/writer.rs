//! Building a tree below an empty directory, through descriptors only.
//!
//! Owns creation, metadata and the order in which both are safe: a file's at its end, a directory's when it is left for the
//! last time. Refuses to judge what comes: callers check names and order. Nothing here follows a symbolic link, and nothing
//! that exists is opened for writing.

use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use bytes::Bytes;
use rustix::{
    fs::{self, AtFlags, FileType, Mode},
    io::Errno,
};

use super::{
    Error,
    descent::Descent,
    entry::{Kind, Metadata},
    error::show,
    inode::{self, Names, Place, Status},
};

/// A tree under construction. The way down from the root to the current directory is open.
pub(super) struct TreeWriter {
    root: OwnedFd,
    /// With each directory on the way: what it gets when it is left.
    descent: Descent<Metadata>,
}

impl TreeWriter {
    /// Starts in an empty directory.
    pub(super) fn begin(root: OwnedFd) -> Result<Self, Error> {
        let failed = |errno| Error::io("open the directory of", b"", errno);
        let names = Names::read(root.as_fd()).map_err(failed)?;
        if !names.is_empty() {
            return Err(Error::NotEmpty);
        }
        let mut writer =
            Self { root: root.try_clone().map_err(|error| Error::io("open", b"", error))?, descent: Descent::new() };
        writer.enter(Bytes::new(), root)?;
        Ok(writer)
    }

    /// Number of directories on the way, the root included.
    pub(super) fn depth(&self) -> usize {
        self.descent.len()
    }

    /// Names of the directories below the root, down to the current one.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.descent.names()
    }

    /// Path of a name in the current directory.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.descent.path_of(name)
    }

    /// Sets what the current directory gets when it is left.
    pub(super) fn set_directory_metadata(&mut self, metadata: Metadata) {
        if let Some((_, pending)) = self.descent.current_mut() {
            *pending = metadata;
        }
    }

    /// Creates a directory in the current one and goes into it.
    pub(super) fn create_directory(&mut self, name: Bytes, metadata: Metadata) -> Result<(), Error> {
        let created = fs::mkdirat(self.current()?, &name[..], Mode::RWXU)
            .and_then(|()| inode::open_directory(self.current_or_root(), &name))
            .and_then(|directory| inode::status(directory.as_fd()).map(|status| (directory, status)));
        let (directory, status) = created.map_err(|errno| self.failed("create the directory", &name, errno))?;
        self.descent.push(name, status.identity, directory, metadata);
        Ok(())
    }

    /// Goes into an existing directory; false when there is nothing of this name.
    pub(super) fn enter_directory(&mut self, name: Bytes) -> Result<bool, Error> {
        match inode::open_directory(self.current()?, &name) {
            Ok(directory) => self.enter(name, directory).map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("open the directory", &name, errno)),
        }
    }

    /// Leaves the current directory, which gets its metadata now.
    pub(super) fn leave(&mut self) -> Result<(), Error> {
        let Some((name, directory, metadata)) = self.descent.pop()? else { return Ok(()) };
        self.seal(Place::Open(directory.as_fd()), &name, &metadata, false)?;
        let status = inode::status(directory.as_fd()).map_err(|errno| self.failed("look at", &name, errno))?;
        self.check_kept(&name, &metadata, &status)
    }

    /// Creates an empty regular file in the current directory.
    pub(super) fn create_file(&self, name: &[u8]) -> Result<File, Error> {
        inode::create_file(self.current()?, name)
            .map(File::from)
            .map_err(|errno| self.failed("create the file", name, errno))
    }

    /// Gives a written file its metadata and makes sure that it is what was meant.
    pub(super) fn finish_file(&self, name: &[u8], file: &File, metadata: &Metadata, size: u64) -> Result<(), Error> {
        self.seal(Place::Open(file.as_fd()), name, metadata, false)?;
        let status = inode::status(file.as_fd()).map_err(|errno| self.failed("look at", name, errno))?;
        if status.size != size {
            return Err(Error::NotKept { path: show(&self.path_of(name)), what: "size" });
        }
        self.check_kept(name, metadata, &status)
    }

    /// Creates a symbolic link, fifo or device node in the current directory.
    pub(super) fn create_special(&self, name: &[u8], kind: &Kind, metadata: &Metadata) -> Result<(), Error> {
        let directory = self.current()?;
        let make = |file_type, number| fs::mknodat(directory, name, file_type, Mode::RUSR | Mode::WUSR, number);
        let made = match kind {
            Kind::Symlink { target } => fs::symlinkat(&target[..], directory, name),
            Kind::Fifo => make(FileType::Fifo, 0),
            Kind::CharacterDevice(number) => make(FileType::CharacterDevice, fs::makedev(number.major, number.minor)),
            Kind::BlockDevice(number) => make(FileType::BlockDevice, fs::makedev(number.major, number.minor)),
            // Directories and files have functions of their own.
            Kind::Directory | Kind::Regular { .. } => Err(Errno::INVAL),
        };
        made.map_err(|errno| self.failed("create", name, errno))?;
        let is_symlink = matches!(kind, Kind::Symlink { .. });
        self.seal(Place::Named(directory, name), name, metadata, is_symlink)?;
        let status = inode::status_at(directory, name).map_err(|errno| self.failed("look at", name, errno))?;
        let kept = Metadata { mode: if is_symlink { status.mode } else { metadata.mode }, ..metadata.clone() };
        self.check_kept(name, &kept, &status)
    }

    /// Gives the inode at `first`, a path below the root, one more name in the current directory.
    pub(super) fn create_link(&self, first: &[u8], name: &[u8]) -> Result<(), Error> {
        let (directories, last) = match first.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&first[..slash], &first[slash + 1..]),
            None => (&first[..0], first),
        };
        let mut above: Option<OwnedFd> = None;
        for component in directories.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
            let from = above.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd());
            let next = inode::open_directory(from, component)
                .map_err(|errno| Error::io("open the directory of the first name of", first, errno))?;
            above = Some(next);
        }
        let from = above.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd());
        fs::linkat(from, last, self.current()?, name, AtFlags::empty())
            .map_err(|errno| self.failed("create the hard link", name, errno))
    }

    /// Leaves all directories and brings everything to disk.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        while self.depth() > 0 {
            self.leave()?;
        }
        fs::syncfs(&self.root).map_err(|errno| self.failed("bring to disk", b"", errno))
    }

    /// A descriptor of the root for whoever reads the finished tree.
    pub(super) fn into_root(self) -> OwnedFd {
        self.root
    }

    /// An error of writing at a name in the current directory; a full disk is told with what is left of it.
    pub(super) fn failed(&self, action: &'static str, name: &[u8], source: impl Into<std::io::Error>) -> Error {
        match Error::io(action, &self.path_of(name), source) {
            Error::NoSpace { path, needed_bytes, .. } => {
                Error::NoSpace { path, free_bytes: inode::free_bytes(self.root.as_fd()), needed_bytes }
            }
            other => other,
        }
    }

    /// Goes into a directory that is there already: it keeps what it has, but until it is left, it must not hand down a
    /// default ACL or its group to what is created in it.
    fn enter(&mut self, name: Bytes, directory: OwnedFd) -> Result<(), Error> {
        let read = inode::status(directory.as_fd())
            .and_then(|status| Place::Open(directory.as_fd()).xattrs().map(|xattrs| (status, xattrs)));
        let (status, xattrs) = read.map_err(|errno| self.failed("look at", &name, errno))?;
        let neutral = if xattrs.is_empty() { Ok(()) } else { inode::strip_xattrs(directory.as_fd()) };
        neutral
            .and_then(|()| fs::fchmod(&directory, Mode::RWXU))
            .map_err(|errno| self.failed("prepare the directory", &name, errno))?;
        self.descent.push(name, status.identity, directory, status.metadata(xattrs));
        Ok(())
    }

    fn seal(&self, place: Place<'_>, name: &[u8], metadata: &Metadata, is_symlink: bool) -> Result<(), Error> {
        inode::apply_metadata(place, metadata, is_symlink).map_err(|(action, errno)| self.failed(action, name, errno))
    }

    /// File systems round times, ignore owners and drop bits without a word; a volume that would differ is an error.
    fn check_kept(&self, name: &[u8], wanted: &Metadata, got: &Status) -> Result<(), Error> {
        let what = if (got.uid, got.gid) != (wanted.uid, wanted.gid) {
            "owner"
        } else if got.mode != wanted.mode {
            "mode"
        } else if got.mtime != wanted.mtime {
            "modification time"
        } else {
            return Ok(());
        };
        Err(Error::NotKept { path: show(&self.path_of(name)), what })
    }

    fn current(&self) -> Result<BorrowedFd<'_>, Error> {
        match self.descent.current() {
            Some((directory, _)) => Ok(directory),
            None => Err(Error::io("write to", b"", Errno::BADF)),
        }
    }

    fn current_or_root(&self) -> BorrowedFd<'_> {
        self.descent.current().map_or(self.root.as_fd(), |(directory, _)| directory)
    }
}

/// Deletes everything in a directory, but not the directory itself.
///
/// Works through descriptors: a symbolic link is removed, never followed, and another file system mounted inside is refused.
///
/// # Errors
/// [`Error::Io`] and [`Error::MountInside`]; what was deleted by then stays deleted.
pub fn clear(root: OwnedFd) -> Result<(), Error> {
    let mut descent: Descent<Names> = Descent::new();
    let status = inode::status(root.as_fd()).map_err(|errno| Error::io("look at", b"", errno))?;
    let names = Names::read(root.as_fd()).map_err(|errno| Error::io("list the directory", b"", errno))?;
    let mount = status.mount;
    descent.push(Bytes::new(), status.identity, root, names);
    while let Some((directory, names)) = descent.current_mut() {
        let Some(name) = names.take() else {
            let left = descent.pop()?;
            if let (Some((parent, _)), Some((name, ..))) = (descent.current(), left) {
                remove(parent, &name, AtFlags::REMOVEDIR)
                    .map_err(|errno| Error::io("delete the directory", &descent.path_of(&name), errno))?;
            }
            continue;
        };
        let removed = remove(directory, &name, AtFlags::empty());
        match removed {
            Ok(()) => {}
            // Linux answers the first for a directory, POSIX the second.
            Err(Errno::ISDIR | Errno::PERM) => {
                let opened = inode::open_directory(directory, &name).and_then(|child| {
                    let status = inode::status(child.as_fd())?;
                    Ok((Names::read(child.as_fd())?, status, child))
                });
                let (names, status, child) =
                    opened.map_err(|errno| Error::io("delete", &descent.path_of(&name), errno))?;
                if status.mount != mount {
                    return Err(Error::MountInside { path: show(&descent.path_of(&name)) });
                }
                descent.push(name, status.identity, child, names);
            }
            Err(errno) => return Err(Error::io("delete", &descent.path_of(&name), errno)),
        }
    }
    Ok(())
}

fn remove(directory: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<(), Errno> {
    match fs::unlinkat(directory, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}
