//! Volumes on their way between servers: granted and sent by the source, pulled by the target.
//!
//! Owns who may be where with which volume, and the marks in the ledger around a transfer. How a volume is read and written
//! is the volume engine's business.

use std::path::PathBuf;

use feather_proto::{
    error::{Code, Error, reason},
    ids::{Generation, TenantName},
    model::{ContainerState, RootDigest, VolumeSummary},
    tls::Principal,
};
use futures::{Stream, StreamExt as _, future, stream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Agent, lifecycle::spec_of, locked};
use crate::{
    grant::{Terms, Ticket},
    ledger::{Record, Spec},
    peer::{Has, Pass, Peers, Source, SourceSpec, Wanted},
    transition,
    volume::{
        self, Digest, Expect, Limits, Listing, Pace, Parcel, Phase, Progress, Receiving, Sending, Transferred, Trust,
    },
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

/// What a peer says when it asks for a volume.
pub(crate) struct Told<'a> {
    pub(crate) ticket: &'a str,
    /// Root digest of what it has.
    pub(crate) base: Option<Digest>,
    pub(crate) listing: mpsc::Receiver<Result<Listing, volume::Error>>,
    /// How it keeps up; `None` when it takes no packed frames.
    pub(crate) packs: Option<Pace>,
}

/// One message on its way to a peer.
pub(crate) enum Sent {
    Spec(SourceSpec),
    Parcel(Parcel),
}

impl Agent {
    /// Lets one peer fetch one volume for a while.
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
        told: Told<'_>,
    ) -> Result<impl Stream<Item = Result<Sent, Error>> + Send + use<>, Error> {
        let Told { ticket, base, listing, packs } = told;
        let cancelled = self.grants.redeem(caller, tenant, wanted.generation, ticket)?;
        let record = self.ledger.get(tenant)?;
        transition::admit_send(record.as_ref(), tenant, wanted.generation, wanted.pass == Pass::Final)?;
        let record = record.ok_or_else(|| Error::bug("a granted tenant has no record"))?;
        if wanted.pass == Pass::Final && self.container_state(tenant).await? == ContainerState::Running {
            return Err(Error::refused(
                reason::WRONG_STATE,
                format!("{tenant} still runs on this server; stop it for the move again"),
            ));
        }
        let spec = spec_of(&record)?.clone();
        let expect = match wanted.pass {
            Pass::Live => Expect::Live,
            Pass::Final => Expect::Still,
        };
        let root = volume::open_root(&self.volume_path(tenant).await?)?;
        let parcels = volume::parcels(Sending { volume: self.noted(tenant), root, expect, base, listing, packs });
        let parcels = paced(parcels.map(|parcel| parcel.map_err(Error::from)), wanted.bytes_per_second_max);
        let first = Sent::Spec(SourceSpec {
            password: spec.password,
            image: spec.image,
            image_digest: spec.image_digest,
            created: spec.created,
            limits: spec.limits,
        });
        let parcels = until_cancelled(parcels, cancelled);
        self.looked.forget(tenant);
        let (looked, tenant, generation) = (self.looked.clone(), tenant.clone(), record.generation);
        let parcels = parcels.inspect(move |sent| {
            if let (Ok(Some(trailer)), Pass::Final) = (sent.as_ref().map(Parcel::trailer), wanted.pass) {
                looked.note(&tenant, generation, summary(&trailer.summary));
            }
        });
        Ok(stream::once(future::ready(Ok(first))).chain(parcels.map(|parcel| parcel.map(Sent::Parcel))))
    }

    /// A tenant's volume, as what is noted of it knows it.
    pub(super) fn noted(&self, tenant: &TenantName) -> volume::Volume {
        volume::Volume { name: tenant.container(), notes: self.notes.clone() }
    }

    /// Ends a transfer into this server that is under way, unless that belongs to a newer move than this call.
    pub(crate) fn interrupt_pull(&self, tenant: &TenantName, generation: Generation) {
        let stale = matches!(self.ledger.get(tenant), Ok(Some(record)) if generation < record.generation);
        if stale {
            return;
        }
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
        let began = tokio::time::Instant::now();
        // A late call of an older move must not end the transfer of a newer one.
        transition::admit_pull(self.ledger.get(tenant)?.as_ref(), tenant, generation)?;
        // The newest call wins: its predecessor's caller has evidently given up.
        if let Some(older) = locked(&self.pulls).insert(tenant.clone(), cancelled.clone()) {
            older.cancel();
        }
        let _lock = tokio::select! {
            lock = self.lock(tenant) => lock,
            () = cancelled.cancelled() => return Err(cut_off()),
        };
        // What an earlier stay or a failed trial left must not look on while its data is replaced.
        transition::admit_pull(self.ledger.get(tenant)?.as_ref(), tenant, generation)?;
        self.looked.forget(tenant);
        self.remove_container(tenant).await?;
        let mut trust = Trust::LastPass;
        let (record, source, done) = loop {
            match self.pull_once(request, peers, &cancelled, &progress, trust).await {
                Err(Failed::Pass(error)) => match less(trust, &error) {
                    Some(next) => {
                        tracing::warn!(%tenant, %error, "the pass is made again, with less trust in what was noted");
                        trust = next;
                    }
                    None => return Err(self.made_room(tenant, error.into()).await),
                },
                Err(Failed::Call(error)) => return Err(error),
                Ok(done) => break done,
            }
        };
        let Transferred { trailer, received, changes } = done;
        let (sent, received) = (summary(&trailer.summary), summary(&received));
        if sent.root_digest != received.root_digest {
            return Err(differs(tenant, &sent, &received));
        }
        if request.wanted.pass == Pass::Final {
            let spec = spec_from(source, generation);
            let record = self.write(transition::received(&record, spec, received.clone())?).await?;
            self.looked.note(tenant, record.generation, received.clone());
        }
        let statistics = Statistics {
            files_examined: sent.files,
            bytes_examined: sent.bytes,
            files_changed: changes.files_changed,
            bytes_changed: changes.bytes_changed,
            files_read: trailer.files_read,
            bytes_read: trailer.bytes_read,
            wire_bytes: progress.borrow().wire_bytes,
            bytes_reused: changes.bytes_reused,
            duration: began.elapsed(),
        };
        Ok(Pulled { sent, received, statistics })
    }

    /// One attempt at a pass.
    async fn pull_once(
        &self,
        request: &PullRequest,
        peers: &Peers,
        cancelled: &CancellationToken,
        progress: &watch::Sender<Progress>,
        trust: Trust,
    ) -> Result<(Record, SourceSpec, Transferred), Failed> {
        let (tenant, noted) = (&request.tenant, self.noted(&request.tenant));
        let marked = transition::admit_pull(self.ledger.get(tenant)?.as_ref(), tenant, request.wanted.generation)?;
        progress.send_modify(|now| now.phase = Phase::Preparing);
        let (mut base, mut volume) = (None, None);
        if let Some(path) = self.runtime.volume(&tenant.container()).await.map_err(Error::from)? {
            base = volume::prepare(noted.clone(), volume::open_root(&path)?, trust, cancelled.clone()).await?;
            volume = base.map(|_| volume::open_root(&path)).transpose()?.map(|root| (noted.clone(), root));
        }
        let has = Has { base, volume, progress: progress.clone() };
        let fetched = tokio::select! {
            fetched = peers.fetch(&request.source, tenant, request.wanted, has) => fetched,
            () = cancelled.cancelled() => Err(cut_off()),
        };
        let (source, frames) = fetched?;
        transition::fits(&marked, &source.image_digest)?;
        // A volume kept from an earlier stay is given up only now, when there is something to put in its place.
        let record = self.write(marked).await?;
        let root = match base {
            Some(_) => volume::open_root(&self.volume_path(tenant).await?)?,
            None => self.emptied_volume(tenant).await?,
        };
        let receiving = Receiving { volume: noted, root, base, limits: self.limits().await? };
        let frames = until_cancelled(frames, cancelled.clone());
        let done = volume::receive(frames, receiving, progress.clone()).await?;
        Ok((record, source, done))
    }

    /// On a full disk neither the ledger nor Podman can take anything back: what came in makes room for that.
    async fn made_room(&self, tenant: &TenantName, error: Error) -> Error {
        if error.is(reason::NO_DISK)
            && let Err(left) = self.emptied_volume(tenant).await
        {
            tracing::warn!(%tenant, error = %left, "what was received stays on the full disk for now");
        }
        error
    }

    /// The directory of the tenant's volume, with nothing in it.
    async fn emptied_volume(&self, tenant: &TenantName) -> Result<std::os::fd::OwnedFd, Error> {
        self.notes.forget(&tenant.container());
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
        limits: source.limits,
    }
}

/// Why an attempt at a pass ended.
enum Failed {
    /// Something around it.
    Call(Error),
    /// The pass itself.
    Pass(volume::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<volume::Error> for Failed {
    fn from(error: volume::Error) -> Self {
        Self::Pass(error)
    }
}

impl From<crate::ledger::Error> for Failed {
    fn from(error: crate::ledger::Error) -> Self {
        Self::Call(error.into())
    }
}

/// What may still be believed after a pass has failed; `None` when belief was not the reason.
fn less(trust: Trust, error: &volume::Error) -> Option<Trust> {
    match (trust, error) {
        (Trust::LastPass, volume::Error::BaseLost { .. }) => Some(Trust::Stamps),
        (
            Trust::LastPass | Trust::Stamps,
            volume::Error::BaseLost { .. }
            | volume::Error::Refused { .. }
            | volume::Error::Corrupt { .. }
            | volume::Error::Disagree { .. },
        ) => Some(Trust::Nothing),
        _ => None,
    }
}

/// No more bytes in a second than this, on average over what was sent.
fn paced(
    parcels: impl Stream<Item = Result<Parcel, Error>> + Send + Unpin,
    limit: Option<u64>,
) -> impl Stream<Item = Result<Parcel, Error>> + Send {
    let began = tokio::time::Instant::now();
    stream::unfold((parcels, began), move |(mut parcels, free)| async move {
        let parcel = parcels.next().await?;
        let Some(limit) = limit else { return Some((parcel, (parcels, free))) };
        tokio::time::sleep_until(free).await;
        let weight = parcel.as_ref().map_or(0, |parcel| parcel.weight() as u64);
        let takes = std::time::Duration::from_micros(weight.saturating_mul(1_000_000) / limit);
        Some((parcel, (parcels, tokio::time::Instant::now() + takes)))
    })
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
