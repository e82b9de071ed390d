//! What is known of one volume: its entries in wire order, the digest of each content, and the stamp that says for how long
//! that digest holds.
//!
//! Owns the form on disk. A manifest is written from front to back while a pass goes over a volume and read the same way, so
//! that neither ever takes more memory than one of its frames. It is a memory aid, never the truth: what is damaged, cut
//! short, of another volume or of another start of the machine (after a power cut the disk may not hold what was hashed) is
//! not believed, and costs a pass that reads everything. Nothing here needs to be durable, therefore.
//!
//! Form: a magic line, then frames of `length, check, payload`. The first payload names the volume, the last is the end mark
//! with the summary; between them are records. A file without end mark is a pass that was cut off; its records are still good.

mod codec;

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use bytes::Bytes;

use super::{
    digest::{Content, Summary},
    entry::{Body, Entry, Inode, Kind, Node},
    inode::Status,
    stamp::Stamp,
};

const MAGIC: &[u8] = b"feather volume manifest 1\n";
const CHECK_CONTEXT: &str = "feather volume manifest v1 frame";
/// A frame is closed when it has this many bytes.
const FRAME_BYTES_TARGET: usize = 64 * 1024;
/// Largest frame: one record with all attributes and block digests that there can be.
const FRAME_BYTES_MAX: usize = 8 << 20;
/// Set in the length of the last frame.
const END: u32 = 1 << 31;
const HEAD_BYTES: usize = 4 + CHECK_BYTES;
const CHECK_BYTES: usize = 16;

/// One entry, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// A regular file in it has the body `Held`.
    pub(super) entry: Entry,
    /// Of a regular file only.
    pub(super) content: Option<Content>,
    /// Absent where nothing may be concluded from the status: directories, hard links.
    pub(super) stamp: Option<Stamp>,
}

impl Record {
    /// However its content came or went, a record only holds it.
    pub(super) fn new(mut entry: Entry, content: Option<Content>, stamp: Option<Stamp>) -> Self {
        if let (Node::Inode(Inode { kind: Kind::Regular { body, .. }, .. }), Some(content)) =
            (&mut entry.node, &content)
        {
            *body = Body::Held { digest: content.digest };
        }
        Self { entry, content, stamp }
    }

    /// Whether it is a regular file with this content.
    pub(super) fn has(&self, content: &Content) -> bool {
        self.content.as_ref().is_some_and(|had| had.digest == content.digest)
    }

    /// Size of a regular file; 0 of anything else.
    pub(super) fn regular_size(&self) -> u64 {
        match &self.entry.node {
            Node::Inode(Inode { kind: Kind::Regular { size, .. }, .. }) => *size,
            _ => 0,
        }
    }

    /// The inode, unless it is one more name of another.
    pub(super) fn inode(&self) -> Option<&Inode> {
        match &self.entry.node {
            Node::Inode(inode) => Some(inode),
            Node::HardLink { .. } => None,
        }
    }
}

/// Which volume a manifest is about, and since when its stamps mean anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    boot: String,
    device: u64,
    inode: u64,
}

impl Origin {
    /// `root` is the status of the volume's directory. `None` when this start of the machine has no name: then nothing is kept.
    pub(super) fn of(root: &Status) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { boot: boot.trim().to_owned(), device: root.identity.device, inode: root.identity.inode })
    }
}

/// What the end mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// Of the whole pass.
    pub(super) summary: Summary,
    /// Regular files whose stamp proves nothing.
    pub(super) unproven: u64,
}

/// Writes a manifest.
#[derive(Debug)]
pub(super) struct Writer {
    file: BufWriter<File>,
    payload: Vec<u8>,
    frames: u64,
    unproven: u64,
}

impl Writer {
    /// Begins a new file at `path`.
    pub(super) fn create(path: &Path, origin: &Origin) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(2 * FRAME_BYTES_TARGET, File::create(path)?);
        file.write_all(MAGIC)?;
        let mut writer = Self { file, payload: Vec::new(), frames: 0, unproven: 0 };
        codec::put_origin(&mut writer.payload, origin);
        writer.flush_frame(0)?;
        Ok(writer)
    }

    /// Appends a record.
    pub(super) fn add(&mut self, record: &Record) -> io::Result<()> {
        if record.content.is_some() && !record.stamp.is_some_and(|stamp| stamp.proves) {
            self.unproven += 1;
        }
        codec::put_record(&mut self.payload, record);
        if self.payload.len() >= FRAME_BYTES_TARGET { self.flush_frame(0) } else { Ok(()) }
    }

    /// Sets the end mark. Only now is the manifest one.
    pub(super) fn finish(mut self, summary: &Summary) -> io::Result<()> {
        if !self.payload.is_empty() {
            self.flush_frame(0)?;
        }
        let ending = Ending { summary: summary.clone(), unproven: self.unproven };
        codec::put_ending(&mut self.payload, self.frames, &ending);
        self.flush_frame(END)?;
        self.file.flush()
    }

    fn flush_frame(&mut self, mark: u32) -> io::Result<()> {
        let length = u32::try_from(self.payload.len()).ok().filter(|length| *length as usize <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a record is too large"))?;
        self.file.write_all(&(length | mark).to_le_bytes())?;
        self.file.write_all(&check(self.frames, length | mark, &self.payload))?;
        self.file.write_all(&self.payload)?;
        self.frames += 1;
        self.payload.clear();
        Ok(())
    }
}

impl Drop for Writer {
    /// What was noted of a pass that is cut off is of use to the next.
    fn drop(&mut self) {
        if !self.payload.is_empty() {
            drop(self.flush_frame(0));
        }
    }
}

/// Binds a frame to its place: frames that are swapped, repeated or taken from elsewhere do not pass.
fn check(number: u64, length: u32, payload: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(CHECK_CONTEXT);
    hasher.update(&number.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// Why a manifest cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ends without its end mark.
    #[error("it was cut off")]
    Cut,
    /// Something in it is not as it was written.
    #[error("it is damaged")]
    Damaged,
}

/// Reads a manifest.
#[derive(Debug)]
pub(super) struct Reader {
    file: BufReader<File>,
    /// What of the current frame is still to be decoded.
    payload: Bytes,
    frames: u64,
    ended: bool,
}

impl Reader {
    /// Opens a manifest, whole or cut off; `None` when there is none about this volume.
    pub(super) fn open(path: &Path, origin: &Origin) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut reader = Self {
            file: BufReader::with_capacity(2 * FRAME_BYTES_TARGET, file),
            payload: Bytes::new(),
            frames: 0,
            ended: false,
        };
        let mut magic = [0; MAGIC.len()];
        reader.file.read_exact(&mut magic).ok()?;
        if magic != MAGIC || reader.next_frame().ok()? {
            return None;
        }
        (codec::take_origin(&mut reader.payload)? == *origin && reader.payload.is_empty()).then_some(reader)
    }

    /// What the end mark says; `None` when there is none: the manifest is not whole.
    pub(super) fn ending(path: &Path, origin: &Origin) -> Option<Ending> {
        let reader = Self::open(path, origin)?;
        let mut file = reader.file.into_inner();
        // The last frame has a fixed length, and its own number in it: nothing before it needs to be read.
        file.seek(SeekFrom::End(-i64::try_from(HEAD_BYTES + codec::ENDING_BYTES).ok()?)).ok()?;
        let mut last = [0; HEAD_BYTES + codec::ENDING_BYTES];
        file.read_exact(&mut last).ok()?;
        let (marked, rest) = last.split_first_chunk::<4>()?;
        let (expected, payload) = rest.split_at(CHECK_BYTES);
        let (number, ending) = codec::take_ending(&mut Bytes::copy_from_slice(payload))?;
        let whole = check(number, u32::from_le_bytes(*marked), payload) == *expected;
        (whole && u32::from_le_bytes(*marked) & END != 0).then_some(ending)
    }

    /// The next record, or `None` after the last one of a whole manifest.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Damage> {
        while self.payload.is_empty() {
            if self.ended || self.next_frame()? {
                self.ended = true;
                self.payload = Bytes::new();
                return Ok(None);
            }
        }
        codec::take_record(&mut self.payload).map(Some).ok_or(Damage::Damaged)
    }

    /// Reads one frame; whether it is the last.
    fn next_frame(&mut self) -> Result<bool, Damage> {
        let mut head = [0; HEAD_BYTES];
        self.fill(&mut head)?;
        let (length, expected) = head.split_at(4);
        let marked = u32::from_le_bytes(length.try_into().map_err(|_| Damage::Damaged)?);
        let length = (marked & !END) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Damage::Damaged);
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        if check(self.frames, marked, &payload) != *expected {
            return Err(Damage::Damaged);
        }
        self.frames += 1;
        self.payload = Bytes::from(payload);
        Ok(marked & END != 0)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Damage> {
        match self.file.read_exact(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Damage::Cut),
            read => Ok(read?),
        }
    }
}
