//! Drains and returns on the wire: what is asked, and what became of each tenant.

use feather_proto::{error::Error, model::invalid_field, pb::controller::v1 as pb};

use super::optional;
use crate::{
    intent::{Flow, Foreseen, Resettling},
    operations::{
        Kind, lost,
        migrate::Measured,
        resettle::{self, End, Told},
    },
    store::OperationRow,
    world::World,
};

/// What was asked of a move's data; 0 for no limit.
pub(super) fn flow(bytes_per_second_max: u64, route: pb::TransferRoute) -> Flow {
    Flow {
        bytes_per_second_max: Some(bytes_per_second_max).filter(|limit| *limit > 0),
        relayed: route == pb::TransferRoute::Controller,
    }
}

pub(super) fn wanted(parallel: u32, deadline_seconds: u64, partial: bool, flow: Flow) -> Result<Resettling, Error> {
    let parallel = u8::try_from(parallel).map_err(|_| invalid_field("parallel", "from 1 to 16, or 0 for 2"))?;
    Ok(Resettling { to: None, parallel, deadline_seconds, partial, flow })
}

pub(super) fn foreseen(moves: Vec<Foreseen>) -> Vec<pb::ForeseenMove> {
    let encode = |one: Foreseen| pb::ForeseenMove {
        tenant: one.tenant.into(),
        source: one.source.into(),
        target: optional(one.target),
        volume_bytes: one.volume_bytes,
        why: one.why,
    };
    moves.into_iter().map(encode).collect()
}

/// What became of each tenant so far; nothing for operations of other kinds.
pub(super) async fn moves(world: &World, row: &OperationRow) -> Result<Vec<pb::TenantMove>, Error> {
    if !matches!(row.kind, Kind::Drain | Kind::Return | Kind::Lost) {
        return Ok(Vec::new());
    }
    let children = world.store.children(&row.id).await?;
    let told = match row.kind {
        Kind::Lost => lost::so_far(row, children.clone()),
        _ => resettle::so_far(row, children.clone()),
    };
    Ok(told.into_iter().map(|one| encode(one, &children)).collect())
}

fn encode(one: Told, children: &[OperationRow]) -> pb::TenantMove {
    let end = match one.end {
        End::Waiting => pb::MoveEnd::Waiting,
        End::Moving => pb::MoveEnd::Moving,
        End::Stuck => pb::MoveEnd::Stuck,
        End::Moved => pb::MoveEnd::Moved,
        End::Elsewhere => pb::MoveEnd::Elsewhere,
        End::Left => pb::MoveEnd::Left,
        End::Recovered => pb::MoveEnd::Recovered,
        End::Lost => pb::MoveEnd::Lost,
    };
    let child = children.iter().find(|child| Some(&child.id) == one.operation.as_ref());
    let outage_ms = child.and_then(Measured::of).and_then(|measured| measured.outage_ms);
    pb::TenantMove {
        tenant: one.tenant.into(),
        end: end.into(),
        source: optional(one.source),
        target: optional(one.target),
        operation: optional(one.operation),
        why: one.why,
        outage_ms: outage_ms.unwrap_or_default(),
    }
}
