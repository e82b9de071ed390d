//! What a person should know of a server beside what its agent calls a problem, in sentences. Pure.

use std::collections::BTreeMap;

use feather_proto::{ids::ServerName, model::ServerSnapshot};

use super::Observed;
use crate::adoption::{self, Names};

/// Everything of one server. No reason to keep tenants away from it.
pub fn told(server: &ServerName, observed: &BTreeMap<ServerName, Observed>, names: &Names) -> Vec<String> {
    let seen = observed.get(server);
    let mut told = adoption::conflicts(server, observed, names);
    told.extend(seen.and_then(|seen| without_image(server, seen)));
    told.extend(seen.and_then(|seen| seen.snapshot.as_deref()).and_then(sick_admin));
    told
}

/// No reason to keep tenants away that bring another image: placement looks at images by itself.
fn without_image(server: &ServerName, observed: &Observed) -> Option<String> {
    let snapshot = observed.alive().filter(|one| one.problems.is_empty() && one.work_image_digest().is_none())?;
    Some(format!(
        "the work image {} is not in storage: no tenant can be added here until it is loaded (`featherctl image load {server} FILE`)",
        snapshot.work_image
    ))
}

/// No word about tenants: they may well be placed on a server whose admin container is sick.
fn sick_admin(snapshot: &ServerSnapshot) -> Option<String> {
    let admin = snapshot.admin.as_ref()?;
    let looping = || {
        let restarts = admin.watch.restarts;
        format!("{} is in a crash loop: it was restarted {restarts} times", admin.container)
    };
    admin.problem.clone().or_else(|| admin.watch.crash_loop.then(looping))
}
