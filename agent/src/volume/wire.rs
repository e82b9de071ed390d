//! Frames as protobuf messages.
//!
//! Owns the conversion, and names the generated types for the whole engine. Checks only that a message has the shape of a
//! frame; the rules of the stream are the receiver's.

use bytes::Bytes;
use feather_proto::pb::{agent::v1 as pb, types::v1 as types};
use pb::{volume_entry, volume_frame, volume_step};

use super::{
    BaseUse, Batch, Body, Chunk, DeviceNumber, Digest, Entry, Error, Extent, Frame, Header, Inode, Kind, Listing,
    Metadata, Node, Parcel, Span, Step, Summary, Timestamp, Trailer, Xattr,
    digest::{BLOCK_BYTES, Content},
    manifest::Record,
};

fn malformed(problem: &'static str) -> Error {
    Error::Malformed { problem }
}

impl From<Frame> for pb::VolumeFrame {
    fn from(frame: Frame) -> Self {
        let frame = match frame {
            Frame::Header(Header { version, total_bytes, total_files, base }) => {
                let base = pb::VolumeBase::from(base).into();
                volume_frame::Frame::Header(pb::VolumeHeader { version, total_bytes, total_files, base })
            }
            Frame::Batch(Batch { steps }) => {
                volume_frame::Frame::Batch(pb::VolumeBatch { steps: steps.into_iter().map(Into::into).collect() })
            }
            Frame::Chunk(Chunk { extents, held, end }) => volume_frame::Frame::Chunk(pb::VolumeChunk {
                extents: extents.into_iter().map(Into::into).collect(),
                held: held.into_iter().map(|Span { offset, length }| pb::VolumeSpan { offset, length }).collect(),
                last: end.is_some(),
                digest: end.map_or_else(Bytes::new, Into::into),
            }),
            Frame::Trailer(Trailer { summary, files_read, bytes_read }) => {
                let summary = Some(summary.into());
                volume_frame::Frame::Trailer(pb::VolumeTrailer { summary, files_read, bytes_read })
            }
        };
        Self { frame: Some(frame) }
    }
}

impl From<Parcel> for pb::VolumeFrame {
    fn from(parcel: Parcel) -> Self {
        match parcel {
            Parcel::Plain(frame) => frame.into(),
            Parcel::Packed { data, size } => {
                Self { frame: Some(volume_frame::Frame::Packed(pb::VolumePacked { data, size })) }
            }
        }
    }
}

impl TryFrom<pb::VolumeFrame> for Parcel {
    type Error = Error;

    fn try_from(message: pb::VolumeFrame) -> Result<Self, Error> {
        match message.frame {
            Some(volume_frame::Frame::Packed(pb::VolumePacked { data, size })) => Ok(Self::Packed { data, size }),
            _ => Frame::try_from(message).map(Self::Plain),
        }
    }
}

/// A frame as the bytes of its message.
pub(super) fn encoded(frame: Frame) -> Vec<u8> {
    feather_proto::encode(&pb::VolumeFrame::from(frame))
}

/// The frame in the bytes of a message.
pub(super) fn decoded(bytes: Vec<u8>) -> Result<Frame, Error> {
    let message = feather_proto::decode::<pb::VolumeFrame>(bytes.into());
    message.map_err(|_| malformed("a packed frame holds no message"))?.try_into()
}

/// One that is not packed.
impl TryFrom<pb::VolumeFrame> for Frame {
    type Error = Error;

    fn try_from(message: pb::VolumeFrame) -> Result<Self, Error> {
        Ok(match message.frame.ok_or(malformed("it is empty, or of an unknown kind"))? {
            volume_frame::Frame::Header(pb::VolumeHeader { version, total_bytes, total_files, base }) => {
                let base = match pb::VolumeBase::try_from(base) {
                    Ok(pb::VolumeBase::Nothing | pb::VolumeBase::Unspecified) => BaseUse::Nothing,
                    Ok(pb::VolumeBase::Shared) => BaseUse::Shared,
                    Ok(pb::VolumeBase::Listed) => BaseUse::Listed,
                    Err(_) => return Err(malformed("the header has an unknown use of the base")),
                };
                Self::Header(Header { version, total_bytes, total_files, base })
            }
            volume_frame::Frame::Batch(pb::VolumeBatch { steps }) => {
                Self::Batch(Batch { steps: steps.into_iter().map(Step::try_from).collect::<Result<_, _>>()? })
            }
            volume_frame::Frame::Chunk(pb::VolumeChunk { extents, held, last, digest }) => {
                if !last && !digest.is_empty() {
                    return Err(malformed("there is a digest before the end of a file"));
                }
                let end = last.then(|| Digest::try_from(digest)).transpose()?;
                Self::Chunk(Chunk {
                    extents: extents.into_iter().map(Into::into).collect(),
                    held: held.into_iter().map(|pb::VolumeSpan { offset, length }| Span { offset, length }).collect(),
                    end,
                })
            }
            volume_frame::Frame::Packed(_) => return Err(malformed("a frame is packed twice")),
            volume_frame::Frame::Trailer(pb::VolumeTrailer { summary, files_read, bytes_read }) => {
                let summary = summary.ok_or(malformed("the trailer has no summary"))?.try_into()?;
                Self::Trailer(Trailer { summary, files_read, bytes_read })
            }
        })
    }
}

impl From<BaseUse> for pb::VolumeBase {
    fn from(base: BaseUse) -> Self {
        match base {
            BaseUse::Nothing => Self::Nothing,
            BaseUse::Shared => Self::Shared,
            BaseUse::Listed => Self::Listed,
        }
    }
}

impl From<Step> for pb::VolumeStep {
    fn from(step: Step) -> Self {
        let step = match step {
            Step::Entry(entry) => volume_step::Step::Entry(entry.into()),
            Step::Keep(count) => volume_step::Step::Keep(count),
            Step::Drop(count) => volume_step::Step::Drop(count),
        };
        Self { step: Some(step) }
    }
}

impl TryFrom<pb::VolumeStep> for Step {
    type Error = Error;

    fn try_from(message: pb::VolumeStep) -> Result<Self, Error> {
        Ok(match message.step.ok_or(malformed("a step is empty, or of an unknown kind"))? {
            volume_step::Step::Entry(entry) => Self::Entry(entry.try_into()?),
            volume_step::Step::Keep(count) => Self::Keep(count),
            volume_step::Step::Drop(count) => Self::Drop(count),
        })
    }
}

/// An entry of the receiver's list, as the sender sees it.
impl TryFrom<pb::VolumeBaseEntry> for Record {
    type Error = Error;

    fn try_from(message: pb::VolumeBaseEntry) -> Result<Self, Error> {
        let pb::VolumeBaseEntry { entry, blocks } = message;
        let entry = Entry::try_from(entry.ok_or(malformed("an entry of the base is empty"))?)?;
        entry.check().map_err(malformed)?;
        let content = match &entry.node {
            Node::Inode(Inode { kind: Kind::Regular { size, body: Body::Held { digest } }, .. }) => {
                if !blocks.is_empty() && blocks.len() as u64 != size.div_ceil(BLOCK_BYTES).saturating_mul(32) {
                    return Err(malformed("an entry of the base has too many or too few block digests"));
                }
                let blocks = blocks.chunks_exact(32).filter_map(|block| block.try_into().ok().map(Digest)).collect();
                Some(Content { digest: *digest, blocks, data_bytes: 0 })
            }
            Node::Inode(Inode { kind: Kind::Regular { .. }, .. }) => {
                return Err(malformed("an entry of the base has content"));
            }
            _ => None,
        };
        Ok(Self { entry, content, stamp: None })
    }
}

impl From<Record> for pb::VolumeBaseEntry {
    fn from(record: Record) -> Self {
        let blocks = record.content.map(|content| content.blocks.iter().flat_map(|block| block.0).collect());
        Self { entry: Some(record.entry.into()), blocks: blocks.unwrap_or_default() }
    }
}

impl TryFrom<pb::SendVolumeBase> for Listing {
    type Error = Error;

    fn try_from(message: pb::SendVolumeBase) -> Result<Self, Error> {
        let pb::SendVolumeBase { entries, last } = message;
        Ok(Self { records: entries.into_iter().map(Record::try_from).collect::<Result<_, _>>()?, last })
    }
}

impl From<Listing> for pb::SendVolumeBase {
    fn from(Listing { records, last }: Listing) -> Self {
        Self { entries: records.into_iter().map(Into::into).collect(), last }
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
            Kind::Regular { size, body: Body::Patched } => {
                Self::RegularFile(pb::VolumeRegularFile { size, streamed: true, held: true, ..Default::default() })
            }
            Kind::Regular { size, body: Body::Held { digest } } => Self::RegularFile(pb::VolumeRegularFile {
                size,
                held: true,
                digest: digest.into(),
                ..Default::default()
            }),
            Kind::Regular { size, body: Body::Inline { extents, digest } } => {
                let extents = extents.into_iter().map(Into::into).collect();
                let digest = digest.into();
                Self::RegularFile(pb::VolumeRegularFile { size, extents, digest, ..Default::default() })
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
                let pb::VolumeRegularFile { size, streamed, held, extents, digest } = file;
                let body = match (streamed, held) {
                    (false, false) => {
                        let extents = extents.into_iter().map(Into::into).collect();
                        Body::Inline { extents, digest: digest.try_into()? }
                    }
                    (false, true) if extents.is_empty() => Body::Held { digest: digest.try_into()? },
                    (true, false) if extents.is_empty() && digest.is_empty() => Body::Streamed,
                    (true, true) if extents.is_empty() && digest.is_empty() => Body::Patched,
                    _ => return Err(malformed("a streamed or held file has content in its entry")),
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
