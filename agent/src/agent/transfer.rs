//! Volumes on their way between servers: granted and sent by the source, pulled by the target.
//!
//! Owns who may be where with which volume, and the marks in the ledger around a transfer. How a volume is read and written
//! is the volume engine's business.

use std::{path::PathBuf, sync::Arc};

use feather_proto::{
    error::{Code, Error, reason},
    ids::{Generation, TenantName},
    model::{ContainerState, RootDigest, VolumeSummary},
    tls::Principal,
};
use futures::{Stream, StreamExt as _, future, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Agent, lifecycle::spec_of, locked};
use crate::{
    grant::{Terms, Ticket},
    ledger::Spec,
    peer::{Pass, Peers, Source, SourceSpec, Wanted},
    transition,
    volume::{self, Frame, Limits, Progress},
};

/// What `PullVolume` asks for.
#[derive(Debug, Clone)]
pub(crate) struct PullRequest {
    pub(crate) tenant: TenantName,
    pub(crate) wanted: Wanted,
    pub(crate) source: Source,
}

/// What both ends found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pulled {
    pub(crate) sent: VolumeSummary,
    pub(crate) received: VolumeSummary,
    pub(crate) statistics: Statistics,
}

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Statistics {
    pub(crate) files_examined: u64,
    pub(crate) bytes_examined: u64,
    pub(crate) files_changed: u64,
    pub(crate) bytes_changed: u64,
    pub(crate) files_read: u64,
    pub(crate) bytes_read: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) bytes_reused: u64,
    pub(crate) duration: std::time::Duration,
}

/// One message on its way to a peer.
pub(crate) enum Sent {
    Spec(SourceSpec),
    Frame(Frame),
}

impl Agent {
    /// Lets one peer fetch one sealed volume for a while.
    pub(crate) async fn grant(
        &self,
        tenant: &TenantName,
        terms: Terms,
        ticket: &Ticket,
        life: std::time::Duration,
    ) -> Result<(), Error> {
        let _lock = self.lock(tenant).await;
        transition::admit_grant(self.ledger.get(tenant)?.as_ref(), tenant, terms.generation)?;
        self.grants.grant(tenant, terms, ticket, life);
        Ok(())
    }

    /// Sends a granted volume. The stream fails when the grant is revoked.
    pub(crate) async fn send(
        &self,
        caller: &Principal,
        tenant: &TenantName,
        wanted: Wanted,
        ticket: &str,
    ) -> Result<impl Stream<Item = Result<Sent, Error>> + Send + use<>, Error> {
        let cancelled = self.grants.redeem(caller, tenant, wanted.generation, ticket)?;
        only_final(wanted.pass)?;
        let record = self.ledger.get(tenant)?;
        transition::admit_grant(record.as_ref(), tenant, wanted.generation)?;
        let record = record.ok_or_else(|| Error::bug("a granted tenant has no record"))?;
        if self.container_state(tenant).await? == ContainerState::Running {
            return Err(Error::refused(
                reason::WRONG_STATE,
                format!("{tenant} still runs on this server; stop it for the move again"),
            ));
        }
        let spec = spec_of(&record)?.clone();
        let path = self.volume_path(tenant).await?;
        let total =
            blocking(move || volume::measure(volume::open_root(&path)?).map(|usage| (path, usage.bytes))).await?;
        let frames = volume::frames(volume::open_root(&total.0)?, total.1);
        let first = Sent::Spec(SourceSpec {
            password: spec.password,
            image: spec.image,
            image_digest: spec.image_digest,
            created: spec.created,
        });
        let frames = until_cancelled(frames.map(|frame| frame.map(Sent::Frame).map_err(Error::from)), cancelled);
        Ok(stream::once(future::ready(Ok(first))).chain(frames))
    }

    /// Ends a transfer into this server that is under way.
    pub(crate) fn interrupt_pull(&self, tenant: &TenantName) {
        if let Some(running) = locked(&self.pulls).remove(tenant) {
            running.cancel();
        }
    }

    /// Receives a volume for a reserved move. `cancelled` ends it promptly, and on return nothing writes to the volume any more.
    pub(crate) async fn pull(
        &self,
        request: &PullRequest,
        peers: &Peers,
        cancelled: CancellationToken,
        progress: watch::Sender<Progress>,
    ) -> Result<Pulled, Error> {
        let tenant = &request.tenant;
        let generation = request.wanted.generation;
        only_final(request.wanted.pass)?;
        let began = tokio::time::Instant::now();
        // The newest call wins: its predecessor's caller has evidently given up.
        if let Some(older) = locked(&self.pulls).insert(tenant.clone(), cancelled.clone()) {
            older.cancel();
        }
        let _lock = tokio::select! {
            lock = self.lock(tenant) => lock,
            () = cancelled.cancelled() => return Err(cut_off()),
        };
        let marked = transition::admit_pull(self.ledger.get(tenant)?.as_ref(), tenant, generation)?;
        let fetched = tokio::select! {
            fetched = peers.fetch(&request.source, tenant, request.wanted) => fetched,
            () = cancelled.cancelled() => Err(cut_off()),
        };
        let (source, frames) = fetched?;
        transition::fits(&marked, &source.image_digest)?;
        // A volume kept from an earlier stay is given up only now, when there is something to put in its place.
        let record = self.write(marked).await?;
        let root = self.emptied_volume(tenant).await?;
        let (trailer, frames) = watch_trailer(frames);
        let received = volume::receive(until_cancelled(frames, cancelled), root, self.limits().await?, progress).await;
        let received = match received.map_err(Error::from) {
            Err(error) if error.is(reason::NO_DISK) => {
                // On a full disk neither the ledger nor Podman can take anything back: what came in makes room for that.
                if let Err(left) = self.emptied_volume(tenant).await {
                    tracing::warn!(%tenant, error = %left, "what was received stays on the full disk for now");
                }
                return Err(error);
            }
            received => received?,
        };
        let sent = locked(&trailer).take().ok_or_else(|| Error::bug("a stream was received without its trailer"))?;
        let (sent, received) = (summary(&sent), summary(&received));
        if sent.root_digest != received.root_digest {
            return Err(differs(tenant, &sent, &received));
        }
        let spec = spec_from(source, generation);
        self.write(transition::received(&record, spec, received.clone())?).await?;
        let statistics = Statistics {
            files_examined: sent.files,
            bytes_examined: sent.bytes,
            files_changed: sent.files,
            bytes_changed: sent.bytes,
            files_read: sent.files,
            bytes_read: sent.bytes,
            wire_bytes: sent.data_bytes,
            bytes_reused: 0,
            duration: began.elapsed(),
        };
        Ok(Pulled { sent, received, statistics })
    }

    /// The directory of the tenant's volume, with nothing in it. What an earlier stay or a failed trial left must not look on
    /// while its data is replaced, so the container goes first.
    async fn emptied_volume(&self, tenant: &TenantName) -> Result<std::os::fd::OwnedFd, Error> {
        self.remove_container(tenant).await?;
        let (path, _) = self.runtime.ensure_volume(&tenant.container()).await?;
        blocking(move || {
            volume::clear(volume::open_root(&path)?)?;
            volume::open_root(&path)
        })
        .await
    }

    /// A stream may fill the disk but for what the server itself needs.
    pub(super) async fn limits(&self) -> Result<Limits, Error> {
        let free = self.runtime.capacity().await?.disk_free_bytes;
        Ok(Limits { max_bytes: free, ..Limits::default() })
    }

    /// Directory of a tenant's volume.
    pub(super) async fn volume_path(&self, tenant: &TenantName) -> Result<PathBuf, Error> {
        self.runtime.volume(&tenant.container()).await?.ok_or_else(|| transition::data_missing(tenant))
    }
}

/// The port is the reservation's, which the transition puts in.
fn spec_from(source: SourceSpec, placed: Generation) -> Spec {
    Spec {
        placed,
        port: 0,
        password: source.password,
        image: source.image,
        image_digest: source.image_digest,
        created: source.created,
        found_data: true,
        adopted: None,
    }
}

fn only_final(pass: Pass) -> Result<(), Error> {
    match pass {
        Pass::Final => Ok(()),
        Pass::Live => Err(Error::refused(reason::WRONG_STATE, "this agent sends volumes only once they are sealed")),
    }
}

fn cut_off() -> Error {
    Error::new(Code::Cancelled, reason::CANCELLED, "the transfer was ended by its caller or by a newer call")
}

fn differs(tenant: &TenantName, sent: &VolumeSummary, received: &VolumeSummary) -> Error {
    Error::refused(
        reason::DATA_DIFFERS,
        format!(
            "the volume of {tenant} differs between both ends (sent {}, received {}); nothing was started, move it again",
            sent.root_digest, received.root_digest
        ),
    )
    .with("tenant", tenant)
}

/// The stream, and an error in place of its rest once the token is cancelled.
pub(super) fn until_cancelled<T: Send>(
    items: impl Stream<Item = Result<T, Error>> + Send,
    cancelled: CancellationToken,
) -> impl Stream<Item = Result<T, Error>> + Send {
    let end = cancelled.clone();
    items
        .take_until(cancelled.cancelled_owned())
        .chain(stream::once(async move { end.is_cancelled().then(|| Err(cut_off())) }).filter_map(future::ready))
}

type Trailer = Arc<std::sync::Mutex<Option<volume::Summary>>>;

/// The frames as they are, and a place where the sender's summary will be.
fn watch_trailer(
    frames: impl Stream<Item = Result<Frame, Error>> + Send,
) -> (Trailer, impl Stream<Item = Result<Frame, Error>> + Send) {
    let trailer = Trailer::default();
    let seen = trailer.clone();
    let frames = frames.inspect(move |frame| {
        if let Ok(Frame::Trailer(summary)) = frame {
            *locked(&seen) = Some(summary.clone());
        }
    });
    (trailer, frames)
}

/// Blocking work of the volume engine, off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, volume::Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(volume::Error::Panicked)).map_err(Error::from)
}

/// The engine's summary as the fleet's.
pub(super) fn summary(found: &volume::Summary) -> VolumeSummary {
    VolumeSummary {
        files: found.files,
        directories: found.directories,
        entries: found.entries,
        bytes: found.bytes,
        data_bytes: found.data_bytes,
        skipped_sockets: found.skipped_sockets,
        root_digest: RootDigest(found.root_digest.0),
    }
}
