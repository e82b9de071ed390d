//! The volume transfer engine: a directory tree becomes a stream of frames, and a stream becomes the same tree again.
//!
//! Owns reading and writing volumes through directory descriptors, the wire order, the root digest that proves two volumes
//! identical, and the tar archives at the edges. Refuses to know Podman, tenants, tickets, generations and where volumes lie:
//! callers hand in an open directory, and record themselves whether its content is complete.
//!
//! The core is blocking and works on one frame at a time: a few MiB of memory per stream whatever the size of the volume,
//! plus what one directory's names and the hard links still open take. The async ends run it on a blocking thread behind
//! bounded channels, so that a slow disk slows the network down and the other way round; dropping an end stops the thread.
//!
//! Extended attributes that belong to the machine rather than to the data (SELinux labels, integrity signatures) stay out;
//! see [`Xattr`] for those that travel.

mod content;
mod cursor;
mod descent;
mod digest;
mod ends;
mod entry;
mod error;
mod exchange;
mod inode;
mod manifest;
mod notes;
mod pack;
mod pax;
mod read;
mod receive;
mod send;
mod stamp;
mod stream;
mod tar_export;
mod tar_header;
mod tar_import;
mod tar_sparse;
mod walk;
mod wire;
mod writer;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests;

pub use digest::{Digest, DigestError, Summary};
pub use ends::{Listing, Trust, Volume};
pub use entry::{
    BaseUse, Batch, Body, Chunk, DeviceNumber, Entry, Extent, Frame, Header, Inode, Kind, Metadata, Node, Span, Step,
    Timestamp, Trailer, Xattr,
};
pub use error::Error;
pub use exchange::exchange;
pub use inode::open_root;
pub use notes::Notes;
pub use pack::{Pace, Parcel};
pub use receive::{Changes, Limits, Phase, Progress, Receiver};
pub use send::{scan, send};
pub use stream::{Receiving, Sending, Transferred, export_tar, import_tar, listing, parcels, prepare, receive};
pub use tar_export::{Exported, write_tar};
// Archives of images are tar, too.
pub(crate) use tar_header::{BLOCK, Fields as TarFields, padding};
pub use tar_import::{ARCHIVE_START_BYTES, check_archive_start, read_tar};
pub use walk::{Expect, Usage, measure};
pub use writer::clear;
