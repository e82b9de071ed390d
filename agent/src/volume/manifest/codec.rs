//! Records as bytes. Reading returns `None` for whatever was not written here; it never panics and never allocates more than
//! what it was given.

use bytes::{Buf as _, Bytes};

use super::{Ending, Origin, Record};
use crate::volume::{
    digest::{BLOCK_BYTES, Content, Digest, Summary},
    entry::{Body, DeviceNumber, Entry, Inode, Kind, Metadata, Node, Timestamp, Xattr},
    stamp::Stamp,
};

/// Length of an end mark.
pub(super) const ENDING_BYTES: usize = 8 + 32 + 7 * 8;

pub(super) fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    put_bytes(out, origin.boot.as_bytes());
    put_number(out, origin.device);
    put_number(out, origin.inode);
}

pub(super) fn take_origin(from: &mut Bytes) -> Option<Origin> {
    let boot = String::from_utf8(take_bytes(from)?.to_vec()).ok()?;
    Some(Origin { boot, device: take_number(from)?, inode: take_number(from)? })
}

pub(super) fn put_ending(out: &mut Vec<u8>, number: u64, ending: &Ending) {
    let Summary { files, directories, entries, bytes, data_bytes, skipped_sockets, root_digest } = &ending.summary;
    out.extend(number.to_le_bytes());
    out.extend(root_digest.0);
    for count in [files, directories, entries, bytes, data_bytes, skipped_sockets, &ending.unproven] {
        out.extend(count.to_le_bytes());
    }
}

pub(super) fn take_ending(from: &mut Bytes) -> Option<(u64, Ending)> {
    let number = from.try_get_u64_le().ok()?;
    let root_digest = take_digest(from)?;
    let mut count = || from.try_get_u64_le().ok();
    let summary = Summary {
        files: count()?,
        directories: count()?,
        entries: count()?,
        bytes: count()?,
        data_bytes: count()?,
        skipped_sockets: count()?,
        root_digest,
    };
    Some((number, Ending { summary, unproven: count()? }))
}

pub(super) fn put_record(out: &mut Vec<u8>, record: &Record) {
    let Entry { depth, name, node } = &record.entry;
    put_number(out, u64::from(*depth));
    put_bytes(out, name);
    match node {
        Node::HardLink { first } => {
            out.push(b'h');
            put_number(out, *first);
        }
        Node::Inode(inode) => {
            put_kind(out, &inode.kind, record.content.as_ref());
            put_number(out, u64::from(inode.links));
            put_metadata(out, &inode.metadata);
        }
    }
    match &record.stamp {
        None => out.push(0),
        Some(stamp) => put_stamp(out, stamp),
    }
}

pub(super) fn take_record(from: &mut Bytes) -> Option<Record> {
    let (depth, name) = (take_u32(from)?, take_bytes(from)?);
    let mut content = None;
    let node = match from.try_get_u8().ok()? {
        b'h' => Node::HardLink { first: take_number(from)? },
        tag => {
            let kind = take_kind(from, tag, &mut content)?;
            let links = take_u32(from)?;
            Node::Inode(Inode { metadata: take_metadata(from)?, links, kind })
        }
    };
    Some(Record { entry: Entry { depth, name, node }, content, stamp: take_stamp(from)? })
}

fn put_kind(out: &mut Vec<u8>, kind: &Kind, content: Option<&Content>) {
    let mut device = |tag, number: &DeviceNumber| {
        out.push(tag);
        put_number(out, u64::from(number.major));
        put_number(out, u64::from(number.minor));
    };
    match kind {
        Kind::CharacterDevice(number) => device(b'c', number),
        Kind::BlockDevice(number) => device(b'b', number),
        Kind::Directory => out.push(b'd'),
        Kind::Fifo => out.push(b'p'),
        Kind::Symlink { target } => {
            out.push(b'l');
            put_bytes(out, target);
        }
        Kind::Regular { size, .. } => {
            out.push(b'f');
            put_number(out, *size);
            let none = Content::default();
            let content = content.unwrap_or(&none);
            out.extend(content.digest.0);
            put_number(out, content.data_bytes);
            put_number(out, content.blocks.len() as u64);
            content.blocks.iter().for_each(|block| out.extend(block.0));
        }
    }
}

fn take_kind(from: &mut Bytes, tag: u8, content: &mut Option<Content>) -> Option<Kind> {
    Some(match tag {
        b'd' => Kind::Directory,
        b'p' => Kind::Fifo,
        b'l' => Kind::Symlink { target: take_bytes(from)? },
        b'c' => Kind::CharacterDevice(DeviceNumber { major: take_u32(from)?, minor: take_u32(from)? }),
        b'b' => Kind::BlockDevice(DeviceNumber { major: take_u32(from)?, minor: take_u32(from)? }),
        b'f' => {
            let (size, digest) = (take_number(from)?, take_digest(from)?);
            let (data_bytes, count) = (take_number(from)?, take_number(from)?);
            if count != 0 && count != size.div_ceil(BLOCK_BYTES) {
                return None;
            }
            let bytes = from.len().min(usize::try_from(count).ok()?.checked_mul(32)?);
            let blocks: Vec<_> =
                from.split_to(bytes).chunks_exact(32).filter_map(|block| block.try_into().ok().map(Digest)).collect();
            if blocks.len() as u64 != count {
                return None;
            }
            *content = Some(Content { digest, blocks, data_bytes });
            Kind::Regular { size, body: Body::Held { digest } }
        }
        _ => return None,
    })
}

fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
    put_number(out, u64::from(*mode));
    put_number(out, u64::from(*uid));
    put_number(out, u64::from(*gid));
    put_time(out, *mtime);
    put_number(out, xattrs.len() as u64);
    for Xattr { name, value } in xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn take_metadata(from: &mut Bytes) -> Option<Metadata> {
    let (mode, uid, gid, mtime) = (take_u32(from)?, take_u32(from)?, take_u32(from)?, take_time(from)?);
    let mut xattrs = Vec::new();
    for _ in 0..take_number(from)? {
        xattrs.push(Xattr { name: take_bytes(from)?, value: take_bytes(from)? });
    }
    Some(Metadata { mode, uid, gid, mtime, xattrs })
}

fn put_stamp(out: &mut Vec<u8>, stamp: &Stamp) {
    out.push(if stamp.proves { 2 } else { 1 });
    put_number(out, stamp.device);
    put_number(out, stamp.inode);
    put_number(out, stamp.size);
    put_time(out, stamp.mtime);
    put_time(out, stamp.ctime);
}

fn take_stamp(from: &mut Bytes) -> Option<Option<Stamp>> {
    let proves = match from.try_get_u8().ok()? {
        0 => return Some(None),
        1 => false,
        2 => true,
        _ => return None,
    };
    let (device, inode, size) = (take_number(from)?, take_number(from)?, take_number(from)?);
    Some(Some(Stamp { device, inode, size, mtime: take_time(from)?, ctime: take_time(from)?, proves }))
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend(time.seconds.to_le_bytes());
    out.extend(time.nanos.to_le_bytes());
}

fn take_time(from: &mut Bytes) -> Option<Timestamp> {
    Some(Timestamp { seconds: from.try_get_i64_le().ok()?, nanos: from.try_get_u32_le().ok()? })
}

/// Seven bits in a byte, the lowest first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(from: &mut Bytes) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_u32(from: &mut Bytes) -> Option<u32> {
    take_number(from)?.try_into().ok()
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend(bytes);
}

fn take_bytes(from: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(take_number(from)?).ok()?;
    (length <= from.len()).then(|| from.split_to(length))
}

fn take_digest(from: &mut Bytes) -> Option<Digest> {
    if from.len() < 32 {
        return None;
    }
    from.split_to(32)[..].try_into().ok().map(Digest)
}
