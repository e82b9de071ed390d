//! The controller's side of the agent's API: the verbs operations need, and the channels to real agents.
//!
//! Owns deadlines of calls. Owns no retries: whether to try again is decided where the outcome matters. [`grpc`] is the only
//! file that names the agent's generated client.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use feather_proto::{
    adoption::Finding,
    email::EmailAddress,
    error::Error,
    ids::{Generation, ServerName, TenantName},
    limits::Limits,
    model::{
        HeldCertificate, Image, ServerSnapshot, StartMode, StopReason, TenantReport, VolumeExpectation, VolumeReport,
        VolumeSummary,
    },
    tls::{Principal, PublicCertificate, Revocation, Revocations},
};
use futures::stream::BoxStream;
use time::OffsetDateTime;

use crate::world::Password;

pub mod grpc;

pub use grpc::{Asked, SentVolume};

/// A mutating call's identity: which tenant, under which generation, keyed by operation and step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Same for every repetition of the same step.
    pub request_id: uuid::Uuid,
    /// Whose.
    pub tenant: TenantName,
    /// Fence.
    pub generation: Generation,
}

/// Answer to an add.
#[derive(Debug, Clone)]
pub struct Added {
    /// As its server knows it.
    pub tenant: TenantReport,
    /// To log in with.
    pub password: Password,
    /// A kept volume was found.
    pub found_data: bool,
}

/// A new admin container that is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Its name.
    pub container: String,
    /// Its loopback port.
    pub port: u32,
    /// How long that took.
    pub healthy_after_ms: u64,
}

/// Whom a server refuses, and whom it follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heeded {
    /// Certificates that it refuses.
    pub refused: Revocations,
    /// Highest number of a lead that it met; 0 for none.
    pub lead: i64,
}

/// How far a pass over a volume is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferProgress {
    /// Files dealt with.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Estimate of the whole, 0 when unknown.
    pub total_bytes: u64,
    /// The same in files.
    pub total_files: u64,
    /// Bytes from the network so far.
    pub wire_bytes: u64,
    /// What it is doing.
    pub phase: Phase,
    /// Which pass while the tenant runs, from 1; 0 for the last one.
    pub round: u32,
    /// How fast the bytes are dealt with, as measured here; 0 while it is not known.
    pub bytes_per_second: u64,
}

/// What a pass is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It did not say.
    #[default]
    Unknown,
    /// The target looks at what it has.
    Preparing,
    /// The source sends.
    Receiving,
    /// Everything has come and is brought to disk.
    Syncing,
}

/// What a pass over a volume is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The tenant may run; nothing is ever started on what arrives.
    Live,
    /// The tenant is sealed.
    Final,
}

/// Both ends' summaries after a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the source sent.
    pub sent: VolumeSummary,
    /// What the target has.
    pub received: VolumeSummary,
    /// Files that were sent or got other metadata.
    pub files_changed: u64,
    /// Bytes in them.
    pub bytes_changed: u64,
    /// Bytes between both agents.
    pub wire_bytes: u64,
}

/// A volume as it is on disk now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeNow {
    /// As its server knows it.
    pub report: VolumeReport,
    /// Bytes that it takes on disk.
    pub disk_bytes: u64,
    /// Names in it.
    pub entries: u64,
    /// Bytes in its files.
    pub bytes: u64,
    /// Of them: in files that have changed since the last pass.
    pub bytes_changed: u64,
    /// What both ends of that pass had then; `None` when there was none.
    pub pass_digest: Option<String>,
}

/// How much of a volume is read to verify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Every byte.
    Everything,
    /// All metadata, and the content of what may have changed since it was last hashed.
    WhatMayHaveChanged,
}

/// Where a pull fetches from.
#[derive(Clone)]
pub struct PullFrom {
    /// What its certificate must say.
    pub server: Principal,
    /// `host:port` of its agent, or of the controller that relays.
    pub address: String,
    /// The controller is at that address, and passes on what the source says.
    pub relayed: bool,
    /// Granted on the source; a secret.
    pub ticket: String,
    /// What the source sends in a second at most.
    pub bytes_per_second_max: Option<u64>,
}

/// One line of a tenant's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Without its line end.
    pub text: String,
    /// Written to standard error.
    pub stderr: bool,
}

/// Who signed up on a server, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignUp {
    /// Whose.
    pub email: EmailAddress,
    /// By that server's clock.
    pub at: OffsetDateTime,
}

/// The waitlist of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignUps {
    /// The earliest first.
    pub entries: Vec<SignUp>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// What is known beforehand of an archive to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageWanted {
    /// About so many bytes; 0 when unknown.
    pub size_bytes: u64,
    /// It must be exactly this image.
    pub digest: Option<String>,
}

/// Another agent, to be reached from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What its certificate must say.
    pub server: Principal,
    /// `host:port`.
    pub address: String,
}

/// What an agent found by asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    /// Why its proxy does not answer.
    pub router_problem: Option<String>,
    /// The others, as seen from there.
    pub peers: Vec<Reached>,
}

/// Another agent as seen from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Which, by the name in its certificate.
    pub server: ServerName,
    /// Until it answered.
    pub took: std::time::Duration,
    /// Why it was not reached.
    pub problem: Option<String>,
}

/// Called with the progress of a transfer.
pub type OnProgress = Arc<dyn Fn(TransferProgress) + Send + Sync>;

/// One agent. `Unavailable` and `Timeout` mean that the outcome is unknown.
#[async_trait]
pub trait Agent: Send + Sync {
    /// Everything it knows.
    async fn snapshot(&self) -> Result<ServerSnapshot, Error>;
    /// Snapshots without end, at least one each heartbeat.
    async fn watch(
        &self,
        heartbeat: std::time::Duration,
    ) -> Result<BoxStream<'static, Result<ServerSnapshot, Error>>, Error>;

    /// Asks its proxy, and other agents from there, for real.
    async fn probe(&self, peers: &[Peer]) -> Result<Probed, Error>;

    /// What was there before the agent, and what could not be read of it.
    async fn plan_adoption(&self) -> Result<(Vec<Finding>, Vec<String>), Error>;
    /// Makes those of them that fit part of its ledger; what became of each.
    async fn adopt_tenants(
        &self,
        request_id: uuid::Uuid,
        tenants: &BTreeSet<TenantName>,
    ) -> Result<Vec<Finding>, Error>;

    /// Hands over the certificate of the tenants' names; which one it holds then.
    async fn set_certificate(&self, certificate: &PublicCertificate) -> Result<HeldCertificate, Error>;

    /// Hands over the list of revoked certificates in the place of an earlier one; names the one that is in force then.
    async fn set_revocations(&self, list: &[Revocation]) -> Result<String, Error>;
    /// Whom it refuses and whom it follows.
    async fn heeded(&self) -> Result<Heeded, Error>;

    /// Starts a new admin container beside the one that serves, and waits for its health. The id is that of the whole swap.
    async fn try_swap(&self, swap: uuid::Uuid, image_digest: &str) -> Result<Tried, Error>;
    /// Requests go to the new one from now on; returns when the old one is gone.
    async fn commit_swap(&self, swap: uuid::Uuid) -> Result<(), Error>;
    /// The new one goes, if there is one. Refused once it serves.
    async fn abandon_swap(&self, swap: uuid::Uuid) -> Result<(), Error>;

    /// Creates a tenant.
    async fn add_tenant(&self, call: &Call, volume: VolumeExpectation, limits: Limits) -> Result<Added, Error>;
    /// Removes a tenant, keeping its volume; as the undo of an add (`discard_new`) one that the add made goes, too.
    async fn remove_tenant(&self, call: &Call, discard_new: bool) -> Result<(), Error>;
    /// Starts it; milliseconds until it was healthy.
    async fn start_tenant(&self, call: &Call, mode: StartMode) -> Result<u64, Error>;
    /// Stops it; its process has ended on return.
    async fn stop_tenant(&self, call: &Call, reason: StopReason) -> Result<(), Error>;
    /// Makes its container anew; milliseconds until it was healthy.
    async fn restart_tenant(&self, call: &Call) -> Result<u64, Error>;
    /// Sets what it may use, or (`check_only`) says whether that could be; how it stands then.
    async fn limit_tenant(&self, call: &Call, limits: Limits, check_only: bool) -> Result<TenantReport, Error>;
    /// Sets a new password.
    async fn reset_password(&self, call: &Call) -> Result<Password, Error>;
    /// Its output.
    async fn tail_logs(
        &self,
        tenant: &TenantName,
        lines: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error>;

    /// Holds a port for a tenant to come; returns it.
    async fn reserve(&self, call: &Call, image_digest: &str, volume_bytes: u64) -> Result<u16, Error>;
    /// Gives back everything that a reservation led to, or (`keep_data`) all but the volume that was received.
    async fn abandon(&self, call: &Call, keep_data: bool) -> Result<(), Error>;
    /// Makes the trial (or, for a tenant that its operator stopped, what was received) the tenant.
    async fn activate(&self, call: &Call, running: bool) -> Result<(), Error>;
    /// Forwards requests from now on, or (no address) no more; milliseconds for which it held them before.
    async fn hand_off(&self, call: &Call, forward_to: Option<&str>) -> Result<Option<u64>, Error>;
    /// Removes the container, keeps the volume for a time.
    async fn retire(&self, call: &Call, keep_until: OffsetDateTime) -> Result<(), Error>;
    /// What a move left there is what an add under this generation will find; with `needs_data` a whole copy, or it is refused.
    async fn reclaim(&self, call: &Call, needs_data: bool) -> Result<(), Error>;

    /// The volume, measured.
    async fn volume(&self, tenant: &TenantName) -> Result<VolumeNow, Error>;
    /// Lets a peer fetch the volume, or (`relayed`) the controller in its place.
    async fn grant_transfer(&self, call: &Call, peer: &Principal, ticket: &str, relayed: bool) -> Result<(), Error>;
    /// What a target asks of this source, passed on by a controller that relays.
    async fn send_volume(&self, asked: Asked) -> Result<SentVolume, Error>;
    /// Fetches the volume from a peer.
    async fn pull_volume(
        &self,
        call: &Call,
        from: &PullFrom,
        pass: Pass,
        progress: OnProgress,
    ) -> Result<Pulled, Error>;
    /// Goes over the whole volume again.
    async fn verify_volume(&self, tenant: &TenantName, reading: Reading) -> Result<VolumeSummary, Error>;
    /// The volume as a tar archive.
    async fn export_volume(&self, tenant: &TenantName) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error>;
    /// Replaces the volume's content by a tar archive; an error in the stream leaves it incomplete.
    async fn import_volume(
        &self,
        tenant: &TenantName,
        generation: Generation,
        archive: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<VolumeSummary, Error>;

    /// Loads an archive of an image; returns what it held. An error in the stream leaves the server's images as they were.
    async fn load_image(
        &self,
        wanted: &ImageWanted,
        archive: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<Vec<Image>, Error>;
    /// An image, by reference or digest, as an archive that another agent loads.
    async fn export_image(&self, image: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error>;

    /// Everybody who signed up there.
    async fn sign_ups(&self) -> Result<SignUps, Error>;
    /// One address, if it is on that server's waitlist.
    async fn sign_up(&self, email: &EmailAddress) -> Result<Option<SignUp>, Error>;
    /// Forgets an address; false when it was not there.
    async fn remove_sign_up(&self, email: &EmailAddress) -> Result<bool, Error>;
}

/// Ways to agents.
pub trait Agents: Send + Sync {
    /// The agent of a server, connected when first used. Errors call it by its name; its certificate says who it is.
    fn agent(&self, server: &ServerName, identity: &Principal, address: &str) -> Result<Arc<dyn Agent>, Error>;
}
