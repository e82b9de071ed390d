//! The client end of one call: a tenant's spec and volume from the agent it lives with.
//!
//! Owns dialling a peer and decoding what it sends. Trusts nothing of it but its certificate; what the frames mean is checked
//! by the volume engine.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    ids::{Generation, ServerName, TenantName},
    limits::Limits,
    model,
    pb::agent::v1::{self as pb, transfer_service_client::TransferServiceClient},
    tls::{self, Principal, Rotating, Trust},
};
use futures::{Stream, StreamExt as _, stream};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    grant::Ticket,
    password::Password,
    volume::{self, BaseUse, Digest, Frame, Parcel, Progress, Volume},
};

/// Messages of a list on their way.
const IN_FLIGHT: usize = 2;

/// A message of a list holds at most 6 MiB and its envelope.
pub(crate) const MESSAGE_MAX_BYTES: usize = 8 << 20;
/// A frame is at most 3 MiB: a batch of 2 MiB and its envelope. What a message may hold bounds what a peer can make of it in memory.
const FRAME_MAX_BYTES: usize = (3 << 20) + 1024;

/// A lower limit would keep a tenant waiting for days.
const RATE_BYTES_MIN: u64 = 16 * 1024;

/// What a source says of a tenant.
#[derive(Debug, Clone)]
pub(crate) struct SourceSpec {
    pub(crate) password: Password,
    pub(crate) image: String,
    pub(crate) image_digest: String,
    pub(crate) created: OffsetDateTime,
    pub(crate) limits: Limits,
}

/// Where a volume comes from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// `host:port`.
    pub(crate) address: String,
    /// The peer's certificate must carry this name.
    pub(crate) server: ServerName,
    /// The controller is at that address and passes on what the peer says.
    pub(crate) relayed: bool,
    pub(crate) ticket: Ticket,
}

/// What a pass over a volume is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The source may be in use; nothing is ever started on what arrives.
    Live,
    /// The source is sealed; what arrives is proved equal.
    Final,
}

/// What is asked of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) generation: Generation,
    pub(crate) pass: Pass,
    /// `None` for no limit.
    pub(crate) bytes_per_second_max: Option<u64>,
}

/// What this server has of a volume before a pass.
pub(crate) struct Has {
    pub(crate) base: Option<Digest>,
    /// Where its list comes from, should the peer ask for it.
    pub(crate) volume: Option<(Volume, OwnedFd)>,
    pub(crate) progress: watch::Sender<Progress>,
}

impl Has {
    fn count(&self, message: &pb::SendVolumeResponse) {
        let bytes = feather_proto::encoded_bytes(message);
        self.progress.send_modify(|now| now.wire_bytes += bytes);
    }

    /// Tells the peer whenever frames begin or cease to wait for the disk here, until the guard is dropped.
    fn keep_up(&self, ask: mpsc::Sender<pb::SendVolumeRequest>) -> DropGuard {
        let ended = CancellationToken::new();
        let mut progress = self.progress.subscribe();
        let telling = async move {
            let mut told = false;
            while progress.wait_for(|now| now.behind != told).await.is_ok() {
                told = !told;
                let event = Some(pb::send_volume_request::Event::Pace(pb::SendVolumePace { behind: told }));
                if ask.send(pb::SendVolumeRequest { event }).await.is_err() {
                    return;
                }
            }
        };
        tokio::spawn(ended.clone().run_until_cancelled_owned(telling));
        ended.drop_guard()
    }

    /// Begins to tell the peer what is here.
    fn tell(&mut self, ask: mpsc::Sender<pb::SendVolumeRequest>) {
        let Some((volume, root)) = self.volume.take() else { return };
        let progress = self.progress.clone();
        let telling = async move {
            let mut list = volume::listing(volume, root);
            while let Some(part) = list.next().await {
                // A list that cannot be read on is cut off, which ends the pass at the other end.
                let Ok(part) = part else { return };
                let event = Some(pb::send_volume_request::Event::Base(part.into()));
                let message = pb::SendVolumeRequest { event };
                progress.send_modify(|now| now.wire_bytes += feather_proto::encoded_bytes(&message));
                if ask.send(message).await.is_err() {
                    return;
                }
            }
        };
        tokio::spawn(telling);
    }
}

/// Calls to peers, with this server's identity.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) dial: Arc<dyn tls::Dial>,
    pub(crate) identity: Rotating,
}

/// A peer has this long to prove who it is and to answer.
const REACH_MAX: Duration = Duration::from_secs(3);

impl Peers {
    /// Dials a peer anew and waits for its answer to a health check. How long that took, and why it was not reached.
    pub(crate) async fn reach(&self, server: &ServerName, address: &str) -> (Duration, Option<String>) {
        let begun = Instant::now();
        let reached = tokio::time::timeout(REACH_MAX, self.greet(server, address)).await;
        let problem = match reached {
            Ok(greeted) => greeted.err(),
            Err(_) => Some(format!("no answer within {} s", REACH_MAX.as_secs())),
        };
        (begun.elapsed(), problem)
    }

    async fn greet(&self, server: &ServerName, address: &str) -> Result<(), String> {
        let trust = Trust::Mutual(self.identity.clone());
        let channel = tls::channel(self.dial.clone(), address, &Principal::agent(server), &trust)
            .map_err(|error| error.to_string())?;
        let mut client = HealthClient::new(channel);
        let answered = client.check(HealthCheckRequest { service: String::new() }).await;
        answered.map(drop).map_err(|status| Error::from(status).message)
    }

    /// Begins to fetch: the spec, then the frames of the volume.
    pub(crate) async fn fetch(
        &self,
        source: &Source,
        tenant: &TenantName,
        wanted: Wanted,
        has: Has,
    ) -> Result<(SourceSpec, impl Stream<Item = Result<Frame, Error>> + Send + use<>), Error> {
        let expected = if source.relayed { Principal::controller() } else { Principal::agent(&source.server) };
        let trust = Trust::Mutual(self.identity.clone());
        let channel = tls::channel(self.dial.clone(), &source.address, &expected, &trust)
            .map_err(|error| Error::bug(error.to_string()))?;
        let mut client = TransferServiceClient::new(channel)
            .max_decoding_message_size(FRAME_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        let begin = pb::SendVolumeBegin {
            tenant: tenant.to_string(),
            generation: wanted.generation.0,
            ticket: source.ticket.expose().to_owned(),
            pass: pb::TransferPass::from(wanted.pass).into(),
            bytes_per_second_max: wanted.bytes_per_second_max.unwrap_or(0),
            base_digest: has.base.map_or_else(Bytes::new, Bytes::from),
            packed: true,
        };
        let begin = pb::SendVolumeRequest { event: Some(pb::send_volume_request::Event::Begin(begin)) };
        let (ask, asked) = mpsc::channel(IN_FLIGHT);
        let ended = has.keep_up(ask.clone());
        let requests = stream::iter([begin]).chain(ReceiverStream::new(asked));
        let attempt = format!("the volume of {tenant} cannot be fetched from {} at {}", source.server, source.address);
        let relayed = source.relayed;
        let failed = move |status| out_of_reach(Error::from(status), relayed).context(&attempt);
        let mut stream = client.send_volume(requests).await.map_err(&failed)?.into_inner();
        let first = stream.message().await.map_err(&failed)?.and_then(|message| message.event);
        let Some(pb::send_volume_response::Event::Spec(spec)) = first else {
            return Err(bad_stream("it does not begin with the tenant's spec"));
        };
        let spec = SourceSpec::try_from(spec)?;
        let mut has = has;
        let frames = stream.map(move |message| {
            let _ends_with_the_call = &ended;
            let message = message.map_err(&failed)?;
            has.count(&message);
            let Some(pb::send_volume_response::Event::Frame(frame)) = message.event else {
                return Err(bad_stream("something else than a frame follows"));
            };
            let frame = Parcel::try_from(frame)?.open()?;
            if matches!(&frame, Frame::Header(header) if header.base == BaseUse::Listed) {
                has.tell(ask.clone());
            }
            Ok(frame)
        });
        Ok((spec, frames))
    }
}

impl Wanted {
    /// From the fields of a message. A final pass is what callers get who do not say.
    pub(crate) fn parse(generation: u64, pass: i32, bytes_per_second_max: u64) -> Result<Self, Error> {
        let pass = match pb::TransferPass::try_from(pass) {
            Ok(pb::TransferPass::Live) => Pass::Live,
            Ok(pb::TransferPass::Final | pb::TransferPass::Unspecified) => Pass::Final,
            Err(_) => return Err(model::invalid_field("pass", "live or final")),
        };
        let bytes_per_second_max = match bytes_per_second_max {
            0 => None,
            1..RATE_BYTES_MIN => {
                return Err(model::invalid_field("bytes_per_second_max", "0 for no limit, or at least 16 KiB"));
            }
            limit => Some(limit),
        };
        Ok(Self { generation: Generation(generation), pass, bytes_per_second_max })
    }
}

impl From<Pass> for pb::TransferPass {
    fn from(pass: Pass) -> Self {
        match pass {
            Pass::Live => Self::Live,
            Pass::Final => Self::Final,
        }
    }
}

impl TryFrom<pb::TenantSpec> for SourceSpec {
    type Error = Error;

    fn try_from(spec: pb::TenantSpec) -> Result<Self, Error> {
        Ok(Self {
            password: Password::received(spec.password)?,
            image: spec.image,
            image_digest: spec.image_digest,
            created: model::from_timestamp(&model::required(spec.created, "created")?)?,
            limits: Limits::decode(spec.limits)?,
        })
    }
}

impl From<SourceSpec> for pb::TenantSpec {
    fn from(spec: SourceSpec) -> Self {
        Self {
            password: spec.password.expose().to_owned(),
            image: spec.image,
            image_digest: spec.image_digest,
            created: Some(model::to_timestamp(spec.created)),
            limits: spec.limits.encode(),
        }
    }
}

/// Says which of the two ways is closed: whoever asked for the transfer may reach both ends.
fn out_of_reach(error: Error, relayed: bool) -> Error {
    let closed = if relayed { reason::CONTROLLER_UNREACHABLE } else { reason::PEER_UNREACHABLE };
    match error.is(reason::SERVER_UNREACHABLE) {
        true => Error { reason: closed.into(), ..error },
        false => error,
    }
}

fn bad_stream(problem: &str) -> Error {
    Error::invalid(
        reason::BAD_STREAM,
        format!("the peer's volume stream is refused: {problem}; run the same version on both servers"),
    )
}
