//! What is shown of the fleet: structs with stable JSON, made of the controller's answers.
//!
//! The only place that reads generated messages field by field. An enum value that this version does not know is `unknown`,
//! a text or number that is not set is `null`.

use feather_proto::{model, pb::types::v1 as types_pb};
use serde::Serialize;
use time::OffsetDateTime;

use crate::units;

pub(crate) mod adoption;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod cert;
pub(crate) mod dns;
pub(crate) mod doctor;
pub(crate) mod event;
pub(crate) mod explanation;
pub(crate) mod image;
pub(crate) mod labels;
pub(crate) mod life;
pub(crate) mod migration;
pub(crate) mod moves;
pub(crate) mod operation;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod user;
pub(crate) mod volume;
pub(crate) mod waitlist;
pub(crate) mod warning;
pub(crate) mod wide;

/// A moment: kept as time for arithmetic, written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) OffsetDateTime);

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&units::rfc3339(self.0))
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(&units::rfc3339(self.0))
    }
}

impl Moment {
    /// `2027-01-15`
    pub(crate) fn day(self) -> String {
        units::rfc3339(self.0).get(..10).unwrap_or_default().to_owned()
    }

    /// How long ago.
    #[allow(clippy::disallowed_methods, reason = "an age is told by the clock of whoever reads it")]
    pub(crate) fn age(self) -> String {
        units::age(OffsetDateTime::now_utc(), self.0)
    }
}

impl std::ops::Sub for Moment {
    type Output = time::Duration;
    fn sub(self, earlier: Self) -> time::Duration {
        self.0 - earlier.0
    }
}

/// Reads a time; the macro-free way to name no prost type here.
macro_rules! moment {
    ($stamp:expr) => {
        $stamp.as_ref().and_then(|stamp| feather_proto::model::from_timestamp(stamp).ok()).map(crate::view::Moment)
    };
}
pub(crate) use moment;

/// What a walk over a whole volume found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SummaryView {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) entries: u64,
    pub(crate) skipped_sockets: u64,
    pub(crate) root_digest: String,
}

impl From<types_pb::VolumeSummary> for SummaryView {
    fn from(pb: types_pb::VolumeSummary) -> Self {
        Self {
            bytes: pb.bytes,
            files: pb.files,
            directories: pb.directories,
            entries: pb.entries,
            skipped_sockets: pb.skipped_sockets,
            root_digest: pb.root_digest,
        }
    }
}

impl SummaryView {
    /// `1.2 MiB in 34 files`
    pub(crate) fn size(&self) -> String {
        format!("{} in {}", units::bytes(self.bytes), units::counted(self.files, "file"))
    }
}

/// An image in a server's storage.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ImageView {
    /// None when its name has moved to another image.
    pub(crate) reference: Option<String>,
    pub(crate) digest: String,
    pub(crate) size_bytes: u64,
}

impl From<types_pb::Image> for ImageView {
    fn from(pb: types_pb::Image) -> Self {
        let image = model::Image::from(pb);
        Self { reference: set(image.reference), digest: image.digest, size_bytes: image.size_bytes }
    }
}

impl ImageView {
    /// As much of the digest as tells two images apart.
    pub(crate) fn short_digest(&self) -> &str {
        self.digest.get(.."sha256:".len() + 12).unwrap_or(&self.digest)
    }

    /// Name, whole digest and size in one line.
    pub(crate) fn line(&self) -> String {
        let name = self.reference.as_deref().unwrap_or("-");
        format!("{name} {} {}", self.digest, units::bytes(self.size_bytes))
    }
}

pub(crate) fn set(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// For tables, where nothing is shown as an empty cell.
pub(crate) fn or_empty(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}
