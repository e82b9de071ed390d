//! Changes of tenants on a member: its controller is asked, and carries them out as ordinary operations.
//!
//! Owns how a wish is put so that it is granted once, how one waits for it, and what is said when nobody answers. Decides
//! nothing about tenants: the operation comes back to this very agent as calls.

use std::time::Duration;

use feather_proto::{
    error::{Code, Error, reason},
    ids::TenantName,
    pb::controller::v1::{self as pb, member_service_client::MemberServiceClient},
    tls::{self, Channel, Principal, Trust},
};
use tokio::time::Instant;
use tonic::Request;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use uuid::Uuid;

use crate::{agent::Agent, standing::Member};

/// Deadline of one call.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How often a wish is put again whose reply got lost.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// How often one looks how the operation stands.
const LOOK: Duration = Duration::from_millis(200);
/// A controller that goes silent while its operation runs is waited for that long.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What shall become of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Add,
    Remove,
    Start,
    Stop,
    Restart,
}

impl Wish {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Wish::Add => "add",
            Wish::Remove => "remove",
            Wish::Start => "start",
            Wish::Stop => "stop",
            Wish::Restart => "restart",
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Wish::Add => "added",
            Wish::Remove => "removed",
            Wish::Start => "started",
            Wish::Stop => "stopped",
            Wish::Restart => "restarted",
        }
    }
}

/// Asks for a change of a tenant of this server and waits until it is done. The operation goes on when its caller leaves.
pub(crate) async fn change(agent: &Agent, member: &Member, wish: Wish, tenant: &TenantName) -> Result<(), Error> {
    let Some(address) = &member.controller else {
        return Err(Error::refused(
            reason::CONTROLLER_UNREACHABLE,
            format!(
                "{} is a member of a fleet, and the file that says where its controller is ({}) is gone; nothing was changed: let it rejoin \
                 with `featherctl server invite {} --rejoin`",
                member.server,
                agent.config.controller_file().display(),
                member.server
            ),
        ));
    };
    let identity = agent.identity.get().ok_or_else(|| Error::bug("a member without an identity"))?;
    let trust = Trust::Mutual(identity.clone());
    let channel = tls::channel(agent.dial.clone(), address, &Principal::controller(), &trust)
        .map_err(|error| Error::bug(error.to_string()))?;
    reach(channel.clone(), address).await?;
    let mut controller = Controller { client: MemberServiceClient::new(channel), address };
    let operation = controller.begin(wish, tenant).await.map_err(|error| {
        let lives_here = matches!(agent.ledger.get(tenant), Ok(Some(record)) if record.spec.is_some());
        match error.is(reason::TENANT_NOT_FOUND) && lives_here {
            true => not_taken_in(member, tenant),
            false => error,
        }
    })?;
    controller.finish(wish, tenant, &operation).await
}

/// Before anything is asked for: of a controller that does not answer now it can be said that nothing was changed.
async fn reach(channel: Channel, address: &str) -> Result<(), Error> {
    let answer = HealthClient::new(channel).check(within(HealthCheckRequest { service: String::new() })).await;
    answer.map(drop).map_err(|status| {
        let error = Error::from(status);
        if error.is(reason::REVOKED) {
            return error;
        }
        Error::unavailable(
            reason::CONTROLLER_UNREACHABLE,
            format!(
                "the controller at {address} cannot be reached ({}); nothing was changed: only it changes tenants of a fleet, so try again \
                 when it is back. Tenants run on meanwhile, and `tenant.sh list` and `tenant.sh status` work",
                error.message
            ),
        )
    })
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_MAX);
    request
}

/// The error for a wish to adopt that was typed on a member.
pub(crate) fn adopts_by_its_fleet(member: &Member) -> Error {
    Error::refused(
        reason::WRONG_STATE,
        format!(
            "this server is a member of a fleet, which alone knows what names are free; nothing was changed: `featherctl server adopt {}` \
             takes over what is here",
            member.server
        ),
    )
}

fn not_taken_in(member: &Member, tenant: &TenantName) -> Error {
    Error::refused(
        reason::WRONG_STATE,
        format!(
            "the fleet does not know {tenant} yet, although it lives here; nothing was changed: try again in a moment, and if that lasts, \
             `featherctl server adopt {} --dry-run` says why",
            member.server
        ),
    )
    .with("tenant", tenant)
}

struct Controller<'a> {
    client: MemberServiceClient<Channel>,
    address: &'a str,
}

impl Controller<'_> {
    /// The operation that the wish began. A lost reply is asked for again: the request's id makes it one wish.
    async fn begin(&mut self, wish: Wish, tenant: &TenantName) -> Result<String, Error> {
        let request_id = Uuid::new_v4().to_string();
        let mut attempt = 1;
        loop {
            match self.ask(wish, request_id.clone(), tenant.to_string()).await {
                Err(error) if error.code.retryable() && attempt < ATTEMPTS => {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(error) if error.code.retryable() => {
                    return Err(Error::unavailable(
                        reason::CONTROLLER_UNREACHABLE,
                        format!(
                            "the controller at {} went away while it was asked ({}), and whether {tenant} is being {} is not known: when it is \
                             back, `featherctl operation list` says so",
                            self.address,
                            error.message,
                            wish.participle()
                        ),
                    ));
                }
                done => return done,
            }
        }
    }

    async fn ask(&mut self, wish: Wish, request_id: String, tenant: String) -> Result<String, Error> {
        let client = &mut self.client;
        Ok(match wish {
            Wish::Add => {
                let request = pb::AddMemberTenantRequest { request_id, tenant };
                client.add_member_tenant(within(request)).await?.into_inner().operation
            }
            Wish::Remove => {
                let request = pb::RemoveMemberTenantRequest { request_id, tenant };
                client.remove_member_tenant(within(request)).await?.into_inner().operation
            }
            Wish::Start => {
                let request = pb::StartMemberTenantRequest { request_id, tenant };
                client.start_member_tenant(within(request)).await?.into_inner().operation
            }
            Wish::Stop => {
                let request = pb::StopMemberTenantRequest { request_id, tenant };
                client.stop_member_tenant(within(request)).await?.into_inner().operation
            }
            Wish::Restart => {
                let request = pb::RestartMemberTenantRequest { request_id, tenant };
                client.restart_member_tenant(within(request)).await?.into_inner().operation
            }
        })
    }

    /// Waits for the operation's end.
    async fn finish(&mut self, wish: Wish, tenant: &TenantName, id: &str) -> Result<(), Error> {
        let mut heard = Instant::now();
        loop {
            let request = pb::GetMemberOperationRequest { id: id.to_owned() };
            match self.client.get_member_operation(within(request)).await.map_err(Error::from) {
                Ok(answer) => {
                    heard = Instant::now();
                    let operation = answer.into_inner().operation.unwrap_or_default();
                    if let Some(end) = end(wish, tenant, &operation) {
                        return end;
                    }
                }
                Err(error) if error.code.retryable() && heard.elapsed() < SILENCE_MAX => {}
                Err(error) if error.code.retryable() => {
                    return Err(error.context(format!(
                        "the operation {id} goes on when the controller is back (`featherctl operation watch {id}`), and it has been silent \
                         for {} s",
                        SILENCE_MAX.as_secs()
                    )));
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How it ended, if it did, for whoever waits at this server.
fn end(wish: Wish, tenant: &TenantName, operation: &pb::Operation) -> Option<Result<(), Error>> {
    let reason = if operation.reason.is_empty() { reason::WRONG_STATE } else { &operation.reason };
    let (attempt, id) = (format!("{tenant} was not {}", wish.participle()), &operation.id);
    let failed = |code, message| Some(Err(Error::new(code, reason, message).with("operation", id)));
    match operation.state() {
        pb::OperationState::Succeeded => Some(Ok(())),
        pb::OperationState::Failed => failed(Code::Refused, format!("{attempt}: {}", operation.error)),
        pb::OperationState::Cancelled => failed(Code::Cancelled, format!("{attempt}: somebody cancelled {id}")),
        pb::OperationState::Stuck => failed(
            Code::Refused,
            format!(
                "{attempt} yet: {id} is stuck and tried again at intervals: {}; {}",
                operation.error, operation.hint
            ),
        ),
        pb::OperationState::Running | pb::OperationState::Undoing | pb::OperationState::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::{error::Code, pb::controller::v1 as pb};

    use super::{Wish, end};

    #[test]
    fn every_state_of_an_operation_is_waited_for_or_told() {
        let tenant = "alice".parse().unwrap();
        for (state, wanted) in [
            (pb::OperationState::Running, None),
            (pb::OperationState::Undoing, None),
            (pb::OperationState::Succeeded, Some(None)),
            (pb::OperationState::Failed, Some(Some(Code::Refused))),
            (pb::OperationState::Cancelled, Some(Some(Code::Cancelled))),
            (pb::OperationState::Stuck, Some(Some(Code::Refused))),
        ] {
            let operation = pb::Operation { state: state.into(), error: "no room".into(), ..pb::Operation::default() };
            let told = end(Wish::Add, &tenant, &operation);
            if let Some(Err(error)) = &told {
                assert!(error.message.starts_with("alice was not added"), "{error}");
            }
            assert_eq!(told.map(|told| told.err().map(|error| error.code)), wanted, "{state:?}");
        }
    }
}
