//! Keeps the admin container as its record says, and takes up what a crash cut off.
//!
//! Level-triggered, a part of each pass of the reconciler. Leaves everything to a call that is busy with it.

use std::{collections::BTreeMap, sync::Arc};

use feather_proto::{
    error::{Code, Error, reason},
    model::{AdminReport, ContainerState},
};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    PREFIX,
    diff::{Action, Observed, Seen, diff},
    record::{Colour, Instance, Record},
};
use crate::{
    agent::{Agent, Watched, locked},
    events::Kind,
    reconcile::Backoff,
    runtime::{ContainerSpec, Reach},
};

/// What passes remember of each other.
#[derive(Default)]
pub(crate) struct Memory {
    backoff: Option<Backoff>,
}

/// One look, and at most one action, which goes on by itself.
pub(crate) async fn reconcile(agent: &Arc<Agent>, memory: &mut Memory) {
    let Some(lock) = agent.work.try_lock() else { return };
    let decided = async {
        let record = agent.work.book.read()?;
        if agent.config.admin.is_none() && record.serving.is_none() && record.swap.is_none() {
            return Ok(None);
        }
        let observed = observe(agent, &record).await?;
        Ok(diff(&record, &observed, agent.config.admin.is_some()).map(|action| (action, record)))
    };
    let (action, record) = match decided.await {
        Ok(Some(next)) => next,
        Ok(None) => {
            agent.admin_problem(None);
            return;
        }
        Err(error) => {
            agent.admin_problem(Some(error));
            return;
        }
    };
    let now = Instant::now();
    let starts = matches!(action, Action::Run | Action::Restart | Action::Finish);
    if starts && !memory.backoff.get_or_insert_with(|| Backoff::new(now)).admit(now) {
        return;
    }
    let task = agent.clone();
    let work = async move {
        let name = format!("{action:?}");
        let done = tokio::select! {
            biased;
            () = task.ended.cancelled() => return,
            done = task.act_on_admin(action, record) => done,
        };
        drop(lock);
        let Err(error) = done else {
            tracing::info!(action = name, "reconciled the admin container");
            task.admin_problem(None);
            task.wake.notify_one();
            return;
        };
        // The next pass comes soon enough: woken by its own failure, the loop would do nothing else, and say so each time.
        if task.admin_problem(Some(error.clone())) {
            tracing::warn!(action = name, %error, "cannot reconcile the admin container");
        }
    };
    agent.tasks.spawn(work.in_current_span());
}

async fn observe(agent: &Agent, record: &Record) -> Result<Observed, Error> {
    let containers = agent.runtime.containers(PREFIX).await?;
    let mut seen = BTreeMap::new();
    for colour in Colour::ALL {
        if let Some(found) = containers.iter().find(|found| found.name == colour.container()) {
            seen.insert(colour, Seen { state: found.state, image_digest: found.image_digest.clone() });
        }
    }
    let unhealthy = record.serving.is_some() && agent.is_unhealthy(&Watched::Admin);
    Ok(Observed { containers: seen, unhealthy })
}

impl Agent {
    async fn act_on_admin(&self, action: Action, record: Record) -> Result<(), Error> {
        let serving =
            || record.serving.clone().ok_or_else(|| Error::bug("nothing serves and nothing was to be done about it"));
        match action {
            Action::First => self.decide_on_first(record).await,
            Action::Adopt { colour, image_digest } => {
                let instance = Instance { colour, image: self.config.work_image.clone(), image_digest };
                self.write_admin(Record { serving: Some(instance), ..record }).await?;
                locked(&self.work.settled).insert(colour);
                self.note_event(
                    Kind::Adopted,
                    None,
                    format!("{} was found running and is kept as it is", colour.container()),
                );
                Ok(())
            }
            Action::Run => {
                let instance = serving()?;
                let crashed = locked(&self.work.settled).contains(&instance.colour);
                self.start_admin(&instance).await?;
                if crashed {
                    self.note_restart(&Watched::Admin, instance.colour.container(), "its process had ended");
                }
                Ok(())
            }
            Action::Restart => {
                let instance = serving()?;
                let name = instance.colour.container();
                self.runtime.stop(name, self.config.stop_grace).await?;
                self.start_admin(&instance).await?;
                self.note_restart(&Watched::Admin, name, "it did not answer its health check");
                Ok(())
            }
            Action::Finish => self.finish_swap(record).await,
            Action::GiveUp => {
                let Some(candidate) = record.candidate().cloned() else { return Ok(()) };
                let cut = Error::new(Code::Cancelled, reason::CANCELLED, "the agent ended in the middle of the swap");
                self.give_up(&record, &candidate, cut).await;
                Ok(())
            }
            Action::Remove(colour) => self.remove_admin(colour).await,
            Action::Withdraw => {
                self.remove_admin(serving()?.colour).await?;
                self.write_admin(Record { serving: None, ..record }).await.map(drop)
            }
        }
    }

    async fn decide_on_first(&self, record: Record) -> Result<(), Error> {
        let image = self.runtime.image(&self.config.work_image).await?.ok_or_else(|| {
            Error::refused(
                reason::IMAGE_MISSING,
                format!(
                    "there is no admin container, because its image {} is not in this server's storage; it is started as soon as that is",
                    self.config.work_image
                ),
            )
        })?;
        let serving = Instance { colour: Colour::Blue, image: image.reference, image_digest: image.digest };
        self.write_admin(Record { serving: Some(serving), ..record }).await.map(drop)
    }

    fn admin_spec(&self, instance: &Instance) -> Result<ContainerSpec, Error> {
        let admin =
            self.config.admin.as_ref().ok_or_else(|| Error::bug("an admin container where there shall be none"))?;
        Ok(ContainerSpec {
            name: instance.colour.container().to_owned(),
            image: instance.image_digest.clone(),
            host_port: instance.colour.port(),
            reach: Reach::Host,
            volume: admin.home.clone(),
            environment: admin.environment.clone(),
            dns: Vec::new(),
            labels: BTreeMap::from([("feather.admin".to_owned(), instance.colour.container().to_owned())]),
            limits: Default::default(),
        })
    }

    /// Makes sure that it exists as recorded, and runs. True when it had to be started.
    pub(super) async fn start_admin(&self, instance: &Instance) -> Result<bool, Error> {
        let spec = self.admin_spec(instance)?;
        if spec.directory().is_none() {
            self.runtime.ensure_volume(&spec.volume).await?;
        }
        self.runtime.ensure_container(&spec).await?;
        let container = self.runtime.container(&spec.name).await?;
        let running = container.is_some_and(|container| container.state == ContainerState::Running);
        if !running {
            self.runtime.start(&spec.name).await?;
            // A candidate is not watched: what is known is about the one that serves, until they change places.
            if self.work.book.read()?.candidate() != Some(instance) {
                self.note_start(&Watched::Admin);
            }
        }
        locked(&self.work.settled).insert(instance.colour);
        Ok(!running)
    }

    /// On return its container is gone; its process had its time to end.
    pub(super) async fn remove_admin(&self, colour: Colour) -> Result<(), Error> {
        locked(&self.work.settled).remove(&colour);
        self.runtime.stop(colour.container(), self.config.stop_grace).await?;
        Ok(self.runtime.remove_container(colour.container()).await?)
    }

    /// Makes a decision durable, and visible to whoever watches.
    pub(super) async fn write_admin(&self, record: Record) -> Result<Record, Error> {
        let before = self.work.book.read()?.serving;
        let record = self.work.book.write(record).await?;
        if record.serving != before {
            // Another one: nothing is known of its health.
            self.note_start(&Watched::Admin);
        }
        self.changed();
        Ok(record)
    }

    /// True when that is news.
    fn admin_problem(&self, error: Option<Error>) -> bool {
        let problem = error.map(|error| error.to_string());
        let news = std::mem::replace(&mut *locked(&self.work.problem), problem.clone()) != problem;
        if news {
            self.changed();
        }
        news
    }

    /// The port that gets whatever is for no tenant.
    pub(crate) async fn admin_port(&self) -> Result<Option<u16>, Error> {
        match self.work.book.read() {
            Ok(record) => Ok(record.serving.map(|serving| serving.colour.port())),
            // Nobody decided that the route should go.
            Err(_) => Ok(self.router.observe_admin().await?),
        }
    }

    /// The one that serves and its port, for the watchdog; none while a call is busy with it.
    pub(crate) fn watched_admin(&self) -> Option<u16> {
        let _idle = self.work.try_lock()?;
        let serving = self.work.book.read().ok()?.serving?;
        locked(&self.work.settled).contains(&serving.colour).then(|| serving.colour.port())
    }

    /// As it is to be reported; `None` where there shall be no admin container.
    pub(crate) async fn admin_report(&self) -> Option<AdminReport> {
        self.config.admin.as_ref()?;
        let record = self.work.book.read().unwrap_or_default();
        let candidate = record.candidate().map(|candidate| candidate.colour.container().to_owned());
        let (mut report, name) = match &record.serving {
            Some(serving) => {
                let report = AdminReport {
                    container: serving.colour.container().to_owned(),
                    port: Some(serving.colour.port()),
                    image: serving.image.clone(),
                    image_digest: serving.image_digest.clone(),
                    ..AdminReport::default()
                };
                (report, serving.colour.container())
            }
            None => (AdminReport::default(), ""),
        };
        if !name.is_empty()
            && let Ok(Some(container)) = self.runtime.container(name).await
        {
            report.running = container.state == ContainerState::Running;
        }
        report.watch = self.watch_report(&Watched::Admin);
        report.problem = locked(&self.work.problem).clone();
        report.candidate = candidate;
        Some(report)
    }
}
