//! Taking over what the old script left: what becomes of each name that is found. Pure.
//!
//! Owns the judgement of containers, volumes and entries that this agent did not make. What runs counts more than what a file
//! says; whatever would lose data, a password or a second tenant's port is a misfit and stays as it is. Knows no effects: the
//! survey is made, and its verdicts are carried out, by `agent/adopt.rs`.

mod old_file;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use feather_proto::{
    adoption::{Action, Finding},
    ids::{Generation, TenantName},
    model::ContainerState,
};
use time::OffsetDateTime;

use crate::{
    agent::GENERATION_LABEL,
    ledger::{Record, Residence},
    password::Password,
    router::Route,
    runtime::{Home, Inspected, Network},
};

pub(crate) use old_file::{Entry, OldFile, SIZE_MAX as OLD_FILE_SIZE_MAX};

/// In a container's environment.
const PASSWORD: &str = "FEATHER_PASSWORD";
/// Where a web app on the host's network is told to listen.
const PORT: &str = "PORT";

/// Who adopts, and what is to become of those that are stopped.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// They shall run from now on.
    pub(crate) start: bool,
    /// A person at this server, which belongs to no fleet.
    pub(crate) alone: bool,
}

impl Wish {
    /// What that person types to change a tenant.
    fn command(self) -> &'static str {
        if self.alone { "tenant.sh" } else { "featherctl tenant" }
    }
}

/// Everything that a verdict follows from, gathered before it.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The old script's file.
    pub(crate) file: OldFile,
    /// Containers by what stands behind `feather-user-`, which need not be a tenant's name.
    pub(crate) containers: BTreeMap<String, Inspected>,
    /// Volumes, by the same.
    pub(crate) volumes: BTreeSet<String>,
    /// Routes as the proxy has them.
    pub(crate) routes: BTreeMap<TenantName, Route>,
    /// What the ledger holds.
    pub(crate) records: Vec<Record>,
    /// Names of damaged ledger files.
    pub(crate) damaged: BTreeSet<String>,
    /// Ports for tenants.
    pub(crate) ports: RangeInclusive<u16>,
    /// Ports that answer a health check with 200 now.
    pub(crate) answering: BTreeSet<u16>,
    /// What tenants get unless told otherwise: its name, and its digest if it is in storage.
    pub(crate) work_image: (String, Option<String>),
    /// Variables that a container gets anyway.
    pub(crate) passed_variables: BTreeSet<String>,
    pub(crate) now: OffsetDateTime,
    pub(crate) wish: Wish,
}

/// A tenant that can be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) tenant: TenantName,
    pub(crate) port: u16,
    pub(crate) password: Password,
    pub(crate) image: String,
    pub(crate) image_digest: String,
    pub(crate) created: OffsetDateTime,
    /// Id of the container, if it has one that runs.
    pub(crate) running: Option<String>,
    /// It shall run, whether it does or not.
    pub(crate) start: bool,
    /// The highest generation that anything here tells of: a container of an agent whose ledger is lost has one.
    pub(crate) seen: Generation,
}

/// What is to be done about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It becomes a tenant.
    Adopt(Box<Candidate>),
    /// It is one.
    Known,
    /// Only a volume, which an add of that name finds.
    Keep,
    /// Left alone, for this reason.
    Misfit(String),
}

/// One name with its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) notes: Vec<String>,
}

/// Judges every name that was found, those that run first: their ports are facts, all others' can be chosen.
pub(crate) fn plan(survey: &Survey) -> Vec<Judged> {
    let mut ports = Ports::of(survey);
    let names: BTreeSet<&String> =
        survey.file.entries.keys().chain(survey.containers.keys()).chain(&survey.volumes).collect();
    let (running, resting): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| survey.runs(name));
    let judged = running.into_iter().chain(resting).filter_map(|name| judge(survey, name, &mut ports));
    let by_name: BTreeMap<_, _> = judged.map(|judged| (judged.name.clone(), judged)).collect();
    by_name.into_values().collect()
}

impl Survey {
    fn runs(&self, name: &str) -> bool {
        self.containers.get(name).is_some_and(|one| one.container.state == ContainerState::Running)
    }

    /// How a verdict is told.
    pub(crate) fn finding(&self, judged: &Judged) -> Finding {
        let (name, container) = (&judged.name, self.containers.get(&judged.name));
        let tenant = name.parse::<TenantName>().ok();
        let recorded = tenant.as_ref().and_then(|tenant| self.records.iter().find(|record| record.tenant == *tenant));
        let published = container.and_then(|one| match one.network {
            Network::Published { port, .. } => Some(port),
            Network::Host | Network::Closed => None,
        });
        let (action, port, why) = match &judged.verdict {
            Verdict::Adopt(candidate) => (Action::Adopt, Some(candidate.port), None),
            Verdict::Known => (Action::Known, recorded.and_then(|record| record.ports().next()), None),
            Verdict::Keep => (Action::Keep, None, None),
            Verdict::Misfit(why) => (Action::Misfit, published, Some(why.clone())),
        };
        Finding {
            name: name.clone(),
            listed: self.file.entries.contains_key(name),
            container: container.is_some(),
            running: self.runs(name),
            host_network: container.is_some_and(|one| one.network == Network::Host),
            volume: self.volumes.contains(name),
            routed: tenant.is_some_and(|tenant| self.routes.contains_key(&tenant)),
            port,
            action,
            why,
            notes: judged.notes.clone(),
        }
    }
}

/// Who has which port, and what is free.
struct Ports {
    taken: BTreeMap<u16, String>,
    range: RangeInclusive<u16>,
}

impl Ports {
    fn of(survey: &Survey) -> Self {
        let records =
            survey.records.iter().flat_map(|record| record.ports().map(|port| (port, record.tenant.to_string())));
        Self { taken: records.collect(), range: survey.ports.clone() }
    }

    /// The port that it has, which nobody else may have.
    fn claim(&mut self, port: u16, name: &str) -> Result<u16, String> {
        match self.taken.get(&port) {
            Some(other) => Err(format!(
                "its port {port} belongs to {other}; stop it (`podman stop feather-user-{name}`) and adopt again, and it gets \
                 another one"
            )),
            None => {
                self.taken.insert(port, name.to_owned());
                Ok(port)
            }
        }
    }

    /// The wanted port if nobody has it, otherwise the lowest free one.
    fn choose(&mut self, wanted: Option<u16>, name: &str, notes: &mut Vec<String>) -> Result<u16, String> {
        let free = wanted.filter(|port| !self.taken.contains_key(port));
        let port = free.or_else(|| self.range.clone().find(|port| !self.taken.contains_key(port)));
        let port = port.ok_or("every port for tenants is taken on this server; widen --ports (FEATHER_AGENT_PORTS)")?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != port) {
            notes.push(format!("port {wanted} belongs to {}; it gets {port} at its next start", self.taken[&wanted]));
        }
        self.claim(port, name)
    }
}

/// Nothing is said about what this agent made and nobody lists.
fn judge(survey: &Survey, name: &str, ports: &mut Ports) -> Option<Judged> {
    let mut notes = survey.file.remarks.get(name).cloned().unwrap_or_default();
    let listed = survey.file.entries.contains_key(name);
    let record = survey.records.iter().find(|record| record.tenant.as_str() == name);
    if let Some(record) = record {
        let adopted = record.spec.as_ref().is_some_and(|spec| spec.adopted.is_some());
        let verdict = match &record.residence {
            Residence::Active { .. } | Residence::Sealed => Verdict::Known,
            Residence::Absent | Residence::Departed { .. } if survey.containers.contains_key(name) => {
                Verdict::Misfit(format!(
                    "this server's ledger says that {name} was removed or has moved away, and a container of that name is here; look at it \
                     with `podman logs feather-user-{name}`, and remove it with `podman rm` if nobody needs it"
                ))
            }
            Residence::Absent | Residence::Departed { .. } => Verdict::Known,
        };
        let worth_telling = listed || adopted || matches!(verdict, Verdict::Misfit(_));
        return worth_telling.then(|| Judged { name: name.to_owned(), verdict, notes: vec![] });
    }
    let verdict = judge_stranger(survey, name, ports, &mut notes).unwrap_or_else(Verdict::Misfit);
    Some(Judged { name: name.to_owned(), verdict, notes })
}

fn judge_stranger(survey: &Survey, name: &str, ports: &mut Ports, notes: &mut Vec<String>) -> Result<Verdict, String> {
    let tenant: TenantName = name.parse().map_err(|error: feather_proto::error::Error| {
        format!(
            "{}. It runs on as it is; give it another name to adopt it: {}",
            error.message,
            another_name(name, survey.wish)
        )
    })?;
    if survey.damaged.contains(&format!("{tenant}.json")) {
        return Err(
            "the ledger's file about it is damaged; restore it from a backup that was made since the tenant came to this server, or move it away, and restart the agent"
                .into(),
        );
    }
    let entry = survey.file.entries.get(name);
    match (survey.containers.get(name), entry) {
        (Some(container), entry) => {
            let candidate = from_container(survey, &tenant, container, entry, ports, notes)?;
            Ok(Verdict::Adopt(Box::new(candidate)))
        }
        (None, Some(entry)) if survey.volumes.contains(name) => {
            let candidate = from_entry(survey, &tenant, entry, ports, notes)?;
            Ok(Verdict::Adopt(Box::new(candidate)))
        }
        (None, Some(_)) => Err(format!(
            "it is listed, and neither a container nor a volume of it is here; if its data is elsewhere bring it into a volume {}",
            tenant.container()
        )),
        (None, None) => Ok(Verdict::Keep),
    }
}

/// How to give something another name with Podman.
fn another_name(name: &str, wish: Wish) -> String {
    let command = wish.command();
    format!(
        "`podman volume create feather-user-NEW && podman volume export feather-user-{name} | podman volume import feather-user-NEW -`, \
         then remove the old container and `{command} add NEW` on this server"
    )
}

fn from_container(
    survey: &Survey,
    tenant: &TenantName,
    container: &Inspected,
    entry: Option<&Entry>,
    ports: &mut Ports,
    notes: &mut Vec<String>,
) -> Result<Candidate, String> {
    keeps_its_data_where_it_should(survey, tenant, container)?;
    let password = password(container, entry, notes)?;
    let running = survey.runs(tenant.as_str());
    let image_digest = container.container.image_digest.clone();
    if survey.work_image.1.as_ref() != Some(&image_digest) {
        notes.push(format!("runs {}, which is not this server's work image now; it keeps it", container.image));
    }
    let lost: Vec<_> = container
        .environment
        .keys()
        .filter(|name| !matches!(name.as_str(), PASSWORD | PORT) && !survey.passed_variables.contains(*name))
        .cloned()
        .collect();
    if !lost.is_empty() {
        notes.push(format!("has variables of its own, which it loses at its next start: {}", lost.join(", ")));
    }
    let port = port(survey, tenant, container, entry, ports, notes)?;
    let label = container.container.labels.get(GENERATION_LABEL);
    if !running {
        notes.push(match survey.wish {
            Wish { start: true, .. } => "is stopped, and started now".to_owned(),
            wish => format!("is stopped and stays so until `{} start {tenant}`", wish.command()),
        });
    } else if !survey.answering.contains(&port) {
        notes.push(format!("does not answer its health check on port {port} at the moment"));
    }
    Ok(Candidate {
        tenant: tenant.clone(),
        port,
        password,
        image: container.image.clone(),
        image_digest,
        created: container.created,
        running: running.then(|| container.container.id.clone()),
        start: running || survey.wish.start,
        seen: Generation(label.and_then(|text| text.parse().ok()).unwrap_or_default()),
    })
}

/// A tenant's data is a volume of its name and nothing else, or a later start or move would leave some of it behind.
fn keeps_its_data_where_it_should(survey: &Survey, tenant: &TenantName, container: &Inspected) -> Result<(), String> {
    let volume = tenant.container();
    let copy = |from: &str| {
        format!(
            "stop it, copy the data with `podman volume create {volume} && {from} | podman volume import {volume} -`, remove the container \
             (`podman rm {volume}`), list it in the old file with its password, and adopt again"
        )
    };
    match &container.home {
        Some(Home::Volume(name)) if *name == volume && survey.volumes.contains(tenant.as_str()) => {}
        Some(Home::Volume(name)) if *name == volume => return Err(format!("its volume {name} is gone")),
        Some(Home::Volume(name)) => {
            let copy = copy(&format!("podman volume export {name}"));
            return Err(format!("its data is in the volume {name}, not in {volume}: {copy}"));
        }
        Some(Home::Directory(path)) => {
            let copy = copy(&format!("tar --create --directory {path} ."));
            return Err(format!("its data is in the directory {path}, not in a volume: {copy}"));
        }
        None => {
            let copy = copy(&format!("podman exec {volume} tar --create --directory /home/user ."));
            return Err(format!("nothing is mounted at /home/user, its data would go with the container: {copy}"));
        }
    }
    if container.other_mounts.is_empty() {
        return Ok(());
    }
    let mounts = container.other_mounts.join(", ");
    Err(format!(
        "it has something mounted at {mounts} beside /home/user, which no start and no move of Feather's would keep; make it anew without"
    ))
}

/// The container's counts: it is what lets its user in now.
fn password(container: &Inspected, entry: Option<&Entry>, notes: &mut Vec<String>) -> Result<Password, String> {
    let own = container.environment.get(PASSWORD).filter(|text| !text.is_empty());
    let listed = entry.and_then(|entry| entry.password.as_ref());
    let text = match (own, listed) {
        (Some(own), listed) => {
            if listed.is_some_and(|listed| listed.expose() != own) {
                notes.push("the old file has another password than the container; the container's is kept".into());
            }
            own.as_str()
        }
        (None, Some(listed)) => {
            notes.push("its container has no password; the one of the old file holds from its next start".into());
            listed.expose()
        }
        (None, None) => {
            return Err(format!(
                "its container has no {PASSWORD} and the old file has no password for it; write one there (\"password\") and adopt again"
            ));
        }
    };
    usable(text)
}

fn usable(text: &str) -> Result<Password, String> {
    Password::received(text.to_owned()).map_err(|error| {
        format!("{error}, and Feather could not carry it over; make the container anew with another password and adopt again")
    })
}

fn port(
    survey: &Survey,
    tenant: &TenantName,
    container: &Inspected,
    entry: Option<&Entry>,
    ports: &mut Ports,
    notes: &mut Vec<String>,
) -> Result<u16, String> {
    let listed = entry.and_then(|entry| entry.port);
    let routed = match survey.routes.get(tenant) {
        Some(Route::Serve { port }) => Some(*port),
        _ => None,
    };
    let running = survey.runs(tenant.as_str());
    let port = match container.network {
        Network::Published { port, loopback } => {
            if running && !loopback {
                notes.push(format!("port {port} is open to the network; from its next start on only to this server"));
            }
            port
        }
        Network::Host if running => {
            let told = container.environment.get(PORT).and_then(|text| text.parse().ok());
            let mut guesses = [told, listed, routed].into_iter().flatten();
            guesses.find(|port| survey.answering.contains(port)).ok_or(
                "it is on the host's network and answers no health check on the port that its environment, the old file or its route \
                 names; write the right port into the old file and adopt again",
            )?
        }
        Network::Closed if running => {
            return Err("its port 8080 is not published, so that nobody reaches it; publish it and adopt again".into());
        }
        Network::Host | Network::Closed => {
            let told = container.environment.get(PORT).and_then(|text| text.parse().ok());
            return ports.choose(told.or(listed).or(routed), tenant.as_str(), notes);
        }
    };
    if listed.is_some_and(|listed| listed != port) {
        notes.push(format!("the old file has another port; {port} is the one of its container"));
    }
    if !survey.ports.contains(&port) {
        let (first, last) = (survey.ports.start(), survey.ports.end());
        notes.push(format!("port {port} is not one of {first}-{last}; it keeps it"));
    }
    if !running {
        return ports.choose(Some(port), tenant.as_str(), notes);
    }
    if routed.is_some_and(|routed| routed != port) {
        notes.push(format!("its route leads to another port and is put right: {port}"));
    }
    ports.claim(port, tenant.as_str())
}

/// Listed, with its data, and without a container: somebody removed that, or it was lost with a reboot.
fn from_entry(
    survey: &Survey,
    tenant: &TenantName,
    entry: &Entry,
    ports: &mut Ports,
    notes: &mut Vec<String>,
) -> Result<Candidate, String> {
    let password = entry.password.as_ref().ok_or_else(|| {
        format!(
            "it has no container, and the old file has no password for it; `{} add {tenant}` finds its data and makes one",
            survey.wish.command()
        )
    })?;
    let (image, digest) = &survey.work_image;
    let image_digest = digest.clone().ok_or_else(|| {
        format!("it has no container, and the image {image} to make one of is not in this server's storage; load it and adopt again")
    })?;
    let password = usable(password.expose())?;
    let port = ports.choose(entry.port, tenant.as_str(), notes)?;
    notes.push(match survey.wish {
        Wish { start: true, .. } => "has no container; one is made on its data now".to_owned(),
        wish => format!("has no container; `{} start {tenant}` makes one on its data", wish.command()),
    });
    let (image, created) = (image.clone(), survey.now);
    Ok(Candidate {
        tenant: tenant.clone(),
        port,
        password,
        image,
        image_digest,
        created,
        running: None,
        start: survey.wish.start,
        seen: Generation(0),
    })
}
