//! What is next for one tenant of a drain or return, and what became of each. Pure.

use std::collections::BTreeMap;

use feather_proto::{
    error::{Error, reason},
    ids::{OperationId, ServerName, TenantName},
};
use serde::{Deserialize, Serialize};

use crate::{operations::State, store::OperationRow};

/// Away from a server, or home to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Everybody leaves.
    Drain,
    /// Who was sent away comes home.
    Return,
}

/// What became of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Nothing yet.
    Waiting,
    /// Its move is under way.
    Moving,
    /// Its move can go neither on nor back for now.
    Stuck,
    /// Moved.
    Moved,
    /// Where it should be by somebody else's doing, or removed.
    Elsewhere,
    /// Not moved, or not brought back.
    Left,
    /// Brought back with what was left of its data, because its server is lost.
    Recovered,
    /// Its server is lost, and there is no data of it anywhere.
    Lost,
}

/// What became of a tenant, with what there is to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Who.
    pub tenant: TenantName,
    /// What.
    pub end: End,
    /// From where.
    pub source: Option<ServerName>,
    /// To where, once that is decided.
    pub target: Option<ServerName>,
    /// Its move, once it has begun.
    pub operation: Option<OperationId>,
    /// Why it was not moved; empty otherwise.
    pub why: String,
}

impl Told {
    /// One that was not moved, without a move that could say why.
    pub fn left(tenant: TenantName, source: Option<ServerName>, why: String) -> Self {
        Self { tenant, end: End::Left, source, target: None, operation: None, why }
    }
}

/// What the store says of a tenant.
#[derive(Debug, Clone)]
pub struct Now {
    /// Who.
    pub tenant: TenantName,
    /// Where its data is.
    pub home: Option<ServerName>,
    /// It lives there.
    pub lives: bool,
    /// Its move, if it has begun.
    pub child: Option<OperationRow>,
    /// An operation holds it.
    pub held: bool,
    /// Of some server nobody knows yet how it is: the controller has just started.
    pub fleet_unknown: bool,
    /// The deadline is over.
    pub late: bool,
    /// A move that is stuck is not waited for any longer.
    pub given_up: bool,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing more.
    Tell(Told),
    /// Look again when something has happened.
    Wait,
    /// Begin its operation.
    Begin,
}

/// What is next for a tenant.
pub fn next(server: &ServerName, way: Way, now: &Now) -> Next {
    if let Some(child) = &now.child {
        return match ended(child.clone()) {
            Some(told) if told.end != End::Stuck || now.given_up => Next::Tell(told),
            _ => Next::Wait,
        };
    }
    // What holds it may be the add that makes it one of ours, or a move that somebody else began.
    if now.held {
        return if now.late {
            Next::Tell(left(now, "another operation held it until the deadline"))
        } else {
            Next::Wait
        };
    }
    let at_home = now.lives && now.home.as_ref() == Some(server);
    let should_move = match way {
        Way::Drain => at_home,
        Way::Return => now.lives && !at_home,
    };
    match () {
        () if !should_move => Next::Tell(Told { end: End::Elsewhere, ..left(now, "") }),
        () if now.late => Next::Tell(left(now, "its turn had not come before the deadline")),
        () if now.fleet_unknown => Next::Wait,
        () => Next::Begin,
    }
}

fn left(now: &Now, why: &str) -> Told {
    Told::left(now.tenant.clone(), now.home.clone(), why.to_owned())
}

/// What became of a move, if it has come to an end or is stuck.
pub(in crate::operations) fn ended(child: OperationRow) -> Option<Told> {
    let why = |row: &OperationRow| row.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
    let (end, why) = match child.state {
        State::Running | State::Undoing => return None,
        State::Succeeded => (End::Moved, String::new()),
        State::Failed => (End::Left, why(&child)),
        State::Cancelled => (End::Left, "its move was cancelled".to_owned()),
        State::Stuck => (End::Stuck, format!("its move is stuck: `featherctl operation show {}` says why", child.id)),
    };
    let tenant = child.subject.tenant()?.clone();
    Some(Told { tenant, end, source: child.source, target: child.target, operation: Some(child.id), why })
}

/// The end of it all: a sentence, or an error when somebody was left.
pub(super) fn verdict(told: &[Told]) -> Result<String, Error> {
    let left: Vec<_> = told.iter().filter(|one| !matches!(one.end, End::Moved | End::Elsewhere)).collect();
    let moved = told.iter().filter(|one| one.end == End::Moved).count();
    if left.is_empty() {
        return Ok(format!("{moved} moved"));
    }
    let reasons: Vec<_> = left.iter().map(|one| format!("{}: {}", one.tenant, one.why)).collect();
    Err(Error::refused(
        reason::NOT_ALL_MOVED,
        format!("{} of {} were not moved; {}", left.len(), told.len(), reasons.join("; ")),
    ))
}

/// What became of each so far: those that were planned, in their order, then those that came in between.
pub(in crate::operations) fn so_far(
    planned: Vec<TenantName>,
    told: Vec<Told>,
    children: Vec<OperationRow>,
) -> Vec<Told> {
    let mut all: BTreeMap<TenantName, Told> = BTreeMap::new();
    for child in children {
        let under_way = child.subject.tenant().cloned().map(|tenant| Told {
            tenant,
            end: End::Moving,
            source: child.source.clone(),
            target: child.target.clone(),
            operation: Some(child.id.clone()),
            why: String::new(),
        });
        if let Some(one) = ended(child).or(under_way) {
            all.insert(one.tenant.clone(), one);
        }
    }
    // A move speaks for itself, also when it went on after this ended; the others are as they were told.
    for one in told {
        all.entry(one.tenant.clone()).or_insert(one);
    }
    let waiting = |tenant: TenantName| Told { end: End::Waiting, ..Told::left(tenant, None, String::new()) };
    let mut in_order: Vec<_> =
        planned.into_iter().map(|tenant| all.remove(&tenant).unwrap_or_else(|| waiting(tenant))).collect();
    in_order.extend(all.into_values());
    in_order
}

#[cfg(test)]
mod tests;
