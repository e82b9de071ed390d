//! Operations: changes that end.
//!
//! Owns the one mechanism by which the fleet changes: a list of steps, each logged before it acts, each idempotent, resumed from
//! any prefix of the log, undone before the point of no return and only driven forward after it. What to do next is decided
//! by [`log::next`], a pure function of the log; [`engine`] acts on it and makes no choice of its own. What the steps of each
//! kind are is in `operations/{add,remove,migrate,power,swap,resettle,lost,recover}.rs`.

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use feather_proto::{
    error::Error,
    ids::{Generation, OperationId, ServerName, TenantName},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{operations::engine::Engine, store::TenantUpdate, world::World};

pub mod add;
mod driver;
mod each;
pub mod engine;
pub mod log;
pub mod lost;
pub mod migrate;
pub mod pace;
pub mod power;
pub mod recover;
pub mod remove;
pub mod resettle;
pub mod swap;

/// What an operation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Provisions a tenant.
    Add,
    /// Removes a tenant, keeping its volume.
    Remove,
    /// Moves a tenant.
    Migrate,
    /// Starts a stopped tenant.
    Start,
    /// Stops a tenant.
    Stop,
    /// Makes a tenant's container anew.
    Restart,
    /// Swaps the admin container of a server.
    Swap,
    /// Moves everybody away from a server.
    Drain,
    /// Brings home those that a drain sent away.
    Return,
    /// Takes a dead server out of the fleet, and brings back who lived on it.
    Lost,
    /// Brings back a tenant whose server is lost.
    Recover,
}

impl Kind {
    /// The word for a person.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Add => "add",
            Kind::Remove => "remove",
            Kind::Migrate => "migrate",
            Kind::Start => "start",
            Kind::Stop => "stop",
            Kind::Restart => "restart",
            Kind::Swap => "swap",
            Kind::Drain => "drain",
            Kind::Return => "return",
            Kind::Lost => "lost",
            Kind::Recover => "recover",
        }
    }
}

/// What an operation holds: nothing else may change it meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A tenant.
    Tenant(TenantName),
    /// A server's own container. Its tenants are not held by it.
    Server(ServerName),
    /// Who lives on a server, as a whole: it is emptied or filled by one operation at a time. Each of its tenants is held by its own move.
    Residents(ServerName),
}

/// Before the name of a server, which no name of a tenant contains.
const SERVER_PREFIX: &str = "server/";
const RESIDENTS_PREFIX: &str = "residents/";

impl Subject {
    /// The tenant, if it is one.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Subject::Tenant(tenant) => Some(tenant),
            Subject::Server(_) | Subject::Residents(_) => None,
        }
    }

    /// What people call it in a sentence.
    pub fn spoken(&self) -> String {
        match self {
            Subject::Tenant(tenant) => tenant.to_string(),
            Subject::Server(server) => format!("the admin container of {server}"),
            Subject::Residents(server) => format!("who lives on {server}"),
        }
    }
}

/// As the store keeps it.
impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Tenant(tenant) => formatter.write_str(tenant.as_str()),
            Subject::Server(server) => write!(formatter, "{SERVER_PREFIX}{server}"),
            Subject::Residents(server) => write!(formatter, "{RESIDENTS_PREFIX}{server}"),
        }
    }
}

impl FromStr for Subject {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(server) = text.strip_prefix(RESIDENTS_PREFIX) {
            return Ok(Subject::Residents(server.parse()?));
        }
        match text.strip_prefix(SERVER_PREFIX) {
            Some(server) => Ok(Subject::Server(server.parse()?)),
            None => Ok(Subject::Tenant(text.parse()?)),
        }
    }
}

/// A name that operations of one kind are about.
pub trait Named: Clone + Send + Sync + 'static {
    /// The name in a subject; `None` for a subject of another sort.
    fn of(subject: &Subject) -> Option<Self>;
}

impl Named for TenantName {
    fn of(subject: &Subject) -> Option<Self> {
        subject.tenant().cloned()
    }
}

impl Named for ServerName {
    fn of(subject: &Subject) -> Option<Self> {
        match subject {
            Subject::Server(server) | Subject::Residents(server) => Some(server.clone()),
            Subject::Tenant(_) => None,
        }
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Steps are being done.
    Running,
    /// Steps are being undone.
    Undoing,
    /// Neither can go on for now; it is tried again at intervals.
    Stuck,
    /// Done.
    Succeeded,
    /// Failed, and the world is as before; of a drain or return: as far as it came.
    Failed,
    /// Cancelled, and the world is as before; of a drain or return: what was moved stays moved.
    Cancelled,
}

impl State {
    /// Has it ended?
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }

    /// The word for a person.
    pub fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Undoing => "undoing",
            State::Stuck => "stuck",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}

/// A line in an operation's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The step is about to act: from here on it may have had any part of its effect.
    Begin,
    /// The step had its effect.
    Done,
    /// The step failed for good.
    Failed,
    /// The undo of the step is about to act.
    UndoBegin,
    /// The step's effect is gone.
    Undone,
    /// An undo, or a step past the point of no return, failed so often that a person should know. It is tried again.
    Struggling,
    /// Somebody asked for the end.
    CancelRequested,
    /// The last line.
    End,
    /// For people only.
    Note,
}

impl Event {
    /// The word in the log.
    pub fn name(self) -> &'static str {
        match self {
            Event::Begin => "begin",
            Event::Done => "done",
            Event::Failed => "failed",
            Event::UndoBegin => "undo-begin",
            Event::Undone => "undone",
            Event::Struggling => "struggling",
            Event::CancelRequested => "cancel-requested",
            Event::End => "end",
            Event::Note => "note",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A step of an operation: an enum with all its values in order.
pub trait Step: Copy + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// All steps in the order of acting.
    const ALL: &'static [Self];
    /// The first step that is only driven forward; once it is done, nothing is undone any more.
    const POINT_OF_NO_RETURN: Self;
    /// Its name in the log.
    fn name(self) -> &'static str;
}

/// What every operation decides beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// For what it is to achieve.
    pub generation: Generation,
    /// For putting the world back.
    pub undo_generation: Generation,
}

/// What a step knows of its surroundings.
pub struct Context<'a, P, S = TenantName> {
    /// Agents, store, fleet and clock.
    pub world: &'a World,
    /// What drives operations, for those that begin others.
    pub engine: &'a Arc<Engine>,
    /// The operation.
    pub id: &'a OperationId,
    /// What it is about.
    pub subject: &'a S,
    /// Decided beforehand.
    pub plan: &'a P,
    /// Generations issued for this operation.
    pub fence: &'a Fence,
}

impl<'a, P> Context<'a, P> {
    /// Whose tenant.
    pub fn tenant(&self) -> &'a TenantName {
        self.subject
    }
}

/// What a step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A sentence for the log.
    pub message: String,
    /// Change of the tenant's row, in the same transaction as the log line.
    pub tenant: Option<TenantUpdate>,
}

impl Outcome {
    /// Says something.
    pub fn note(message: impl Into<String>) -> Self {
        Self { message: message.into(), tenant: None }
    }
}

/// A kind of operation.
#[async_trait]
pub trait Procedure: Send + Sync + 'static {
    /// Its steps.
    type Step: Step;
    /// What it is about.
    type Subject: Named;
    /// What is decided beforehand.
    type Plan: Serialize + DeserializeOwned + Send + Sync;
    /// What the steps find out; kept with each line of the log.
    type Facts: Serialize + DeserializeOwned + Default + Clone + Send + Sync;

    /// Does a step. Idempotent: it may have had any part of its effect before.
    async fn act(
        step: Self::Step,
        context: &Context<'_, Self::Plan, Self::Subject>,
        facts: &mut Self::Facts,
    ) -> Result<Outcome, Error>;

    /// Takes a step back. Idempotent, and right also when the step had no effect at all. `begun` says which steps ever began.
    async fn undo(
        step: Self::Step,
        context: &Context<'_, Self::Plan, Self::Subject>,
        facts: &mut Self::Facts,
        begun: &[Self::Step],
    ) -> Result<Outcome, Error>;

    /// Change of the tenant's row when the operation ends without success.
    fn on_failure(_context: &Context<'_, Self::Plan, Self::Subject>) -> Option<TenantUpdate> {
        None
    }

    /// What to tell a person when a step cannot go on: the next command to type.
    fn hint(step: Self::Step, undoing: bool, context: &Context<'_, Self::Plan, Self::Subject>) -> String;
}
