//! Which conditions hold that need a person. Pure: a comparison of what is stored and observed with what should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use feather_proto::{
    error::reason,
    ids::{ServerName, domain_suffix},
    model::{Residence, ServerSnapshot, rfc3339},
    version::{self, Age},
};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

use super::{backups, since};
use crate::{
    adoption::Names,
    ca, certificate, dns,
    fleet::{self, Observed, Reachability, Standing},
    operations::State,
    store::{
        OperationRow, ServerRow, TenantRow,
        backups::{BackupRow, Schedule},
        warnings::WarningRow,
    },
};

/// A clock may be off by so much.
const CLOCK_MAX: Duration = Duration::seconds(10);
/// Less than one part in so many of disk or memory is too little; until it is one in [`ENOUGH_PART`] again.
const SCARCE_PART: u64 = 20;
const ENOUGH_PART: u64 = 14;

/// What kind of condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A server's agent does not answer.
    Unreachable,
    /// A server says that something is wrong with it.
    Problem,
    /// Little disk is left.
    Disk,
    /// Little memory is left.
    Memory,
    /// A server's clock differs from the controller's.
    Clock,
    /// A server's agent is of another version than most.
    Version,
    /// A server's agent does not speak the controller's newest version of the protocol, or speaks a newer one.
    Protocol,
    /// A server serves its tenants under other names than the controller says.
    DomainSuffix,
    /// A server's certificate of the fleet ends soon, so it was not renewed.
    ServerCertificate,
    /// An operation can go neither on nor back.
    Stuck,
    /// A tenant is not as it should be.
    Broken,
    /// A tenant is restarted again and again.
    CrashLoop,
    /// A tenant's server was declared lost, and it was not brought back.
    Lost,
    /// A server forwards for one that left it, long after that.
    Forward,
    /// No certificate of the tenants' names is obtained.
    Certificate,
    /// The certificate of the tenants' names ends soon.
    CertificateEnd,
    /// Somebody else's record stands in the way.
    DnsConflict,
    /// Tenants have no record of their own for want of slots.
    DnsForwarded,
    /// The zone may not be changed as it is.
    DnsRefused,
    /// The provider cannot be asked.
    DnsProvider,
    /// Name servers cannot be found.
    DnsAuthority,
    /// A name does not arrive at all name servers.
    DnsName,
    /// Somebody else changed the zone.
    DnsNoticed,
    /// Changes wait for a person.
    DnsByHand,
    /// No record can lead to a server.
    DnsAddress,
    /// A tenant that should be backed up by itself is not.
    BackupLate,
    /// A tenant's newest backup is not what was written.
    BackupDamaged,
}

impl Kind {
    /// The stable word, and the first part of what a person types.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Unreachable => "unreachable",
            Kind::Problem => "problem",
            Kind::Disk => "disk",
            Kind::Memory => "memory",
            Kind::Clock => "clock",
            Kind::Version => "version",
            Kind::Protocol => "protocol",
            Kind::DomainSuffix => "domain-suffix",
            Kind::ServerCertificate => "server-certificate",
            Kind::Stuck => "stuck",
            Kind::Broken => "broken",
            Kind::CrashLoop => "crash-loop",
            Kind::Lost => "lost",
            Kind::Forward => "forward",
            Kind::Certificate => "certificate",
            Kind::CertificateEnd => "certificate-end",
            Kind::DnsConflict => "dns-conflict",
            Kind::DnsForwarded => "dns-forwarded",
            Kind::DnsRefused => "dns-refused",
            Kind::DnsProvider => "dns-provider",
            Kind::DnsAuthority => "dns-authority",
            Kind::DnsName => "dns-name",
            Kind::DnsNoticed => "dns-noticed",
            Kind::DnsByHand => "dns-by-hand",
            Kind::DnsAddress => "dns-address",
            Kind::BackupLate => "backup-late",
            Kind::BackupDamaged => "backup-damaged",
        }
    }
}

/// Whether what goes by this word is told apart by servers: in an id the name of one stands behind the word.
pub fn is_about_servers(word: &str) -> bool {
    let kinds = [
        Kind::Unreachable,
        Kind::Problem,
        Kind::Disk,
        Kind::Memory,
        Kind::Clock,
        Kind::Version,
        Kind::Protocol,
        Kind::DomainSuffix,
        Kind::ServerCertificate,
        Kind::Forward,
        Kind::DnsAddress,
    ];
    kinds.iter().any(|kind| kind.word() == word)
}

/// What has to be seen to know whether a condition holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The store, which is always seen.
    Store,
    /// What a server's agent reports.
    Server(ServerName),
    /// A pass over the zone that ended well.
    Zone,
    /// Any pass over the zone.
    Provider,
    /// Answers of name servers.
    Authorities,
    /// The state of the certificate.
    Certificate,
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Store => formatter.write_str("store"),
            Scope::Server(server) => write!(formatter, "server/{server}"),
            Scope::Zone => formatter.write_str("zone"),
            Scope::Provider => formatter.write_str("provider"),
            Scope::Authorities => formatter.write_str("authorities"),
            Scope::Certificate => formatter.write_str("certificate"),
        }
    }
}

/// A condition that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Of what kind.
    pub kind: Kind,
    /// What tells it from others of its kind; empty when there is only one.
    pub about: String,
    /// `alice`, `server/nyc`, `dns`, `certificate`.
    pub subject: String,
    /// What was seen to know it.
    pub scope: Scope,
    /// What is so and what to type next.
    pub message: String,
}

impl Condition {
    /// What a person types; the same as long as it is the same condition, whatever its words.
    pub fn id(&self) -> String {
        let word = self.kind.word();
        if self.about.is_empty() { word.to_owned() } else { format!("{word}/{}", self.about) }
    }
}

/// All conditions that hold, and what could not be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What holds.
    pub conditions: Vec<Condition>,
    /// Conditions of these scopes may hold all the same.
    pub blind: BTreeSet<Scope>,
}

/// Everything that a judgement is made of.
pub struct View<'a> {
    /// Now, by the controller's clock.
    pub now: OffsetDateTime,
    /// Of the controller.
    pub version: &'a str,
    /// Behind the names of tenants, as the controller has it.
    pub domain_suffix: &'a str,
    /// All servers.
    pub members: &'a [ServerRow],
    /// All tenants.
    pub tenants: &'a [TenantRow],
    /// Operations that have not ended.
    pub running: &'a [OperationRow],
    /// What servers report.
    pub observed: &'a BTreeMap<ServerName, Observed>,
    /// Where the wildcard leads.
    pub ingress: Option<&'a ServerName>,
    /// Where it led before.
    pub former: &'a BTreeSet<ServerName>,
    /// None when no zone is kept.
    pub zone: Option<&'a dns::Standing>,
    /// None when no certificate is obtained.
    pub certificate: Option<&'a certificate::Standing>,
    /// Disk that must stay free on each server.
    pub disk_headroom_bytes: u64,
    /// Memory for one more tenant.
    pub tenant_memory_bytes: u64,
    /// Whose backups are made by themselves.
    pub schedules: &'a [Schedule],
    /// Backups that are known of.
    pub backups: &'a [BackupRow],
    /// What held at the last look.
    pub kept: &'a [WarningRow],
}

impl View<'_> {
    fn held(&self, kind: Kind, about: &str) -> bool {
        self.kept.iter().any(|row| row.id == format!("{}/{about}", kind.word()))
    }
}

/// Judges.
pub fn judge(view: &View<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    servers(view, &mut judgement);
    judgement.conditions.extend(operations(view));
    judgement.conditions.extend(tenants(view));
    zone(view, &mut judgement);
    certificate(view, &mut judgement);
    judgement.conditions.extend(backups::conditions(view));
    merge(&mut judgement.conditions);
    judgement
}

/// What goes by one name is one condition: whoever acknowledges it is told of all that it stands for.
fn merge(conditions: &mut Vec<Condition>) {
    let mut merged: Vec<Condition> = Vec::with_capacity(conditions.len());
    for condition in conditions.drain(..) {
        let same = merged.iter_mut().find(|one| (one.kind, &one.about) == (condition.kind, &condition.about));
        match same {
            Some(one) if one.message != condition.message => {
                one.message = format!("{}; {}", one.message, condition.message)
            }
            Some(_) => {}
            None => merged.push(condition),
        }
    }
    *conditions = merged;
}

fn servers(view: &View<'_>, judgement: &mut Judgement) {
    let held = view.running.iter().filter_map(|one| one.subject.tenant().cloned());
    let names = Names::new(view.tenants.to_vec(), held, view.members);
    let version = common_version(view);
    for row in view.members {
        let (server, scope) = (&row.name, Scope::Server(row.name.clone()));
        let observed = view.observed.get(server);
        let condition = |kind, about: String, message| Condition {
            kind,
            about,
            subject: format!("server/{server}"),
            scope: scope.clone(),
            message,
        };
        let Some((observed, snapshot)) = observed.and_then(|seen| Some((seen, seen.alive()?))) else {
            judgement.blind.insert(scope.clone());
            if let Some(Reachability::Silent(why)) = observed.map(|seen| &seen.reachability) {
                judgement.conditions.push(condition(
                    Kind::Unreachable,
                    server.to_string(),
                    format!(
                        "{server} does not answer ({why}); its tenants may well be running. Check the machine, its network and its agent"
                    ),
                ));
            }
            continue;
        };
        let problems = snapshot.problems.iter().cloned().chain(fleet::told(server, view.observed, &names));
        judgement.conditions.extend(problems.map(|problem| {
            let about = format!("{server}/{}", likeness(&problem));
            condition(Kind::Problem, about, format!("{server}: {problem}. `featherctl server show {server}` shows all"))
        }));
        let found = [
            (Kind::Disk, scarce_disk(view, server, snapshot)),
            (Kind::Memory, scarce_memory(view, server, snapshot)),
            (Kind::Clock, clock(server, observed, snapshot)),
            (Kind::Version, other_version(server, snapshot, version.as_deref())),
            (Kind::Protocol, other_protocol(server, snapshot)),
            (Kind::DomainSuffix, other_suffix(view.domain_suffix, server, snapshot)),
            (Kind::ServerCertificate, own_certificate(view, server, snapshot)),
        ];
        let found = found.into_iter().filter_map(|(kind, message)| Some((kind, message?)));
        judgement.conditions.extend(found.map(|(kind, message)| condition(kind, server.to_string(), message)));
        judgement.conditions.extend(forwards(view, server, snapshot).map(|(tenant, message)| Condition {
            subject: tenant.clone(),
            ..condition(Kind::Forward, format!("{server}/{tenant}"), message)
        }));
    }
}

/// The same for sentences that differ only in numbers that stand alone: a problem that counts is one problem, and a number in a name
/// is part of the name.
fn likeness(sentence: &str) -> String {
    let joins = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let words = sentence.split_inclusive(|letter| !joins(letter));
    let plain: String = words
        .filter(|word| {
            // A stop at the end is that of the sentence.
            let bare = word.trim_end_matches(|letter: char| !joins(letter) || letter == '.');
            bare.is_empty() || !bare.chars().all(|letter| letter.is_ascii_digit())
        })
        .collect();
    Sha256::digest(plain).iter().take(3).map(|byte| format!("{byte:02x}")).collect()
}

/// What most servers run: more than half of those that answer; otherwise what the controller is of, in a fleet that is of two minds.
fn common_version(view: &View<'_>) -> Option<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    let alive: Vec<_> = view.members.iter().filter_map(|row| view.observed.get(&row.name)?.alive()).collect();
    alive.iter().for_each(|snapshot| *counts.entry(snapshot.version.as_str()).or_default() += 1);
    let most = counts.iter().find(|(_, count)| **count * 2 > alive.len()).map(|(version, _)| *version);
    most.or_else(|| (!alive.is_empty()).then_some(view.version)).map(ToOwned::to_owned)
}

fn other_version(server: &ServerName, snapshot: &ServerSnapshot, common: Option<&str>) -> Option<String> {
    let common = common.filter(|common| *common != snapshot.version && !snapshot.version.is_empty())?;
    Some(format!(
        "{server} runs version {} of the agent, and the fleet {common}; docs/operations.md says under \"Upgrades\" how to change that",
        snapshot.version
    ))
}

fn other_protocol(server: &ServerName, snapshot: &ServerSnapshot) -> Option<String> {
    let (spoken, ours) = (snapshot.protocol, version::OURS);
    let next = match spoken.age(ours) {
        Age::Same => return None,
        Age::Older => format!("what is newer cannot be done there; upgrade the agent of {server}"),
        Age::Newer => "upgrade the controller, which should be the first".to_owned(),
    };
    Some(format!(
        "{server} speaks protocol {spoken} and the controller {ours}: {next} (docs/operations.md says how under \"Upgrades\")"
    ))
}

/// Who follows what the controller prints finds nobody there.
fn other_suffix(ours: &str, server: &ServerName, snapshot: &ServerSnapshot) -> Option<String> {
    // An agent of before does not tell. What is no domain no agent says, and nobody is to paste it.
    let theirs = domain_suffix(&snapshot.domain_suffix).ok()?;
    (theirs != ours).then(|| {
        format!(
            "{server} serves its tenants as NAME.{theirs}, and the controller says NAME.{ours}: begin the birth of {server} anew with \
             FEATHER_AGENT_DOMAIN_SUFFIX={ours} (docs/operations.md says how under \"Upgrades\"), or the controller with --domain-suffix {theirs}"
        )
    })
}

/// Below a twentieth, or below what is needed; once it was so, until it is clearly more.
fn scarce(free: u64, total: u64, needed: u64, held: bool) -> bool {
    let (part, needed) = if held { (ENOUGH_PART, needed.saturating_add(needed / 2)) } else { (SCARCE_PART, needed) };
    total > 0 && (free < total / part || free < needed)
}

fn scarce_disk(view: &View<'_>, server: &ServerName, snapshot: &ServerSnapshot) -> Option<String> {
    let (free, total) = (snapshot.disk_free_bytes, snapshot.disk_total_bytes);
    let held = view.held(Kind::Disk, server.as_str());
    scarce(free, total, view.disk_headroom_bytes, held).then(|| {
        format!(
            "{server} has {} of {} disk left; `featherctl volume list` shows what takes it, `featherctl tenant migrate NAME --to OTHER` \
             makes room",
            mebibytes(free),
            mebibytes(total)
        )
    })
}

fn scarce_memory(view: &View<'_>, server: &ServerName, snapshot: &ServerSnapshot) -> Option<String> {
    let (free, total) = (snapshot.memory_free_bytes, snapshot.memory_total_bytes);
    let held = view.held(Kind::Memory, server.as_str());
    scarce(free, total, view.tenant_memory_bytes, held).then(|| {
        format!(
            "{server} has {} of {} memory left; `featherctl tenant migrate NAME --to OTHER` makes room",
            mebibytes(free),
            mebibytes(total)
        )
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn clock(server: &ServerName, observed: &Observed, snapshot: &ServerSnapshot) -> Option<String> {
    let ahead = snapshot.now - observed.last_seen?;
    (ahead.abs() > CLOCK_MAX).then(|| {
        let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
        let seconds = ahead.whole_seconds().abs();
        format!("the clock of {server} is {seconds} s {direction} the controller's; set both by NTP")
    })
}

/// It renews at two thirds of its life; a sixth of it is left only when that failed for hours.
fn own_certificate(view: &View<'_>, server: &ServerName, snapshot: &ServerSnapshot) -> Option<String> {
    let ends = snapshot.identity_ends?;
    (ends - view.now < ca::AGENT_LIFE / 6).then(|| {
        let ends = rfc3339(ends);
        format!(
            "the certificate of {server} ends at {ends} and was not renewed: does {server} reach the controller? Its agent's log says why; \
             `featherctl server invite {server} --rejoin` gives it another one"
        )
    })
}

fn forwards<'a>(
    view: &'a View<'_>,
    server: &'a ServerName,
    snapshot: &'a ServerSnapshot,
) -> impl Iterator<Item = (String, String)> + 'a {
    let led = view.ingress == Some(server) || view.former.contains(server);
    let ends = view.zone.is_some_and(|zone| zone.forwards_end) && !led;
    let forwards = snapshot
        .tenants
        .iter()
        .filter(move |report| ends && report.residence == Residence::Departed && report.forward_to.is_some());
    forwards.map(move |report| {
        let tenant = report.tenant.to_string();
        let message = format!(
            "{server} still forwards for {tenant}, which left it long ago: its name has not led elsewhere for long enough. \
             `featherctl dns status` shows which name server lags"
        );
        (tenant, message)
    })
}

fn operations(view: &View<'_>) -> impl Iterator<Item = Condition> {
    view.running.iter().filter(|row| row.state == State::Stuck).map(|row| {
        let error = row.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
        let next = row.hint.as_ref().map(|hint| format!("; next: {hint}")).unwrap_or_default();
        Condition {
            kind: Kind::Stuck,
            about: row.subject.to_string(),
            subject: row.subject.to_string(),
            scope: Scope::Store,
            message: format!(
                "{} of {} is stuck{error}. It is tried again at intervals{next}. `featherctl operation show {}` shows its log",
                row.kind.name(),
                row.subject.spoken(),
                row.id
            ),
        }
    })
}

fn tenants(view: &View<'_>) -> impl Iterator<Item = Condition> {
    view.tenants.iter().filter_map(|row| {
        let (tenant, server) = (&row.name, row.server.as_ref()?);
        let held = view.running.iter().any(|one| one.subject.tenant() == Some(tenant));
        if !held && fleet::is_lost(row, |server| view.members.iter().any(|one| one.name == *server)) {
            return Some(Condition {
                kind: Kind::Lost,
                about: tenant.to_string(),
                subject: tenant.to_string(),
                scope: Scope::Store,
                message: format!("{tenant}: {}", fleet::told_lost(tenant.as_str(), server.as_str())),
            });
        }
        let observed = view.observed.get(server)?;
        let report = observed.alive().and_then(|snapshot| snapshot.tenant(tenant));
        let (kind, message) = match fleet::standing(row, held, observed) {
            Standing::CrashLoop => {
                let restarts = report.map_or(0, |report| report.watch.restarts);
                let message = format!(
                    "{tenant} had to be restarted {restarts} times on {server}; this goes on with growing pauses. \
                     `featherctl tenant logs {tenant}` shows what it says"
                );
                (Kind::CrashLoop, message)
            }
            Standing::Broken => {
                let why = fleet::trouble(report).unwrap_or_default();
                (Kind::Broken, format!("{tenant} on {server}: {why}. `featherctl tenant show {tenant}` shows all"))
            }
            _ => return None,
        };
        Some(Condition {
            kind,
            about: tenant.to_string(),
            subject: tenant.to_string(),
            scope: Scope::Server(server.clone()),
            message,
        })
    })
}

fn zone(view: &View<'_>, judgement: &mut Judgement) {
    let Some(zone) = view.zone else { return };
    let condition = |kind, about: &str, scope, message: &str| Condition {
        kind,
        about: about.to_owned(),
        subject: "dns".to_owned(),
        scope,
        message: message.to_owned(),
    };
    match zone.pass.as_ref().map(|pass| (&pass.outcome, &pass.remarks)) {
        None => judgement.blind.extend([Scope::Zone, Scope::Provider]),
        Some((Ok(_), remarks)) => {
            let conditions = remarks.iter().map(|one| condition(one.kind, &one.about, Scope::Zone, &one.message));
            judgement.conditions.extend(conditions);
        }
        Some((Err(error), _)) => {
            judgement.blind.insert(Scope::Zone);
            let refused = [reason::DNS_CAP, reason::DNS_UNPROVEN, reason::DNS_SHRUNK].iter().any(|word| error.is(word));
            let kind = if refused { Kind::DnsRefused } else { Kind::DnsProvider };
            let hint = if refused { "" } else { "; `featherctl dns status` shows how it stands" };
            let message = format!("{}{hint}", error.message);
            judgement.conditions.push(condition(kind, "", Scope::Provider, &message));
        }
    }
    if let Some(problem) = &zone.authorities_problem {
        let message = format!("{problem}; names are not known to arrive, and no forward ends");
        judgement.conditions.push(condition(Kind::DnsAuthority, "", Scope::Store, &message));
    }
    match &zone.late {
        None => drop(judgement.blind.insert(Scope::Authorities)),
        Some(late) => judgement.conditions.extend(late.iter().map(|name| {
            let message = format!(
                "{name} is in the zone as wanted, and not every name server says so; `featherctl dns status` shows which one lags"
            );
            condition(Kind::DnsName, name, Scope::Authorities, &message)
        })),
    }
}

fn certificate(view: &View<'_>, judgement: &mut Judgement) {
    let Some(standing) = view.certificate else { return };
    let condition = |kind, message| Condition {
        kind,
        about: String::new(),
        subject: "certificate".to_owned(),
        scope: Scope::Certificate,
        message,
    };
    if !standing.loaded {
        judgement.blind.insert(Scope::Certificate);
    }
    judgement.conditions.extend(standing.warning.clone().map(|text| condition(Kind::Certificate, text)));
    // It is renewed at two thirds of its life: with a sixth left there is time for a person, and none for more tries alone.
    let near = standing.life.filter(|(begins, ends)| *ends - view.now < (*ends - *begins) / 6);
    judgement.conditions.extend(near.map(|(_, ends)| {
        let over = if since(view.now, ends).is_zero() { "ends" } else { "ended" };
        let ends = rfc3339(ends);
        let text = format!(
            "the certificate of the tenants' names {over} at {ends} and was not renewed; `featherctl cert status` says why, \
             `featherctl cert renew` tries now"
        );
        condition(Kind::CertificateEnd, text)
    }));
}

#[cfg(test)]
mod tests;
