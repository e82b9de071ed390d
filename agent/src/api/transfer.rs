//! `feather.agent.v1.TransferService`: for peer agents with a ticket, and for a controller that relays.

use feather_proto::{
    model::invalid_field,
    pb::{
        agent::v1 as pb,
        agent::v1::{
            send_volume_request as ask, send_volume_response as send, transfer_service_server::TransferService,
        },
    },
    tls::{self, Role},
};
use futures::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Api};
use crate::{agent::Sent, peer::Wanted};

#[tonic::async_trait]
impl TransferService for Api {
    type SendVolumeStream = Answers<pb::SendVolumeResponse>;

    async fn send_volume(
        &self,
        request: Request<Streaming<pb::SendVolumeRequest>>,
    ) -> Result<Response<Self::SendVolumeStream>, Status> {
        let caller = tls::require(&request, &[Role::Agent, Role::Controller])?;
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.event);
        let Some(ask::Event::Begin(begin)) = first else {
            return Err(invalid_field("begin", "in the first message").into());
        };
        let tenant = begin.tenant.parse()?;
        let wanted = Wanted::parse(begin.generation, begin.pass, begin.bytes_per_second_max)?;
        let sent = self.agent.send(&caller, &tenant, wanted, &begin.ticket).await?;
        let answers = sent.map(|sent| {
            let event = match sent? {
                Sent::Spec(spec) => send::Event::Spec(spec.into()),
                Sent::Frame(frame) => send::Event::Frame(frame.into()),
            };
            Ok(pb::SendVolumeResponse { event: Some(event) })
        });
        Ok(Response::new(Box::pin(answers.take_until(self.agent.ended.clone().cancelled_owned()))))
    }
}
