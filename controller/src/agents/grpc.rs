//! Real agents, over gRPC with mutual TLS.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use feather_proto::{
    adoption::Finding,
    email::EmailAddress,
    epoch::{Epoch, Stamp},
    error::{Error, reason},
    ids::{Generation, ServerName, TenantName},
    limits::Limits,
    model::{
        HeldCertificate, Image, ServerSnapshot, StartMode, StopReason, TenantReport, VolumeExpectation, VolumeSummary,
        from_timestamp, invalid_field, required, to_timestamp,
    },
    pb::{
        agent::v1::{
            self as pb, access_service_client::AccessServiceClient, adoption_service_client::AdoptionServiceClient,
            certificate_service_client::CertificateServiceClient, image_service_client::ImageServiceClient,
            pull_volume_response::Event, server_service_client::ServerServiceClient,
            tenant_service_client::TenantServiceClient, transfer_service_client::TransferServiceClient,
            volume_service_client::VolumeServiceClient, waitlist_service_client::WaitlistServiceClient,
            work_service_client::WorkServiceClient,
        },
        types::v1 as types,
    },
    tls::{self, Channel, Dial, Principal, PublicCertificate, Revocation, Rotating, Trust},
    version::{self, Heard},
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use time::OffsetDateTime;
use tonic::{Request, Response, Status, service::interceptor::InterceptedService};

use super::{
    Added, Agent, Agents, Call, Heeded, ImageWanted, LogLine, OnProgress, Pass, Peer, Phase, Probed, PullFrom, Pulled,
    Reached, Reading, SignUp, SignUps, TransferProgress, Tried, VolumeNow,
};
use crate::world::Password;

/// Deadline of calls that only look or note something down.
const QUICK: Duration = Duration::from_secs(10);
/// An agent that reaches none of 64 others takes 12 s to say so.
const PROBE: Duration = Duration::from_secs(20);
/// Deadline of calls that start or stop a container and wait for it; above the agent's own limits (120 s for health).
const SLOW: Duration = Duration::from_secs(180);
/// Deadline of one message of a transfer: progress comes several times a second.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A snapshot of a full server is some tens of KiB.
const MESSAGE_MAX_BYTES: usize = 8 << 20;

/// What a target asks of a source, message by message, unread.
pub type Asked = BoxStream<'static, pb::SendVolumeRequest>;
/// What the source sends, likewise.
pub type SentVolume = BoxStream<'static, Result<pb::SendVolumeResponse, Error>>;

/// A channel whose calls say under which lead they are made.
type Led = InterceptedService<Channel, Stamp>;

/// Channels to agents, one for each server and address.
pub struct GrpcAgents {
    dial: Arc<dyn Dial>,
    identity: Rotating,
    epoch: Epoch,
    channels: Mutex<BTreeMap<(Principal, String), Channel>>,
}

impl GrpcAgents {
    /// Dials with this identity, and calls under this lead.
    pub fn new(dial: Arc<dyn Dial>, identity: Rotating, epoch: Epoch) -> Self {
        Self { dial, identity, epoch, channels: Mutex::default() }
    }
}

impl Agents for GrpcAgents {
    fn agent(&self, server: &ServerName, identity: &Principal, address: &str) -> Result<Arc<dyn Agent>, Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (identity.clone(), address.to_owned());
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let trust = Trust::Mutual(self.identity.clone());
                let channel = tls::channel(self.dial.clone(), address, identity, &trust)
                    .map_err(|error| Error::bug(error.to_string()))?;
                channels.insert(key, channel.clone());
                channel
            }
        };
        let heard = channel.heard().clone();
        let channel = Led::new(channel, self.epoch.stamp());
        Ok(Arc::new(GrpcAgent { server: server.clone(), channel, heard }))
    }
}

struct GrpcAgent {
    server: ServerName,
    channel: Led,
    /// What the agent says it speaks.
    heard: Heard,
}

/// A snapshot, and what the head of the answer that it came in says of its sender.
fn observed(snapshot: Option<pb::ServerSnapshot>, heard: &Heard) -> Result<ServerSnapshot, Error> {
    let snapshot = ServerSnapshot::try_from(required(snapshot, "snapshot")?)?;
    Ok(ServerSnapshot { protocol: heard.range().unwrap_or(version::SILENT), ..snapshot })
}

impl GrpcAgent {
    fn tenants(&self) -> TenantServiceClient<Led> {
        TenantServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn volumes(&self) -> VolumeServiceClient<Led> {
        VolumeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn servers(&self) -> ServerServiceClient<Led> {
        ServerServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn images(&self) -> ImageServiceClient<Led> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn waitlist(&self) -> WaitlistServiceClient<Led> {
        WaitlistServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn adoption(&self) -> AdoptionServiceClient<Led> {
        AdoptionServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn certificates(&self) -> CertificateServiceClient<Led> {
        CertificateServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn access(&self) -> AccessServiceClient<Led> {
        AccessServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn work(&self) -> WorkServiceClient<Led> {
        WorkServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// Our sentence for a server that cannot be reached; every other error keeps its own.
    fn error(&self, status: Status) -> Error {
        let error = Error::from(status);
        if error.code.retryable() && error.is(reason::SERVER_UNREACHABLE) {
            return Error::new(
                error.code,
                reason::SERVER_UNREACHABLE,
                format!(
                    "the agent of {} cannot be reached ({}); is the server up, and its port open to the controller?",
                    self.server, error.message
                ),
            )
            .with("server", &self.server);
        }
        error.with("server", &self.server)
    }

    fn value<T>(&self, reply: Result<Response<T>, Status>) -> Result<T, Error> {
        reply.map(Response::into_inner).map_err(|status| self.error(status))
    }
}

fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn findings(found: Vec<types::AdoptionFinding>) -> Result<Vec<Finding>, Error> {
    found.into_iter().map(TryInto::try_into).collect()
}

fn fields(call: &Call) -> (String, String, u64) {
    (call.request_id.to_string(), call.tenant.to_string(), call.generation.0)
}

#[async_trait]
impl Agent for GrpcAgent {
    async fn snapshot(&self) -> Result<ServerSnapshot, Error> {
        let reply = self.value(self.servers().get_info(within(pb::GetInfoRequest {}, QUICK)).await)?;
        observed(reply.snapshot, &self.heard)
    }

    async fn watch(&self, heartbeat: Duration) -> Result<BoxStream<'static, Result<ServerSnapshot, Error>>, Error> {
        let heartbeat_ms = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX);
        let stream = self.value(self.servers().watch(pb::WatchRequest { heartbeat_ms }).await)?;
        let heard = self.heard.clone();
        Ok(stream.map(move |message| observed(message.map_err(Error::from)?.snapshot, &heard)).boxed())
    }

    async fn probe(&self, peers: &[Peer]) -> Result<Probed, Error> {
        let peer = |peer: &Peer| pb::ProbePeer { server: peer.server.name.clone(), address: peer.address.clone() };
        let message = pb::ProbeRequest { peers: peers.iter().map(peer).collect() };
        let reply = self.value(self.servers().probe(within(message, PROBE)).await)?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        let reached = |peer: pb::ProbedPeer| {
            let (took, problem) = (Duration::from_millis(peer.took_ms), some(peer.problem));
            Ok(Reached { server: peer.server.parse()?, took, problem })
        };
        let peers = reply.peers.into_iter().map(reached).collect::<Result<_, Error>>()?;
        Ok(Probed { router_problem: some(reply.router_problem), peers })
    }

    async fn plan_adoption(&self) -> Result<(Vec<Finding>, Vec<String>), Error> {
        let reply = self.value(self.adoption().plan_adoption(within(pb::PlanAdoptionRequest {}, SLOW)).await)?;
        Ok((findings(reply.findings)?, reply.problems))
    }

    async fn adopt_tenants(
        &self,
        request_id: uuid::Uuid,
        tenants: &BTreeSet<TenantName>,
    ) -> Result<Vec<Finding>, Error> {
        let tenants = tenants.iter().map(ToString::to_string).collect();
        let message = pb::AdoptTenantsRequest { request_id: request_id.to_string(), tenants };
        findings(self.value(self.adoption().adopt_tenants(within(message, SLOW)).await)?.findings)
    }

    async fn set_certificate(&self, certificate: &PublicCertificate) -> Result<HeldCertificate, Error> {
        let PublicCertificate { chain_pem, key_pem } = certificate.clone();
        let message = pb::SetCertificateRequest { chain_pem, key_pem };
        let reply = self.value(self.certificates().set_certificate(within(message, QUICK)).await)?;
        required(reply.held, "held")?.try_into()
    }

    async fn set_revocations(&self, list: &[Revocation]) -> Result<String, Error> {
        let message = pb::SetRevocationsRequest { revocations: list.iter().cloned().map(Into::into).collect() };
        Ok(self.value(self.access().set_revocations(within(message, QUICK)).await)?.digest)
    }

    async fn heeded(&self) -> Result<Heeded, Error> {
        let reply = self.value(self.access().get_access(within(pb::GetAccessRequest {}, QUICK)).await)?;
        let refused = reply.revocations.into_iter().map(Revocation::try_from).collect::<Result<_, _>>()?;
        Ok(Heeded { refused, lead: reply.lead })
    }

    async fn try_swap(&self, swap: uuid::Uuid, image_digest: &str) -> Result<Tried, Error> {
        let message = pb::TrySwapRequest { request_id: swap.to_string(), image: image_digest.to_owned() };
        let reply = self.value(self.work().try_swap(within(message, SLOW)).await)?;
        Ok(Tried { container: reply.container, port: reply.port, healthy_after_ms: reply.healthy_after_ms })
    }

    async fn commit_swap(&self, swap: uuid::Uuid) -> Result<(), Error> {
        let message = pb::CommitSwapRequest { request_id: swap.to_string() };
        self.value(self.work().commit_swap(within(message, SLOW)).await).map(drop)
    }

    async fn abandon_swap(&self, swap: uuid::Uuid) -> Result<(), Error> {
        let message = pb::AbandonSwapRequest { request_id: swap.to_string() };
        self.value(self.work().abandon_swap(within(message, SLOW)).await).map(drop)
    }

    async fn add_tenant(&self, call: &Call, volume: VolumeExpectation, limits: Limits) -> Result<Added, Error> {
        let (request_id, tenant, generation) = fields(call);
        let (image, volume, limits) = (String::new(), volume.into(), limits.encode());
        let message = pb::AddTenantRequest { request_id, tenant, generation, image, volume, limits };
        let reply = self.value(self.tenants().add_tenant(within(message, SLOW)).await)?;
        Ok(Added {
            tenant: required(reply.tenant, "tenant")?.try_into()?,
            password: Password(reply.password),
            found_data: reply.found_data,
        })
    }

    async fn remove_tenant(&self, call: &Call, discard_new: bool) -> Result<(), Error> {
        let (request_id, tenant, generation) = fields(call);
        let message = pb::RemoveTenantRequest { request_id, tenant, generation, discard_new_volume: discard_new };
        self.value(self.tenants().remove_tenant(within(message, SLOW)).await).map(drop)
    }

    async fn start_tenant(&self, call: &Call, mode: StartMode) -> Result<u64, Error> {
        let (request_id, tenant, generation) = fields(call);
        let message = pb::StartTenantRequest { request_id, tenant, generation, mode: mode.into() };
        let reply = self.value(self.tenants().start_tenant(within(message, SLOW)).await)?;
        Ok(reply.healthy_after_ms)
    }

    async fn restart_tenant(&self, call: &Call) -> Result<u64, Error> {
        let (request_id, tenant, generation) = fields(call);
        let message = pb::RestartTenantRequest { request_id, tenant, generation };
        let reply = self.value(self.tenants().restart_tenant(within(message, SLOW)).await)?;
        Ok(reply.healthy_after_ms)
    }

    async fn stop_tenant(&self, call: &Call, reason: StopReason) -> Result<(), Error> {
        let (request_id, tenant, generation) = fields(call);
        let message = pb::StopTenantRequest { request_id, tenant, generation, reason: reason.into() };
        self.value(self.tenants().stop_tenant(within(message, SLOW)).await).map(drop)
    }

    async fn limit_tenant(&self, call: &Call, limits: Limits, check_only: bool) -> Result<TenantReport, Error> {
        let (request_id, tenant, generation) = fields(call);
        let limits = Some(limits.into());
        let message = pb::LimitTenantRequest { request_id, tenant, generation, limits, check_only };
        let reply = self.value(self.tenants().limit_tenant(within(message, QUICK)).await)?;
        required(reply.tenant, "tenant")?.try_into()
    }

    async fn reset_password(&self, call: &Call) -> Result<Password, Error> {
        let (request_id, tenant, generation) = fields(call);
        let message = pb::ResetPasswordRequest { request_id, tenant, generation };
        let reply = self.value(self.tenants().reset_password(within(message, SLOW)).await)?;
        Ok(Password(reply.password))
    }

    async fn tail_logs(
        &self,
        tenant: &TenantName,
        lines: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        let message = pb::TailLogsRequest { tenant: tenant.to_string(), lines, follow };
        let stream = self.value(self.tenants().tail_logs(message).await)?;
        Ok(stream
            .map(|message| {
                let line = required(message.map_err(Error::from)?.line, "line")?;
                Ok(LogLine { text: line.text, stderr: line.stderr })
            })
            .boxed())
    }

    async fn reserve(&self, call: &Call, image_digest: &str, volume_bytes: u64) -> Result<u16, Error> {
        let (request_id, tenant, generation) = fields(call);
        let image_digest = image_digest.to_owned();
        let message = pb::ReserveTenantRequest { request_id, tenant, generation, image_digest, volume_bytes };
        let reply = self.value(self.tenants().reserve_tenant(within(message, QUICK)).await)?;
        u16::try_from(reply.port).map_err(|_| invalid_field("port", "a port number"))
    }

    async fn abandon(&self, call: &Call, keep_data: bool) -> Result<(), Error> {
        let (request_id, tenant, generation) = fields(call);
        let message = pb::AbandonTenantRequest { request_id, tenant, generation, keep_data };
        self.value(self.tenants().abandon_tenant(within(message, SLOW)).await).map(drop)
    }

    async fn activate(&self, call: &Call, running: bool) -> Result<(), Error> {
        let (request_id, tenant, generation) = fields(call);
        let message = pb::ActivateTenantRequest { request_id, tenant, generation, stopped: !running };
        self.value(self.tenants().activate_tenant(within(message, SLOW)).await).map(drop)
    }

    async fn hand_off(&self, call: &Call, forward_to: Option<&str>) -> Result<Option<u64>, Error> {
        let (request_id, tenant, generation) = fields(call);
        let forward_to = forward_to.unwrap_or_default().to_owned();
        let message = pb::HandOffTenantRequest { request_id, tenant, generation, forward_to };
        let reply = self.value(self.tenants().hand_off_tenant(within(message, SLOW)).await)?;
        Ok(Some(reply.held_ms).filter(|held_ms| *held_ms > 0))
    }

    async fn retire(&self, call: &Call, keep_until: OffsetDateTime) -> Result<(), Error> {
        let (request_id, tenant, generation) = fields(call);
        let keep_until = Some(to_timestamp(keep_until));
        let message = pb::RetireTenantRequest { request_id, tenant, generation, keep_until };
        self.value(self.tenants().retire_tenant(within(message, SLOW)).await).map(drop)
    }

    async fn reclaim(&self, call: &Call, needs_data: bool) -> Result<(), Error> {
        let (request_id, tenant, generation) = fields(call);
        let message = pb::ReclaimTenantRequest { request_id, tenant, generation, needs_data };
        self.value(self.tenants().reclaim_tenant(within(message, SLOW)).await).map(drop)
    }

    async fn volume(&self, tenant: &TenantName) -> Result<VolumeNow, Error> {
        let message = pb::GetVolumeRequest { tenant: tenant.to_string() };
        let reply = self.value(self.volumes().get_volume(within(message, SLOW)).await)?;
        Ok(VolumeNow {
            report: required(reply.volume, "volume")?.try_into()?,
            disk_bytes: reply.disk_bytes,
            entries: reply.entries,
            bytes: reply.bytes,
            bytes_changed: reply.bytes_changed,
            pass_digest: Some(reply.pass_digest).filter(|digest| !digest.is_empty()),
        })
    }

    async fn grant_transfer(&self, call: &Call, peer: &Principal, ticket: &str, relayed: bool) -> Result<(), Error> {
        let (request_id, tenant, generation) = fields(call);
        let (peer, ticket) = (peer.name.clone(), ticket.to_owned());
        // As long as agents allow: before it asks, a target may have to read all of an older copy.
        let ttl_seconds = 3600;
        let message = pb::GrantTransferRequest { request_id, tenant, generation, peer, ticket, ttl_seconds, relayed };
        self.value(self.volumes().grant_transfer(within(message, QUICK)).await).map(drop)
    }

    async fn send_volume(&self, asked: Asked) -> Result<SentVolume, Error> {
        let mut client = TransferServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        // No deadline: whoever fetches notices silence.
        let stream = self.value(client.send_volume(passed_on(asked)).await)?;
        Ok(stream.map(|message| message.map_err(Error::from)).boxed())
    }

    async fn pull_volume(
        &self,
        call: &Call,
        from: &PullFrom,
        pass: Pass,
        progress: OnProgress,
    ) -> Result<Pulled, Error> {
        let pass = match pass {
            Pass::Live => pb::TransferPass::Live,
            Pass::Final => pb::TransferPass::Final,
        };
        let (request_id, tenant, generation) = fields(call);
        let message = pb::PullVolumeRequest {
            request_id,
            tenant,
            generation,
            source_address: from.address.clone(),
            source_server: from.server.name.clone(),
            ticket: from.ticket.clone(),
            pass: pass.into(),
            bytes_per_second_max: from.bytes_per_second_max.unwrap_or(0),
            relayed: from.relayed,
        };
        let mut stream = self.value(self.volumes().pull_volume(message).await)?;
        loop {
            let message = tokio::time::timeout(SILENCE_MAX, stream.try_next())
                .await
                .map_err(|_| {
                    Error::timeout(
                        reason::SERVER_UNREACHABLE,
                        format!("the transfer to {} went silent for {} s", self.server, SILENCE_MAX.as_secs()),
                    )
                })?
                .map_err(|status| self.error(status))?;
            match required(message, "event")?.event {
                Some(Event::Progress(now)) => {
                    progress(TransferProgress {
                        phase: phase(now.phase()),
                        files: now.files,
                        bytes: now.bytes,
                        total_bytes: now.total_bytes,
                        total_files: now.total_files,
                        wire_bytes: now.wire_bytes,
                        round: 0,
                        bytes_per_second: 0,
                    });
                }
                Some(Event::Done(done)) => {
                    let statistics = done.statistics.unwrap_or_default();
                    return Ok(Pulled {
                        sent: required(done.sent, "sent")?.try_into()?,
                        received: required(done.received, "received")?.try_into()?,
                        files_changed: statistics.files_changed,
                        bytes_changed: statistics.bytes_changed,
                        wire_bytes: statistics.wire_bytes,
                    });
                }
                None => return Err(invalid_field("event", "present")),
            }
        }
    }

    async fn verify_volume(&self, tenant: &TenantName, reading: Reading) -> Result<VolumeSummary, Error> {
        // No deadline of its own: a volume takes what it takes, and a dead connection is noticed by its keep-alive.
        let mode = match reading {
            Reading::Everything => pb::VerifyMode::Full,
            Reading::WhatMayHaveChanged => pb::VerifyMode::Metadata,
        };
        let message = pb::VerifyVolumeRequest { tenant: tenant.to_string(), mode: mode.into() };
        let reply = self.value(self.volumes().verify_volume(message).await)?;
        required(reply.summary, "summary")?.try_into()
    }

    async fn export_volume(&self, tenant: &TenantName) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let message = pb::ExportVolumeRequest { tenant: tenant.to_string() };
        let stream = self.value(self.volumes().export_volume(message).await)?;
        Ok(stream.map(|piece| Ok(piece.map_err(Error::from)?.data)).boxed())
    }

    async fn import_volume(
        &self,
        tenant: &TenantName,
        generation: Generation,
        archive: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<VolumeSummary, Error> {
        let first = pb::ImportVolumeRequest {
            tenant: tenant.to_string(),
            generation: generation.0,
            data: Bytes::new(),
            end: false,
        };
        let messages = futures::stream::iter([first]).chain(import_messages(archive));
        let reply = self.value(self.volumes().import_volume(messages).await)?;
        required(reply.summary, "summary")?.try_into()
    }

    async fn load_image(
        &self,
        wanted: &ImageWanted,
        archive: BoxStream<'static, Result<Bytes, Error>>,
    ) -> Result<Vec<Image>, Error> {
        let first = pb::LoadImageRequest {
            size_bytes: wanted.size_bytes,
            expected_digest: wanted.digest.clone().unwrap_or_default(),
            ..Default::default()
        };
        let messages = futures::stream::iter([first]).chain(load_messages(archive));
        // No deadline of its own: an image takes what it takes, and a dead connection is noticed by its keep-alive.
        let reply = self.value(self.images().load_image(messages).await)?;
        Ok(reply.images.into_iter().map(Image::from).collect())
    }

    async fn export_image(&self, image: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let message = pb::ExportImageRequest { image: image.to_owned() };
        let stream = self.value(self.images().export_image(message).await)?;
        Ok(stream.map(|piece| Ok(piece.map_err(Error::from)?.data)).boxed())
    }

    async fn sign_ups(&self) -> Result<SignUps, Error> {
        let mut pages = self.value(self.waitlist().list_entries(within(pb::ListEntriesRequest {}, SLOW)).await)?;
        let mut all = SignUps::default();
        while let Some(page) = pages.try_next().await.map_err(|status| self.error(status))? {
            all.problem = all.problem.or(Some(page.problem).filter(|problem| !problem.is_empty()));
            for entry in page.entries {
                all.entries.push(sign_up(entry)?);
            }
        }
        Ok(all)
    }

    async fn sign_up(&self, email: &EmailAddress) -> Result<Option<SignUp>, Error> {
        let message = pb::GetEntryRequest { email: email.as_str().to_owned() };
        let reply = self.value(self.waitlist().get_entry(within(message, QUICK)).await)?;
        reply.entry.map(sign_up).transpose()
    }

    async fn remove_sign_up(&self, email: &EmailAddress) -> Result<bool, Error> {
        let message = pb::RemoveEntryRequest { email: email.as_str().to_owned() };
        Ok(self.value(self.waitlist().remove_entry(within(message, QUICK)).await)?.removed)
    }
}

/// Hides what kind of stream it is, which the compiler cannot see through in the future of a call.
fn passed_on(asked: Asked) -> impl Stream<Item = pb::SendVolumeRequest> + Send + use<> {
    asked
}

fn phase(phase: pb::PullPhase) -> Phase {
    match phase {
        pb::PullPhase::Unspecified => Phase::Unknown,
        pb::PullPhase::Preparing => Phase::Preparing,
        pb::PullPhase::Receiving => Phase::Receiving,
        pb::PullPhase::Syncing => Phase::Syncing,
    }
}

fn sign_up(entry: pb::WaitlistEntry) -> Result<SignUp, Error> {
    Ok(SignUp { email: entry.email.parse()?, at: from_timestamp(&required(entry.signed_up, "signed_up")?)? })
}

/// The same for an image.
fn load_messages(archive: BoxStream<'static, Result<Bytes, Error>>) -> impl Stream<Item = pb::LoadImageRequest> + Send {
    futures::stream::unfold(Some(archive), |archive| async move {
        let mut archive = archive?;
        match archive.next().await {
            Some(Ok(data)) => Some((pb::LoadImageRequest { data, ..Default::default() }, Some(archive))),
            Some(Err(error)) => {
                tracing::info!(%error, "image cut off");
                None
            }
            None => Some((pb::LoadImageRequest { end: true, ..Default::default() }, None)),
        }
    })
}

/// A broken archive ends the stream without the `end` mark, and the agent refuses it as cut off.
fn import_messages(
    archive: BoxStream<'static, Result<Bytes, Error>>,
) -> impl Stream<Item = pb::ImportVolumeRequest> + Send {
    futures::stream::unfold(Some(archive), |archive| async move {
        let mut archive = archive?;
        match archive.next().await {
            Some(Ok(data)) => Some((pb::ImportVolumeRequest { data, ..Default::default() }, Some(archive))),
            Some(Err(error)) => {
                tracing::info!(%error, "import cut off");
                None
            }
            None => Some((pb::ImportVolumeRequest { end: true, ..Default::default() }, None)),
        }
    })
}
