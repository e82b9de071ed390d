//! Building a tree, below an empty directory or onto one that is there, through descriptors only.
//!
//! Owns creation, removal, metadata and the order in which they are safe: a file's metadata at its end, a directory's when it is
//! left for the last time. Refuses to judge what comes: callers check names and order, and say what must be there already.
//! Nothing here follows a symbolic link. What exists is opened for writing only after it was found to be the very inode that
//! was noted there; what else is found than was noted ends the work.

use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Weak},
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
    stamp::Stamp,
};

/// One directory on the way.
struct Level {
    /// What it gets when it is left.
    metadata: Metadata,
    /// It was written to, and hands nothing down to what is created in it.
    changed: bool,
    /// What was in it before and has not been accounted for; nothing in a new directory.
    before: Names,
    /// Its descriptor, as long as somebody else uses it.
    shared: Weak<OwnedFd>,
}

impl Level {
    fn new_directory(metadata: Metadata) -> Self {
        Self { metadata, changed: true, before: Names::default(), shared: Weak::new() }
    }
}

/// A tree under construction. The way down from the root to the current directory is open.
pub(super) struct TreeWriter {
    root: OwnedFd,
    descent: Descent<Level>,
    left: Vec<Left>,
}

/// A directory that was left and is yet to get its metadata.
struct Left {
    directory: OwnedFd,
    path: Vec<u8>,
    metadata: Metadata,
}

impl TreeWriter {
    /// Starts in an empty directory.
    pub(super) fn begin(root: OwnedFd) -> Result<Self, Error> {
        let failed = |errno| Error::io("open the directory of", b"", errno);
        let names = Names::read(root.as_fd()).map_err(failed)?;
        if !names.is_empty() {
            return Err(Error::NotEmpty);
        }
        let mut writer = Self::begin_onto(root)?;
        let root = writer.root.try_clone().map_err(|error| Error::io("open", b"", error))?;
        writer.enter(Bytes::new(), root)?;
        Ok(writer)
    }

    /// Starts in a directory with something in it. Nothing is entered yet, not even the root.
    pub(super) fn begin_onto(root: OwnedFd) -> Result<Self, Error> {
        Ok(Self { root, descent: Descent::new(), left: Vec::new() })
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
        if let Some((_, level)) = self.descent.current_mut() {
            level.metadata = metadata;
        }
    }

    /// Goes into a directory that must be there as noted; with other metadata, if it is to have some.
    pub(super) fn enter_noted(&mut self, name: &Bytes, noted: &Metadata, now: Option<&Metadata>) -> Result<(), Error> {
        let opened = match self.descent.current() {
            Some((directory, _)) => inode::open_directory(directory, name),
            None => self.root.try_clone().map_err(|error| Error::io("open", b"", error)).map(Ok)?,
        };
        let read = opened.and_then(|directory| {
            let status = inode::status(directory.as_fd())?;
            let metadata = status.metadata(Place::Open(directory.as_fd()).xattrs()?);
            Ok((Names::read(directory.as_fd())?, status, metadata, directory))
        });
        let (before, status, metadata, directory) = match read {
            Ok(read) => read,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(self.lost(name, "is no directory")),
            Err(errno) => return Err(self.failed("look into the directory", name, errno)),
        };
        if metadata != *noted {
            return Err(self.lost(name, "has other metadata"));
        }
        self.descent.push(
            name.clone(),
            status.identity,
            directory,
            Level { metadata, changed: false, before, shared: Weak::new() },
        );
        if let Some(now) = now {
            self.begin_change()?;
            self.set_directory_metadata(now.clone());
        }
        Ok(())
    }

    /// Accounts for a name that must have been in the current directory. What is there beside what was noted must be sockets.
    pub(super) fn account_for(&mut self, name: &[u8]) -> Result<(), Error> {
        self.clear_strays(|stray| stray < name)?;
        let Some((_, level)) = self.descent.current_mut() else { return Ok(()) };
        if level.before.peek() != Some(name) {
            return Err(self.lost(name, "is gone"));
        }
        level.before.take();
        Ok(())
    }

    /// Status of a name that must be the inode of the stamp, untouched.
    pub(super) fn noted(&self, name: &[u8], stamp: &Stamp) -> Result<Status, Error> {
        match inode::status_at(self.current()?, name) {
            Ok(status) if stamp.fits(&status) => Ok(status),
            Ok(_) | Err(Errno::NOENT) => Err(self.lost(name, "has changed")),
            Err(errno) => Err(self.failed("look at", name, errno)),
        }
    }

    /// Opens a regular file that must be the inode of the stamp, untouched.
    pub(super) fn open_noted(&self, name: &[u8], stamp: &Stamp, for_writing: bool) -> Result<(File, Status), Error> {
        let directory = self.current()?;
        let opened =
            if for_writing { inode::open_file_to_write(directory, name) } else { inode::open_file(directory, name) };
        let file = match opened {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
                return Err(self.lost(name, "is no regular file"));
            }
            Err(errno) => return Err(self.failed("open", name, errno)),
        };
        let status = inode::status(file.as_fd()).map_err(|errno| self.failed("look at", name, errno))?;
        if status.file_type != FileType::RegularFile || !stamp.fits(&status) {
            return Err(self.lost(name, "has changed"));
        }
        Ok((File::from(file), status))
    }

    /// Whether a name and another are the same inode.
    pub(super) fn status_of(&self, name: &[u8]) -> Result<Status, Error> {
        inode::status_at(self.current()?, name).map_err(|errno| self.failed("look at", name, errno))
    }

    /// Removes a name that must have been in the current directory, with everything below it.
    pub(super) fn remove_noted(&mut self, name: &[u8]) -> Result<(), Error> {
        self.account_for(name)?;
        self.begin_change()?;
        self.remove(name)
    }

    fn remove(&self, name: &[u8]) -> Result<(), Error> {
        let directory = self.current()?;
        let removed = match remove(directory, name, AtFlags::empty()) {
            // Linux answers the first for a directory, POSIX the second.
            Err(Errno::ISDIR | Errno::PERM) => {
                let inner =
                    inode::open_directory(directory, name).map_err(|errno| self.failed("delete", name, errno))?;
                let mount = |fd| inode::status(fd).map(|status| status.mount);
                if mount(inner.as_fd()).ok() != mount(directory).ok() {
                    return Err(Error::MountInside { path: show(&self.path_of(name)) });
                }
                clear(inner)?;
                remove(directory, name, AtFlags::REMOVEDIR)
            }
            removed => removed,
        };
        removed.map_err(|errno| self.failed("delete", name, errno))
    }

    /// Sockets have no meaning without their process and are noted nowhere: what is left of an earlier stay goes. Anything else
    /// that was not noted ends the work.
    fn clear_strays(&mut self, which: impl Fn(&[u8]) -> bool) -> Result<(), Error> {
        loop {
            let Some((directory, level)) = self.descent.current_mut() else { return Ok(()) };
            if !level.before.peek().is_some_and(&which) {
                return Ok(());
            }
            let Some(stray) = level.before.take() else { return Ok(()) };
            match inode::status_at(directory, &stray).map(|status| status.file_type) {
                Ok(FileType::Socket) => {
                    self.begin_change()?;
                    self.remove(&stray)?;
                }
                _ => return Err(self.lost(&stray, "was never noted")),
            }
        }
    }

    /// Before the first change in a directory that was there: it must not hand down a default ACL or its group to what is
    /// created in it. It gets back what it has when it is left.
    fn begin_change(&mut self) -> Result<(), Error> {
        let Some((directory, level)) = self.descent.current_mut() else { return Ok(()) };
        if level.changed {
            return Ok(());
        }
        level.changed = true;
        let neutral = if level.metadata.xattrs.is_empty() { Ok(()) } else { inode::strip_xattrs(directory) };
        let neutral = neutral.and_then(|()| fs::fchmod(directory, Mode::RWXU));
        neutral.map_err(|errno| self.failed("prepare the directory", b"", errno))
    }

    /// Before something new gets a name.
    fn begin_name(&mut self, name: &[u8]) -> Result<(), Error> {
        self.clear_strays(|stray| stray <= name)?;
        self.begin_change()
    }

    fn lost(&self, name: &[u8], what: &str) -> Error {
        Error::BaseLost { cause: format!("`{}` {what}", show(&self.path_of(name))) }
    }

    /// Creates a directory in the current one and goes into it.
    pub(super) fn create_directory(&mut self, name: Bytes, metadata: Metadata) -> Result<(), Error> {
        self.begin_name(&name)?;
        let created = fs::mkdirat(self.current()?, &name[..], Mode::RWXU)
            .and_then(|()| inode::open_directory(self.current_or_root(), &name))
            .and_then(|directory| inode::status(directory.as_fd()).map(|status| (directory, status)));
        let (directory, status) = created.map_err(|errno| self.failed("create the directory", &name, errno))?;
        self.descent.push(name, status.identity, directory, Level::new_directory(metadata));
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

    /// Leaves the current directory, which gets its metadata now if anything in it was changed.
    pub(super) fn leave(&mut self) -> Result<(), Error> {
        self.leave_unsealed()?;
        self.seal_left()
    }

    /// Leaves the current directory; it gets its metadata from [`Self::seal_left`], behind the last change in it.
    pub(super) fn leave_unsealed(&mut self) -> Result<(), Error> {
        self.clear_strays(|_| true)?;
        let Some((name, directory, level)) = self.descent.pop()? else { return Ok(()) };
        if level.changed {
            let path = self.path_of(&name);
            self.left.push(Left { directory, path, metadata: level.metadata });
        }
        Ok(())
    }

    /// Directories that were left get their metadata.
    pub(super) fn seal_left(&mut self) -> Result<(), Error> {
        for Left { directory, path, metadata } in std::mem::take(&mut self.left) {
            let sealed = seal(Place::Open(directory.as_fd()), &metadata, false, || path.clone()).and_then(|()| {
                let status = inode::status(directory.as_fd()).map_err(|errno| Error::io("look at", &path, errno))?;
                check_kept(&metadata, &status, || path.clone())
            });
            sealed.map_err(|error| self.with_free_space(error))?;
        }
        Ok(())
    }

    /// The current directory, ready to get something of this name from whoever holds the descriptor.
    pub(super) fn directory_for(&mut self, name: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        self.begin_name(name)?;
        let Some((directory, level)) = self.descent.current_mut() else {
            return Err(Error::io("write to", b"", Errno::BADF));
        };
        if let Some(shared) = level.shared.upgrade() {
            return Ok(shared);
        }
        let shared = Arc::new(directory.try_clone_to_owned().map_err(|error| Error::io("open", name, error))?);
        level.shared = Arc::downgrade(&shared);
        Ok(shared)
    }

    /// Creates an empty regular file in the current directory.
    pub(super) fn create_file(&mut self, name: &[u8]) -> Result<File, Error> {
        self.begin_name(name)?;
        inode::create_file(self.current()?, name)
            .map(File::from)
            .map_err(|errno| self.failed("create the file", name, errno))
    }

    /// Takes the attributes from a file that was there, so that it gets no others than it shall have.
    pub(super) fn strip_file(&self, name: &[u8], file: &File) -> Result<(), Error> {
        inode::strip_xattrs(file.as_fd()).map_err(|errno| self.failed("prepare", name, errno))
    }

    /// Gives a written file its metadata and makes sure that it is what was meant.
    pub(super) fn finish_file(
        &self,
        name: &[u8],
        file: &File,
        metadata: &Metadata,
        size: u64,
    ) -> Result<Status, Error> {
        finish_file(file, metadata, size, || self.path_of(name)).map_err(|error| self.with_free_space(error))
    }

    /// Creates a symbolic link, fifo or device node in the current directory.
    pub(super) fn create_special(&mut self, name: &[u8], kind: &Kind, metadata: &Metadata) -> Result<Status, Error> {
        self.begin_name(name)?;
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
        let path = || self.path_of(name);
        seal(Place::Named(directory, name), metadata, is_symlink, path).map_err(|error| self.with_free_space(error))?;
        let status = inode::status_at(directory, name).map_err(|errno| self.failed("look at", name, errno))?;
        let kept = Metadata { mode: if is_symlink { status.mode } else { metadata.mode }, ..metadata.clone() };
        check_kept(&kept, &status, path)?;
        Ok(status)
    }

    /// Gives the inode at `first`, a path below the root, one more name in the current directory.
    pub(super) fn create_link(&mut self, first: &[u8], name: &[u8]) -> Result<(), Error> {
        self.begin_name(name)?;
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

    /// An error of writing at a name in the current directory.
    pub(super) fn failed(&self, action: &'static str, name: &[u8], source: impl Into<std::io::Error>) -> Error {
        self.with_free_space(Error::io(action, &self.path_of(name), source))
    }

    /// A full disk is told with what is left of it.
    pub(super) fn with_free_space(&self, error: Error) -> Error {
        match error {
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
        self.descent.push(name, status.identity, directory, Level::new_directory(status.metadata(xattrs)));
        Ok(())
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

/// Gives a written file its metadata and makes sure that it is what was meant. The path is for errors.
pub(super) fn finish_file(
    file: &File,
    metadata: &Metadata,
    size: u64,
    path: impl Fn() -> Vec<u8>,
) -> Result<Status, Error> {
    seal(Place::Open(file.as_fd()), metadata, false, &path)?;
    let status = inode::status(file.as_fd()).map_err(|errno| Error::io("look at", &path(), errno))?;
    if status.size != size {
        return Err(Error::NotKept { path: show(&path()), what: "size" });
    }
    check_kept(metadata, &status, path)?;
    Ok(status)
}

fn seal(place: Place<'_>, metadata: &Metadata, is_symlink: bool, path: impl Fn() -> Vec<u8>) -> Result<(), Error> {
    inode::apply_metadata(place, metadata, is_symlink).map_err(|(action, errno)| Error::io(action, &path(), errno))
}

/// File systems round times, ignore owners and drop bits without a word; a volume that would differ is an error.
fn check_kept(wanted: &Metadata, got: &Status, path: impl Fn() -> Vec<u8>) -> Result<(), Error> {
    let what = if (got.uid, got.gid) != (wanted.uid, wanted.gid) {
        "owner"
    } else if got.mode != wanted.mode {
        "mode"
    } else if got.mtime != wanted.mtime {
        "modification time"
    } else {
        return Ok(());
    };
    Err(Error::NotKept { path: show(&path()), what })
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
