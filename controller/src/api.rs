//! The controller's gRPC services: decode, call, encode. Nothing is decided here but who may call.

use feather_proto::{
    error::Error,
    pb::controller::v1 as pb,
    tls::{Principal, Role, require},
};
use tonic::Request;

pub mod audit;
pub mod backup;
pub mod cert;
pub mod dns;
pub mod enrollment;
pub mod event;
pub mod image;
mod losing;
pub mod member;
pub mod operation;
mod resettling;
pub mod server;
pub mod status;
pub mod store;
pub mod tenant;
pub mod transfer;
pub mod user;
pub mod volume;
pub mod waitlist;
pub mod warning;

/// Who may look.
const READERS: &[Role] = &[Role::Viewer, Role::Operator, Role::Admin];
/// Who may change tenants.
const OPERATORS: &[Role] = &[Role::Operator, Role::Admin];
/// Who may change the fleet.
const ADMINS: &[Role] = &[Role::Admin];

fn reader<T>(request: &Request<T>) -> Result<Principal, Error> {
    require(request, READERS)
}

fn operator<T>(request: &Request<T>) -> Result<Principal, Error> {
    require(request, OPERATORS)
}

fn admin<T>(request: &Request<T>) -> Result<Principal, Error> {
    require(request, ADMINS)
}

/// The id of a change. A dry run changes nothing, so it needs none of its own.
fn change_id(id: &str, dry_run: bool) -> Result<uuid::Uuid, Error> {
    if dry_run && id.is_empty() { Ok(uuid::Uuid::nil()) } else { feather_proto::model::request_id(id) }
}

/// Empty text means *not given*.
fn given<T: std::str::FromStr<Err = Error>>(text: &str) -> Result<Option<T>, Error> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

fn optional(text: Option<impl ToString>) -> String {
    text.map(|text| text.to_string()).unwrap_or_default()
}

fn kind(kind: crate::operations::Kind) -> pb::OperationKind {
    use crate::operations::Kind;
    match kind {
        Kind::Add => pb::OperationKind::Add,
        Kind::Remove => pb::OperationKind::Remove,
        Kind::Migrate => pb::OperationKind::Migrate,
        Kind::Start => pb::OperationKind::Start,
        Kind::Stop => pb::OperationKind::Stop,
        Kind::Restart => pb::OperationKind::Restart,
        Kind::Swap => pb::OperationKind::Swap,
        Kind::Drain => pb::OperationKind::Drain,
        Kind::Return => pb::OperationKind::Return,
        Kind::Lost => pb::OperationKind::Lost,
        Kind::Recover => pb::OperationKind::Recover,
    }
}

fn state(state: crate::operations::State) -> pb::OperationState {
    use crate::operations::State;
    match state {
        State::Running => pb::OperationState::Running,
        State::Undoing => pb::OperationState::Undoing,
        State::Stuck => pb::OperationState::Stuck,
        State::Succeeded => pb::OperationState::Succeeded,
        State::Failed => pb::OperationState::Failed,
        State::Cancelled => pb::OperationState::Cancelled,
    }
}
