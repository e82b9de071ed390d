//! What can go wrong with a volume, in terms a caller can act on.
//!
//! Owns the one error type of the engine. Knows paths only for display: escaped, and cut to a readable length.

use std::io;

use rustix::io::Errno;

use super::digest::Summary;

/// A volume could not be read, written, sent or received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed for another reason than those below.
    #[error("cannot {action} `{path}` in the volume; look at the server's disk and kernel log, then try again")]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// Where, relative to the volume's root.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The source was not still: something changed while it was read.
    #[error("`{path}` {what} while the volume was read; stop whatever writes to the volume and try again")]
    Changed {
        /// Where.
        path: String,
        /// What was seen.
        what: &'static str,
    },
    /// Another file system is mounted inside the volume.
    #[error("another file system is mounted at `{path}` inside the volume; unmount it and try again")]
    MountInside {
        /// The mount point.
        path: String,
    },
    /// The source holds something that the format cannot carry.
    #[error("`{path}` cannot be carried: {problem}")]
    Unsupported {
        /// Where.
        path: String,
        /// Why not.
        problem: &'static str,
    },
    /// The disk, or the quota on it, is full.
    #[error(
        "no space left on the volume's disk while writing `{path}` ({free_bytes} bytes free, at least {needed_bytes} more needed); \
         free some space or choose another server, then try again"
    )]
    NoSpace {
        /// What was being written.
        path: String,
        /// Free bytes on the file system, 0 when it would not say.
        free_bytes: u64,
        /// Bytes known to be still missing, 0 when unknown.
        needed_bytes: u64,
    },
    /// A limit set by the caller was passed.
    #[error("the volume has more than {limit} {what}; raise the limit or make the volume smaller")]
    TooLarge {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// What is known of the copy to build on is not true of it.
    #[error("what is on disk is not what was noted of it ({cause}); the next transfer looks at all of it again")]
    BaseLost {
        /// What was found.
        cause: String,
    },
    /// The directory to write into already holds something.
    #[error("the volume to write into is not empty; clear it first")]
    NotEmpty,
    /// The stream breaks the format's rules: it is damaged, hostile, or of another version.
    #[error("the volume stream is refused at entry {ordinal} (`{path}`): {problem}; start the transfer again")]
    Refused {
        /// Position of the entry in the stream.
        ordinal: u64,
        /// Its place.
        path: String,
        /// Which rule it broke.
        problem: &'static str,
    },
    /// A message of the stream does not decode.
    #[error("a message of the volume stream cannot be read: {problem}; are both agents of the same version?")]
    Malformed {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The stream ended before its trailer.
    #[error("the volume stream ended early, after {entries} entries; start the transfer again")]
    Truncated {
        /// Entries received before the end.
        entries: u64,
    },
    /// A file's content does not match its digest.
    #[error("the content of `{path}` was damaged on the way; start the transfer again")]
    Corrupt {
        /// The file.
        path: String,
    },
    /// The sender read something else than the receiver wrote.
    #[error(
        "sender and receiver disagree about the volume (sent {sent}, received {received}); start the transfer again"
    )]
    Disagree {
        /// The sender's summary.
        sent: Box<Summary>,
        /// The receiver's summary.
        received: Box<Summary>,
    },
    /// The file system took an attribute and kept another value.
    #[error("the file system does not keep the {what} of `{path}`; choose a server whose disk does (ext4, xfs, btrfs)")]
    NotKept {
        /// Where.
        path: String,
        /// Which attribute.
        what: &'static str,
    },
    /// The tar archive breaks the rules: it is damaged, hostile, or of a kind we do not read.
    #[error("the archive is refused at byte {offset} (`{path}`): {problem}")]
    Archive {
        /// Where in the archive, in bytes.
        offset: u64,
        /// Name of the member, empty before the first.
        path: String,
        /// Which rule it broke.
        problem: &'static str,
    },
    /// The tar archive has no end.
    #[error(
        "the archive ends early, at byte {offset}; export it again and compare sizes (exports that end early report success)"
    )]
    ArchiveTruncated {
        /// Bytes read.
        offset: u64,
    },
    /// The archive could not be read or written by the other side of the pipe.
    #[error("cannot {action} the archive")]
    ArchiveIo {
        /// "read" or "write".
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The stream that feeds us failed.
    #[error("the transfer was cut off; check the connection between the servers and start it again")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The other end of a channel is gone: the caller gave up.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The blocking thread ended without a result, which only a defect can cause.
    #[error("the transfer thread ended unexpectedly; report this with the agent's log")]
    Panicked,
}

impl Error {
    /// An error of a system call at `path`; a full disk is told apart.
    pub(super) fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let full = [Errno::NOSPC, Errno::DQUOT].iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()));
        // An attribute that does not fit into its inode is reported with the same number as a full disk.
        if full && action != SET_XATTR {
            return Self::NoSpace { path: show(path), free_bytes: 0, needed_bytes: 0 };
        }
        Self::Io { action, path: show(path), source }
    }

    pub(super) fn changed(path: &[u8], what: &'static str) -> Self {
        Self::Changed { path: show(path), what }
    }
}

/// The one action whose "no space" is not about the disk.
pub(super) const SET_XATTR: &str = "set an extended attribute of";

/// A path for people: `.` for the root, other bytes escaped, the middle of a long one left out.
pub(super) fn show(path: &[u8]) -> String {
    const ENDS: usize = 120;
    if path.is_empty() {
        return ".".to_owned();
    }
    if path.len() <= 2 * ENDS {
        return path.escape_ascii().to_string();
    }
    let (head, tail) = (&path[..ENDS], &path[path.len() - ENDS..]);
    format!("{}...{}", head.escape_ascii(), tail.escape_ascii())
}
