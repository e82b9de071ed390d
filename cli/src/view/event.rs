//! Events as they are shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment, set};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct EventView {
    pub(crate) id: i64,
    pub(crate) at: Option<Moment>,
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) server: Option<String>,
    pub(crate) message: String,
    pub(crate) operation: Option<String>,
    pub(crate) who: Option<String>,
}

impl From<pb::FleetEvent> for EventView {
    fn from(pb: pb::FleetEvent) -> Self {
        Self {
            id: pb.id,
            at: moment!(pb.at),
            kind: pb.kind,
            subject: pb.subject,
            server: set(pb.server),
            message: pb.message,
            operation: set(pb.operation),
            who: set(pb.who),
        }
    }
}

impl EventView {
    /// Number, time to the second, what about, what happened, who asked for it.
    pub(crate) fn line(&self) -> String {
        let at = self.at.map(|at| at.to_string()).unwrap_or_default();
        let at = format!("{}Z", at.get(..19).unwrap_or(&at));
        let subject = match &self.server {
            Some(server) if self.subject != format!("server/{server}") => format!("{} ({server})", self.subject),
            _ => self.subject.trim_start_matches("server/").to_owned(),
        };
        let who = self.who.as_ref().map(|who| format!(" [{who}]")).unwrap_or_default();
        format!("{:>5}  {at}  {subject:<12}  {}{who}\n", self.id, self.message)
    }
}
