//! The root digest: one number that two volumes share exactly when they hold the same data.
//!
//! Owns the canonical encoding of entries and the block scheme of contents. Refuses to know descriptors and frames. What
//! counts: every path, type, mode, owner, modification time, attribute, link target, device number, size, content and which
//! names share an inode. What does not: inode numbers, access and change times, sparse layout, sockets.
//!
//! A change to any byte fed to the hash here is a new format version.

use std::{fmt, str::FromStr};

use super::entry::{DeviceNumber, Entry, Extent, Inode, Kind, Metadata, Node};

const TREE_CONTEXT: &str = "feather volume v1 tree";
const BLOCK_CONTEXT: &str = "feather volume v1 block";
const BLOCKS_CONTEXT: &str = "feather volume v1 blocks";

/// Contents are hashed in blocks of this size, so that holes cost next to nothing and blocks can be compared one by one.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;

/// A content of more blocks than this has no list of them: it is hashed and sent whole when it changes. 128 GiB.
const BLOCKS_MAX: usize = 128 * 1024;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Stands for the content of what has none.
    pub(super) const NONE: Self = Self([0; 32]);
}

/// What is known of a content: its digest and, where it has several blocks and not too many, the digest of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// Of the whole.
    pub(super) digest: Digest,
    /// Of each block; empty for one block, and for too many.
    pub(super) blocks: Vec<Digest>,
    /// Bytes that were no holes when it was read.
    pub(super) data_bytes: u64,
}

impl Default for Content {
    fn default() -> Self {
        Self { digest: Digest::NONE, blocks: Vec::new(), data_bytes: 0 }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(DigestError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = str::from_utf8(pair).map_err(|_| DigestError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| DigestError)?;
        }
        Ok(Self(bytes))
    }
}

/// What one whole walk of a volume found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Regular files; a hard-linked one counts once.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// All names that the digest covers, the root and hard links included.
    pub entries: u64,
    /// Apparent bytes of regular files.
    pub bytes: u64,
    /// Bytes of them that are not holes.
    pub data_bytes: u64,
    /// Sockets left out: they have no meaning without their process.
    pub skipped_sockets: u64,
    /// Proof of everything else.
    pub root_digest: Digest,
}

impl Summary {
    /// Whether both walks saw the same data; layout on disk and sockets may differ.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        let counts = |summary: &Self| (summary.files, summary.directories, summary.entries, summary.bytes);
        self.root_digest == other.root_digest && counts(self) == counts(other)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, entries, bytes, root_digest, .. } = self;
        write!(f, "{files} files, {entries} entries, {bytes} bytes, digest {root_digest}")
    }
}

/// Hashes one file's content as it passes by.
pub(super) struct ContentHasher {
    block: blake3::Hasher,
    block_bytes: u64,
    blocks: blake3::Hasher,
    full_blocks: u64,
    /// Digests of the blocks so far, as long as they are not too many.
    list: Vec<Digest>,
    data_bytes: u64,
    zero_block: Option<Digest>,
}

impl ContentHasher {
    pub(super) fn new() -> Self {
        Self {
            block: blake3::Hasher::new_derive_key(BLOCK_CONTEXT),
            block_bytes: 0,
            blocks: blake3::Hasher::new_derive_key(BLOCKS_CONTEXT),
            full_blocks: 0,
            list: Vec::new(),
            data_bytes: 0,
            zero_block: None,
        }
    }

    /// The next bytes of the content.
    pub(super) fn update(&mut self, data: &[u8]) {
        self.data_bytes += data.len() as u64;
        self.feed(data);
    }

    fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = usize::try_from(BLOCK_BYTES - self.block_bytes).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(room.min(data.len()));
            self.block.update(now);
            self.block_bytes += now.len() as u64;
            if self.block_bytes == BLOCK_BYTES {
                self.end_block();
            }
            data = later;
        }
    }

    /// The next `count` bytes are zeros; whole blocks of them are hashed once only.
    pub(super) fn zeros(&mut self, mut count: u64) {
        while count > 0 {
            if self.block_bytes == 0 && count >= BLOCK_BYTES {
                let digest = *self.zero_block.get_or_insert_with(zero_block);
                self.push_block(digest);
                count -= BLOCK_BYTES;
                continue;
            }
            let step = count.min(BLOCK_BYTES - self.block_bytes).min(ZEROS.len() as u64);
            self.feed(&ZEROS[..usize::try_from(step).unwrap_or(ZEROS.len())]);
            count -= step;
        }
    }

    /// The next block, or the shorter last one, is known by its digest. Only at the end of a block.
    pub(super) fn known_block(&mut self, digest: Digest, data_bytes: u64) {
        debug_assert_eq!(self.block_bytes, 0, "a block was begun");
        self.data_bytes += data_bytes;
        self.push_block(digest);
    }

    /// The digest of one block of which `extents` are the data. Only at the end of a block; what was fed before stays.
    pub(super) fn digest_of_block(&mut self, extents: &[Extent], start: u64, end: u64) -> Digest {
        debug_assert_eq!(self.block_bytes, 0, "a block was begun");
        if extents.is_empty() && end - start == BLOCK_BYTES {
            return *self.zero_block.get_or_insert_with(zero_block);
        }
        let mut position = start;
        for extent in extents {
            feed_zeros(&mut self.block, extent.offset - position);
            self.block.update(&extent.data);
            position = extent.offset + extent.data.len() as u64;
        }
        feed_zeros(&mut self.block, end - position);
        let digest = Digest(*self.block.finalize().as_bytes());
        self.block.reset();
        digest
    }

    /// Whether a block may follow that is known by its digest.
    pub(super) fn at_block(&self) -> bool {
        self.block_bytes == 0
    }

    /// The digest, of the block itself when there is at most one, else of all blocks' digests; ready for the next content.
    pub(super) fn finish(&mut self) -> Content {
        if self.block_bytes > 0 || self.full_blocks == 0 {
            self.end_block();
        }
        let mut blocks = std::mem::take(&mut self.list);
        let digest = match blocks.first() {
            Some(only) if self.full_blocks == 1 => *only,
            _ => Digest(*self.blocks.finalize().as_bytes()),
        };
        if self.full_blocks == 1 || self.full_blocks > BLOCKS_MAX as u64 {
            blocks.clear();
        }
        self.blocks.reset();
        self.full_blocks = 0;
        Content { digest, blocks, data_bytes: std::mem::take(&mut self.data_bytes) }
    }

    fn end_block(&mut self) {
        let digest = Digest(*self.block.finalize().as_bytes());
        self.block.reset();
        self.block_bytes = 0;
        self.push_block(digest);
    }

    fn push_block(&mut self, digest: Digest) {
        self.blocks.update(&digest.0);
        self.full_blocks += 1;
        if self.list.len() < BLOCKS_MAX {
            self.list.push(digest);
        }
    }
}

const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

fn feed_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    while count > 0 {
        let step = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..usize::try_from(step).unwrap_or(ZEROS.len())]);
        count -= step;
    }
}

fn zero_block() -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(BLOCK_CONTEXT);
    feed_zeros(&mut hasher, BLOCK_BYTES);
    Digest(*hasher.finalize().as_bytes())
}

/// Where the block ends that begins at `start` in a content of `size` bytes.
pub(super) fn block_end(start: u64, size: u64) -> u64 {
    (start + BLOCK_BYTES).min(size)
}

/// Hashes all entries in walk order, and counts them.
pub(super) struct TreeHasher {
    hasher: blake3::Hasher,
    scratch: Vec<u8>,
    tally: Summary,
}

impl TreeHasher {
    pub(super) fn new() -> Self {
        let tally = Summary {
            files: 0,
            directories: 0,
            entries: 0,
            bytes: 0,
            data_bytes: 0,
            skipped_sockets: 0,
            root_digest: Digest([0; 32]),
        };
        Self { hasher: blake3::Hasher::new_derive_key(TREE_CONTEXT), scratch: Vec::new(), tally }
    }

    /// The next entry; `content` is a regular file's and ignored for all others.
    pub(super) fn add(&mut self, entry: &Entry, content: Option<&Content>) {
        self.tally.entries += 1;
        self.scratch.clear();
        let out = &mut self.scratch;
        out.extend(entry.depth.to_le_bytes());
        put_bytes(out, &entry.name);
        match &entry.node {
            Node::HardLink { first } => {
                out.push(b'h');
                out.extend(first.to_le_bytes());
            }
            Node::Inode(inode) => {
                match inode.kind {
                    Kind::Directory => self.tally.directories += 1,
                    Kind::Regular { size, .. } => {
                        self.tally.files += 1;
                        self.tally.bytes = self.tally.bytes.saturating_add(size);
                        self.tally.data_bytes += content.map_or(0, |content| content.data_bytes);
                    }
                    _ => {}
                }
                put_inode(out, inode, content.map_or(Digest::NONE, |content| content.digest));
            }
        }
        self.hasher.update(out);
    }

    /// What was counted so far; its digest is not set yet.
    pub(super) fn tally(&self) -> &Summary {
        &self.tally
    }

    pub(super) fn finish(mut self, skipped_sockets: u64) -> Summary {
        // The count closes the encoding, so that no volume's encoding is a prefix of another's.
        self.hasher.update(&u32::MAX.to_le_bytes());
        self.hasher.update(&self.tally.entries.to_le_bytes());
        Summary { skipped_sockets, root_digest: Digest(*self.hasher.finalize().as_bytes()), ..self.tally }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Every length here is bounded far below 4 GiB by `Entry::check` and by the kernel.
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(bytes);
}

fn put_inode(out: &mut Vec<u8>, inode: &Inode, content: Digest) {
    match &inode.kind {
        Kind::Directory => out.push(b'd'),
        Kind::Regular { size, .. } => {
            out.push(b'f');
            out.extend(size.to_le_bytes());
            out.extend(content.0);
        }
        Kind::Symlink { target } => {
            out.push(b'l');
            put_bytes(out, target);
        }
        Kind::Fifo => out.push(b'p'),
        Kind::CharacterDevice(number) => put_device(out, b'c', *number),
        Kind::BlockDevice(number) => put_device(out, b'b', *number),
    }
    let Metadata { mode, uid, gid, mtime, xattrs } = &inode.metadata;
    out.extend(mode.to_le_bytes());
    out.extend(uid.to_le_bytes());
    out.extend(gid.to_le_bytes());
    out.extend(mtime.seconds.to_le_bytes());
    out.extend(mtime.nanos.to_le_bytes());
    out.extend(u32::try_from(xattrs.len()).unwrap_or(u32::MAX).to_le_bytes());
    for xattr in xattrs {
        put_bytes(out, &xattr.name);
        put_bytes(out, &xattr.value);
    }
}

fn put_device(out: &mut Vec<u8>, tag: u8, number: DeviceNumber) {
    out.push(tag);
    out.extend(number.major.to_le_bytes());
    out.extend(number.minor.to_le_bytes());
}
