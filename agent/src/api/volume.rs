//! `feather.agent.v1.VolumeService`.

use std::time::Duration;

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    ids::Generation,
    model::invalid_field,
    pb::{
        agent::v1 as pb,
        agent::v1::{pull_volume_response as pull, volume_service_server::VolumeService},
    },
};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, info_span};

use super::{Answers, Api, authorize, placement};
use crate::{
    agent::{PullRequest, Pulled, Statistics},
    grant::{Terms, Ticket, time_to_live},
    peer::{Source, Wanted},
    volume::{Phase, Progress, Trust},
};

/// How often a pull tells how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

#[tonic::async_trait]
impl VolumeService for Api {
    async fn list_volumes(
        &self,
        request: Request<pb::ListVolumesRequest>,
    ) -> Result<Response<pb::ListVolumesResponse>, Status> {
        authorize(&request)?;
        let volumes = self.agent.volumes().await?.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListVolumesResponse { volumes }))
    }

    async fn get_volume(
        &self,
        request: Request<pb::GetVolumeRequest>,
    ) -> Result<Response<pb::GetVolumeResponse>, Status> {
        authorize(&request)?;
        let (report, usage, bytes_changed, digest) = self.agent.volume(&request.into_inner().tenant.parse()?).await?;
        Ok(Response::new(pb::GetVolumeResponse {
            volume: Some(report.into()),
            disk_bytes: usage.disk_bytes,
            entries: usage.entries,
            bytes: usage.bytes,
            bytes_changed,
            pass_digest: digest.map_or_else(String::new, |digest| digest.to_string()),
        }))
    }

    type ExportVolumeStream = Answers<pb::ExportVolumeResponse>;

    async fn export_volume(
        &self,
        request: Request<pb::ExportVolumeRequest>,
    ) -> Result<Response<Self::ExportVolumeStream>, Status> {
        authorize(&request)?;
        let pieces = self.agent.export(&request.into_inner().tenant.parse()?).await?;
        let answers = pieces.map(|piece| Ok(pb::ExportVolumeResponse { data: piece? }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn import_volume(
        &self,
        request: Request<Streaming<pb::ImportVolumeRequest>>,
    ) -> Result<Response<pb::ImportVolumeResponse>, Status> {
        authorize(&request)?;
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or_else(|| invalid_field("tenant", "in the first message"))?;
        let tenant = first.tenant.parse()?;
        let generation = Generation(first.generation);
        let agent = self.agent.clone();
        let span = info_span!("call", name = "import_volume", tenant = first.tenant, generation = first.generation);
        // In a task of its own: the archive's early end is seen by the import, which then stops writing in good order.
        let work = async move { agent.import(&tenant, generation, archive(first, messages)).await };
        let summary = self.agent.detached(work).instrument(span).await?;
        Ok(Response::new(pb::ImportVolumeResponse { summary: Some(summary.into()) }))
    }

    type PullVolumeStream = Answers<pb::PullVolumeResponse>;

    async fn pull_volume(
        &self,
        request: Request<pb::PullVolumeRequest>,
    ) -> Result<Response<Self::PullVolumeStream>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let source = Source {
            address: request.source_address,
            server: request.source_server.parse()?,
            relayed: request.relayed,
            ticket: Ticket::parse(request.ticket)?,
        };
        let wanted = Wanted::parse(generation.0, request.pass, request.bytes_per_second_max)?;
        let span = info_span!("call", name = "pull_volume", %tenant, %generation, pass = ?wanted.pass);
        Ok(Response::new(self.begin_pull(PullRequest { tenant, wanted, source }, span)))
    }

    async fn verify_volume(
        &self,
        request: Request<pb::VerifyVolumeRequest>,
    ) -> Result<Response<pb::VerifyVolumeResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let trust = match pb::VerifyMode::try_from(request.mode) {
            Ok(pb::VerifyMode::Unspecified | pb::VerifyMode::Full) => Trust::Nothing,
            Ok(pb::VerifyMode::Metadata) => Trust::Stamps,
            Err(_) => return Err(invalid_field("mode", "full or metadata").into()),
        };
        let summary = self.agent.verify(&request.tenant.parse()?, trust).await?;
        Ok(Response::new(pb::VerifyVolumeResponse { summary: Some(summary.into()) }))
    }

    async fn remove_volume(
        &self,
        request: Request<pb::RemoveVolumeRequest>,
    ) -> Result<Response<pb::RemoveVolumeResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let agent = self.agent.clone();
        let span = info_span!("call", name = "remove_volume", %tenant, %generation);
        let work = async move { agent.remove_volume(&tenant, generation).await };
        self.agent.detached(work).instrument(span).await?;
        Ok(Response::new(pb::RemoveVolumeResponse {}))
    }

    async fn grant_transfer(
        &self,
        request: Request<pb::GrantTransferRequest>,
    ) -> Result<Response<pb::GrantTransferResponse>, Status> {
        authorize(&request)?;
        let request = request.into_inner();
        let (tenant, generation) = placement(&request.request_id, &request.tenant, request.generation)?;
        let (ticket, life) = (Ticket::parse(request.ticket)?, time_to_live(request.ttl_seconds)?);
        let terms = Terms { generation, peer: request.peer.parse()?, relayed: request.relayed };
        self.agent.grant(&tenant, terms, &ticket, life).await?;
        Ok(Response::new(pb::GrantTransferResponse {}))
    }
}

impl Api {
    /// The transfer runs in a task of its own. Dropping the answers ends it, and only its own end gives the tenant free.
    fn begin_pull(&self, request: PullRequest, span: tracing::Span) -> Answers<pb::PullVolumeResponse> {
        let (sender, receiver) = mpsc::channel(4);
        let (progress, seen) = watch::channel(Progress::default());
        let cancelled = self.agent.ended.child_token();
        let until_dropped = cancelled.clone().drop_guard();
        let (agent, peers) = (self.agent.clone(), self.peers.clone());
        let task = async move {
            let pulling = agent.pull(&request, &peers, cancelled, progress);
            let mut pulling = std::pin::pin!(pulling);
            let done = loop {
                tokio::select! {
                    done = &mut pulling => break done,
                    () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                        let now = *seen.borrow();
                        // A full channel means that nobody reads; the next message will be newer anyway.
                        drop(sender.try_send(Ok(progress_message(now))));
                    }
                }
            };
            drop(sender.send(done.map(done_message).map_err(Status::from)).await);
        };
        self.agent.tasks.spawn(task.instrument(span));
        Box::pin(ReceiverStream::new(receiver).map(move |answer| {
            let _held = &until_dropped;
            answer
        }))
    }
}

fn progress_message(now: Progress) -> pb::PullVolumeResponse {
    let progress = pb::PullProgress {
        files: now.files,
        bytes: now.bytes,
        total_bytes: now.total_bytes_hint,
        phase: pb::PullPhase::from(now.phase).into(),
        total_files: now.total_files_hint,
        wire_bytes: now.wire_bytes,
    };
    pb::PullVolumeResponse { event: Some(pull::Event::Progress(progress)) }
}

fn done_message(pulled: Pulled) -> pb::PullVolumeResponse {
    let done = pb::PullDone {
        sent: Some(pulled.sent.into()),
        received: Some(pulled.received.into()),
        statistics: Some(pulled.statistics.into()),
    };
    pb::PullVolumeResponse { event: Some(pull::Event::Done(done)) }
}

impl From<Phase> for pb::PullPhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Preparing => Self::Preparing,
            Phase::Receiving => Self::Receiving,
            Phase::Syncing => Self::Syncing,
        }
    }
}

impl From<Statistics> for pb::PassStatistics {
    fn from(found: Statistics) -> Self {
        Self {
            files_examined: found.files_examined,
            bytes_examined: found.bytes_examined,
            files_changed: found.files_changed,
            bytes_changed: found.bytes_changed,
            wire_bytes: found.wire_bytes,
            bytes_reused: found.bytes_reused,
            duration_ms: u64::try_from(found.duration.as_millis()).unwrap_or(u64::MAX),
            files_read: found.files_read,
            bytes_read: found.bytes_read,
        }
    }
}

/// The pieces of an archive. One that ends without its last message was cut off on the way.
fn archive(
    first: pb::ImportVolumeRequest,
    rest: Streaming<pb::ImportVolumeRequest>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    enum State {
        First(pb::ImportVolumeRequest, Streaming<pb::ImportVolumeRequest>),
        More(Streaming<pb::ImportVolumeRequest>),
        End,
    }
    stream::try_unfold(State::First(first, rest), |state| async move {
        let (message, rest) = match state {
            State::First(message, rest) => (message, rest),
            State::More(mut rest) => match rest.message().await? {
                Some(message) => (message, rest),
                None => return Err(cut_off()),
            },
            State::End => return Ok(None),
        };
        if message.data.len() > super::PIECE_MAX_BYTES {
            return Err(invalid_field("data", "at most 1 MiB"));
        }
        let next = if message.end { State::End } else { State::More(rest) };
        Ok(Some((message.data, next)))
    })
}

fn cut_off() -> Error {
    Error::invalid(reason::BAD_STREAM, "the archive was cut off before its end; import the whole archive again")
}
