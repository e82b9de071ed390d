//! Why a tenant or a server is as it is, what is pending, and what to type next.
//!
//! Reads what is stored and observed already and keeps nothing. What is said of that is decided purely; nobody is asked.

use std::collections::BTreeMap;

use feather_proto::{
    error::Error,
    ids::{ServerName, TenantName},
    model::Residence,
};
use time::OffsetDateTime;

use crate::{
    dns,
    fleet::{self, Observed, Reachability, Standing},
    operations::{Kind, State},
    placement,
    store::{OperationRow, ServerRow, TenantRow, TenantState, warnings::WarningRow},
    warnings,
    world::World,
};

/// Operations that are looked at for who placed a tenant.
const OPERATIONS_MAX: u32 = 50;
/// Lines of a plan, and names in a list, that are shown.
const SHOWN_MAX: usize = 10;

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// A stable word.
    pub topic: &'static str,
    /// A sentence.
    pub text: String,
    /// When it happened, or until when it holds.
    pub at: Option<OffsetDateTime>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// In the order in which they should be read.
    pub facts: Vec<Fact>,
    /// Commands with what they are for.
    pub next: Vec<String>,
}

impl Explanation {
    fn say(&mut self, topic: &'static str, text: impl Into<String>, at: Option<OffsetDateTime>) {
        self.facts.push(Fact { topic, text: text.into(), at });
    }

    fn next(&mut self, command: impl Into<String>) {
        self.next.push(command.into());
    }

    fn warn(&mut self, warnings: &[WarningRow], subject: &str) {
        for row in warnings.iter().filter(|row| row.subject == subject && row.raised.is_some()) {
            self.say("warning", format!("{}: {}", row.id, row.message), Some(row.since));
        }
    }
}

/// What is known of one tenant.
struct TenantView<'a> {
    row: &'a TenantRow,
    /// Its server was declared lost.
    lost: bool,
    /// The newest first.
    operations: &'a [OperationRow],
    /// What spoke for and against each server when it was placed.
    plan: Option<String>,
    observed: &'a BTreeMap<ServerName, Observed>,
    ingress: Option<&'a ServerName>,
    /// Where its name leads, and how it has come there; none when no zone is written.
    name: Option<Leads>,
    warnings: &'a [WarningRow],
    url: String,
}

/// Where a name leads.
struct Leads {
    name: String,
    /// Address of its own record.
    own: Option<String>,
    /// All name servers have said so since then.
    arrived: Option<OffsetDateTime>,
    /// Name servers are asked.
    asked: bool,
}

/// Explains a tenant.
///
/// # Errors
/// Not found; the store does not answer.
pub async fn tenant(world: &World, tenant: &TenantName) -> Result<Explanation, Error> {
    loop {
        let names = world.fleet.settled().await;
        let explanation = look_at(world, tenant).await?;
        // By half of an old name nobody would be where the store says.
        if world.fleet.holds(names) {
            return Ok(explanation);
        }
    }
}

async fn look_at(world: &World, tenant: &TenantName) -> Result<Explanation, Error> {
    let store = &world.store;
    let row = store.require_tenant(tenant).await?;
    let operations = store.operations(Some(tenant), OPERATIONS_MAX).await?;
    let plan = match placed_by(&operations) {
        Some(one) => store.operation_log(&one.id).await?.into_iter().next().map(|line| line.message),
        None => None,
    };
    let wanted = dns::wanted(world).await?;
    let name = world.dns.keeper().ok().map(|keeper| {
        let host = keeper.names().host(tenant.as_str());
        let known = world.dns.known();
        let own = wanted.records.iter().find(|record| record.name == tenant.as_str());
        let asked_for = if own.is_some() { host.clone() } else { keeper.names().host(dns::plan::WILDCARD) };
        let arrived = known.converged_ms(keeper.names(), &asked_for).map(i128::from);
        Leads {
            name: keeper.names().full(&host),
            own: own.map(|record| record.address.to_string()),
            arrived: arrived.and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).ok()),
            asked: world.dns.authorities().is_some(),
        }
    });
    let warnings = warnings::look(world).await?;
    let observed = world.fleet.all();
    let members = store.servers().await?;
    let lost = fleet::is_lost(&row, |server| members.iter().any(|one| one.name == *server));
    Ok(explain_tenant(&TenantView {
        row: &row,
        lost,
        operations: &operations,
        plan,
        observed: &observed,
        ingress: wanted.ingress.as_ref(),
        name,
        warnings: &warnings,
        url: world.url(tenant),
    }))
}

/// The operation that brought it where it is.
fn placed_by(operations: &[OperationRow]) -> Option<&OperationRow> {
    let places = |one: &&OperationRow| {
        matches!(one.kind, Kind::Add | Kind::Migrate | Kind::Recover) && one.state == State::Succeeded
    };
    operations.iter().find(places)
}

fn explain_tenant(view: &TenantView<'_>) -> Explanation {
    let mut explanation = Explanation::default();
    stands(view, &mut explanation);
    came(view, &mut explanation);
    pending(view, &mut explanation);
    elsewhere(view, &mut explanation);
    leads(view, &mut explanation);
    explanation.warn(view.warnings, view.row.name.as_str());
    explanation
}

/// Where it is, and how it is.
fn stands(view: &TenantView<'_>, explanation: &mut Explanation) {
    let (row, name) = (view.row, &view.row.name);
    let server = row.server.as_ref().map(ToString::to_string).unwrap_or_default();
    if row.state == TenantState::Removed {
        let text = format!("{name} is removed; its data is kept on {server}");
        explanation.say("now", text, None);
        explanation.next(format!("`featherctl tenant add {name}` brings it back on {server} with its data"));
        return;
    }
    let Some(home) = &row.server else {
        return explanation.say("now", format!("{name} is being added and lives nowhere yet"), None);
    };
    if view.lost {
        explanation.say("now", format!("{name}: {}", fleet::told_lost(name.as_str(), home.as_str())), None);
        explanation.next(format!("`featherctl tenant recover {name} --dry-run` says with which data"));
        return;
    }
    // Of a server that was never seen nothing is known.
    let unseen = Observed { snapshot: None, last_seen: None, reachability: Reachability::Connecting };
    let observed = view.observed.get(home).unwrap_or(&unseen);
    let held = view.operations.iter().any(|one| one.ended.is_none());
    let standing = fleet::standing(row, held, observed);
    let report = observed.alive().and_then(|snapshot| snapshot.tenant(name));
    let text = match standing {
        Standing::Running => format!("{name} lives on {server} and runs, at {}", view.url),
        Standing::Stopped => format!("{name} lives on {server}, stopped by its operator"),
        Standing::Starting => format!("{name} lives on {server}, should run and does not yet"),
        Standing::Changing => format!("{name} lives on {server}, and an operation is changing it"),
        Standing::Unknown => format!("{name} lives on {server}, which does not answer; it may well be running there"),
        Standing::CrashLoop => format!("{name} lives on {server} and is restarted again and again"),
        Standing::Broken | Standing::Removed => {
            format!("{name} lives on {server} and is broken: {}", fleet::trouble(report).unwrap_or_default())
        }
    };
    explanation.say("now", text, None);
    match standing {
        Standing::Stopped => explanation.next(format!("`featherctl tenant start {name}` starts it")),
        Standing::Unknown => {
            explanation.next(format!("`featherctl server show {server}` says since when it is silent"))
        }
        Standing::CrashLoop | Standing::Starting => {
            explanation.next(format!("`featherctl tenant logs {name}` shows what it says"));
        }
        Standing::Broken => {
            if report.is_some_and(|report| report.residence == Residence::Sealed) {
                explanation.next(format!("`featherctl tenant start {name}` starts it where it stands still"));
            }
            explanation.next(format!("`featherctl tenant show {name}` shows all that is known of it"));
        }
        Standing::Running | Standing::Changing | Standing::Removed => {}
    }
}

/// Who brought it there, when, and what spoke for it.
fn came(view: &TenantView<'_>, explanation: &mut Explanation) {
    let Some(placed) = placed_by(view.operations) else {
        let text = format!("{} was taken in where it lived", view.row.name);
        return explanation.say("placed", text, Some(view.row.created));
    };
    let by = &placed.requested_by;
    let text = match (placed.kind, &placed.source, &placed.target) {
        (Kind::Migrate, Some(source), Some(target)) => {
            format!("{by} moved it from {source} to {target} ({})", placed.id)
        }
        (Kind::Recover, _, Some(target)) => format!("{by} had it brought back on {target} ({})", placed.id),
        (_, _, Some(target)) => format!("{by} added it on {target} ({})", placed.id),
        _ => format!("{by} placed it ({})", placed.id),
    };
    explanation.say("placed", text, placed.ended);
    let lines: Vec<_> = view.plan.iter().flat_map(|plan| plan.split("; ")).filter(|line| !line.is_empty()).collect();
    for line in lines.iter().take(SHOWN_MAX) {
        explanation.say("why", *line, None);
    }
    if lines.len() > SHOWN_MAX {
        explanation.say(
            "why",
            format!("and {} more; `featherctl operation show {}`", lines.len() - SHOWN_MAX, placed.id),
            None,
        );
    }
    if let Some(before) = view.row.previous_server.as_ref().filter(|before| Some(*before) != view.row.server.as_ref()) {
        explanation.say("before", format!("it lived on {before}"), None);
    }
}

/// What is under way, or ended badly since.
fn pending(view: &TenantView<'_>, explanation: &mut Explanation) {
    let Some(newest) = view.operations.first() else { return };
    let kind = newest.kind.name();
    let why = newest.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
    match newest.state {
        State::Running | State::Undoing => {
            explanation.say("operation", format!("{kind} is under way ({})", newest.id), Some(newest.created));
            explanation.next(format!("`featherctl operation watch {}` follows it", newest.id));
        }
        State::Stuck => {
            let hint = newest.hint.as_ref().map(|hint| format!("; next: {hint}")).unwrap_or_default();
            explanation.say("operation", format!("{kind} is stuck ({}){why}{hint}", newest.id), Some(newest.created));
            explanation.next(format!("`featherctl operation retry {}` tries it again now", newest.id));
        }
        State::Failed | State::Cancelled => {
            let how = if newest.state == State::Failed { "failed" } else { "was cancelled" };
            let text = format!("the last change, {kind}, {how} and left all as it was{why}");
            explanation.say("operation", text, newest.ended);
            explanation.next(format!("`featherctl operation show {}` shows its log", newest.id));
        }
        State::Succeeded => {}
    }
}

/// What other servers hold of it: forwards, and copies of its data.
fn elsewhere(view: &TenantView<'_>, explanation: &mut Explanation) {
    let (row, name) = (view.row, &view.row.name);
    let others = view.observed.iter().filter(|(server, _)| row.server.as_ref() != Some(*server));
    for (server, observed) in others {
        let Some(snapshot) = observed.alive() else { continue };
        let report = snapshot.tenant(name);
        if let Some(to) = report.and_then(|report| report.forward_to.as_ref()) {
            let until = match (view.ingress == Some(server), view.name.as_ref().is_some_and(|leads| leads.asked)) {
                (true, _) => "it is the ingress, and forwards whatever lives elsewhere",
                (false, true) => {
                    "until every name server has led elsewhere, and nobody has come here, for twice the zone's TTL"
                }
                (false, false) => "without end, since no name server is asked",
            };
            let last = report.and_then(|report| report.forward_idle).map_or_else(String::new, |idle| {
                let seconds = i64::try_from(idle.as_secs()).unwrap_or(i64::MAX);
                format!("; the last came {} ago", crate::web::view::span(seconds))
            });
            explanation.say("forward", format!("{server} forwards its requests to {to}: {until}{last}"), None);
        }
        let Some(volume) = snapshot.volume(name) else { continue };
        let arriving = report.is_some_and(|report| report.incoming.is_some());
        let departed = report.is_some_and(|report| report.residence == Residence::Departed);
        let held = view.operations.iter().any(|one| one.ended.is_none());
        let text = match (arriving, departed) {
            (true, _) if held => format!("{server} receives its data"),
            (true, _) => format!("{server} holds what came of a move that no operation goes on with"),
            (false, true) => format!("{server} keeps a copy of its data from before the move, to move back quickly"),
            (false, false) => format!("{server} keeps data of that name"),
        };
        explanation.say("copy", text, volume.keep_until);
        let undo = !arriving && row.state == TenantState::Active && row.previous_server.as_ref() == Some(server);
        if undo {
            explanation.next(format!("`featherctl tenant migrate {name} --undo` moves it back to {server}"));
        }
    }
}

/// Where its name leads.
fn leads(view: &TenantView<'_>, explanation: &mut Explanation) {
    let Some(Leads { name, own, arrived, asked }) =
        view.name.as_ref().filter(|_| view.row.state == TenantState::Active)
    else {
        return;
    };
    let ingress = view.ingress.map(ToString::to_string).unwrap_or_default();
    let at_ingress = view.ingress == view.row.server.as_ref();
    let how = match own {
        Some(address) => format!("{name} leads to {address} by a record of its own"),
        None if at_ingress => format!("{name} follows the wildcard, which leads to {ingress}, where it lives"),
        None => format!("{name} follows the wildcard, which leads to {ingress}, and {ingress} forwards"),
    };
    let arrived_text = match (arrived, asked) {
        (Some(_), _) => "; every name server says so",
        (None, true) => "; not every name server says so yet",
        (None, false) => "",
    };
    explanation.say("dns", format!("{how}{arrived_text}"), *arrived);
    if *asked && arrived.is_none() {
        explanation.next("`featherctl dns status` shows which name server lags");
    }
}

/// What is known of one server.
struct ServerView<'a> {
    row: &'a ServerRow,
    seen: &'a Observed,
    /// What speaks for and against a new tenant there.
    room: Vec<String>,
    ingress: bool,
    tenants: &'a [TenantRow],
    running: &'a [OperationRow],
    warnings: &'a [WarningRow],
}

/// Explains a server.
///
/// # Errors
/// Not found; the store does not answer.
pub async fn server(world: &World, name: &ServerName) -> Result<Explanation, Error> {
    let store = &world.store;
    let row = store.member(name).await?;
    let (tenants, running) = (store.tenants().await?, store.unfinished_operations().await?);
    let ingress = dns::wanted(world).await?.ingress;
    let warnings = warnings::look(world).await?;
    let candidates =
        world.fleet.with(|observed| fleet::candidates(std::slice::from_ref(&row), observed, &tenants, &running));
    Ok(explain_server(&ServerView {
        row: &row,
        seen: &world.fleet.observed(name),
        room: placement::choose(candidates, &fleet::need(world)).explanation(),
        ingress: ingress.as_ref() == Some(name),
        tenants: &tenants,
        running: &running,
        warnings: &warnings,
    }))
}

fn explain_server(view: &ServerView<'_>) -> Explanation {
    let (name, mut explanation) = (&view.row.name, Explanation::default());
    let state = match &view.seen.reachability {
        Reachability::Alive => "answers".to_owned(),
        Reachability::Connecting => "has not answered since this controller started".to_owned(),
        Reachability::Silent(why) => format!("does not answer ({why}); its tenants may well be running"),
    };
    explanation.say("now", format!("{name} at {} {state}", view.row.address), view.seen.last_seen);
    explanation.say("placed", format!("{name} is a member"), Some(view.row.joined));
    view.room.iter().for_each(|line| explanation.say("slots", format!("for a new tenant: {line}"), None));
    if view.ingress {
        let text = format!("{name} is the ingress: the wildcard leads here, and it forwards what lives elsewhere");
        explanation.say("dns", text, None);
    }
    let lives = |one: &&TenantRow| one.state == TenantState::Active && one.server.as_ref() == Some(name);
    let living: Vec<_> = view.tenants.iter().filter(lives).map(|one| one.name.to_string()).collect();
    let text = match living.len() {
        0 => "nobody lives here".to_owned(),
        1 => format!("{} lives here", living[0]),
        count => format!("{count} live here: {}", shown(&living)),
    };
    explanation.say("tenants", text, None);
    let touches = |one: &&OperationRow| one.source.as_ref() == Some(name) || one.target.as_ref() == Some(name);
    for one in view.running.iter().filter(touches) {
        let text = format!("{} of {} is under way ({})", one.kind.name(), one.subject.spoken(), one.id);
        explanation.say("operation", text, Some(one.created));
        explanation.next(format!("`featherctl operation watch {}` follows it", one.id));
    }
    holds(view, &mut explanation);
    explanation.warn(view.warnings, &format!("server/{name}"));
    if !living.is_empty() {
        explanation.next(format!("`featherctl tenant migrate --all-from {name} --dry-run` says where they could go"));
    }
    explanation.next(format!("`featherctl server show {name}` shows all that is known of it"));
    explanation
}

/// Copies and forwards on a server.
fn holds(view: &ServerView<'_>, explanation: &mut Explanation) {
    let Some(snapshot) = view.seen.alive() else { return };
    let departed = snapshot.tenants.iter().filter(|report| report.residence == Residence::Departed);
    let forwards: Vec<_> =
        departed.filter(|report| report.forward_to.is_some()).map(|report| report.tenant.to_string()).collect();
    if !forwards.is_empty() && !view.ingress {
        explanation.say("forward", format!("it forwards for those that left it: {}", shown(&forwards)), None);
    }
    let copies: Vec<_> = snapshot.volumes.iter().filter(|volume| volume.keep_until.is_some()).collect();
    if !copies.is_empty() {
        let names: Vec<_> = copies.iter().map(|volume| volume.tenant.to_string()).collect();
        let last = copies.iter().filter_map(|volume| volume.keep_until).max();
        let text = format!("it keeps copies of those that left it, the last of them until then: {}", shown(&names));
        explanation.say("copy", text, last);
    }
}

fn shown(names: &[String]) -> String {
    let first = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX { format!("{first} and {} more", names.len() - SHOWN_MAX) } else { first }
}

#[cfg(test)]
mod tests;
