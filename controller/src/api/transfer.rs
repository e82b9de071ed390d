//! `feather.agent.v1.TransferService` as the controller serves it: between two agents that do not reach each other.
//!
//! Passes every message on as it is, one at a time: what the target does not take, the source does not send. Each link has its
//! own mutual TLS; the ticket is checked here and again by the source.

use std::{sync::Arc, time::Duration};

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, ServerName},
    model::invalid_field,
    pb::agent::v1::{self as pb, send_volume_request::Event, transfer_service_server::TransferService},
    tls::{Role, calling, require},
};
use futures::{StreamExt as _, future::ready, stream, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{enroll::Enroll, world::World};

/// Whoever opens a stream says this soon what it wants.
const FIRST_MESSAGE_LIMIT: Duration = Duration::from_secs(10);

/// Relays transfers.
pub struct Transfers {
    world: Arc<World>,
    enroll: Arc<Enroll>,
}

impl Transfers {
    /// Over this world.
    pub fn new(world: Arc<World>, enroll: Arc<Enroll>) -> Self {
        Self { world, enroll }
    }
}

#[tonic::async_trait]
impl TransferService for Transfers {
    type SendVolumeStream = BoxStream<'static, Result<pb::SendVolumeResponse, Status>>;

    async fn send_volume(
        &self,
        request: Request<Streaming<pb::SendVolumeRequest>>,
    ) -> Result<Response<Self::SendVolumeStream>, Status> {
        require(&request, &[Role::Agent])?;
        let target = self.enroll.require_member(&calling(&request)).await?.name;
        let mut messages = request.into_inner();
        let first = tokio::time::timeout(FIRST_MESSAGE_LIMIT, messages.message()).await;
        let first = first.map_err(|_| Error::timeout(reason::INVALID_FIELD, "no first message came"))??;
        let Some(Event::Begin(begin)) = first.as_ref().and_then(|message| message.event.as_ref()) else {
            return Err(invalid_field("begin", "in the first message").into());
        };
        let (tenant, generation) = (begin.tenant.parse()?, Generation(begin.generation));
        let (source, ended) = self.world.relays.admit(&target, &tenant, generation, &begin.ticket)?;
        tracing::info!(%tenant, %source, %target, %generation, "relaying a pass over a volume");
        // A list that breaks off is cut off for the source, too, which ends the pass.
        let rest = messages.take_while(|message| ready(message.is_ok())).filter_map(|message| ready(message.ok()));
        let asked = stream::iter(first).chain(rest).take_until(ended.clone().cancelled_owned()).boxed();
        let agent = self.world.agent(&source).await?;
        let far = move |error: Error| Status::from(beyond(error, &source));
        let sent = agent.send_volume(asked).await.map_err(&far)?;
        let sent = sent.map(move |message| message.map_err(&far));
        Ok(Response::new(sent.take_until(ended.cancelled_owned()).boxed()))
    }
}

/// To the target this controller is well reachable: what is not is the source behind it.
fn beyond(error: Error, source: &ServerName) -> Error {
    match error.is(reason::SERVER_UNREACHABLE) {
        true => Error { reason: reason::PEER_UNREACHABLE.into(), ..error }.with("server", source),
        false => error,
    }
}
