//! What the ledger keeps about one tenant, and its form on disk.
//!
//! Owns the record and the questions one may ask of it. Changes are decided in `transition.rs`, never here.

use feather_proto::{
    ids::{Generation, TenantName},
    limits::Limits,
    model::{IncomingStage, VolumeSummary},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::password::Password;

/// Version of the form on disk.
pub(super) const VERSION: u32 = 1;

/// One tenant as this server's ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose it is.
    pub tenant: TenantName,
    /// Highest generation seen: the floor. It outlives everything else in the record.
    pub generation: Generation,
    /// Where the tenant stands.
    pub residence: Residence,
    /// A move towards this server that has not been committed.
    pub incoming: Option<Incoming>,
    /// How its container is made; present exactly while it lives here.
    pub spec: Option<Spec>,
    /// What is known of its data on this server.
    pub volume: Volume,
    /// Why the last add failed, so that a repeated call gets the same answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_add: Option<FailedAdd>,
    /// The request that set the password last, so that a repeated call gets the same password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reset: Option<Uuid>,
    /// How its requests were held when it was last sealed; none while it lives here unsealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// Requests wait, or waited, because their tenant was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// When it was sealed.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The run of the agent that sealed it: only that one's gate saw the whole of the hold.
    pub boot_id: String,
    /// How long it lasted, in milliseconds, once those that waited were let go to where the tenant lives now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<u64>,
}

/// Where a tenant stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Residence {
    /// Not here.
    Absent,
    /// Lives here.
    Active {
        /// Should it run?
        desired: Desired,
        /// Set until its first healthy answer; until then the public does not reach it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provisioning: Option<Provisioning>,
    },
    /// Lives here, stopped for a move; only a higher generation starts it.
    Sealed,
    /// Lives elsewhere.
    Departed {
        /// `host:port` that requests are forwarded to.
        forward_to: Option<String>,
    },
}

/// What the operator wants of a tenant that lives here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Desired {
    /// It runs.
    Run,
    /// It stays stopped, also after a reboot.
    Stop,
}

/// An add that has not seen its first healthy answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioning {
    /// The volume is this add's own: nothing of value is in it until the first healthy answer.
    pub volume_is_new: bool,
}

/// A move towards this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Generation under which the tenant would live here.
    pub generation: Generation,
    /// Port held for it.
    pub port: u16,
    /// Image that was found at the reservation.
    pub image_digest: String,
    /// How far it is.
    pub stage: IncomingStage,
    /// What the source sent along; present from `Received` on.
    pub spec: Option<Spec>,
}

/// How a tenant's container is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Generation under which the container was placed here.
    pub placed: Generation,
    /// Loopback port.
    pub port: u16,
    /// What its user logs in with.
    pub password: Password,
    /// Image by name, for people.
    pub image: String,
    /// Image by content; this is what runs.
    pub image_digest: String,
    /// When the tenant was first added to the fleet.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// The add found a kept volume.
    #[serde(default)]
    pub found_data: bool,
    /// The container with this id was made by somebody else and taken over as it runs: for as long as it does, it is left
    /// alone. Once it has ended it is made anew like every other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<String>,
    /// What it may use. An adopted container is limited as it runs.
    #[serde(default, skip_serializing_if = "nothing_said")]
    pub limits: Limits,
}

fn nothing_said(limits: &Limits) -> bool {
    !limits.is_said()
}

/// What is known of a tenant's data on this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Volume {
    /// There is none, or none that was ever recorded.
    None,
    /// A transfer or import into it has not finished; no tenant starts on it.
    Incomplete {
        /// Placement that writes it.
        generation: Generation,
    },
    /// All data is here.
    Complete {
        /// Placement that wrote it last.
        generation: Generation,
        /// Of the last whole walk.
        summary: Option<VolumeSummary>,
        /// Collected after this time, once nobody lives on it.
        #[serde(default, with = "time::serde::rfc3339::option")]
        keep_until: Option<OffsetDateTime>,
    },
}

/// An add that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAdd {
    /// Of the failed add.
    pub generation: Generation,
    /// Reason word of the refusal.
    pub reason: String,
    /// The public sentence.
    pub message: String,
}

impl Record {
    /// A record that only carries the floor.
    pub fn floor(tenant: TenantName, generation: Generation) -> Self {
        Self {
            tenant,
            generation,
            residence: Residence::Absent,
            incoming: None,
            spec: None,
            volume: Volume::None,
            failed_add: None,
            last_reset: None,
            hold: None,
        }
    }

    /// Its first healthy answer is still awaited.
    pub fn provisioning(&self) -> Option<Provisioning> {
        match self.residence {
            Residence::Active { provisioning, .. } => provisioning,
            _ => None,
        }
    }

    /// It lives here and should run.
    pub fn should_run(&self) -> bool {
        matches!(self.residence, Residence::Active { desired: Desired::Run, .. })
    }

    /// A move towards this server is at the trial stage: its container may run without a public route.
    pub fn on_trial(&self) -> Option<&Incoming> {
        self.incoming.as_ref().filter(|incoming| incoming.stage == IncomingStage::Trial)
    }

    /// Every port that it holds.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        let spec = self.spec.as_ref().map(|spec| spec.port);
        spec.into_iter().chain(self.incoming.as_ref().map(|incoming| incoming.port))
    }
}

impl Volume {
    /// All data is here, of this placement if one is given.
    pub fn complete_at(&self, placement: Generation) -> bool {
        matches!(self, Volume::Complete { generation, .. } if *generation == placement)
    }

    /// Complete, of whatever placement.
    pub fn is_complete(&self) -> bool {
        matches!(self, Volume::Complete { .. })
    }

    /// Complete and without a time limit.
    pub fn whole(generation: Generation, summary: Option<VolumeSummary>) -> Self {
        Volume::Complete { generation, summary, keep_until: None }
    }

    /// The same with another time limit; anything else than a complete one stays as it is.
    #[must_use]
    pub fn kept_until(self, until: Option<OffsetDateTime>) -> Self {
        match self {
            Volume::Complete { generation, summary, .. } => Volume::Complete { generation, summary, keep_until: until },
            other => other,
        }
    }
}
