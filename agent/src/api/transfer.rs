//! `feather.agent.v1.TransferService`: for peer agents with a ticket, and for a controller that relays.

use feather_proto::{
    error::Error,
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
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Api};
use crate::{
    agent::{Sent, Told},
    peer::Wanted,
    volume::{self, Digest, Listing, Pace},
};

/// Messages of a list on their way to the thread that reads it.
const IN_FLIGHT: usize = 2;

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
        let base = match &begin.base_digest[..] {
            [] => None,
            digest => Some(Digest(digest.try_into().map_err(|_| invalid_field("base_digest", "32 bytes, or none"))?)),
        };
        let (pace, ended) = (Pace::default(), CancellationToken::new());
        let listing = self.listing(messages, pace.clone(), ended.clone());
        let ended = ended.drop_guard();
        let told = Told { ticket: &begin.ticket, base, listing, packs: begin.packed.then_some(pace) };
        let sent = self.agent.send(&caller, &tenant, wanted, told).await?;
        let answers = sent.map(move |sent| {
            let _ends_with_the_call = &ended;
            let event = match sent? {
                Sent::Spec(spec) => send::Event::Spec(spec.into()),
                Sent::Parcel(parcel) => send::Event::Frame(parcel.into()),
            };
            Ok(pb::SendVolumeResponse { event: Some(event) })
        });
        Ok(Response::new(Box::pin(answers.take_until(self.agent.ended.clone().cancelled_owned()))))
    }
}

impl Api {
    /// What the target says while it receives, until the call ends: its list, read no faster than it is used and no longer than
    /// it is wanted, and how it keeps up.
    fn listing(
        &self,
        mut messages: Streaming<pb::SendVolumeRequest>,
        pace: Pace,
        ended: CancellationToken,
    ) -> mpsc::Receiver<Result<Listing, volume::Error>> {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let passing = async move {
            loop {
                let part = match messages.message().await.map(|message| message.map(|message| message.event)) {
                    Ok(None) => return,
                    Ok(Some(Some(ask::Event::Pace(now)))) => {
                        pace.set_behind(now.behind);
                        continue;
                    }
                    Ok(Some(Some(ask::Event::Base(base)))) => Listing::try_from(base),
                    Ok(Some(_)) => Err(volume::Error::Malformed { problem: "something else than a list follows" }),
                    Err(status) => Err(volume::Error::Transport(Box::new(Error::from(status)))),
                };
                let failed = part.is_err();
                // A list that was not asked for, or goes on behind its end, is read by nobody.
                if sender.send(part).await.is_err() || failed {
                    return;
                }
            }
        };
        self.agent.tasks.spawn(ended.run_until_cancelled_owned(passing));
        receiver
    }
}
