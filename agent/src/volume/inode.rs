//! System calls on one inode, through descriptors only.
//!
//! Owns reading and writing of status, attributes and names of a directory. Refuses to know trees, paths and streams: a name
//! is always one component in an open directory, and is never followed when it is a symbolic link.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RawDir, StatxFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::{Errno, Result as SysResult},
};

use super::{
    Error,
    entry::{DeviceNumber, Metadata, TARGET_BYTES_MAX, Timestamp, Xattr},
};

/// Opens the directory of a volume, for any of this module's functions.
///
/// # Errors
/// [`Error::Io`] when there is no directory at `path`, or a symbolic link in its place.
pub fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map_err(|errno| Error::io("open the directory of", b"", errno))
}

/// Which inode it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// Status of an inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status {
    pub(super) identity: Identity,
    pub(super) file_type: FileType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    /// Bytes on disk.
    pub(super) allocated: u64,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) device_number: DeviceNumber,
    /// Which mount it was reached through; `None` before Linux 5.8.
    pub(super) mount: Option<u64>,
}

impl Status {
    /// Whether the inode is the same and nobody wrote to it in between.
    pub(super) fn unchanged(&self, later: &Self) -> bool {
        self.identity == later.identity
            && self.file_type == later.file_type
            && self.size == later.size
            && self.mtime == later.mtime
            && self.ctime == later.ctime
    }

    /// Owner, mode and time, with attributes read elsewhere.
    pub(super) fn metadata(&self, xattrs: Vec<Xattr>) -> Metadata {
        Metadata { mode: self.mode, uid: self.uid, gid: self.gid, mtime: self.mtime, xattrs }
    }
}

/// Status of what `name` stands for in `dir`, or of `dir` itself when `name` is empty.
pub(super) fn status_at(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<Status> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let raw = fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    let time = |time: fs::StatxTimestamp| Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec };
    let mode = u32::from(raw.stx_mode);
    Ok(Status {
        identity: Identity { device: fs::makedev(raw.stx_dev_major, raw.stx_dev_minor), inode: raw.stx_ino },
        file_type: FileType::from_raw_mode(mode),
        mode: mode & 0o7777,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        links: raw.stx_nlink,
        size: raw.stx_size,
        allocated: raw.stx_blocks.saturating_mul(512),
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        device_number: DeviceNumber { major: raw.stx_rdev_major, minor: raw.stx_rdev_minor },
        mount: (raw.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(raw.stx_mnt_id),
    })
}

/// Status of an open file or directory.
pub(super) fn status(fd: BorrowedFd<'_>) -> SysResult<Status> {
    status_at(fd, b"")
}

/// Opens a directory by one component; a symbolic link in its place is an error.
pub(super) fn open_directory(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Opens a regular file for reading, without blocking should it be something else by now.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may leave the access time alone.
        Err(Errno::PERM) => fs::openat(dir, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Returns when every write to the file that is under way has ended: file systems hold the inode's lock during a write, and take
/// it to look for data.
pub(super) fn await_writers(file: BorrowedFd<'_>) {
    // Its answer does not matter: "no data" is one, and some file systems have no other.
    let _ = fs::seek(file, fs::SeekFrom::Data(0));
}

/// Opens a regular file that is there for writing.
pub(super) fn open_file_to_write(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Creates a regular file that did not exist.
pub(super) fn create_file(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Target of a symbolic link; `None` when it is longer than the format allows.
pub(super) fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<Option<Bytes>> {
    let target = fs::readlinkat(dir, name, Vec::with_capacity(256))?.into_bytes();
    Ok((target.len() <= TARGET_BYTES_MAX).then(|| Bytes::from(target)))
}

/// Names of one directory, sorted by their bytes, in one block of memory.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    /// Start and length of each.
    spans: Vec<(usize, u16)>,
    next: usize,
}

impl Names {
    /// Reads all names of an open directory but `.` and `..`.
    pub(super) fn read(dir: BorrowedFd<'_>) -> SysResult<Self> {
        // A duplicate would share the position; from the start, whatever was read before through the same description.
        fs::seek(dir, fs::SeekFrom::Start(0))?;
        let mut names = Self::default();
        let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
        let mut listing = RawDir::new(dir, &mut buffer);
        while let Some(found) = listing.next() {
            let found = found?;
            let name = found.file_name().to_bytes();
            if name != b"." && name != b".." {
                let length = u16::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
                names.spans.push((names.bytes.len(), length));
                names.bytes.extend(name);
            }
        }
        let bytes = &names.bytes;
        let name_of = |&(start, length): &(usize, u16)| &bytes[start..start + usize::from(length)];
        names.spans.sort_unstable_by(|one, other| name_of(one).cmp(name_of(other)));
        Ok(names)
    }

    /// The next name in order.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let &(start, length) = self.spans.get(self.next)?;
        self.next += 1;
        Some(Bytes::copy_from_slice(&self.bytes[start..start + usize::from(length)]))
    }

    /// The next name in order, which stays.
    pub(super) fn peek(&self) -> Option<&[u8]> {
        let &(start, length) = self.spans.get(self.next)?;
        Some(&self.bytes[start..start + usize::from(length)])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// Where attributes are read and written.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in a directory, for what cannot be opened without effect: links, fifos, devices.
    Named(BorrowedFd<'a>, &'a [u8]),
}

impl Place<'_> {
    /// A path that leads to the name through the descriptor of its directory, for calls that take paths only.
    fn through_descriptor(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend(name);
        path
    }

    fn list(self, buffer: &mut Vec<u8>) -> SysResult<()> {
        match self {
            Self::Open(fd) => fs::flistxattr(fd, spare_capacity(buffer)),
            Self::Named(dir, name) => fs::llistxattr(Self::through_descriptor(dir, name), spare_capacity(buffer)),
        }
        .map(drop)
    }

    fn get(self, xattr: &[u8], buffer: &mut Vec<u8>) -> SysResult<()> {
        match self {
            Self::Open(fd) => fs::fgetxattr(fd, xattr, spare_capacity(buffer)),
            Self::Named(dir, name) => fs::lgetxattr(Self::through_descriptor(dir, name), xattr, spare_capacity(buffer)),
        }
        .map(drop)
    }

    pub(super) fn set(self, xattr: &Xattr) -> SysResult<()> {
        let (name, value, flags) = (&xattr.name[..], &xattr.value[..], XattrFlags::empty());
        match self {
            Self::Open(fd) => fs::fsetxattr(fd, name, value, flags),
            Self::Named(dir, at) => fs::lsetxattr(Self::through_descriptor(dir, at), name, value, flags),
        }
    }

    /// All attributes that travel, ascending by name.
    pub(super) fn xattrs(self) -> SysResult<Vec<Xattr>> {
        let mut names = Vec::new();
        match grow(&mut names, |buffer| self.list(buffer)) {
            // File systems without attributes have none to carry.
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            listed => listed?,
        }
        let mut xattrs = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| Xattr::travels(name)) {
            let mut value = Vec::new();
            match grow(&mut value, |buffer| self.get(name, buffer)) {
                // Removed between the two calls.
                Err(Errno::NODATA) => continue,
                read => read?,
            }
            xattrs.push(Xattr { name: Bytes::copy_from_slice(name), value: Bytes::from(value) });
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }
}

/// Calls with a small buffer, then with the largest that the kernel ever needs.
fn grow(buffer: &mut Vec<u8>, mut call: impl FnMut(&mut Vec<u8>) -> SysResult<()>) -> SysResult<()> {
    buffer.reserve(1024);
    match call(buffer) {
        Err(Errno::RANGE) => {
            buffer.clear();
            buffer.reserve_exact(64 * 1024 + 1);
            call(buffer)
        }
        done => done,
    }
}

/// Gives an inode its owner, mode, attributes and time, in the order in which none undoes another; the name of the failed
/// step with its error.
pub(super) fn apply_metadata(
    place: Place<'_>,
    metadata: &Metadata,
    is_symlink: bool,
) -> Result<(), (&'static str, Errno)> {
    let owner = (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
    let mode = Mode::from_raw_mode(metadata.mode);
    match place {
        Place::Open(fd) => fs::fchown(fd, owner.0, owner.1),
        Place::Named(dir, name) => fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW),
    }
    .map_err(|errno| ("set the owner of", errno))?;
    // A change of owner drops setuid and capabilities, so both come after it. Links have no mode of their own; fifos and
    // devices were made in this stream, so their names cannot have become links.
    match place {
        Place::Open(fd) => fs::fchmod(fd, mode),
        Place::Named(..) if is_symlink => Ok(()),
        Place::Named(dir, name) => fs::chmodat(dir, name, mode, AtFlags::empty()),
    }
    .map_err(|errno| ("set the mode of", errno))?;
    for xattr in &metadata.xattrs {
        place.set(xattr).map_err(|errno| (super::error::SET_XATTR, errno))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: metadata.mtime.seconds, tv_nsec: i64::from(metadata.mtime.nanos) },
    };
    match place {
        Place::Open(fd) => fs::futimens(fd, &times),
        Place::Named(dir, name) => fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
    }
    .map_err(|errno| ("set the modification time of", errno))
}

/// Removes every attribute that travels.
pub(super) fn strip_xattrs(fd: BorrowedFd<'_>) -> SysResult<()> {
    Place::Open(fd.as_fd()).xattrs()?.iter().try_for_each(|xattr| match fs::fremovexattr(fd, &xattr.name[..]) {
        Err(Errno::NODATA) => Ok(()),
        removed => removed,
    })
}

/// Free bytes for root on the file system, 0 when it will not say.
pub(super) fn free_bytes(fd: BorrowedFd<'_>) -> u64 {
    fs::fstatvfs(fd).map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize))
}
