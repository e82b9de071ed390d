//! What a volume consists of: entries, and the frames that carry them.
//!
//! Owns the model shared by sender, receiver and archives, and the bounds of every part of it. Refuses to know descriptors
//! and the encoding on the wire.

use std::fmt;

use bytes::Bytes;

use super::digest::{BLOCK_BYTES, Digest, Summary};

/// Version of the frame format.
pub(super) const VERSION: u32 = 2;
/// Longest name of one component.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link.
pub(super) const TARGET_BYTES_MAX: usize = 4095;
/// Most extended attributes of one inode.
pub(super) const XATTRS_MAX: usize = 1024;
/// Longest value of one extended attribute, the kernel's own limit.
pub(super) const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// All names and values of one inode's attributes.
pub(super) const XATTRS_BYTES_MAX: usize = 1 << 20;
/// Largest apparent size of a file: what file systems allow in practice, far below where offsets overflow.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 46;
/// A file up to this size travels inside its batch.
pub(super) const INLINE_BYTES_MAX: u64 = 256 * 1024;
/// A sender closes a batch when the next entry would take it past this.
pub(super) const BATCH_BYTES_TARGET: usize = 512 * 1024;
/// A receiver refuses a batch above this: one largest entry still fits.
pub(super) const BATCH_BYTES_MAX: usize = 2 << 20;
/// Most entries in a batch.
pub(super) const BATCH_ENTRIES_MAX: usize = 16_384;
/// Data bytes in one chunk.
pub(super) const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Most extents, and most spans, in one chunk, and in an inline file.
pub(super) const EXTENTS_MAX: usize = 4096;

/// A moment: whole seconds since 1970 (negative before) and the nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// One extended attribute: `user.*`, `trusted.*`, capabilities or a POSIX ACL. Its value is private and not in its `Debug`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Full name with its namespace.
    pub name: Bytes,
    /// Value, any bytes.
    pub value: Bytes,
}

impl fmt::Debug for Xattr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xattr({:?}, {} bytes)", self.name, self.value.len())
    }
}

impl Xattr {
    /// Whether an attribute of this name belongs to the data and travels with it.
    pub(super) fn travels(name: &[u8]) -> bool {
        const WHOLE: [&[u8]; 3] = [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
        let named = |prefix: &[u8]| name.len() > prefix.len() && name.starts_with(prefix);
        WHOLE.contains(&name) || named(b"user.") || named(b"trusted.")
    }
}

/// What an inode carries beside its type and content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes, ascending by name.
    pub xattrs: Vec<Xattr>,
}

/// Number of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// A piece of a file that is not a hole. Its bytes are private and not in its `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts.
    pub offset: u64,
    /// Its bytes.
    pub data: Bytes,
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extent({} bytes at {})", self.data.len(), self.offset)
    }
}

/// Where the content of a regular file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Here, whole; what no extent covers is a hole.
    Inline {
        /// Ascending pieces.
        extents: Vec<Extent>,
        /// Digest of the content.
        digest: Digest,
    },
    /// In the chunks that follow.
    Streamed,
    /// What the base has at this place, unchanged; the entry takes the place of the base's, on the same inode.
    Held {
        /// Digest of the content.
        digest: Digest,
    },
    /// What the base has at this place, with changes in the chunks that follow; on the same inode.
    Patched,
}

/// Type of an inode, with what only this type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular {
        /// Apparent size.
        size: u64,
        /// Its content.
        body: Body,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, any bytes.
        target: Bytes,
    },
    /// A fifo.
    Fifo,
    /// A character device.
    CharacterDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
}

/// An inode at its first name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Owner, mode, time, attributes.
    pub metadata: Metadata,
    /// Names of the inode in its file system: above 1, hard links to it may follow.
    pub links: u32,
    /// Type and content.
    pub kind: Kind,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// An inode seen for the first time.
    Inode(Inode),
    /// One more name of the inode at that position in walk order.
    HardLink {
        /// Position of its first name; the root is 0.
        first: u64,
    },
}

/// One name in the volume. Its place follows from the entries before it: it lies in the nearest earlier directory that is one
/// less deep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Directories above it; 0 for the volume's root.
    pub depth: u32,
    /// Last component; empty for the root.
    pub name: Bytes,
    /// What it is.
    pub node: Node,
}

/// Opens a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Format version.
    pub version: u32,
    /// Bytes of regular files to deal with, 0 when unknown.
    pub total_bytes: u64,
    /// Regular files to deal with, 0 when unknown.
    pub total_files: u64,
    /// What the sender needs to know of the receiver's base before it goes on.
    pub base: BaseUse,
}

/// How the sender learns what the receiver has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BaseUse {
    /// The receiver has nothing, or what it has is of no use: it begins with an empty directory.
    #[default]
    Nothing,
    /// Sender and receiver have the same list.
    Shared,
    /// The receiver is asked for its list.
    Listed,
}

/// What happens next, in walk order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An entry that is new or has changed. Where the base has a directory, a directory is that one with other metadata.
    Entry(Entry),
    /// So many of the base's next entries stay as they are.
    Keep(u64),
    /// So many of the base's next entries go; a directory with all that is in it.
    Drop(u64),
}

impl Step {
    /// About how many bytes it takes in a message.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.weight(),
            Self::Keep(_) | Self::Drop(_) => 16,
        }
    }
}

/// Steps in walk order; only the last may be a streamed file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The steps.
    pub steps: Vec<Step>,
}

/// A stretch of a file that is as it is in the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it starts: at a block.
    pub offset: u64,
    /// How long it is: whole blocks, or up to the end of both files.
    pub length: u64,
}

/// Next content of a streamed file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Ascending pieces; what none covers, and no span, is a hole.
    pub extents: Vec<Extent>,
    /// Ascending stretches that are as in the base; only in a patched file.
    pub held: Vec<Span>,
    /// In the last chunk: digest of the whole content.
    pub end: Option<Digest>,
}

/// One message of a volume stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First.
    Header(Header),
    /// Entries.
    Batch(Batch),
    /// Content of the file that ended the last batch.
    Chunk(Chunk),
    /// Last.
    Trailer(Trailer),
}

impl Frame {
    /// About how many bytes it takes as a message.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 64;
        match self {
            Self::Header(_) | Self::Trailer(_) => FIXED,
            Self::Batch(batch) => batch.steps.iter().map(Step::weight).sum(),
            Self::Chunk(chunk) => {
                let data = chunk.extents.iter().map(|extent| extent.data.len() + 16).sum::<usize>();
                data + chunk.held.len() * 16 + FIXED
            }
        }
    }
}

/// Closes a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// What the sender read.
    pub summary: Summary,
    /// Regular files whose content it had to read.
    pub files_read: u64,
    /// Bytes of them.
    pub bytes_read: u64,
}

/// The rules of a single entry that hold wherever it comes from; the reason when one is broken.
impl Entry {
    /// Checks everything that can be judged without looking at other entries.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.depth > 0 {
            check_name(&self.name)?;
        } else if !self.name.is_empty() {
            return Err("the root has a name");
        }
        match &self.node {
            Node::HardLink { .. } if self.depth == 0 => Err("the root is not a directory"),
            Node::HardLink { .. } => Ok(()),
            Node::Inode(inode) => {
                if self.depth == 0 && inode.kind != Kind::Directory {
                    return Err("the root is not a directory");
                }
                inode.metadata.check()?;
                inode.kind.check()
            }
        }
    }

    /// About how many bytes the entry takes in a message.
    pub(super) fn weight(&self) -> usize {
        const FIXED: usize = 64;
        let node = match &self.node {
            Node::HardLink { .. } => 0,
            Node::Inode(inode) => inode.metadata.xattrs_bytes() + inode.kind.weight(),
        };
        FIXED + self.name.len() + node
    }
}

impl Metadata {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.mode > 0o7777 {
            return Err("mode has bits that are no permissions");
        }
        if self.uid == u32::MAX || self.gid == u32::MAX {
            return Err("owner is not a valid number");
        }
        if self.mtime.nanos >= 1_000_000_000 {
            return Err("modification time has too many nanoseconds");
        }
        if self.xattrs.len() > XATTRS_MAX || self.xattrs_bytes() > XATTRS_BYTES_MAX {
            return Err("too many extended attributes");
        }
        if !self.xattrs.is_sorted_by(|one, next| one.name < next.name) {
            return Err("extended attributes are out of order");
        }
        self.xattrs.iter().try_for_each(|xattr| {
            if xattr.name.len() > NAME_BYTES_MAX || xattr.name.contains(&0) || !Xattr::travels(&xattr.name) {
                return Err("extended attribute with a name that is not allowed");
            }
            if xattr.value.len() > XATTR_VALUE_BYTES_MAX {
                return Err("extended attribute with a value that is too long");
            }
            Ok(())
        })
    }

    fn xattrs_bytes(&self) -> usize {
        self.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 16).sum()
    }
}

impl Kind {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Regular { size, .. } if *size > FILE_BYTES_MAX => Err("file is larger than any file system allows"),
            Self::Regular { size, body: Body::Inline { extents, .. } } => check_extents(extents, 0, *size),
            Self::Symlink { target } => check_target(target),
            _ => Ok(()),
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Regular { body: Body::Inline { extents, .. }, .. } => {
                extents.iter().map(|extent| extent.data.len() + 16).sum()
            }
            Self::Symlink { target } => target.len(),
            _ => 0,
        }
    }
}

/// A component that cannot lead anywhere but into its own directory.
pub(super) fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => Err("name is empty"),
        b"." | b".." => Err("name leads out of its directory"),
        _ if name.len() > NAME_BYTES_MAX => Err("name is too long"),
        _ if name.contains(&b'/') => Err("name contains a slash"),
        _ if name.contains(&0) => Err("name contains a NUL byte"),
        _ => Ok(()),
    }
}

/// A target that the kernel will store.
pub(super) fn check_target(target: &[u8]) -> Result<(), &'static str> {
    match target {
        b"" => Err("symbolic link has no target"),
        _ if target.len() > TARGET_BYTES_MAX => Err("symbolic link has a target that is too long"),
        _ if target.contains(&0) => Err("symbolic link has a target with a NUL byte"),
        _ => Ok(()),
    }
}

/// Extents that ascend from `from` and end within `size`.
pub(super) fn check_extents(extents: &[Extent], from: u64, size: u64) -> Result<(), &'static str> {
    if extents.len() > EXTENTS_MAX {
        return Err("too many extents in one message");
    }
    let ascend = extents.iter().try_fold(from, |position, extent| {
        if extent.data.is_empty() {
            return Err("extent is empty");
        }
        if extent.offset < position {
            return Err("extents overlap or are out of order");
        }
        match extent.offset.checked_add(extent.data.len() as u64) {
            Some(end) if end <= size => Ok(end),
            _ => Err("extent ends past the end of its file"),
        }
    });
    ascend.map(drop)
}

/// Spans that ascend from `from`, begin at blocks, and end at blocks or with the file and its base.
pub(super) fn check_spans(spans: &[Span], from: u64, size: u64, base_size: u64) -> Result<(), &'static str> {
    if spans.len() > EXTENTS_MAX {
        return Err("too many spans in one message");
    }
    let ascend = spans.iter().try_fold(from, |position, span| {
        if span.length == 0 || span.offset < position || !span.offset.is_multiple_of(BLOCK_BYTES) {
            return Err("spans are empty, overlap, or do not begin at blocks");
        }
        match span.offset.checked_add(span.length) {
            Some(end) if end > size || end > base_size => Err("a span ends past the end of its file or of its base"),
            Some(end) if end.is_multiple_of(BLOCK_BYTES) || (end == size && end == base_size) => Ok(end),
            _ => Err("a span ends amid a block"),
        }
    });
    ascend.map(drop)
}
