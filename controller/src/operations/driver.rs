//! Drives one operation: writes the log, acts, writes what came of it. Makes no choice of its own: [`super::log::next`] does.
//!
//! An error with an unknown outcome (`Unavailable`, `Timeout`) is never taken for a failure at once: the step, which is
//! idempotent, is done again. Before the point of no return it counts as failed after some tries; an undo, or a step past that
//! point, is tried without end, and the operation shows as *stuck* meanwhile.

use std::{sync::Arc, time::Duration};

use feather_proto::{
    error::{Error, reason},
    ids::OperationId,
    trace,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Context, Event, Fence, Named as _, Outcome, Procedure, State, Step, Subject,
    engine::Engine,
    log::{Next, Progress, next},
};
use crate::{
    fleet::Reachability,
    store::{self, Append, End, OperationRow, TenantUpdate},
    world::World,
};

/// A request for an undo, and where its answer goes.
pub(super) type Cancel = oneshot::Sender<Result<(), Error>>;

/// Drives one operation.
pub(super) struct Driver {
    world: Arc<World>,
    engine: Arc<Engine>,
    shutdown: CancellationToken,
    id: OperationId,
    retry: Arc<Notify>,
    cancels: mpsc::Receiver<Cancel>,
}

/// How a try of a step ended.
enum Tried {
    Done(Outcome),
    Failed(Error),
    /// Somebody asked for the end meanwhile; what the step did is unknown.
    Interrupted(Cancel),
    Shutdown,
}

/// An operation in memory, as its row and log say.
struct Run<P: Procedure> {
    row: OperationRow,
    subject: P::Subject,
    plan: P::Plan,
    fence: Fence,
    facts: P::Facts,
    progress: Progress<P::Step>,
    sequence: i64,
    stuck: bool,
}

/// A log line about to be written.
struct Line<'a> {
    step: &'a str,
    event: Event,
    message: &'a str,
    tenant: Option<TenantUpdate>,
    end: Option<State>,
}

impl<'a> Line<'a> {
    fn new(step: &'a str, event: Event, message: &'a str) -> Self {
        Self { step, event, message, tenant: None, end: None }
    }
}

impl Driver {
    pub(super) fn new(
        engine: Arc<Engine>,
        shutdown: CancellationToken,
        id: OperationId,
        retry: Arc<Notify>,
        cancels: mpsc::Receiver<Cancel>,
    ) -> Self {
        Self { world: engine.world.clone(), engine, shutdown, id, retry, cancels }
    }

    /// Drives to the end, or until shutdown. A store that fails is looked at again: what it holds decides.
    pub(super) async fn run<P: Procedure>(mut self) {
        let mut pause = self.world.settings.backoff;
        while !self.shutdown.is_cancelled() {
            match self.drive::<P>().await {
                Ok(()) => return,
                Err(store::Error::Refused(error)) if error.is(reason::WORLD_CHANGED) => {
                    tracing::warn!(operation = %self.id, "somebody else drives this operation; leaving it to them");
                    return;
                }
                Err(error) => {
                    tracing::error!(operation = %self.id, error = &error as &dyn std::error::Error, "cannot write the log");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(self.world.settings.backoff_max),
                () = self.shutdown.cancelled() => {}
            }
        }
    }

    async fn load<P: Procedure>(&self) -> store::Result<Run<P>> {
        let corrupt = |error: serde_json::Error| store::Error::Corrupt(error.to_string());
        let row = self.world.store.operation(&self.id).await?;
        let log = self.world.store.operation_log(&self.id).await?;
        let subject = P::Subject::of(&row.subject)
            .ok_or_else(|| store::Error::Corrupt(format!("{} is about {}", self.id, row.subject)))?;
        Ok(Run {
            subject,
            plan: serde_json::from_value(row.plan.clone()).map_err(corrupt)?,
            fence: serde_json::from_value(row.plan.clone()).map_err(corrupt)?,
            facts: if row.facts.as_object().is_some_and(serde_json::Map::is_empty) {
                P::Facts::default()
            } else {
                serde_json::from_value(row.facts.clone()).map_err(corrupt)?
            },
            progress: Progress::read(log.iter().map(|line| (line.step.as_str(), line.event))),
            sequence: log.last().map_or(0, |line| line.sequence + 1),
            stuck: row.state == State::Stuck,
            row,
        })
    }

    async fn drive<P: Procedure>(&mut self) -> store::Result<()> {
        let mut run = self.load::<P>().await?;
        let span = tracing::info_span!(
            "operation",
            otel.name = format!("{} {}", run.row.kind.name(), run.row.subject),
            trace_id = tracing::field::Empty
        );
        trace::continues(&span, run.row.trace.as_deref());
        trace::note(&span, "operation", self.id.to_string());
        self.drive_on(&mut run).instrument(span).await
    }

    async fn drive_on<P: Procedure>(&mut self, run: &mut Run<P>) -> store::Result<()> {
        while !self.shutdown.is_cancelled() {
            match next(&run.progress) {
                Next::Act(step) => self.act(run, step).instrument(step_span(step.name())).await?,
                Next::Undo(step) => {
                    self.undo(run, step).instrument(step_span(&format!("undo {}", step.name()))).await?
                }
                Next::Succeed => self.end(run, State::Succeeded).await?,
                Next::Fail { cancelled } => {
                    let state = if cancelled { State::Cancelled } else { State::Failed };
                    self.end(run, state).await?;
                }
                Next::Nothing => return Ok(()),
            }
        }
        Ok(())
    }

    async fn act<P: Procedure>(&mut self, run: &mut Run<P>, step: P::Step) -> store::Result<()> {
        if !run.progress.begun.contains(&step) {
            self.write(run, Line::new(step.name(), Event::Begin, "")).await?;
            tracing::info!(operation = %self.id, step = step.name(), "step begins");
        }
        match self.try_step(run, step, false).await? {
            Tried::Done(outcome) => {
                let line = Line { tenant: outcome.tenant, ..Line::new(step.name(), Event::Done, &outcome.message) };
                let desired = line.tenant.is_some();
                run.stuck = false;
                self.write(run, line).await?;
                if desired {
                    self.world.ring_desired();
                }
            }
            Tried::Failed(error) => {
                tracing::warn!(operation = %self.id, step = step.name(), %error, "step failed; undoing");
                run.row.error = Some(error.clone());
                self.write(run, Line::new(step.name(), Event::Failed, &error.message)).await?;
            }
            Tried::Interrupted(answer) => {
                let wrote =
                    self.write(run, Line::new(step.name(), Event::CancelRequested, "asked for by a person")).await;
                // The asker may have gone; the log knows either way.
                drop(answer.send(wrote.as_ref().copied().map_err(|_| storage())));
                wrote?;
            }
            Tried::Shutdown => {}
        }
        Ok(())
    }

    async fn undo<P: Procedure>(&mut self, run: &mut Run<P>, step: P::Step) -> store::Result<()> {
        self.write(run, Line::new(step.name(), Event::UndoBegin, "")).await?;
        if let Tried::Done(outcome) = self.try_step(run, step, true).await? {
            run.stuck = false;
            let line = Line { tenant: outcome.tenant, ..Line::new(step.name(), Event::Undone, &outcome.message) };
            self.write(run, line).await?;
        }
        Ok(())
    }

    /// Tries a step until it is done, has failed for good, or somebody wants something else.
    async fn try_step<P: Procedure>(&mut self, run: &mut Run<P>, step: P::Step, undoing: bool) -> store::Result<Tried> {
        let may_fail = !undoing && !run.progress.committed();
        // The step that commits is one store transaction; interrupting it would only hide whether it happened.
        let may_interrupt = may_fail && step != P::Step::POINT_OF_NO_RETURN;
        let mut pause = self.world.settings.backoff;
        for attempt in 1_u32.. {
            let error = match self.attempt(run, step, undoing, may_interrupt).await {
                Ok(tried) => return Ok(tried),
                Err(error) => error,
            };
            tracing::info!(operation = %self.id, step = step.name(), attempt, undoing, %error, "step did not succeed");
            let last = attempt >= self.world.settings.attempts;
            if may_fail && (last || !error.code.retryable()) {
                return Ok(Tried::Failed(error));
            }
            // An operation begins on members only, and a member that it is about leaves the fleet in one way: it was declared lost. There is
            // nothing to put back there, and nobody who would do it.
            if !may_fail && error.is(reason::SERVER_NOT_FOUND) {
                return Ok(Tried::Done(Outcome::note(format!("nothing more to do: {}", error.message))));
            }
            if last && !run.stuck {
                run.stuck = true;
                let context = self.context(run);
                run.row.hint = Some(P::hint(step, undoing, &context));
                self.write(run, Line::new(step.name(), Event::Struggling, &error.message)).await?;
            }
            if let Some(tried) = self.pause(pause, may_interrupt, undoing).await {
                return Ok(tried);
            }
            pause = (pause * 2).min(self.world.settings.backoff_max);
        }
        Ok(Tried::Shutdown)
    }

    /// One try; `Ok` ends the trying.
    async fn attempt<P: Procedure>(
        &mut self,
        run: &mut Run<P>,
        step: P::Step,
        undoing: bool,
        may_interrupt: bool,
    ) -> Result<Tried, Error> {
        let (world, engine) = (self.world.clone(), self.engine.clone());
        let mut facts = run.facts.clone();
        let context = Context {
            world: &world,
            engine: &engine,
            id: &self.id,
            subject: &run.subject,
            plan: &run.plan,
            fence: &run.fence,
        };
        let mut work = if undoing {
            P::undo(step, &context, &mut facts, &run.progress.begun)
        } else {
            P::act(step, &context, &mut facts)
        };
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                Some(answer) = self.cancels.recv() => {
                    if may_interrupt {
                        drop(work);
                        self.world.volatile.clear_progress(&self.id);
                        return Ok(Tried::Interrupted(answer));
                    }
                    drop(answer.send(if undoing { Ok(()) } else { Err(too_late(&self.id)) }));
                }
                // A step is finished at shutdown if it is quick; otherwise it is parked, to be done again.
                () = shutdown_grace(&self.shutdown) => return Ok(Tried::Shutdown),
            }
        };
        drop(work);
        self.world.volatile.clear_progress(&self.id);
        run.facts = facts;
        result.map(Tried::Done)
    }

    /// Waits before the next try; `Some` ends the trying.
    async fn pause(&mut self, pause: Duration, may_interrupt: bool, undoing: bool) -> Option<Tried> {
        let deadline = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return None,
                () = self.retry.notified() => return None,
                () = self.shutdown.cancelled() => return Some(Tried::Shutdown),
                Some(answer) = self.cancels.recv() => {
                    if may_interrupt {
                        return Some(Tried::Interrupted(answer));
                    }
                    drop(answer.send(if undoing { Ok(()) } else { Err(too_late(&self.id)) }));
                }
            }
        }
    }

    fn context<'a, P: Procedure>(&'a self, run: &'a Run<P>) -> Context<'a, P::Plan, P::Subject> {
        Context {
            world: &self.world,
            engine: &self.engine,
            id: &self.id,
            subject: &run.subject,
            plan: &run.plan,
            fence: &run.fence,
        }
    }

    async fn end<P: Procedure>(&self, run: &mut Run<P>, state: State) -> store::Result<()> {
        let context = self.context(run);
        let tenant = if state == State::Succeeded { None } else { P::on_failure(&context) };
        if state == State::Cancelled {
            run.row.error = None;
        }
        self.look_at_what_it_led_to(&run.row.subject).await?;
        let line = Line { tenant, end: Some(state), ..Line::new("", Event::End, "") };
        self.write(run, line).await?;
        self.world.ring_desired();
        tracing::info!(operation = %self.id, subject = %run.row.subject, ?state, "operation ended");
        Ok(())
    }

    /// Whoever hears that it has ended and looks at the tenant must not be shown what was reported before its last step: that the new
    /// server does not know it, say. A server that does not answer keeps nobody waiting.
    async fn look_at_what_it_led_to(&self, subject: &Subject) -> store::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let server = match subject {
            Subject::Tenant(tenant) => self.world.store.tenant(tenant).await?.and_then(|row| row.server),
            Subject::Server(server) => Some(server.clone()),
            Subject::Residents(_) => None,
        };
        let Some(server) = server else { return Ok(()) };
        if self.world.fleet.observed(&server).reachability == Reachability::Alive {
            let _late = tokio::time::timeout(PATIENCE, self.world.look_again(&server)).await;
        }
        Ok(())
    }

    /// Writes a line and brings the operation in memory up to it.
    async fn write<P: Procedure>(&self, run: &mut Run<P>, line: Line<'_>) -> store::Result<()> {
        let mut progress = run.progress.clone();
        progress.note(line.step, line.event);
        let state = line.end.unwrap_or(match () {
            () if run.stuck => State::Stuck,
            () if progress.undoing() => State::Undoing,
            () => State::Running,
        });
        let facts = serde_json::to_value(&run.facts).map_err(|error| store::Error::Corrupt(error.to_string()))?;
        let append = Append {
            operation: &self.id,
            sequence: run.sequence,
            step: line.step,
            event: line.event,
            message: line.message,
            state,
            facts: Some(facts.clone()),
            error: run.row.error.as_ref(),
            // Also a stuck operation that was resumed, and writes other lines, goes on saying what to type.
            hint: run.row.hint.as_deref().filter(|_| run.stuck),
            tenant: line.tenant,
            end: line.end.map(|_| End),
            now: self.world.clock.now(),
        };
        self.world.store.append(append).await?;
        run.sequence += 1;
        run.progress = progress;
        if let Some(state) = line.end {
            let row = OperationRow { facts, ..run.row.clone() };
            // Before anybody hears of the end, who may look at the counters then.
            self.world.metrics.operation_ended(&row, state, self.world.clock.now());
        }
        self.world.volatile.ring(&run.row.id);
        Ok(())
    }
}

fn step_span(name: &str) -> tracing::Span {
    tracing::info_span!("step", otel.name = name)
}

/// Pends until some time after the shutdown began.
async fn shutdown_grace(shutdown: &CancellationToken) {
    const GRACE: Duration = Duration::from_secs(3);
    shutdown.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

fn too_late(id: &OperationId) -> Error {
    Error::refused(
        reason::NOT_CANCELLABLE,
        format!(
            "{id} is past its point of no return and will be driven to its end; follow it with `featherctl operation watch {id}`"
        ),
    )
}

fn storage() -> Error {
    Error::unavailable(reason::STORAGE, "the request could not be written down; try again")
}
