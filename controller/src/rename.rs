//! Gives a server another name, while it serves.
//!
//! The name in its certificate stays what it was (`ServerRow::identity`): agents know each other by that one, and none of them hears of
//! the new name. Owns what stands in the way and what changes with it (both pure), and what a name of an earlier time means now. The
//! change is one transaction of the store; what is kept in memory by name follows in [`crate::fleet::Fleet::called`].

use std::collections::BTreeSet;

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    model::rfc3339,
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    operations::Subject,
    store::{OperationRow, ServerRow, TenantRow, TenantState, request_id_reused, server_not_found},
    world::World,
};

/// A server got another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renaming {
    /// What it was called.
    pub old: ServerName,
    /// What it was called from then on.
    pub new: ServerName,
    /// When.
    pub at: OffsetDateTime,
}

/// Everything in the store that bears on a new name.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// All members.
    pub members: Vec<ServerRow>,
    /// All tenants.
    pub tenants: Vec<TenantRow>,
    /// Operations that have not ended.
    pub running: Vec<OperationRow>,
    /// When the last invitation to the new name ends, if it has not.
    pub invited_until: Option<OffsetDateTime>,
    /// Where names without a record of their own lead, as far as that is settled.
    pub ingress: Option<String>,
    /// Where they led before.
    pub former_ingresses: BTreeSet<ServerName>,
    /// Who was sent away from it by a drain.
    pub sent_away: Vec<TenantName>,
    /// In the order in which they happened.
    pub renamings: Vec<Renaming>,
    /// Which of them this request has made already.
    pub done: Option<usize>,
}

/// Who asks for a new name.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// For the events.
    pub by: &'a str,
    /// Chosen by the caller for this change alone; older callers have none.
    pub request: Option<uuid::Uuid>,
}

/// What a new name changes. All tenants in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// It is called so already: nothing changes.
    pub already: bool,
    /// The name in its certificate.
    pub identity: String,
    /// Who lives there.
    pub tenants: Vec<TenantName>,
    /// Removed tenants whose data is there.
    pub kept: Vec<TenantName>,
    /// Who may be on no other server.
    pub pinned: Vec<TenantName>,
    /// Who lived there before its last move.
    pub moved_away: Vec<TenantName>,
    /// Whom a return brings home there.
    pub sent_away: Vec<TenantName>,
    /// Names without a record of their own lead there.
    pub ingress: bool,
    /// They did before.
    pub former_ingress: bool,
    /// Counts changes of the server.
    pub version: i64,
}

fn refused(server: &ServerName, message: String) -> Error {
    Error::refused(reason::WRONG_STATE, message).with("server", server)
}

/// The error for a name that another server has in its certificate.
pub(crate) fn in_a_certificate(name: &ServerName, holder: &ServerName) -> Error {
    Error::exists(
        reason::SERVER_EXISTS,
        format!(
            "{name} is the name in the certificate of the server that is called {holder} now; it is free again when that one has joined anew \
             (`featherctl server invite {holder} --rejoin`) or is out of the fleet. Choose another name"
        ),
    )
    .with("server", holder)
}

/// What changes with a new name.
///
/// # Errors
/// No such server; somebody has the new name, in the fleet, in a certificate, in rows of tenants or by an invitation; or an operation that
/// has not ended names the server, or the new name. The request was another one before.
pub fn plan(server: &ServerName, new: &ServerName, facts: &Facts) -> Result<Change, Error> {
    if let Some(since) = facts.done.and_then(|done| facts.renamings.get(done..)) {
        return repeated(server, new, since, facts);
    }
    let member = |name: &ServerName| facts.members.iter().find(|row| row.name == *name);
    let Some(row) = member(server) else {
        let last = facts.renamings.iter().rev().find(|one| one.new == *new || one.old == *new);
        let so_already = member(new).filter(|_| last.is_some_and(|last| last.old == *server && last.new == *new));
        return so_already
            .map(|row| change(row, facts, true))
            .ok_or_else(|| not_found(server, &facts.members, &facts.renamings));
    };
    if server == new {
        return Ok(change(row, facts, true));
    }
    if member(new).is_some() {
        let message = format!("a server {new} is a member already; choose another name");
        return Err(Error::exists(reason::SERVER_EXISTS, message).with("server", new));
    }
    if let Some(other) = facts.members.iter().find(|other| other.identity == *new && other.name != *server) {
        return Err(in_a_certificate(new, &other.name));
    }
    not_named(new, facts)?;
    if let Some(until) = facts.invited_until.map(rfc3339) {
        return Err(refused(
            new,
            format!(
                "somebody was invited to join as {new}, and may until {until}; wait for that, or choose another name"
            ),
        ));
    }
    if let Some(running) = facts.running.iter().find(|one| names(one, server, facts) || names(one, new, facts)) {
        let id = &running.id;
        let message = format!(
            "{} of {} has not ended and names {server} or {new}; wait for it with `featherctl operation watch {id}`, then rename",
            running.kind.name(),
            running.subject.spoken()
        );
        return Err(Error::refused(reason::OPERATION_RUNNING, message).with("operation", id));
    }
    Ok(change(row, facts, false))
}

/// A copy of a request that was carried out by the first of these renamings: it has done all that it was for, whatever the server was
/// called since.
fn repeated(server: &ServerName, new: &ServerName, since: &[Renaming], facts: &Facts) -> Result<Change, Error> {
    if since.first().is_some_and(|done| done.old != *server || done.new != *new) {
        return Err(request_id_reused());
    }
    let now = called_now(server, OffsetDateTime::UNIX_EPOCH, since);
    let row = facts.members.iter().find(|row| now.as_ref() == Some(&row.name));
    row.map(|row| change(row, facts, true)).ok_or_else(|| server_not_found(server))
}

/// Tenants' rows name servers that are no members any more: those must not be taken for this one.
fn not_named(new: &ServerName, facts: &Facts) -> Result<(), Error> {
    let of = |test: &dyn Fn(&TenantRow) -> bool| -> Vec<TenantName> {
        facts.tenants.iter().filter(|row| test(row)).map(|row| row.name.clone()).collect()
    };
    let stranded = of(&|row| row.server.as_ref() == Some(new));
    if !stranded.is_empty() {
        return Err(crate::intent::still_named(new, &stranded));
    }
    let pinned = of(&|row| row.bounds.pin.as_ref() == Some(new));
    if let Some(first) = pinned.first() {
        let names: Vec<_> = pinned.iter().map(TenantName::as_str).collect();
        let message = format!(
            "{} may be on no server but {new}, and that is no member: bind each anew first (`featherctl tenant place {first} --anywhere`), or \
             choose another name",
            names.join(", ")
        );
        return Err(refused(new, message));
    }
    Ok(())
}

/// Is an operation about a server, or does what it has decided or found out name it?
fn names(operation: &OperationRow, server: &ServerName, facts: &Facts) -> bool {
    let about = match &operation.subject {
        Subject::Server(about) | Subject::Residents(about) => about == server,
        Subject::Tenant(tenant) => {
            let lives = |row: &TenantRow| row.name == *tenant && row.server.as_ref() == Some(server);
            facts.tenants.iter().any(lives)
        }
    };
    about
        || operation.source.as_ref() == Some(server)
        || operation.target.as_ref() == Some(server)
        || says(&operation.plan, server.as_str())
        || says(&operation.facts, server.as_str())
}

/// Is a value somewhere in it?
fn says(json: &Value, word: &str) -> bool {
    match json {
        Value::String(text) => text == word,
        Value::Array(values) => values.iter().any(|value| says(value, word)),
        Value::Object(fields) => fields.iter().any(|(name, value)| name == word || says(value, word)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn change(row: &ServerRow, facts: &Facts, already: bool) -> Change {
    let name = &row.name;
    if already {
        let (identity, version) = (row.identity.to_string(), row.upkeep.version);
        return Change { already, identity, version, ..Change::default() };
    }
    let of = |test: &dyn Fn(&TenantRow) -> bool| -> Vec<TenantName> {
        let mut names: Vec<_> = facts.tenants.iter().filter(|row| test(row)).map(|row| row.name.clone()).collect();
        names.sort();
        names
    };
    let here = |row: &TenantRow| row.server.as_ref() == Some(name);
    Change {
        already: false,
        identity: row.identity.to_string(),
        tenants: of(&|row| here(row) && row.state != TenantState::Removed),
        kept: of(&|row| here(row) && row.state == TenantState::Removed),
        pinned: of(&|row| row.bounds.pin.as_ref() == Some(name)),
        moved_away: of(&|row| row.previous_server.as_ref() == Some(name)),
        sent_away: facts.sent_away.clone(),
        ingress: facts.ingress.as_deref() == Some(name.as_str()),
        former_ingress: facts.former_ingresses.contains(name),
        version: row.upkeep.version + 1,
    }
}

/// What a server of that time is called now, given what was renamed since, in the order in which it was. None for one that was gone when
/// another server got its name.
pub fn called_now(name: &ServerName, then: OffsetDateTime, renamings: &[Renaming]) -> Option<ServerName> {
    renamings.iter().filter(|one| one.at >= then).try_fold(name.clone(), |name, one| match name {
        name if name == one.old => Some(one.new.clone()),
        name => (name != one.new).then_some(name),
    })
}

/// What the server is called now that had a name last, and since when; none when nobody had it who was renamed. Whether it is still a
/// member is not said.
pub fn called_since(name: &ServerName, renamings: &[Renaming]) -> Option<(ServerName, OffsetDateTime)> {
    let last = renamings.iter().rposition(|one| one.old == *name || one.new == *name)?;
    let renamed = &renamings[last];
    if renamed.old != *name {
        return None;
    }
    renamings[last..].iter().try_fold((name.clone(), renamed.at), |(name, at), one| match name {
        name if name == one.old => Some((one.new.clone(), one.at)),
        // Another one got that name: it was free, so this one is gone.
        name => (name != one.new).then_some((name, at)),
    })
}

/// The error for a name that no member has, with what one is called that had it.
pub fn not_found(name: &ServerName, members: &[ServerRow], renamings: &[Renaming]) -> Error {
    let Some((called, since)) = called_since(name, renamings) else { return server_not_found(name) };
    // One that joined under that name later cannot be told from another machine.
    if !members.iter().any(|row| row.name == called && row.joined <= since) {
        return server_not_found(name);
    }
    Error::not_found(reason::SERVER_NOT_FOUND, format!("there is no server {name}: it is called {called} now"))
        .with("server", name)
        .with("called", called)
}

/// An operation from before with its servers' names of today, without those of servers that are gone: for whoever compares it with servers as they are now.
pub fn today(row: OperationRow, renamings: &[Renaming]) -> OperationRow {
    let called = |name: Option<ServerName>| name.and_then(|name| called_now(&name, row.created, renamings));
    let (source, target) = (called(row.source.clone()), called(row.target.clone()));
    OperationRow { source, target, ..row }
}

/// What the id, the subject and the scope of a warning become that is about a server with a new name; none for what is not about it.
/// `about_servers`: the first word of the id is of a kind whose conditions are told apart by servers.
pub fn warning(
    (id, subject, scope): (&str, &str, &str),
    about_servers: bool,
    old: &ServerName,
    new: &ServerName,
) -> Option<(String, String, String)> {
    let of_server =
        |text: &str| if text == format!("server/{old}") { format!("server/{new}") } else { text.to_owned() };
    let mut parts: Vec<&str> = id.split('/').collect();
    if about_servers && parts.get(1) == Some(&old.as_str()) {
        parts[1] = new.as_str();
    }
    let changed = (parts.join("/"), of_server(subject), of_server(scope));
    (changed != (id.to_owned(), subject.to_owned(), scope.to_owned())).then_some(changed)
}

/// Renames a server, or (`dry_run`) only says what would change.
///
/// # Errors
/// As for [`plan`].
pub async fn rename(
    world: &World,
    server: &ServerName,
    new: &ServerName,
    asked: Asked<'_>,
    dry_run: bool,
) -> Result<Change, Error> {
    if dry_run {
        return Ok(world.store.plan_rename(server, new, world.clock.now()).await?);
    }
    // Neither a look at what needs a person nor somebody who joins or is taken out goes on by a name from before.
    let _looking = world.warnings.taken().await;
    let _turn = world.access.turn().await;
    let naming = world.fleet.renaming().await;
    world.fleet.called(&world.store.servers().await?);
    let done = world.store.rename_server(server, new, asked, world.clock.now()).await;
    // Also when the store did not say that it was done: it may have been.
    world.fleet.called(&world.store.servers().await?);
    drop(naming);
    world.ring_desired();
    Ok(done?)
}

#[cfg(test)]
mod tests;
