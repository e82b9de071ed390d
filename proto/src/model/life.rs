//! What a server tells of the lives of its containers: restarts, the admin container, events.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{from_timestamp, option, port, required, text, to_timestamp};
use crate::{error::Error, ids::TenantName, pb::types::v1 as types_pb};

/// Restarts of one container, over those of its agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReport {
    /// So many, because its process had ended or did not answer.
    pub restarts: u64,
    /// The last one.
    pub last_restart: Option<OffsetDateTime>,
    /// It is restarted again and again.
    pub crash_loop: bool,
}

/// The admin container as its server knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminReport {
    /// Name of the container that serves; empty before the first.
    pub container: String,
    /// Its loopback port.
    pub port: Option<u16>,
    /// Its image by name.
    pub image: String,
    /// And by digest.
    pub image_digest: String,
    /// Does its process run?
    pub running: bool,
    /// Its restarts.
    pub watch: WatchReport,
    /// Something a person should know.
    pub problem: Option<String>,
    /// Name of the container that is about to take its place.
    pub candidate: Option<String>,
}

/// Something that happened on a server by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    /// Counts from 1, over restarts of the agent too.
    pub sequence: u64,
    /// By the server's clock.
    pub at: OffsetDateTime,
    /// A stable word. Not an enumeration: a newer agent may have words that this version does not know.
    pub kind: String,
    /// Whose, unless it is the server's.
    pub tenant: Option<TenantName>,
    /// A sentence.
    pub message: String,
}

impl From<AdminReport> for types_pb::AdminContainer {
    fn from(report: AdminReport) -> Self {
        Self {
            container: report.container,
            port: report.port.map_or(0, u32::from),
            image: report.image,
            image_digest: report.image_digest,
            running: report.running,
            restarts: report.watch.restarts,
            last_restart: report.watch.last_restart.map(to_timestamp),
            crash_loop: report.watch.crash_loop,
            problem: text(report.problem),
            candidate: text(report.candidate),
        }
    }
}

impl TryFrom<types_pb::AdminContainer> for AdminReport {
    type Error = Error;

    fn try_from(pb: types_pb::AdminContainer) -> Result<Self, Error> {
        Ok(Self {
            container: pb.container,
            port: if pb.port == 0 { None } else { Some(port(pb.port, "port")?) },
            image: pb.image,
            image_digest: pb.image_digest,
            running: pb.running,
            watch: WatchReport {
                restarts: pb.restarts,
                last_restart: pb.last_restart.as_ref().map(from_timestamp).transpose()?,
                crash_loop: pb.crash_loop,
            },
            problem: option(pb.problem),
            candidate: option(pb.candidate),
        })
    }
}

impl From<EventReport> for types_pb::Event {
    fn from(event: EventReport) -> Self {
        Self {
            sequence: event.sequence,
            at: Some(to_timestamp(event.at)),
            kind: event.kind,
            tenant: event.tenant.map(String::from).unwrap_or_default(),
            message: event.message,
        }
    }
}

impl TryFrom<types_pb::Event> for EventReport {
    type Error = Error;

    fn try_from(pb: types_pb::Event) -> Result<Self, Error> {
        Ok(Self {
            sequence: pb.sequence,
            at: from_timestamp(&required(pb.at, "at")?)?,
            kind: pb.kind,
            tenant: if pb.tenant.is_empty() { None } else { Some(pb.tenant.parse()?) },
            message: pb.message,
        })
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::{AdminReport, EventReport, WatchReport};
    use crate::pb::types::v1 as types_pb;

    #[test]
    fn reports_survive_the_wire() {
        let watch = WatchReport { restarts: 3, last_restart: Some(OffsetDateTime::UNIX_EPOCH), crash_loop: true };
        let admin = AdminReport {
            container: "feather-work-green".into(),
            port: Some(8081),
            image: "work".into(),
            image_digest: "sha256:00".into(),
            running: true,
            watch,
            problem: Some("sad".into()),
            candidate: Some("feather-work-blue".into()),
        };
        for admin in [admin, AdminReport::default()] {
            assert_eq!(AdminReport::try_from(types_pb::AdminContainer::from(admin.clone())).unwrap(), admin);
        }
        let event = EventReport {
            sequence: 7,
            at: OffsetDateTime::UNIX_EPOCH,
            kind: "of-a-later-version".into(),
            tenant: Some("alice".parse().unwrap()),
            message: "it happened".into(),
        };
        assert_eq!(EventReport::try_from(types_pb::Event::from(event.clone())).unwrap(), event);
    }
}
