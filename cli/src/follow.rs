//! Following an operation to its end: progress for people, patience with a controller that goes away, Ctrl-C.
//!
//! Watching never changes the operation: however it ends, the operation goes on by itself.

use std::{collections::BTreeMap, time::Duration};

use feather_proto::pb::controller::v1 as pb;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use crate::{
    arguments::Context,
    connect::{Connection, interrupt},
    error::{Failure, Kind},
    output::{Amount, Progress},
    units,
    view::operation::{LogEntryView, OperationView, State},
};

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Flags of verbs that begin an operation.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Wait {
    /// Follow the operation to its end (this is the default).
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Print the operation's id on stdout as soon as it is recorded, and leave it to itself.
    #[arg(long)]
    no_wait: bool,
}

impl Wait {
    pub(crate) fn follows(self) -> bool {
        self.wait || !self.no_wait
    }
}

/// What to do about an operation that is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// Give up watching.
    GiveUp,
    /// Go on watching: it is tried again at intervals.
    Watch,
}

/// Where an operation was when watching ended.
pub(crate) struct Outcome {
    pub(crate) operation: OperationView,
    /// Handed out once; neither logged nor shown anywhere but on stdout.
    pub(crate) password: Option<String>,
}

/// Follows an operation until it ends, or is stuck.
pub(crate) async fn follow(
    context: &Context,
    connection: &Connection,
    id: &str,
    stuck: Stuck,
) -> Result<Outcome, Failure> {
    let mut watch = Watch {
        progress: context.output.progress(),
        stuck,
        last_sequence: 0,
        last_step: String::new(),
        stuck_told: String::new(),
        told_moves: BTreeMap::new(),
        last_word: Instant::now(),
    };
    tokio::select! {
        outcome = watch.until_the_end(connection, id, context.global.timeout) => outcome,
        () = interrupt() => Err(Failure::interrupted(
            format!("stopped watching; the operation {id} goes on"),
            format!("`featherctl operation watch {id}` follows it again, `featherctl operation cancel {id}` undoes it"),
        ).with("operation", id)),
    }
}

/// The same without a word and without an ear for Ctrl-C, for whoever follows several at once.
pub(crate) async fn follow_quietly(context: &Context, connection: &Connection, id: &str) -> Result<Outcome, Failure> {
    let mut watch = Watch {
        progress: Progress::silent(),
        stuck: Stuck::GiveUp,
        last_sequence: 0,
        last_step: String::new(),
        stuck_told: String::new(),
        told_moves: BTreeMap::new(),
        last_word: Instant::now(),
    };
    watch.until_the_end(connection, id, context.global.timeout).await
}

struct Watch {
    progress: Progress,
    stuck: Stuck,
    last_sequence: u32,
    last_step: String,
    stuck_told: String,
    /// What was said last of each tenant of a drain or return.
    told_moves: BTreeMap<String, String>,
    last_word: Instant,
}

impl Watch {
    async fn until_the_end(
        &mut self,
        connection: &Connection,
        id: &str,
        patience: Duration,
    ) -> Result<Outcome, Failure> {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            let before = self.last_word;
            let failure = match self.until_broken(connection, id).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) if failure.retryable => failure,
                Err(failure) => return Err(failure.with("operation", id)),
            };
            if self.last_word > before {
                (pause, told) = (PAUSE_MIN, false);
            }
            if self.last_word.elapsed() + pause > patience {
                let hint = format!(
                    "the operation goes on without featherctl; `featherctl operation watch {id}` follows it again"
                );
                return Err(failure.with_hint(hint).with("operation", id));
            }
            if !std::mem::replace(&mut told, true) {
                self.progress.line("  lost the connection to the controller; the operation goes on, connecting again");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One stream, to the operation's end or its own.
    async fn until_broken(&mut self, connection: &Connection, id: &str) -> Result<Outcome, Failure> {
        let request = pb::WatchOperationRequest { id: id.to_owned() };
        let mut stream = connection.call(connection.operations().watch_operation(request)).await?;
        while let Some(message) = stream.next().await {
            let message = message.map_err(|status| connection.failure(status))?;
            self.last_word = Instant::now();
            if let Some(outcome) = self.take(message) {
                return Ok(outcome);
            }
        }
        let mut failure = Failure::unreachable(
            "the controller ended the stream before the operation ended",
            "check that feather-controller runs",
        );
        failure.retryable = true;
        Err(failure)
    }

    fn take(&mut self, message: pb::WatchOperationResponse) -> Option<Outcome> {
        let operation = OperationView::from(message.operation.unwrap_or_default());
        self.tell(&operation);
        if let Some(transfer) = message.progress {
            let files = Amount { done: transfer.files, total: transfer.total_files };
            self.progress.pass(&passing(&operation, &transfer), transfer.round, files);
            self.progress.transfer(transfer.bytes, transfer.total_bytes);
        }
        let ended = match operation.state {
            State::Succeeded | State::Failed | State::Cancelled => true,
            State::Stuck => self.gives_up(&operation),
            State::Running | State::Undoing | State::Unknown => false,
        };
        let password = Some(message.password).filter(|password| !password.is_empty());
        ended.then_some(Outcome { operation, password })
    }

    /// Each entry of the log is told once, whatever is sent again after a reconnect. What became of a tenant comes before the step
    /// that it belongs to is over.
    fn tell(&mut self, operation: &OperationView) {
        for one in &operation.moves {
            let told = one.told().unwrap_or_default();
            if self.told_moves.insert(one.tenant.clone(), told.clone()).unwrap_or_default() != told {
                self.progress.line(&format!("  {told}"));
            }
        }
        for entry in operation.log.iter().filter(|entry| entry.sequence > self.last_sequence) {
            if let Some(line) = spoken(entry, &operation.log) {
                self.progress.line(&line);
            }
        }
        self.last_sequence =
            operation.log.last().map_or(self.last_sequence, |entry| entry.sequence.max(self.last_sequence));
        let step = operation.step.clone().unwrap_or_default();
        if step != self.last_step {
            self.progress.step(&step);
            if operation.log.is_empty() && !step.is_empty() {
                self.progress.line(&format!("  {step}"));
            }
            self.last_step = step;
        }
    }

    fn gives_up(&mut self, operation: &OperationView) -> bool {
        match self.stuck {
            Stuck::GiveUp => true,
            Stuck::Watch => {
                let error = operation.error.clone().unwrap_or_default();
                if error != self.stuck_told {
                    let next = operation.hint.as_ref().map(|hint| format!("; next: {hint}")).unwrap_or_default();
                    self.progress.line(&format!("  stuck: {error}. It is tried again at intervals{next}"));
                    self.stuck_told = error;
                }
                false
            }
        }
    }
}

/// What a transfer is at.
fn passing(operation: &OperationView, transfer: &pb::TransferProgress) -> String {
    let step = operation.step.as_deref().unwrap_or("transfer");
    let phase = match transfer.phase() {
        pb::TransferPhase::Preparing => ", looking at what is there",
        pb::TransferPhase::Syncing => ", writing to disk",
        pb::TransferPhase::Unspecified | pb::TransferPhase::Receiving => "",
    };
    match transfer.round {
        0 => format!("{step}{phase}"),
        round => format!("{step} round {round}{phase}"),
    }
}

/// The line for an entry; a step's beginning is shown by the display itself.
fn spoken(entry: &LogEntryView, log: &[LogEntryView]) -> Option<String> {
    let step = &entry.step;
    let what = match entry.event.as_str() {
        "begin" | "undo-begin" | "end" => return None,
        "done" => format!("{step:<10} done"),
        "failed" => format!("{step:<10} failed"),
        "undone" => format!("{step:<10} undone"),
        "struggling" => format!("{step:<10} not done yet, trying again"),
        "cancel-requested" => format!("{step:<10} interrupted"),
        _ => step.clone(),
    };
    let opening = match entry.event.as_str() {
        "done" | "failed" => "begin",
        "undone" => "undo-begin",
        _ => "",
    };
    let begun = log
        .iter()
        .rev()
        .find(|earlier| earlier.sequence < entry.sequence && earlier.step == entry.step && earlier.event == opening);
    let took = begun.and_then(|begun| Some(entry.time? - begun.time?)).map(|took| format!(" in {}", units::span(took)));
    let message = if entry.message.is_empty() { String::new() } else { format!(": {}", entry.message) };
    Some(format!("  {what}{}{message}", took.unwrap_or_default()))
}

impl Outcome {
    /// The operation if it succeeded; otherwise a failure that says how the world is now.
    pub(crate) fn succeeded(self) -> Result<Self, Failure> {
        match self.operation.state {
            State::Succeeded => Ok(self),
            _ => Err(self.operation.failure()),
        }
    }
}

impl OperationView {
    /// Why this operation did not do what it was for.
    pub(crate) fn failure(&self) -> Failure {
        let id = &self.id;
        let error = self.error.clone().unwrap_or_else(|| "no reason was recorded".into());
        let show = format!("`featherctl operation show {id}` shows its log");
        let attempt = self.attempt();
        let reason = self.reason.clone().unwrap_or_else(|| "OPERATION_FAILED".into());
        let failure = match self.state {
            State::Cancelled => Failure::refused(
                "CANCELLED",
                format!("{attempt}: the operation was cancelled; {}", self.as_before()),
                show,
            ),
            State::Stuck => Failure::refused(
                &reason,
                format!("{attempt} yet: the operation is stuck and tried again at intervals: {error}"),
                self.hint.clone().unwrap_or_else(|| format!("`featherctl operation watch {id}` follows it")),
            ),
            _ => Failure::refused(
                &reason,
                format!("{attempt}: {error}\n{}", self.as_before()),
                self.hint.clone().unwrap_or(show),
            ),
        };
        debug_assert_eq!(failure.kind, Kind::Refused);
        failure.with("operation", id).with("state", self.state.word())
    }

    fn attempt(&self) -> String {
        let tenant = &self.tenant;
        match (self.kind, &self.target) {
            ("add", _) => format!("{tenant} was not added"),
            ("remove", _) => format!("{tenant} was not removed"),
            ("migrate", Some(target)) => format!("{tenant} was not moved to {target}"),
            ("migrate", None) => format!("{tenant} was not moved"),
            ("start", _) => format!("{tenant} was not started"),
            ("stop", _) => format!("{tenant} was not stopped"),
            ("restart", _) => format!("{tenant} was not restarted"),
            ("drain", _) => format!("{} was not emptied", self.source.as_deref().unwrap_or("the server")),
            ("return", _) => {
                format!("not everybody is home on {}", self.source.as_deref().unwrap_or("the server"))
            }
            ("swap", _) => {
                format!("the admin container of {} was not swapped", self.source.as_deref().unwrap_or("the server"))
            }
            _ => format!("{tenant} was not changed"),
        }
    }

    fn as_before(&self) -> String {
        match (self.kind, &self.source) {
            ("add", _) => "What had been done was undone; nothing is left of it.".into(),
            ("swap", _) => "Everything is as before: the old one serves.".into(),
            ("drain" | "return", _) => "Who was moved stays there; the same command again goes on.".into(),
            ("migrate", Some(source)) => format!("Everything is as before: {} lives on {source}.", self.tenant),
            _ => "Everything is as before.".into(),
        }
    }
}
