//! What a store is to hold, judged by what agents report. Pure.
//!
//! Whoever serves a tenant alone has it. Where two do, or where somebody knows of something newer, a person has to say: nothing here
//! guesses. Owns the judgement; that nothing is started, stopped or deleted by it is up to whoever acts.

use std::collections::{BTreeMap, BTreeSet};

use feather_proto::{
    forward::ForwardTarget,
    ids::{Generation, ServerName, TenantName},
    model::{Residence, ServerSnapshot, TenantReport, VolumeReport, VolumeState},
    tls::{Principal, Revocations},
};
use time::OffsetDateTime;

use super::{said::Said, ways::Ways};
use crate::{
    adoption,
    agents::Heeded,
    ca::{AGENT_LIFE, BACKDATE},
    placement::Bounds,
    store::{ServerRow, TenantRow, TenantState},
    upkeep::Upkeep,
};

mod home;
mod ingress;

use home::Home;

/// Numbers that an operation of the lost store may have been given and that no agent has heard of.
const SPARE: u64 = 2;
/// The same where the server that heard of them does not answer: starts and restarts since the last forward count, too.
const SPARE_UNSEEN: u64 = 1_000;

/// What came of asking a server.
#[derive(Debug, Clone)]
pub enum Answer {
    /// What it knows, and whom it heeds, if it is of a version that tells.
    Heard(Box<ServerSnapshot>, Option<Heeded>),
    /// Nothing, and why.
    Silent(String),
}

/// A tenant on one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting<'a> {
    pub(super) server: &'a ServerName,
    pub(super) report: &'a TenantReport,
    pub(super) volume: Option<&'a VolumeReport>,
}

/// Tenants, and where they were seen.
pub(super) type Seen<'a> = BTreeMap<TenantName, Vec<Sighting<'a>>>;

impl Sighting<'_> {
    pub(super) fn lives(&self) -> bool {
        adoption::lives(self.report)
    }

    fn is_sealed(&self) -> bool {
        self.report.residence == Residence::Sealed
    }

    pub(super) fn forward(&self) -> Option<ForwardTarget> {
        self.report.forward_to.as_ref()?.parse().ok()
    }

    /// All data of some moment is here.
    fn has_data(&self) -> bool {
        self.volume.is_some_and(|volume| volume.state == VolumeState::Complete)
    }

    /// The same, for as long as nobody says otherwise.
    fn keeps_data(&self) -> bool {
        self.has_data() && self.volume.is_some_and(|volume| volume.keep_until.is_none())
    }
}

/// What had come to a server in a move that nobody will end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half {
    /// Where it is.
    pub server: ServerName,
    /// Whose.
    pub tenant: TenantName,
    /// Of the move.
    pub generation: Generation,
}

/// A server of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What the store is to hold of it.
    pub row: ServerRow,
    /// It answered.
    pub heard: bool,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Nothing is written as long as it is so.
    pub stops: bool,
    /// A server, a tenant, an address.
    pub about: String,
    /// What is so, and what to do.
    pub message: String,
}

/// What a store is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Servers, in the order of their names.
    pub members: Vec<Member>,
    /// Tenants, in the order of their names; those that were removed with data that is kept, too.
    pub tenants: Vec<TenantRow>,
    /// Moves that are to be given back before anything is written.
    pub halves: Vec<Half>,
    /// Whose certificates are refused.
    pub refused: Revocations,
    /// Highest number of a lead that any server met.
    pub lead: i64,
    /// The server that the wildcard leads to, if that was said or can be seen.
    pub ingress: Option<ServerName>,
    /// Others that forward everybody: it led to them before.
    pub former: BTreeSet<ServerName>,
    /// What stops it first.
    pub findings: Vec<Finding>,
}

impl Plan {
    /// What has to be settled before anything is written.
    pub fn stops(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.stops)
    }
}

/// Findings on their way.
#[derive(Default)]
struct Findings {
    all: Vec<Finding>,
    /// Words of `--without` that were about something.
    used: BTreeSet<String>,
}

impl Findings {
    fn say(&mut self, about: &impl ToString, message: impl Into<String>) {
        self.all.push(Finding { stops: false, about: about.to_string(), message: message.into() });
    }

    fn stop(&mut self, about: &impl ToString, message: impl Into<String>) {
        self.all.push(Finding { stops: true, about: about.to_string(), message: message.into() });
    }

    /// Stops, unless a person said that it goes on without that.
    fn stop_unless(&mut self, said: &Said, about: &impl ToString, why: &str, means: &str) {
        let about = about.to_string();
        if said.without.contains(&about) {
            self.say(&about, format!("{why}; left out as you said: {means}"));
            self.used.insert(about);
        } else {
            self.stop(&about, format!("{why}; --without {about} goes on without it: {means}"));
        }
    }
}

/// Everybody's answers, put together.
pub fn decide(said: &Said, answers: &BTreeMap<ServerName, Answer>, now: OffsetDateTime) -> Plan {
    let mut findings = Findings::default();
    let refused = refused(answers, &mut findings);
    let heard: BTreeMap<&ServerName, &ServerSnapshot> = answers
        .iter()
        .filter_map(|(name, answer)| match answer {
            Answer::Heard(snapshot, _) if snapshot.server == *name && !is_out(snapshot, &refused) => {
                Some((name, &**snapshot))
            }
            _ => None,
        })
        .collect();
    let seen = sightings(&heard);
    let ways = Ways::learn(said, &seen);
    let members = members(said, answers, &refused, (&heard, &ways), &mut findings, now);
    if heard.is_empty() {
        findings.stop(&"servers", "none of those that were named answers, so there is nothing to learn from");
    }
    let silent: BTreeSet<&ServerName> =
        members.iter().filter(|member| !member.heard).map(|member| &member.row.name).collect();
    let (mut tenants, mut halves) = (Vec::new(), Vec::new());
    for (tenant, all) in &seen {
        let found = home::home(tenant, all, said.assigned.get(tenant), (&ways, &silent));
        home::remark(tenant, all, &found, &mut findings);
        forwards(said, tenant, all, &found, (&ways, &silent), &mut findings);
        if let Home::Lives(home) | Home::Sealed(home) = &found {
            halves.extend(all.iter().filter(|one| one.server != home.server).filter_map(half));
        }
        tenants.extend(row(tenant, all, &found, floor(tenant, answers), now));
    }
    unheard(said, &seen, &mut findings);
    let rows: Vec<ServerRow> = members.iter().map(|member| member.row.clone()).collect();
    let ingress::Led { ingress, former } = ingress::led(said, &rows, &tenants, &heard, &mut findings);
    let mut findings = findings.all;
    findings.sort_by(|one, other| other.stops.cmp(&one.stops).then_with(|| one.cmp(other)));
    findings.dedup();
    let leads = answers.values().filter_map(|answer| match answer {
        Answer::Heard(_, heeded) => heeded.as_ref().map(|heeded| heeded.lead),
        Answer::Silent(_) => None,
    });
    Plan { members, tenants, halves, refused, lead: leads.max().unwrap_or_default(), ingress, former, findings }
}

/// Whom anybody refuses is refused.
fn refused(answers: &BTreeMap<ServerName, Answer>, findings: &mut Findings) -> Revocations {
    let mut refused = Revocations::default();
    for (name, answer) in answers {
        match answer {
            Answer::Heard(_, Some(heeded)) => heeded.refused.lines().into_iter().for_each(|line| refused.add(line)),
            Answer::Heard(_, None) => findings.say(
                name,
                "its agent is of a version that does not tell whose certificates it refuses; revoke those people once more",
            ),
            Answer::Silent(_) => {}
        }
    }
    refused
}

/// Was the certificate that it shows taken back?
fn is_out(snapshot: &ServerSnapshot, refused: &Revocations) -> bool {
    let valid_from = snapshot.identity_ends.map(|ends| (ends - AGENT_LIFE - BACKDATE).unix_timestamp());
    refused.refuses(&Principal::agent(&snapshot.server), valid_from)
}

/// What to think of before one that does not answer is kept as a member. One that joined again has such a line, too: of the certificate that
/// it had before.
fn was_revoked(name: &ServerName, refused: &Revocations) -> &'static str {
    match refused.refuses(&Principal::agent(name), None) {
        true => {
            "; a certificate of this name was revoked: if it was declared lost, retired or removed, leave it out of --agent"
        }
        false => "",
    }
}

fn sightings<'a>(heard: &BTreeMap<&'a ServerName, &'a ServerSnapshot>) -> Seen<'a> {
    let mut seen = Seen::new();
    for (server, snapshot) in heard {
        for report in &snapshot.tenants {
            let sighting = Sighting { server, report, volume: snapshot.volume(&report.tenant) };
            seen.entry(report.tenant.clone()).or_default().push(sighting);
        }
    }
    seen
}

fn members(
    said: &Said,
    answers: &BTreeMap<ServerName, Answer>,
    refused: &Revocations,
    (heard, ways): (&BTreeMap<&ServerName, &ServerSnapshot>, &Ways<'_>),
    findings: &mut Findings,
    now: OffsetDateTime,
) -> Vec<Member> {
    let mut members = Vec::new();
    for named in &said.agents {
        let name = &named.name;
        let mut silent = |why: &str| {
            let means = "it stays a member and runs on, and whoever lives there becomes known when it is heard of again; until then do \
                         not add tenants by their names";
            let why = format!("it does not answer ({why}); if it was renamed, name it as its certificate does");
            findings.stop_unless(said, name, &format!("{why}{}", was_revoked(name, refused)), means);
        };
        match answers.get(name) {
            Some(Answer::Heard(snapshot, _)) if snapshot.server != *name => {
                silent(&format!("who answers there calls itself {}", snapshot.server));
            }
            Some(Answer::Heard(snapshot, _)) if is_out(snapshot, refused) => {
                let why = "it was taken out of the fleet: its certificate is revoked";
                findings.stop_unless(said, name, why, "it is no member, and what it runs does not count");
                continue;
            }
            Some(Answer::Heard(snapshot, _)) => {
                snapshot.problems.iter().for_each(|problem| findings.say(name, problem.clone()));
                for volume in snapshot.volumes.iter().filter(|volume| snapshot.tenant(&volume.tenant).is_none()) {
                    findings.say(
                        &volume.tenant,
                        format!("{name} has a volume of that name and no record of the tenant, so it tells nothing of it: its ledger is damaged, or somebody made it by hand"),
                    );
                }
            }
            Some(Answer::Silent(why)) => silent(why),
            None => silent("it was not asked"),
        }
        if let Some(hosts) = ways.unclear.get(name) {
            let hosts = hosts.iter().cloned().collect::<Vec<_>>().join(" and ");
            findings.stop(
                name,
                format!(
                    "others forward to it at {hosts}; say which it is: --agent {name}={},PUBLIC-ADDRESS",
                    named.address
                ),
            );
        }
        // Whoever has a certificate that holds has got it since then, and may renew it.
        let issued = heard.get(name).and_then(|snapshot| snapshot.identity_ends).unwrap_or(now) - AGENT_LIFE;
        let row = ServerRow {
            name: name.clone(),
            // A name that it was given since then is lost with the store.
            identity: name.clone(),
            address: named.address.clone(),
            public_address: ways.host(name),
            // It is in the certificate, and noted with the next one.
            key_fingerprint: String::new(),
            joined: issued.min(now),
            upkeep: Upkeep::default(),
        };
        members.push(Member { row, heard: heard.contains_key(name) });
    }
    members.sort_by(|one, other| one.row.name.cmp(&other.row.name));
    members
}

/// Highest generation that anybody has seen of a tenant, also a server that is out.
fn floor(tenant: &TenantName, answers: &BTreeMap<ServerName, Answer>) -> Generation {
    let seen = answers.values().filter_map(|answer| match answer {
        Answer::Heard(snapshot, _) => snapshot.tenant(tenant).map(|report| report.generation),
        Answer::Silent(_) => None,
    });
    seen.max().unwrap_or_default()
}

fn half(sighting: &Sighting<'_>) -> Option<Half> {
    sighting.report.incoming?;
    Some(Half {
        server: sighting.server.clone(),
        tenant: sighting.report.tenant.clone(),
        generation: sighting.report.generation,
    })
}

fn row(
    tenant: &TenantName,
    all: &[Sighting<'_>],
    found: &Home<'_>,
    floor: Generation,
    now: OffsetDateTime,
) -> Option<TenantRow> {
    let spare = if matches!(found, Home::Away(_)) { SPARE_UNSEEN } else { SPARE };
    let (server, report, state, running) = match found {
        // Who stands still in a move may have been stopped by its operator: nobody but a person starts it.
        Home::Lives(home) | Home::Sealed(home) => {
            (home.server, home.report, TenantState::Active, home.report.residence == Residence::Running)
        }
        Home::Kept(home) => (home.server, home.report, TenantState::Removed, true),
        Home::Away(away) => (&away.server, away.by.report, TenantState::Active, true),
        Home::Unclear(_) | Home::Nowhere => return None,
    };
    Some(TenantRow {
        name: tenant.clone(),
        state,
        server: Some(server.clone()),
        previous_server: home::left(all, server).cloned(),
        generation: floor,
        generation_issued: Generation(floor.0.saturating_add(spare)),
        running,
        created: report.created.unwrap_or(now),
        version: 1,
        bounds: Bounds::default(),
        limits: report.limits,
    })
}

/// Forwards that know of a server that was not heard.
fn forwards(
    said: &Said,
    tenant: &TenantName,
    all: &[Sighting<'_>],
    found: &Home<'_>,
    (ways, silent): (&Ways<'_>, &BTreeSet<&ServerName>),
    findings: &mut Findings,
) {
    let known = match found {
        Home::Lives(home) | Home::Sealed(home) => Some(home.report.generation),
        Home::Away(away) => Some(away.by.report.generation),
        Home::Kept(_) | Home::Nowhere | Home::Unclear(_) => None,
    };
    for one in all.iter().filter(|one| known.is_none_or(|known| one.report.generation > known)) {
        let Some(forward) = &one.report.forward_to else { continue };
        match ways.leads_to(forward) {
            None => {
                let why = format!(
                    "a server at this address is not named, and {tenant} is said to live there ({} forwards to it): pass --agent \
                     NAME=HOST:PORT, or, if it is a public address of one that you named, --agent NAME=HOST:PORT,PUBLIC-ADDRESS",
                    one.server
                );
                let means = "what lives there is not known to the fleet, and runs on as long as it does";
                findings.stop_unless(said, forward, &why, means);
            }
            Some(server) if silent.contains(server) => {
                findings.say(tenant, format!("{} forwards to {server}, which does not answer", one.server));
            }
            Some(_) => {}
        }
    }
}

/// What was said about nothing that there is.
fn unheard(said: &Said, seen: &Seen<'_>, findings: &mut Findings) {
    for word in said.without.difference(&findings.used.clone()) {
        findings.stop(word, format!("--without {word}: nothing is missing there; leave it out"));
    }
    for tenant in said.assigned.keys().filter(|tenant| !seen.contains_key(*tenant)) {
        findings.stop(tenant, format!("--assign {tenant}: no server that answers knows it; leave it out"));
    }
}

#[cfg(test)]
mod tests;
