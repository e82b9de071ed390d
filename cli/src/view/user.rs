//! People as they are shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment, set};
use crate::output::table;

#[derive(Debug, Serialize)]
pub(crate) struct UserView {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) added: Option<Moment>,
    pub(crate) added_by: Option<String>,
    pub(crate) valid_until: Option<Moment>,
    pub(crate) last_seen: Option<Moment>,
    pub(crate) revoked: Option<Moment>,
    pub(crate) revoked_by: Option<String>,
    pub(crate) web_until: Option<Moment>,
}

impl From<pb::User> for UserView {
    fn from(pb: pb::User) -> Self {
        Self {
            name: pb.name,
            role: pb.role,
            added: moment!(pb.added),
            added_by: set(pb.added_by),
            valid_until: moment!(pb.valid_until),
            last_seen: moment!(pb.last_seen),
            revoked: moment!(pb.revoked),
            revoked_by: set(pb.revoked_by),
            web_until: moment!(pb.web_until),
        }
    }
}

/// One line for each.
pub(crate) fn list(users: &[UserView]) -> String {
    let rows: Vec<_> = users
        .iter()
        .map(|user| {
            let until = user.valid_until.map_or("not logged in yet".into(), |until| until.to_string());
            let revoked = user.revoked.map_or("-".into(), |at| match &user.revoked_by {
                Some(by) => format!("{at} by {by}"),
                None => at.to_string(),
            });
            let seen = user.last_seen.map_or("never".into(), |seen| seen.to_string());
            let web = user.web_until.map_or("-".into(), |until| until.to_string());
            [user.name.clone(), user.role.clone(), until, seen, web, revoked]
        })
        .collect();
    table(["NAME", "ROLE", "VALID UNTIL", "LAST SEEN", "WEB UNTIL", "REVOKED"], &rows)
}
