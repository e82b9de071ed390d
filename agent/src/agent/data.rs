//! Volumes at rest: listed, measured, verified, exported, imported, deleted.
//!
//! Owns the marks in the ledger around changes of data. How a volume is read and written is the volume engine's business.

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
    model::{ContainerState, VolumeReport, VolumeState, VolumeSummary},
};
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;

use super::{
    Agent, report,
    transfer::{blocking, summary},
};
use crate::{
    ledger::{Record, Volume},
    transition,
    volume::{self, Expect, Progress},
};

impl Agent {
    /// Every volume on this server: what the ledger knows, and what only the engine does.
    pub(crate) async fn volumes(&self) -> Result<Vec<VolumeReport>, Error> {
        let mut reports: Vec<_> = self.ledger.all().iter().filter_map(report::volume).collect();
        for name in self.runtime.volumes("feather-user-").await? {
            let unknown = TenantName::from_container(&name)
                .filter(|tenant| !reports.iter().any(|report| report.tenant == *tenant));
            reports.extend(unknown.map(|tenant| VolumeReport {
                tenant,
                state: VolumeState::Complete,
                generation: Generation(0),
                keep_until: None,
                last_summary: None,
            }));
        }
        reports.sort_by(|one, other| one.tenant.cmp(&other.tenant));
        Ok(reports)
    }

    /// One volume and its bytes on disk, measured now.
    pub(crate) async fn volume(&self, tenant: &TenantName) -> Result<(VolumeReport, u64), Error> {
        let found = self.volumes().await?.into_iter().find(|report| report.tenant == *tenant);
        let report = found.ok_or_else(|| no_volume(tenant))?;
        let path = self.volume_path(tenant).await?;
        let usage = blocking(move || volume::measure(volume::open_root(&path)?)).await?;
        Ok((report, usage.disk_bytes))
    }

    /// Refuses volumes that are not whole; the path of one that is.
    async fn whole_volume(&self, tenant: &TenantName) -> Result<std::path::PathBuf, Error> {
        let (state, path) =
            (self.ledger.get(tenant)?.map(|record| record.volume), self.runtime.volume(&tenant.container()).await?);
        match (state, path) {
            (Some(Volume::Incomplete { .. }), _) => Err(Error::refused(
                reason::VOLUME_INCOMPLETE,
                format!(
                    "the volume of {tenant} is incomplete: a transfer or import into it did not finish; import it again"
                ),
            )
            .with("tenant", tenant)),
            (Some(Volume::Complete { .. }), None) => Err(transition::data_missing(tenant)),
            (_, Some(path)) => Ok(path),
            (_, None) => Err(no_volume(tenant)),
        }
    }

    /// Reads the whole volume again. What a tenant changes meanwhile makes this fail, not lie.
    pub(crate) async fn verify(&self, tenant: &TenantName) -> Result<VolumeSummary, Error> {
        let path = self.whole_volume(tenant).await?;
        let found = blocking(move || volume::scan(volume::open_root(&path)?)).await?;
        let found = summary(&found);
        let _lock = self.lock(tenant).await;
        if let Some(record) = self.ledger.get(tenant)?
            && let Volume::Complete { generation, keep_until, .. } = record.volume
        {
            let volume = Volume::Complete { generation, summary: Some(found.clone()), keep_until };
            self.write(Record { volume, ..record }).await?;
        }
        Ok(found)
    }

    /// The volume as a tar archive. A tenant may be running: the archive is then what a reader saw.
    pub(crate) async fn export(
        &self,
        tenant: &TenantName,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let root = volume::open_root(&self.whole_volume(tenant).await?)?;
        let expect = match self.container_state(tenant).await? {
            ContainerState::Running => Expect::Live,
            _ => Expect::Still,
        };
        Ok(volume::export_tar(root, expect).map(|piece| piece.map_err(Error::from)))
    }

    /// Replaces the content by a tar archive. Until its last byte was accepted, no tenant starts on the volume.
    pub(crate) async fn import(
        &self,
        tenant: &TenantName,
        generation: Generation,
        pieces: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<VolumeSummary, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let target = transition::admit_import(record.as_ref(), tenant, generation)?;
        if self.container_state(tenant).await? == ContainerState::Running {
            return Err(Error::refused(
                reason::WRONG_STATE,
                format!("{tenant} still runs; stop it first (`featherctl tenant stop {tenant}`)"),
            ));
        }
        let limits = self.limits().await?;
        // What is no archive at all must not cost the data that is there.
        let (start, pieces) = first_block(pieces).await?;
        volume::check_archive_start(&start)?;
        let marked = self.write(target.marked).await?;
        let (path, _) = self.runtime.ensure_volume(&tenant.container()).await?;
        let root = blocking(move || {
            volume::clear(volume::open_root(&path)?)?;
            volume::open_root(&path)
        })
        .await?;
        let imported = volume::import_tar(pieces, root, limits, watch::Sender::new(Progress::default())).await;
        let found = imported.map_err(|error| content_gone(tenant, error.into()))?;
        let found = summary(&found);
        let volume = Volume::whole(target.generation, Some(found.clone()));
        self.write(Record { volume, ..marked }).await?;
        Ok(found)
    }

    /// Deletes a volume for good.
    pub(crate) async fn remove_volume(&self, tenant: &TenantName, generation: Generation) -> Result<(), Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let marked = transition::admit_remove_volume(record.as_ref(), tenant, generation)?;
        let marked = self.write(marked).await?;
        self.remove_container(tenant).await?;
        self.runtime.remove_volume(&tenant.container()).await?;
        self.write(Record { volume: Volume::None, ..marked }).await.map(drop)
    }
}

fn no_volume(tenant: &TenantName) -> Error {
    Error::not_found(
        reason::VOLUME_NOT_FOUND,
        format!("there is no volume of {tenant} on this server; `featherctl volume list` shows where volumes are"),
    )
    .with("tenant", tenant)
}

/// Enough of a stream to judge its first header, and the whole stream again.
async fn first_block<S>(pieces: S) -> Result<(Vec<u8>, impl Stream<Item = Result<Bytes, Error>> + Send), Error>
where
    S: Stream<Item = Result<Bytes, Error>> + Send,
{
    let mut pieces = Box::pin(pieces);
    let mut start = Vec::new();
    while start.len() < volume::ARCHIVE_START_BYTES {
        match pieces.next().await {
            Some(piece) => start.extend_from_slice(&piece?),
            None => break,
        }
    }
    let again = futures::stream::iter([Ok(Bytes::from(start.clone()))]);
    Ok((start, again.chain(pieces)))
}

/// A failed import says what is true now: exit codes and marks alone would look as if nothing had happened.
fn content_gone(tenant: &TenantName, error: Error) -> Error {
    let message = format!(
        "{}. What the volume of {tenant} held before is gone, and it is marked incomplete, so that nothing starts on it: import a whole archive",
        error.message
    );
    Error { message, ..error }
}
