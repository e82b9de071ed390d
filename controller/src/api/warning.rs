//! `WarningService`.

use std::sync::Arc;

use feather_proto::{
    error::{Error, reason},
    model::to_timestamp,
    pb::controller::v1::{self as pb, warning_service_server::WarningService},
};
use tonic::{Request, Response, Status};

use super::{operator, reader};
use crate::{
    store::warnings::{Acknowledged, WarningRow},
    warnings::{self, NOTE_MAX},
    world::World,
};

/// Shows warnings and notes who knows of them.
pub struct WarningApi {
    world: Arc<World>,
}

impl WarningApi {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

pub(super) fn encode(row: WarningRow) -> pb::Warning {
    let acknowledgement = |Acknowledged { by, at, note }| pb::Acknowledgement { by, at: Some(to_timestamp(at)), note };
    pb::Warning {
        id: row.id,
        kind: row.kind,
        subject: row.subject,
        message: row.message,
        since: Some(to_timestamp(row.since)),
        acknowledged: row.acknowledged.map(acknowledgement),
    }
}

/// One line of text.
fn note(text: &str) -> Result<&str, Error> {
    let note = text.trim();
    if note.chars().count() > NOTE_MAX || note.chars().any(char::is_control) {
        let message = format!("a note is one line of at most {NOTE_MAX} characters");
        return Err(Error::invalid(reason::INVALID_FIELD, message).with("field", "note"));
    }
    Ok(note)
}

#[tonic::async_trait]
impl WarningService for WarningApi {
    async fn list_warnings(
        &self,
        request: Request<pb::ListWarningsRequest>,
    ) -> Result<Response<pb::ListWarningsResponse>, Status> {
        reader(&request)?;
        let raised = warnings::look(&self.world).await?.into_iter().filter(|row| row.raised.is_some());
        let (known, new): (Vec<_>, Vec<_>) = raised.partition(|row| row.acknowledged.is_some());
        let count = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let all = request.get_ref().acknowledged;
        let shown = new.into_iter().chain(known.into_iter().filter(|_| all));
        Ok(Response::new(pb::ListWarningsResponse {
            warnings: shown.map(encode).collect(),
            acknowledged: if all { 0 } else { count },
        }))
    }

    async fn acknowledge_warning(
        &self,
        request: Request<pb::AcknowledgeWarningRequest>,
    ) -> Result<Response<pb::AcknowledgeWarningResponse>, Status> {
        let caller = operator(&request)?;
        let pb::AcknowledgeWarningRequest { id, note: text } = request.get_ref();
        let row = warnings::acknowledge(&self.world, id, &caller.to_string(), note(text)?).await?;
        tracing::info!(by = %caller, warning = id, "warning acknowledged");
        Ok(Response::new(pb::AcknowledgeWarningResponse { warning: Some(encode(row)) }))
    }
}
