//! `OperationService`.

use std::sync::Arc;

use feather_proto::{
    error::Error,
    ids::OperationId,
    model::to_timestamp,
    pb::controller::v1::{self as pb, operation_service_server::OperationService},
    tls::Role,
};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{kind, operator, optional, reader, resettling, state};
use crate::{
    agents::{Phase, TransferProgress},
    operations::{
        Event, Kind, State,
        engine::Engine,
        migrate::{Measured, Prediction, Round},
    },
    store::{LogRow, OperationRow},
    world::World,
};

/// Lists and watches operations.
pub struct Operations {
    world: Arc<World>,
    engine: Arc<Engine>,
}

impl Operations {
    /// Over this world.
    pub fn new(world: Arc<World>, engine: Arc<Engine>) -> Self {
        Self { world, engine }
    }
}

/// Most rows of one answer, and how many without a wish.
const LIST_MAX: u32 = 1000;
const LIST_DEFAULT: u32 = 50;

/// An operation as the wire shows it, with its log.
pub(super) async fn view(world: &World, id: &OperationId) -> Result<pb::Operation, Error> {
    let row = world.store.operation(id).await?;
    let log = world.store.operation_log(id).await?;
    let moves = resettling::moves(world, &row).await?;
    Ok(pb::Operation { moves, ..encode(row, &log) })
}

fn encode(row: OperationRow, log: &[LogRow]) -> pb::Operation {
    let terminal = row.state.is_terminal();
    let latest = log.iter().rev().find(|line| matches!(line.event, Event::Begin | Event::UndoBegin));
    let struggle = log.iter().rev().find(|line| line.event == Event::Struggling).filter(|_| row.state == State::Stuck);
    let error =
        struggle.map(|line| line.message.clone()).or_else(|| row.error.as_ref().map(|error| error.message.clone()));
    pb::Operation {
        id: row.id.to_string(),
        kind: kind(row.kind).into(),
        state: state(row.state).into(),
        tenant: optional(row.subject.tenant()),
        source: optional(row.source.as_ref()),
        target: optional(row.target.as_ref()),
        created: Some(to_timestamp(row.created)),
        ended: row.ended.map(to_timestamp),
        step: latest.filter(|_| !terminal).map(|line| line.step.clone()).unwrap_or_default(),
        error: error.unwrap_or_default(),
        reason: row.error.as_ref().map(|error| error.reason.clone()).unwrap_or_default(),
        hint: hint(&row),
        log: log.iter().map(line).collect(),
        migration: migration(&row),
        moves: Vec::new(),
        parent: optional(row.parent.as_ref()),
        requested_by: row.requested_by,
    }
}

fn hint(row: &OperationRow) -> String {
    match (&row.hint, row.state) {
        (Some(hint), State::Stuck) => {
            format!(
                "{hint}; once that is well the operation goes on by itself, or at once with `featherctl operation retry {}`",
                row.id
            )
        }
        _ => String::new(),
    }
}

fn line(row: &LogRow) -> pb::OperationLogEntry {
    pb::OperationLogEntry {
        sequence: u32::try_from(row.sequence).unwrap_or(u32::MAX),
        at: Some(to_timestamp(row.at)),
        step: row.step.clone(),
        event: row.event.name().to_owned(),
        message: row.message.clone(),
    }
}

fn migration(row: &OperationRow) -> Option<pb::MigrationResult> {
    let measured = if row.kind == Kind::Migrate { Measured::of(row)? } else { return None };
    let round = |round: &Round| pb::MigrationRound {
        files: round.files,
        wire_bytes: round.wire_bytes,
        duration_ms: round.duration_ms,
    };
    Some(pb::MigrationResult {
        wire_bytes: measured.wire_bytes(),
        outage_ms: measured.outage_ms.unwrap_or_default(),
        outage_by_controller: measured.outage_by_controller,
        transfer_ms: measured.last_pass.map(|pass| pass.duration_ms).unwrap_or_default(),
        rounds: measured.rounds.iter().map(round).collect(),
        rounds_ended: measured.rounds_ended.unwrap_or_default(),
        duration_ms: measured.duration_ms.unwrap_or_default(),
        predicted: measured.predicted.map(prediction),
        relayed: measured.relayed,
        source: measured.source.map(Into::into),
        target: measured.target.map(Into::into),
    })
}

pub(super) fn prediction(prediction: Prediction) -> pb::MigrationPrediction {
    let Prediction { wire_bytes, duration_ms, outage_ms, basis } = prediction;
    pb::MigrationPrediction { wire_bytes, duration_ms, outage_ms, basis }
}

pub(super) fn progress(now: TransferProgress) -> pb::TransferProgress {
    let phase = match now.phase {
        Phase::Unknown => pb::TransferPhase::Unspecified,
        Phase::Preparing => pb::TransferPhase::Preparing,
        Phase::Receiving => pb::TransferPhase::Receiving,
        Phase::Syncing => pb::TransferPhase::Syncing,
    };
    pb::TransferProgress {
        files: now.files,
        bytes: now.bytes,
        total_bytes: now.total_bytes,
        total_files: now.total_files,
        wire_bytes: now.wire_bytes,
        phase: phase.into(),
        round: now.round,
        bytes_per_second: now.bytes_per_second,
    }
}

async fn watched(world: &World, id: &OperationId, may_see_password: bool) -> Result<pb::WatchOperationResponse, Error> {
    let operation = view(world, id).await?;
    let progress = world.volatile.progress(id).map(progress);
    let succeeded = operation.state == pb::OperationState::Succeeded as i32;
    let password = if succeeded && may_see_password { world.volatile.take_password(id) } else { None };
    Ok(pb::WatchOperationResponse {
        operation: Some(operation),
        progress,
        password: password.map(|password| password.0).unwrap_or_default(),
    })
}

fn is_terminal(message: &pb::WatchOperationResponse) -> bool {
    message.operation.as_ref().is_some_and(|operation| {
        matches!(
            operation.state(),
            pb::OperationState::Succeeded | pb::OperationState::Failed | pb::OperationState::Cancelled
        )
    })
}

#[tonic::async_trait]
impl OperationService for Operations {
    async fn get_operation(
        &self,
        request: Request<pb::GetOperationRequest>,
    ) -> Result<Response<pb::GetOperationResponse>, Status> {
        reader(&request)?;
        let operation = view(&self.world, &request.get_ref().id.parse()?).await?;
        Ok(Response::new(pb::GetOperationResponse { operation: Some(operation) }))
    }

    async fn list_operations(
        &self,
        request: Request<pb::ListOperationsRequest>,
    ) -> Result<Response<pb::ListOperationsResponse>, Status> {
        reader(&request)?;
        let asked = request.into_inner();
        let tenant = super::given(&asked.tenant)?;
        let limit = if asked.limit == 0 { LIST_DEFAULT } else { asked.limit.min(LIST_MAX) };
        let rows = self.world.store.operations(tenant.as_ref(), limit).await.map_err(Error::from)?;
        let mut operations = Vec::with_capacity(rows.len());
        for row in rows {
            // The step under way comes from the log; ended operations have none, and need no log.
            let log = if row.state.is_terminal() {
                Vec::new()
            } else {
                self.world.store.operation_log(&row.id).await.map_err(Error::from)?
            };
            operations.push(pb::Operation { log: Vec::new(), ..encode(row, &log) });
        }
        Ok(Response::new(pb::ListOperationsResponse { operations }))
    }

    type WatchOperationStream = BoxStream<'static, Result<pb::WatchOperationResponse, Status>>;

    async fn watch_operation(
        &self,
        request: Request<pb::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let caller = reader(&request)?;
        let id: OperationId = request.get_ref().id.parse()?;
        let may_see_password = matches!(caller.role, Role::Operator | Role::Admin);
        let world = self.world.clone();
        world.store.operation(&id).await.map_err(Error::from)?;
        let changes = world.volatile.follow(&id);
        let stream = futures::stream::unfold(Some((changes, None)), move |state| {
            let (world, id) = (world.clone(), id.clone());
            async move {
                let (mut changes, mut last): (_, Option<pb::WatchOperationResponse>) = state?;
                loop {
                    if last.is_some() && changes.changed().await.is_err() {
                        return None;
                    }
                    changes.borrow_and_update();
                    let message = match watched(&world, &id, may_see_password).await {
                        Ok(message) => message,
                        Err(error) => return Some((Err(error.into()), None)),
                    };
                    if is_terminal(&message) {
                        return Some((Ok(message), None));
                    }
                    if last.as_ref() != Some(&message) {
                        last = Some(message.clone());
                        return Some((Ok(message), Some((changes, last))));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn cancel_operation(
        &self,
        request: Request<pb::CancelOperationRequest>,
    ) -> Result<Response<pb::CancelOperationResponse>, Status> {
        operator(&request)?;
        let id = request.get_ref().id.parse()?;
        self.engine.cancel(&id).await?;
        let operation = view(&self.world, &id).await?;
        Ok(Response::new(pb::CancelOperationResponse { operation: Some(operation) }))
    }

    async fn retry_operation(
        &self,
        request: Request<pb::RetryOperationRequest>,
    ) -> Result<Response<pb::RetryOperationResponse>, Status> {
        operator(&request)?;
        let id = request.get_ref().id.parse()?;
        self.engine.retry(&id).await?;
        let operation = view(&self.world, &id).await?;
        Ok(Response::new(pb::RetryOperationResponse { operation: Some(operation) }))
    }
}
