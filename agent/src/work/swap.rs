//! A swap: the new one proved beside the old one, the switch, the end of the old one.
//!
//! Owns the order of effects after each decision. Every function here may be repeated after any cut; what a cut leaves behind
//! is on record, and taken up by `keep.rs` when nobody repeats the call.

use std::time::Duration;

use feather_proto::{
    error::{Code, Error, reason},
    model::ContainerState,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    By,
    record::{Colour, Failure, Instance, Record, Stage},
    transition::{self, Commit, Trial, TryRequest, admit_abandon, admit_commit, admit_try},
};
use crate::{
    agent::{Agent, Awaited, locked},
    events::Kind,
};

/// A new one that is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) instance: Instance,
    /// Zero when it was so already.
    pub(crate) healthy_after: Duration,
}

/// A swap that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Swapped {
    pub(crate) instance: Instance,
    /// Which one served before.
    pub(crate) replaced: Option<Colour>,
}

impl Agent {
    /// Starts a new admin container beside the one that serves and waits for its health.
    pub(crate) async fn try_swap(&self, request: Uuid, image: &str) -> Result<Tried, Error> {
        transition::refuse_another(&self.work.book.read()?, request)?;
        let _lock = self.work.lock().await;
        self.attempt(request, image, By::Caller).await
    }

    /// Requests go to the new one; the old one ends.
    pub(crate) async fn commit_swap(&self, request: Uuid) -> Result<(), Error> {
        let _lock = self.work.lock().await;
        self.switch(request).await
    }

    /// All of it at once, for somebody at this server, who will not ask again: what could not be proved is given up, and what was
    /// decided is brought to its end by the reconciler. An agent that dies in the middle does the same at its next start.
    pub(crate) async fn swap(&self, request: Uuid, image: &str) -> Result<Swapped, Error> {
        let before = self.work.book.read()?;
        transition::refuse_another(&before, request)?;
        let _lock = self.work.lock().await;
        let now = self.work.book.read()?;
        transition::refuse_overtaken(&before, &now)?;
        let done = async {
            let instance = self.attempt(request, image, By::Agent).await?.instance;
            self.switch(request).await?;
            Ok(Swapped { instance, replaced: now.serving.map(|old| old.colour) })
        };
        let error = match done.await {
            Ok(swapped) => return Ok(swapped),
            Err(error) => error,
        };
        let record = self.work.book.read()?;
        Err(match record.swap.as_ref().filter(|swap| swap.request == request).map(|swap| swap.stage.clone()) {
            Some(Stage::Trying { candidate }) => self.give_up(&record, &candidate, error).await,
            Some(Stage::Draining { .. }) => goes_on(&record, &error),
            None => error,
        })
    }

    /// The new one goes, whatever became of it.
    pub(crate) async fn abandon_swap(&self, request: Uuid) -> Result<(), Error> {
        let under_way = self.work.book.read()?.swap.is_some_and(|swap| swap.request == request);
        if under_way {
            // Whoever waits for its health need not wait any longer.
            locked(&self.work.waiting).cancel();
        }
        let _lock = self.work.lock().await;
        let record = self.work.book.read()?;
        match admit_abandon(&record, request, self.clock.now())? {
            None => Ok(()),
            Some((abandoned, candidate)) => {
                self.remove_admin(candidate.colour).await?;
                self.write_admin(abandoned).await.map(drop)
            }
        }
    }

    async fn attempt(&self, request: Uuid, image: &str, by: By) -> Result<Tried, Error> {
        if self.config.admin.is_none() {
            return Err(Error::refused(
                reason::WRONG_STATE,
                "this server has no admin container, because FEATHER_AGENT_ADMIN is off on it; there is nothing to swap",
            ));
        }
        let record = self.work.book.read()?;
        let asked = if image.is_empty() { &self.config.work_image } else { image };
        let found = self.runtime.image(asked).await?.map(|image| (image.reference, image.digest));
        let asked = TryRequest { request, asked: asked.to_owned(), by, image: found };
        let (candidate, record) = match admit_try(&record, &asked)? {
            Trial::Serves(instance) => return Ok(Tried { instance, healthy_after: Duration::ZERO }),
            Trial::Prove { candidate, write: Some(record) } => (candidate, self.write_admin(*record).await?),
            Trial::Prove { candidate, write: None } => (candidate, record),
        };
        match self.prove_admin(&candidate).await {
            Ok(healthy_after) => Ok(Tried { instance: candidate, healthy_after }),
            Err(error) if error.code.retryable() => Err(error),
            Err(error) => Err(self.give_up(&record, &candidate, error).await),
        }
    }

    /// Healthy, and by itself: an abandon ends the wait.
    async fn prove_admin(&self, candidate: &Instance) -> Result<Duration, Error> {
        let interrupted = CancellationToken::new();
        *locked(&self.work.waiting) = interrupted.clone();
        tokio::select! {
            biased;
            () = interrupted.cancelled() => {
                Err(Error::new(Code::Cancelled, reason::CANCELLED, "the swap of the admin container was cancelled"))
            }
            proved = self.start_and_await(candidate) => proved,
        }
    }

    async fn start_and_await(&self, candidate: &Instance) -> Result<Duration, Error> {
        let name = candidate.colour.container();
        let started = self.start_admin(candidate).await?;
        let secrets = self.config.admin.iter().flat_map(|admin| admin.environment.values().cloned()).collect();
        let waited =
            self.await_health(&Awaited { container: name, what: name, port: candidate.colour.port(), secrets }).await?;
        // In the machine's network anybody may answer at a port.
        let container = self.runtime.container(name).await?;
        if container.is_none_or(|container| container.state != ContainerState::Running) {
            return Err(Error::refused(
                reason::NEVER_HEALTHY,
                format!(
                    "the process of {name} has ended, and something else answers at port {}",
                    candidate.colour.port()
                ),
            ));
        }
        Ok(if started { waited } else { Duration::ZERO })
    }

    /// The new one goes and the old one serves on. Returns why.
    pub(super) async fn give_up(&self, record: &Record, candidate: &Instance, error: Error) -> Error {
        let name = candidate.colour.container();
        let failure = Failure { reason: error.reason.to_string(), message: error.message.clone() };
        let went = async {
            self.remove_admin(candidate.colour).await?;
            self.write_admin(transition::ended(record, Some(failure), self.clock.now())).await
        };
        let removed = match went.await {
            Ok(_) => {
                let why = first_line(&error.message);
                let message = format!("{name} was removed before any request reached it: {why}");
                self.note_event(Kind::SwapFailed, None, message);
                "was removed"
            }
            Err(end) => {
                tracing::warn!(container = name, error = %end, "cannot clean up after a failed swap; it is tried again");
                "is removed as soon as that can be done"
            }
        };
        let still = record
            .serving
            .as_ref()
            .map_or_else(String::new, |old| format!("\n{} serves as before, {name} {removed}", old.colour.container()));
        Error { message: format!("{}{still}", error.message), ..error }
    }

    async fn switch(&self, request: Uuid) -> Result<(), Error> {
        let record = self.work.book.read()?;
        let record = match admit_commit(&record, request)? {
            Commit::Done => return Ok(()),
            Commit::Finish => record,
            Commit::Prove(candidate) => {
                // The server may have been restarted since it was proved.
                self.prove_admin(&candidate).await?;
                self.write_admin(transition::switched(&record)).await?
            }
        };
        self.finish_swap(record).await
    }

    /// From the durable decision to its end: routes, time for what is under way, removal of the old one.
    pub(super) async fn finish_swap(&self, record: Record) -> Result<(), Error> {
        self.apply_routes().await?;
        let old = match record.swap.as_ref().map(|swap| &swap.stage) {
            Some(Stage::Draining { old }) => old.clone(),
            _ => return Ok(()),
        };
        if let Some(old) = &old {
            let container = self.runtime.container(old.colour.container()).await?;
            if container.is_some_and(|container| container.state == ContainerState::Running) {
                tokio::time::sleep(self.config.drain_limit).await;
            }
            self.remove_admin(old.colour).await?;
        }
        let record = self.write_admin(transition::ended(&record, None, self.clock.now())).await?;
        if let Some(new) = &record.serving {
            let instead = old.map_or_else(String::new, |old| format!(" in place of {}", old.colour.container()));
            let message = format!("{} serves{instead}, image {}", new.colour.container(), new.image_digest);
            self.note_event(Kind::Swapped, None, message);
        }
        Ok(())
    }
}

/// The error when the new one serves and something was left to do.
fn goes_on(record: &Record, error: &Error) -> Error {
    let new = record.serving.as_ref().map_or("the new one", |serving| serving.colour.container());
    Error::unavailable(
        reason::RUNTIME,
        format!(
            "it is decided that {new} serves, and the swap is not at its end ({}); the agent goes on by itself, and `tenant.sh status` shows \
             what serves",
            error.message
        ),
    )
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
