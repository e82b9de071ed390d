//! Taking over a server that was run by the old script.
//!
//! Owns the survey of what is there, and the order of effects: only the ledger is written. No container and no route is touched;
//! the reconciler finds both as the records say. The judgement is in `adoption.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    time::Duration,
};

use feather_proto::{
    adoption::{Action, Finding},
    error::Error,
    ids::TenantName,
};
use futures::future::join_all;

use super::Agent;
use crate::{
    adoption::{self, Judged, OldFile, Survey, Verdict, Wish},
    config::PASSED_VARIABLES,
    router::Route,
    runtime::Network,
    transition,
};

/// What containers and volumes of tenants are called, in front of the name.
const PREFIX: &str = "feather-user-";
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

impl Agent {
    /// What is there and what adopting would do, with what could not be read.
    pub(crate) async fn plan_adoption(&self, wish: Wish) -> Result<(Vec<Finding>, Vec<String>), Error> {
        let survey = self.survey(wish).await?;
        let findings = adoption::plan(&survey).iter().map(|judged| survey.finding(judged)).collect();
        Ok((findings, survey.file.problems))
    }

    /// Takes over those of the named tenants that fit, one durable record each. May be cut off anywhere and repeated.
    pub(crate) async fn adopt(&self, names: &BTreeSet<TenantName>, wish: Wish) -> Result<Vec<Finding>, Error> {
        // In their order, so that two of these calls never wait for each other; then the ports, as every other call does.
        let mut locks = Vec::new();
        for name in names {
            locks.push(self.lock(name).await);
        }
        let _allocation = self.allocation.lock().await;
        self.fence.heed()?;
        let survey = self.survey(wish).await?;
        let mut findings = Vec::new();
        for judged in adoption::plan(&survey) {
            if !names.iter().any(|name| name.as_str() == judged.name) {
                continue;
            }
            findings.push(self.adopt_one(&survey, &judged).await?);
        }
        drop(locks);
        self.wake.notify_one();
        Ok(findings)
    }

    async fn adopt_one(&self, survey: &Survey, judged: &Judged) -> Result<Finding, Error> {
        let finding = survey.finding(judged);
        let Verdict::Adopt(candidate) = &judged.verdict else { return Ok(finding) };
        let record = self.ledger.get(&candidate.tenant)?;
        let record = self.commit(transition::admit_adopt(record.as_ref(), candidate)?).await?;
        tracing::info!(tenant = %record.tenant, generation = %record.generation, running = finding.running, "adopted");
        Ok(Finding { action: Action::Adopted, ..finding })
    }

    async fn survey(&self, wish: Wish) -> Result<Survey, Error> {
        let file = self.old_file().await;
        let mut containers = BTreeMap::new();
        for listed in self.runtime.containers(PREFIX).await? {
            let Some(name) = listed.name.strip_prefix(PREFIX) else { continue };
            // One that goes away meanwhile is one that is not there.
            if let Some(inspected) = self.runtime.inspect(&listed.name).await? {
                containers.insert(name.to_owned(), inspected);
            }
        }
        let volumes = self.runtime.volumes(PREFIX).await?;
        let image = self.runtime.image(&self.config.work_image).await?;
        let mut survey = Survey {
            file,
            containers,
            volumes: volumes.iter().filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned())).collect(),
            routes: self.router.observe().await?,
            records: self.ledger.all(),
            damaged: self.ledger.damaged().keys().cloned().collect(),
            ports: self.config.ports.clone(),
            answering: BTreeSet::new(),
            work_image: (self.config.work_image.clone(), image.map(|image| image.digest)),
            passed_variables: PASSED_VARIABLES.iter().map(|name| (*name).to_owned()).collect(),
            now: self.clock.now(),
            wish,
        };
        survey.answering = self.answering(&survey).await;
        Ok(survey)
    }

    /// Which of the ports that anything names answer.
    async fn answering(&self, survey: &Survey) -> BTreeSet<u16> {
        let published = survey.containers.values().filter_map(|one| match one.network {
            Network::Published { port, .. } => Some(port),
            Network::Host | Network::Closed => None,
        });
        let told = survey.containers.values().filter_map(|one| one.environment.get("PORT")?.parse().ok());
        let listed = survey.file.entries.values().filter_map(|entry| entry.port);
        let routed = survey.routes.values().filter_map(|route| match route {
            Route::Serve { port } => Some(*port),
            _ => None,
        });
        let ports: BTreeSet<u16> = published.chain(told).chain(listed).chain(routed).collect();
        let asked = ports.into_iter().map(async |port| self.runtime.healthy(port, HEALTH_LIMIT).await.then_some(port));
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn old_file(&self) -> OldFile {
        let path = self.config.old_tenants_file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            std::fs::File::open(path)?.take(adoption::OLD_FILE_SIZE_MAX + 1).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        });
        let shown = self.config.old_tenants_file.display();
        match read.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            Ok(bytes) if u64::try_from(bytes.len()).is_ok_and(|size| size > adoption::OLD_FILE_SIZE_MAX) => {
                OldFile::unreadable(format!("the old file {shown} is too large to be one of the old script"))
            }
            Ok(bytes) => OldFile::parse(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => OldFile::default(),
            Err(error) => OldFile::unreadable(format!("the old file {shown} cannot be read: {error}")),
        }
    }
}
