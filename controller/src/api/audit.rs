//! `AuditService`.

use std::sync::Arc;

use feather_proto::{
    error::Error,
    model::{from_timestamp, invalid_field, to_timestamp},
    pb::controller::v1::{self as pb, audit_service_server::AuditService},
};
use tonic::{Request, Response, Status};

use super::admin;
use crate::{audit::Row, world::World};

/// Rows of one answer, at most, and when nobody says.
const LIST_MAX: u32 = 1000;
const LIST_DEFAULT: u32 = 100;

/// Shows and checks the audit log.
pub struct AuditApi {
    world: Arc<World>,
}

impl AuditApi {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

fn encode(row: Row) -> pb::AuditEntry {
    let entry = row.entry;
    pb::AuditEntry {
        sequence: row.sequence,
        at: Some(to_timestamp(entry.at)),
        caller: entry.caller,
        address: entry.address,
        rpc: entry.rpc,
        arguments: entry.arguments,
        code: entry.code,
        reason: entry.reason,
        operation: entry.operation,
        hash: row.hash,
    }
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn list_audit(
        &self,
        request: Request<pb::ListAuditRequest>,
    ) -> Result<Response<pb::ListAuditResponse>, Status> {
        admin(&request)?;
        let asked = request.into_inner();
        let since = asked.since.as_ref().map(from_timestamp).transpose()?;
        let limit = if asked.limit == 0 { LIST_DEFAULT } else { asked.limit };
        if limit > LIST_MAX {
            return Err(invalid_field("limit", "from 0 to 1000").into());
        }
        let rows = self.world.store.audit(since, &asked.user, limit).await.map_err(Error::from)?;
        Ok(Response::new(pb::ListAuditResponse { entries: rows.into_iter().map(encode).collect() }))
    }

    async fn verify_audit(
        &self,
        request: Request<pb::VerifyAuditRequest>,
    ) -> Result<Response<pb::VerifyAuditResponse>, Status> {
        admin(&request)?;
        let check = self.world.store.check_audit(&request.get_ref().expect_head).await.map_err(Error::from)?;
        Ok(Response::new(pb::VerifyAuditResponse {
            problem: check.problem().unwrap_or_default(),
            broken_sequence: check.broken.as_ref().map(|(sequence, _)| *sequence).unwrap_or_default(),
            rows: check.rows,
            head: check.head,
        }))
    }
}
