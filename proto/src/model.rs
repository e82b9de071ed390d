//! Strict types for what an agent reports. Decoding validates, encoding cannot fail.
//!
//! Owns the conversion between generated messages and these types; knows nothing of who observes or decides.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    error::{Error, reason},
    ids::{Generation, ServerName, TenantName},
    limits::Limits,
    pb::{agent::v1 as agent_pb, types::v1 as types_pb},
    version,
};

mod life;

pub use life::{AdminReport, EventReport, WatchReport};

/// BLAKE3 root digest of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootDigest(pub [u8; 32]);

impl fmt::Display for RootDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for RootDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for RootDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || invalid_field("root_digest", "64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(digest))
    }
}

impl TryFrom<String> for RootDigest {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<RootDigest> for String {
    fn from(digest: RootDigest) -> String {
        digest.to_string()
    }
}

/// What a walk over a whole volume found. Two volumes are identical exactly if their root digests are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSummary {
    /// Regular files, each hard-linked file once.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Everything that the digest covers.
    pub entries: u64,
    /// Apparent bytes of regular files.
    pub bytes: u64,
    /// Bytes that are not holes.
    pub data_bytes: u64,
    /// Sockets left out.
    pub skipped_sockets: u64,
    /// Digest over paths, metadata and content.
    pub root_digest: RootDigest,
}

/// An image in a server's storage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Image {
    /// Name and tag.
    pub reference: String,
    /// Image id, `sha256:...`.
    pub digest: String,
    /// Size on disk in bytes.
    pub size_bytes: u64,
}

macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident, $pb:ident { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl From<$name> for agent_pb::$pb {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => agent_pb::$pb::$variant),* }
            }
        }

        impl TryFrom<i32> for $name {
            type Error = Error;
            fn try_from(value: i32) -> Result<Self, Error> {
                match agent_pb::$pb::try_from(value) {
                    $(Ok(agent_pb::$pb::$variant) => Ok($name::$variant),)*
                    _ => Err(invalid_field(stringify!($name), "one of its named values")),
                }
            }
        }

        impl From<$name> for i32 {
            fn from(value: $name) -> i32 {
                agent_pb::$pb::from(value) as i32
            }
        }
    };
}

wire_enum! {
    /// Where a tenant stands on a server.
    Residence, Residence {
        /// Not here; a volume may have been kept.
        Absent,
        /// Lives here and should run.
        Running,
        /// Lives here, stopped by its operator.
        Stopped,
        /// Lives here, stopped for a move; only a higher generation starts it.
        Sealed,
        /// Lives elsewhere; requests are forwarded.
        Departed,
    }
}

wire_enum! {
    /// How far a move towards a server is, before its commit.
    IncomingStage, IncomingStage {
        /// Port held, volume marked incomplete.
        Reserved,
        /// Volume received and complete.
        Received,
        /// Container may run, without a public route.
        Trial,
    }
}

wire_enum! {
    /// State of a container as the runtime reports it.
    ContainerState, ContainerState {
        /// There is none.
        Missing,
        /// Created, never started.
        Created,
        /// Its process runs.
        Running,
        /// Its process ended.
        Exited,
        /// The runtime did not answer: nothing may be concluded.
        Unknown,
    }
}

wire_enum! {
    /// Whether a volume may be started on.
    VolumeState, VolumeState {
        /// All data is here.
        Complete,
        /// A transfer or import into it has not finished.
        Incomplete,
    }
}

wire_enum! {
    /// What an add should find on disk.
    VolumeExpectation, VolumeExpectation {
        /// A kept volume is used again, otherwise a new one is made.
        Any,
        /// The data must be here.
        Kept,
    }
}

wire_enum! {
    /// Why a container is started.
    StartMode, StartMode {
        /// To serve its users.
        Serve,
        /// To prove that it would.
        Trial,
    }
}

wire_enum! {
    /// Why a container is stopped.
    StopReason, StopReason {
        /// Its operator wants it so.
        Operator,
        /// It is about to move.
        Move,
    }
}

/// One tenant as its server knows it. Never carries a password or a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantReport {
    /// Its name.
    pub tenant: TenantName,
    /// Highest generation that the agent has seen.
    pub generation: Generation,
    /// Where it stands.
    pub residence: Residence,
    /// A move towards this server.
    pub incoming: Option<IncomingStage>,
    /// Its container.
    pub container: ContainerState,
    /// Loopback port, if it has one here.
    pub port: Option<u16>,
    /// Image it runs or will run.
    pub image_digest: Option<String>,
    /// When it was first added to the fleet.
    pub created: Option<OffsetDateTime>,
    /// Where requests are forwarded when departed.
    pub forward_to: Option<String>,
    /// Something a person should know.
    pub problem: Option<String>,
    /// Restarts of its container.
    pub watch: WatchReport,
    /// What it may use.
    pub limits: Limits,
    /// Its container has not got those limits yet.
    pub limits_pending: bool,
    /// Time since a request last came to be forwarded, if that is known.
    pub forward_idle: Option<Duration>,
}

/// One volume as its server knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Whose it is.
    pub tenant: TenantName,
    /// May it be started on?
    pub state: VolumeState,
    /// Generation of the placement that wrote it last.
    pub generation: Generation,
    /// Kept only until then.
    pub keep_until: Option<OffsetDateTime>,
    /// Of the last whole walk.
    pub last_summary: Option<VolumeSummary>,
}

/// Everything that an agent knows, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSnapshot {
    /// Name given at joining.
    pub server: ServerName,
    /// Version of the agent.
    pub version: String,
    /// New at each start of the agent process.
    pub boot_id: String,
    /// Ports for tenants, both ends included.
    pub ports: std::ops::RangeInclusive<u16>,
    /// Ports taken by tenants or reservations.
    pub ports_used: Vec<u16>,
    /// Memory of the birth container.
    pub memory_total_bytes: u64,
    /// What is free of it.
    pub memory_free_bytes: u64,
    /// File system of the volumes.
    pub disk_total_bytes: u64,
    /// What is free of it.
    pub disk_free_bytes: u64,
    /// Images that can be started.
    pub images: Vec<Image>,
    /// What tenants get unless told otherwise.
    pub work_image: String,
    /// Every tenant that the ledger knows.
    pub tenants: Vec<TenantReport>,
    /// Volumes on disk.
    pub volumes: Vec<VolumeReport>,
    /// The server's clock.
    pub now: OffsetDateTime,
    /// What is wrong, in sentences.
    pub problems: Vec<String>,
    /// The container that answers whatever is for no tenant, if this server has one.
    pub admin: Option<AdminReport>,
    /// What happened by itself, the oldest first.
    pub events: Vec<EventReport>,
    /// Its proxy takes forwarded requests by TLS.
    pub forwards_by_tls: bool,
    /// The certificate of the tenants' names that was handed to it.
    pub certificate: Option<HeldCertificate>,
    /// When its own certificate of the fleet ends, if it tells.
    pub identity_ends: Option<OffsetDateTime>,
    /// Names the list of revoked certificates that is in force on it.
    pub revocations_digest: String,
    /// Counts the snapshots of this boot in the order in which their making began; 0 if its agent does not count.
    pub sequence: u64,
    /// Behind the names of its tenants; empty if its agent does not tell.
    pub domain_suffix: String,
    /// What its agent speaks. The head of the answer says so, not the message: whoever reads a message puts it here.
    pub protocol: version::Range,
}

/// Which certificate of the tenants' names a server holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCertificate {
    /// SHA-256 of the leaf (DER), lower-case hexadecimal.
    pub fingerprint: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

impl TenantReport {
    /// Of a tenant without a container, of which nothing more is to be said.
    pub fn bare(tenant: TenantName, generation: Generation, residence: Residence) -> Self {
        Self {
            tenant,
            generation,
            residence,
            incoming: None,
            container: ContainerState::Missing,
            port: None,
            image_digest: None,
            created: None,
            forward_to: None,
            problem: None,
            watch: WatchReport::default(),
            limits: Limits::default(),
            limits_pending: false,
            forward_idle: None,
        }
    }
}

impl ServerSnapshot {
    /// Of a server that has nothing and holds nothing: no memory, no disk, no image, no port in use.
    pub fn empty(server: ServerName) -> Self {
        Self {
            server,
            version: String::new(),
            boot_id: String::new(),
            ports: 9001..=9010,
            ports_used: Vec::new(),
            memory_total_bytes: 0,
            memory_free_bytes: 0,
            disk_total_bytes: 0,
            disk_free_bytes: 0,
            images: Vec::new(),
            work_image: String::new(),
            tenants: Vec::new(),
            volumes: Vec::new(),
            now: OffsetDateTime::UNIX_EPOCH,
            problems: Vec::new(),
            admin: None,
            events: Vec::new(),
            forwards_by_tls: false,
            certificate: None,
            identity_ends: None,
            revocations_digest: String::new(),
            sequence: 0,
            domain_suffix: String::new(),
            protocol: version::OURS,
        }
    }

    /// Digest of the image that tenants get, if it is in storage.
    pub fn work_image_digest(&self) -> Option<&str> {
        self.images.iter().find(|image| image.reference == self.work_image).map(|image| image.digest.as_str())
    }

    /// One tenant.
    pub fn tenant(&self, name: &TenantName) -> Option<&TenantReport> {
        self.tenants.iter().find(|report| &report.tenant == name)
    }

    /// One volume.
    pub fn volume(&self, name: &TenantName) -> Option<&VolumeReport> {
        self.volumes.iter().find(|report| &report.tenant == name)
    }
}

/// The error for a field that is missing or out of range.
pub fn invalid_field(field: &str, wanted: &str) -> Error {
    Error::invalid(reason::INVALID_FIELD, format!("the field `{field}` must be {wanted}")).with("field", field)
}

/// Decodes a required message.
pub fn required<T>(value: Option<T>, field: &str) -> Result<T, Error> {
    value.ok_or_else(|| invalid_field(field, "present"))
}

/// A request id must be a UUID, so that it is unlikely to be used twice by accident.
pub fn request_id(text: &str) -> Result<uuid::Uuid, Error> {
    uuid::Uuid::parse_str(text).map_err(|_| Error::invalid(reason::INVALID_ID, "the field `request_id` must be a UUID"))
}

/// Encodes a time.
pub fn to_timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).unwrap_or_default(),
    }
}

/// Decodes a time.
pub fn from_timestamp(stamp: &prost_types::Timestamp) -> Result<OffsetDateTime, Error> {
    let nanos = i128::from(stamp.seconds) * 1_000_000_000 + i128::from(stamp.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| invalid_field("timestamp", "a time of this era"))
}

/// A time in a sentence: RFC 3339 in UTC, to the second.
pub fn rfc3339(time: OffsetDateTime) -> String {
    time.to_offset(time::UtcOffset::UTC).truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

fn text(option: Option<String>) -> String {
    option.unwrap_or_default()
}

fn option(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn port(value: u32, field: &str) -> Result<u16, Error> {
    u16::try_from(value).map_err(|_| invalid_field(field, "a port number"))
}

impl From<VolumeSummary> for types_pb::VolumeSummary {
    fn from(summary: VolumeSummary) -> Self {
        Self {
            files: summary.files,
            directories: summary.directories,
            entries: summary.entries,
            bytes: summary.bytes,
            data_bytes: summary.data_bytes,
            skipped_sockets: summary.skipped_sockets,
            root_digest: summary.root_digest.to_string(),
        }
    }
}

impl TryFrom<types_pb::VolumeSummary> for VolumeSummary {
    type Error = Error;

    fn try_from(pb: types_pb::VolumeSummary) -> Result<Self, Error> {
        Ok(Self {
            files: pb.files,
            directories: pb.directories,
            entries: pb.entries,
            bytes: pb.bytes,
            data_bytes: pb.data_bytes,
            skipped_sockets: pb.skipped_sockets,
            root_digest: pb.root_digest.parse()?,
        })
    }
}

impl From<Image> for types_pb::Image {
    fn from(image: Image) -> Self {
        Self { reference: image.reference, digest: image.digest, size_bytes: image.size_bytes }
    }
}

impl From<types_pb::Image> for Image {
    fn from(pb: types_pb::Image) -> Self {
        Self { reference: pb.reference, digest: pb.digest, size_bytes: pb.size_bytes }
    }
}

impl From<TenantReport> for agent_pb::Tenant {
    fn from(report: TenantReport) -> Self {
        Self {
            tenant: report.tenant.into(),
            generation: report.generation.0,
            residence: report.residence.into(),
            incoming: report.incoming.map_or(0, i32::from),
            container: report.container.into(),
            port: report.port.map_or(0, u32::from),
            image_digest: text(report.image_digest),
            created: report.created.map(to_timestamp),
            forward_to: text(report.forward_to),
            problem: text(report.problem),
            restarts: report.watch.restarts,
            last_restart: report.watch.last_restart.map(to_timestamp),
            crash_loop: report.watch.crash_loop,
            limits: report.limits.encode(),
            limits_pending: report.limits_pending,
            forward_idle_ms: report.forward_idle.map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl TryFrom<agent_pb::Tenant> for TenantReport {
    type Error = Error;

    fn try_from(pb: agent_pb::Tenant) -> Result<Self, Error> {
        Ok(Self {
            tenant: pb.tenant.parse()?,
            generation: Generation(pb.generation),
            residence: pb.residence.try_into()?,
            incoming: if pb.incoming == 0 { None } else { Some(pb.incoming.try_into()?) },
            container: pb.container.try_into()?,
            port: if pb.port == 0 { None } else { Some(port(pb.port, "port")?) },
            image_digest: option(pb.image_digest),
            created: pb.created.as_ref().map(from_timestamp).transpose()?,
            forward_to: option(pb.forward_to),
            problem: option(pb.problem),
            watch: WatchReport {
                restarts: pb.restarts,
                last_restart: pb.last_restart.as_ref().map(from_timestamp).transpose()?,
                crash_loop: pb.crash_loop,
            },
            limits: pb.limits.map(Limits::from).unwrap_or_default(),
            limits_pending: pb.limits_pending,
            forward_idle: pb.forward_idle_ms.map(Duration::from_millis),
        })
    }
}

impl From<VolumeReport> for agent_pb::Volume {
    fn from(report: VolumeReport) -> Self {
        Self {
            name: report.tenant.container(),
            tenant: report.tenant.into(),
            state: report.state.into(),
            generation: report.generation.0,
            keep_until: report.keep_until.map(to_timestamp),
            last_summary: report.last_summary.map(Into::into),
        }
    }
}

impl TryFrom<agent_pb::Volume> for VolumeReport {
    type Error = Error;

    fn try_from(pb: agent_pb::Volume) -> Result<Self, Error> {
        Ok(Self {
            tenant: pb.tenant.parse()?,
            state: pb.state.try_into()?,
            generation: Generation(pb.generation),
            keep_until: pb.keep_until.as_ref().map(from_timestamp).transpose()?,
            last_summary: pb.last_summary.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<HeldCertificate> for agent_pb::HeldCertificate {
    fn from(held: HeldCertificate) -> Self {
        Self { fingerprint: held.fingerprint, not_after: Some(to_timestamp(held.not_after)) }
    }
}

impl TryFrom<agent_pb::HeldCertificate> for HeldCertificate {
    type Error = Error;

    fn try_from(pb: agent_pb::HeldCertificate) -> Result<Self, Error> {
        let not_after = from_timestamp(&required(pb.not_after, "not_after")?)?;
        Ok(Self { fingerprint: pb.fingerprint, not_after })
    }
}

impl From<ServerSnapshot> for agent_pb::ServerSnapshot {
    fn from(snapshot: ServerSnapshot) -> Self {
        Self {
            server: snapshot.server.into(),
            version: snapshot.version,
            boot_id: snapshot.boot_id,
            port_first: u32::from(*snapshot.ports.start()),
            port_last: u32::from(*snapshot.ports.end()),
            ports_used: snapshot.ports_used.into_iter().map(u32::from).collect(),
            memory_total_bytes: snapshot.memory_total_bytes,
            memory_free_bytes: snapshot.memory_free_bytes,
            disk_total_bytes: snapshot.disk_total_bytes,
            disk_free_bytes: snapshot.disk_free_bytes,
            images: snapshot.images.into_iter().map(Into::into).collect(),
            work_image: snapshot.work_image,
            tenants: snapshot.tenants.into_iter().map(Into::into).collect(),
            volumes: snapshot.volumes.into_iter().map(Into::into).collect(),
            now: Some(to_timestamp(snapshot.now)),
            problems: snapshot.problems,
            forwards_by_tls: snapshot.forwards_by_tls,
            certificate: snapshot.certificate.map(Into::into),
            identity_ends: snapshot.identity_ends.map(to_timestamp),
            revocations_digest: snapshot.revocations_digest,
            sequence: snapshot.sequence,
            domain_suffix: snapshot.domain_suffix,
            admin: snapshot.admin.map(Into::into),
            events: snapshot.events.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<agent_pb::ServerSnapshot> for ServerSnapshot {
    type Error = Error;

    fn try_from(pb: agent_pb::ServerSnapshot) -> Result<Self, Error> {
        let ports = port(pb.port_first, "port_first")?..=port(pb.port_last, "port_last")?;
        Ok(Self {
            server: pb.server.parse()?,
            version: pb.version,
            boot_id: pb.boot_id,
            ports,
            ports_used: pb.ports_used.into_iter().map(|used| port(used, "ports_used")).collect::<Result<_, _>>()?,
            memory_total_bytes: pb.memory_total_bytes,
            memory_free_bytes: pb.memory_free_bytes,
            disk_total_bytes: pb.disk_total_bytes,
            disk_free_bytes: pb.disk_free_bytes,
            images: pb.images.into_iter().map(Into::into).collect(),
            work_image: pb.work_image,
            tenants: pb.tenants.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            volumes: pb.volumes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            now: from_timestamp(&required(pb.now, "now")?)?,
            problems: pb.problems,
            forwards_by_tls: pb.forwards_by_tls,
            certificate: pb.certificate.map(TryInto::try_into).transpose()?,
            identity_ends: pb.identity_ends.as_ref().map(from_timestamp).transpose()?,
            revocations_digest: pb.revocations_digest,
            sequence: pb.sequence,
            domain_suffix: pb.domain_suffix,
            protocol: version::SILENT,
            admin: pb.admin.map(TryInto::try_into).transpose()?,
            events: pb.events.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerState, IncomingStage, Residence, RootDigest, TenantReport};
    use crate::{ids::Generation, pb::agent::v1 as agent_pb};

    #[test]
    fn a_report_survives_the_wire() {
        let report = TenantReport {
            tenant: "alice".parse().unwrap(),
            generation: Generation(7),
            residence: Residence::Departed,
            incoming: Some(IncomingStage::Trial),
            container: ContainerState::Exited,
            port: Some(9003),
            image_digest: None,
            created: Some(time::OffsetDateTime::UNIX_EPOCH),
            forward_to: Some("192.0.2.7:80".into()),
            problem: None,
            watch: super::WatchReport { restarts: 2, last_restart: None, crash_loop: true },
            limits: super::Limits { memory_bytes: Some(1 << 30), revision: 2, ..Default::default() },
            limits_pending: true,
            forward_idle: Some(std::time::Duration::from_millis(1_500)),
        };
        let wire = agent_pb::Tenant::from(report.clone());
        assert_eq!(TenantReport::try_from(wire.clone()).unwrap(), report);
        assert!(TenantReport::try_from(agent_pb::Tenant { residence: 0, ..wire.clone() }).is_err());
        assert!(TenantReport::try_from(agent_pb::Tenant { port: 70_000, ..wire }).is_err());
    }

    #[test]
    fn times_in_sentences_are_rfc_3339() {
        let half = time::OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(1_500);
        let elsewhere = half.to_offset(time::UtcOffset::from_hms(2, 0, 0).unwrap());
        assert_eq!([super::rfc3339(half), super::rfc3339(elsewhere)], ["1970-01-01T00:00:01Z"; 2]);
    }

    #[test]
    fn digests_parse_strictly() {
        let digest = RootDigest([0xab; 32]);
        assert_eq!(digest.to_string().parse::<RootDigest>().unwrap(), digest);
        for bad in ["", "ab", &"é".repeat(32), &"+f".repeat(32), &"zz".repeat(32)] {
            assert!(bad.parse::<RootDigest>().is_err(), "{bad:?} was accepted");
        }
    }
}
