//! A whole zone as a provider shows it, and the seam to providers that can change one.
//!
//! Owns the words that the record engine and the providers share; decides nothing. A provider knows of all records of the
//! zone, also of those that are not ours: whoever applies a change compares them before and after.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// One record, in the normal form that everything compares: the host relative to the zone, lower case, without a trailing
/// dot, empty for the apex; the type in lower case; values byte for byte as the provider has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ZoneRecord {
    /// `www`, `*.users`; empty for the apex.
    pub host: String,
    /// `a`, `aaaa`, `txt`, `mx`, or what else the provider knows (`forward` at Dynadot).
    pub kind: String,
    /// The address, text, or target.
    pub value: String,
    /// A second value where the type has one (the priority of an `mx`), otherwise empty.
    pub extra: String,
}

impl fmt::Display for ZoneRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.is_empty() { "@" } else { &self.host };
        write!(formatter, "{host} {} {:?}", self.kind, self.value)?;
        if self.extra.is_empty() { Ok(()) } else { write!(formatter, " {:?}", self.extra) }
    }
}

/// All of a zone at one moment. Records are a multiset: a provider may hold the same one twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Seconds; one for the whole zone.
    pub ttl: u32,
    /// Sorted.
    pub records: Vec<ZoneRecord>,
}

/// How many records a removal took, as the provider says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// At the apex.
    pub apex: usize,
    /// Below it.
    pub sub: usize,
}

/// Why a call of a provider brought nothing, by what it means for the zone. Texts hold no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Nothing was changed; the same call may be made again after the pause.
    #[error("{message}")]
    Later {
        /// What the provider said.
        message: String,
        /// Not before.
        pause: Duration,
    },
    /// The reply is lost: a change may have been applied, may still be, or not. Read before anything else.
    #[error("{0}")]
    Unknown(String),
    /// Nothing was changed, and making the same call again changes nothing: a person is needed.
    #[error("{0}")]
    Refused(String),
}

/// A provider that shows and changes one zone. Implementations pace themselves; they neither retry a change nor judge it.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The zone's name, without a trailing dot.
    fn zone(&self) -> &str;
    /// The whole zone. Anything that is not surely a whole zone is an error, never an empty zone.
    async fn read(&self) -> Result<Zone, ProviderError>;
    /// Adds these to what is there, in one call, and sets the zone's TTL.
    async fn append(&self, records: &[ZoneRecord], ttl: u32) -> Result<(), ProviderError>;
    /// Removes exactly these, in one call.
    async fn remove(&self, records: &[ZoneRecord]) -> Result<Removed, ProviderError>;
    /// Makes the zone exactly this, whatever it holds: for restoring a snapshot that an operator has confirmed.
    async fn replace(&self, zone: &Zone) -> Result<(), ProviderError>;
    /// Why [`Provider::replace`] would refuse this zone without asking anybody.
    fn objection(&self, zone: &Zone) -> Option<String>;
}
