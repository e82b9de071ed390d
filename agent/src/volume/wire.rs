//! Frames as protobuf messages.
//!
//! Owns the conversion, and names the generated types for the whole engine. Checks only that a message has the shape of a
//! frame; the rules of the stream are the receiver's.

use bytes::Bytes;
use feather_proto::pb::{agent::v1 as pb, types::v1 as types};
use pb::{volume_entry, volume_frame};

use super::{
    Batch, Body, Chunk, DeviceNumber, Digest, Entry, Error, Extent, Frame, Header, Inode, Kind, Metadata, Node,
    Summary, Timestamp, Xattr,
};

fn malformed(problem: &'static str) -> Error {
    Error::Malformed { problem }
}

impl From<Frame> for pb::VolumeFrame {
    fn from(frame: Frame) -> Self {
        let frame = match frame {
            Frame::Header(Header { version, total_bytes }) => {
                volume_frame::Frame::Header(pb::VolumeHeader { version, total_bytes })
            }
            Frame::Batch(Batch { entries }) => {
                volume_frame::Frame::Batch(pb::VolumeBatch { entries: entries.into_iter().map(Into::into).collect() })
            }
            Frame::Chunk(Chunk { extents, end }) => volume_frame::Frame::Chunk(pb::VolumeChunk {
                extents: extents.into_iter().map(Into::into).collect(),
                last: end.is_some(),
                digest: end.map_or_else(Bytes::new, Into::into),
            }),
            Frame::Trailer(summary) => {
                volume_frame::Frame::Trailer(pb::VolumeTrailer { summary: Some(summary.into()) })
            }
        };
        Self { frame: Some(frame) }
    }
}

impl TryFrom<pb::VolumeFrame> for Frame {
    type Error = Error;

    fn try_from(message: pb::VolumeFrame) -> Result<Self, Error> {
        Ok(match message.frame.ok_or(malformed("it is empty, or of an unknown kind"))? {
            volume_frame::Frame::Header(pb::VolumeHeader { version, total_bytes }) => {
                Self::Header(Header { version, total_bytes })
            }
            volume_frame::Frame::Batch(pb::VolumeBatch { entries }) => {
                let entries = entries.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?;
                Self::Batch(Batch { entries })
            }
            volume_frame::Frame::Chunk(pb::VolumeChunk { extents, last, digest }) => {
                if !last && !digest.is_empty() {
                    return Err(malformed("there is a digest before the end of a file"));
                }
                let end = last.then(|| Digest::try_from(digest)).transpose()?;
                Self::Chunk(Chunk { extents: extents.into_iter().map(Into::into).collect(), end })
            }
            volume_frame::Frame::Trailer(pb::VolumeTrailer { summary }) => {
                Self::Trailer(summary.ok_or(malformed("the trailer has no summary"))?.try_into()?)
            }
        })
    }
}

impl From<Entry> for pb::VolumeEntry {
    fn from(entry: Entry) -> Self {
        let Entry { depth, name, node } = entry;
        let (metadata, node) = match node {
            Node::HardLink { first } => (None, volume_entry::Node::HardLink(pb::VolumeHardLink { first })),
            Node::Inode(Inode { metadata, links, kind }) => {
                (Some(pb::VolumeMetadata { links, ..metadata.into() }), kind.into())
            }
        };
        Self { depth, name, metadata, node: Some(node) }
    }
}

impl TryFrom<pb::VolumeEntry> for Entry {
    type Error = Error;

    fn try_from(message: pb::VolumeEntry) -> Result<Self, Error> {
        let pb::VolumeEntry { depth, name, metadata, node } = message;
        let node = match (node.ok_or(malformed("an entry has no type, or an unknown one"))?, metadata) {
            (volume_entry::Node::HardLink(pb::VolumeHardLink { first }), None) => Node::HardLink { first },
            (volume_entry::Node::HardLink(_), Some(_)) => return Err(malformed("a hard link has metadata")),
            (_, None) => return Err(malformed("an entry has no metadata")),
            (node, Some(metadata)) => {
                let links = metadata.links.max(1);
                Node::Inode(Inode { metadata: metadata.into(), links, kind: Kind::try_from(node)? })
            }
        };
        Ok(Self { depth, name, node })
    }
}

impl From<Kind> for volume_entry::Node {
    fn from(kind: Kind) -> Self {
        let device = |DeviceNumber { major, minor }| pb::VolumeDevice { major, minor };
        match kind {
            Kind::Directory => Self::Directory(pb::VolumeDirectory {}),
            Kind::Regular { size, body: Body::Streamed } => {
                Self::RegularFile(pb::VolumeRegularFile { size, streamed: true, ..Default::default() })
            }
            Kind::Regular { size, body: Body::Inline { extents, digest } } => {
                let extents = extents.into_iter().map(Into::into).collect();
                Self::RegularFile(pb::VolumeRegularFile { size, streamed: false, extents, digest: digest.into() })
            }
            Kind::Symlink { target } => Self::Symlink(pb::VolumeSymlink { target }),
            Kind::Fifo => Self::Fifo(pb::VolumeFifo {}),
            Kind::CharacterDevice(number) => Self::CharacterDevice(device(number)),
            Kind::BlockDevice(number) => Self::BlockDevice(device(number)),
        }
    }
}

impl TryFrom<volume_entry::Node> for Kind {
    type Error = Error;

    fn try_from(node: volume_entry::Node) -> Result<Self, Error> {
        let device = |pb::VolumeDevice { major, minor }| DeviceNumber { major, minor };
        Ok(match node {
            volume_entry::Node::Directory(_) => Self::Directory,
            volume_entry::Node::RegularFile(file) => {
                let pb::VolumeRegularFile { size, streamed, extents, digest } = file;
                let body = if !streamed {
                    let extents = extents.into_iter().map(Into::into).collect();
                    Body::Inline { extents, digest: digest.try_into()? }
                } else if extents.is_empty() && digest.is_empty() {
                    Body::Streamed
                } else {
                    return Err(malformed("a streamed file has content in its entry"));
                };
                Self::Regular { size, body }
            }
            volume_entry::Node::Symlink(pb::VolumeSymlink { target }) => Self::Symlink { target },
            volume_entry::Node::Fifo(_) => Self::Fifo,
            volume_entry::Node::CharacterDevice(number) => Self::CharacterDevice(device(number)),
            volume_entry::Node::BlockDevice(number) => Self::BlockDevice(device(number)),
            volume_entry::Node::HardLink(_) => return Err(malformed("a hard link has metadata")),
        })
    }
}

impl From<Metadata> for pb::VolumeMetadata {
    fn from(metadata: Metadata) -> Self {
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
        let xattrs = xattrs.into_iter().map(|Xattr { name, value }| pb::VolumeXattr { name, value }).collect();
        Self { mode, uid, gid, mtime_seconds: mtime.seconds, mtime_nanos: mtime.nanos, xattrs, links: 0 }
    }
}

impl From<pb::VolumeMetadata> for Metadata {
    fn from(message: pb::VolumeMetadata) -> Self {
        let pb::VolumeMetadata { mode, uid, gid, mtime_seconds, mtime_nanos, xattrs, links: _ } = message;
        let xattrs = xattrs.into_iter().map(|pb::VolumeXattr { name, value }| Xattr { name, value }).collect();
        Self { mode, uid, gid, mtime: Timestamp { seconds: mtime_seconds, nanos: mtime_nanos }, xattrs }
    }
}

impl From<Extent> for pb::VolumeExtent {
    fn from(Extent { offset, data }: Extent) -> Self {
        Self { offset, data }
    }
}

impl From<pb::VolumeExtent> for Extent {
    fn from(pb::VolumeExtent { offset, data }: pb::VolumeExtent) -> Self {
        Self { offset, data }
    }
}

impl From<Digest> for Bytes {
    fn from(digest: Digest) -> Self {
        Self::copy_from_slice(&digest.0)
    }
}

impl TryFrom<Bytes> for Digest {
    type Error = Error;

    fn try_from(bytes: Bytes) -> Result<Self, Error> {
        bytes[..].try_into().map(Self).map_err(|_| malformed("a digest does not have 32 bytes"))
    }
}

impl From<Summary> for types::VolumeSummary {
    fn from(summary: Summary) -> Self {
        let Summary { files, directories, entries, bytes, data_bytes, skipped_sockets, root_digest } = summary;
        let root_digest = root_digest.to_string();
        Self { files, directories, entries, bytes, data_bytes, skipped_sockets, root_digest }
    }
}

impl TryFrom<types::VolumeSummary> for Summary {
    type Error = Error;

    fn try_from(message: types::VolumeSummary) -> Result<Self, Error> {
        let types::VolumeSummary { files, directories, entries, bytes, data_bytes, skipped_sockets, root_digest } =
            message;
        let root_digest = root_digest.parse().map_err(|_| malformed("a root digest is not 64 hexadecimal digits"))?;
        Ok(Self { files, directories, entries, bytes, data_bytes, skipped_sockets, root_digest })
    }
}
