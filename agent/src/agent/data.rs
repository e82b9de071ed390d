//! Volumes at rest: listed, measured, verified, exported, imported, deleted.
//!
//! Owns the marks in the ledger around changes of data. How a volume is read and written is the volume engine's business.

use std::time::Duration;

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
    model::{ContainerState, VolumeReport, VolumeState, VolumeSummary},
};
use futures::{Stream, StreamExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Agent, report,
    transfer::{blocking, summary},
};
use crate::{
    ledger::{Record, Volume},
    transition,
    volume::{self, Expect, Progress, Trust},
};

/// Where an archive is unpacked before it takes the volume's place: a volume of its own, on the same file system.
const STAGING_PREFIX: &str = "feather-import-";
/// Longest silence in an archive that comes over the network.
const PIECE_LIMIT: Duration = Duration::from_secs(60);

fn staging(tenant: &TenantName) -> String {
    format!("{STAGING_PREFIX}{tenant}")
}

impl Agent {
    /// Every volume on this server: what the ledger knows, and what only the engine does.
    pub(crate) async fn volumes(&self) -> Result<Vec<VolumeReport>, Error> {
        let mut reports: Vec<_> = self.records().iter().filter_map(report::volume).collect();
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

    /// One volume and what is in it, measured now; how many bytes of it have changed since the last pass over it, and the root
    /// digest after that.
    pub(crate) async fn volume(
        &self,
        tenant: &TenantName,
    ) -> Result<(VolumeReport, volume::Usage, u64, Option<volume::Digest>), Error> {
        let found = self.volumes().await?.into_iter().find(|report| report.tenant == *tenant);
        let report = found.ok_or_else(|| no_volume(tenant))?;
        let path = self.volume_path(tenant).await?;
        let noted = self.noted(tenant);
        let (usage, changed, digest) = blocking(move || noted.changed(volume::open_root(&path)?)).await?;
        Ok((report, usage, changed, digest))
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

    /// Goes over the whole volume again, unless that was just done and nobody can have been in it since. What a tenant changes
    /// meanwhile makes this fail, not lie.
    pub(crate) async fn verify(&self, tenant: &TenantName, trust: Trust) -> Result<VolumeSummary, Error> {
        let path = self.whole_volume(tenant).await?;
        let record = self.ledger.get(tenant)?;
        let known = record.as_ref().filter(|_| trust != Trust::Nothing).and_then(|record| self.looked.found(record));
        let runs = self.container_state(tenant).await? == ContainerState::Running;
        let found = match known {
            Some(found) if !runs => found,
            // What a process may be writing to is read and not noted: only a pass that first brings everything to disk may
            // conclude from times that nothing has changed (decision 0031).
            _ if runs => summary(&blocking(move || volume::scan(volume::open_root(&path)?)).await?),
            _ => {
                let noted = self.noted(tenant);
                summary(
                    &blocking(move || noted.look_at(volume::open_root(&path)?, trust, &CancellationToken::new()))
                        .await?,
                )
            }
        };
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

    /// Replaces the content by a tar archive. It is unpacked beside the volume and takes its place in one step after its last byte
    /// was accepted, so that a broken archive costs nothing.
    pub(crate) async fn import(
        &self,
        tenant: &TenantName,
        generation: Generation,
        pieces: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<VolumeSummary, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let exists = self.runtime.volume(&tenant.container()).await?.is_some();
        let target = transition::admit_import(record.as_ref(), tenant, generation, exists)?;
        if self.container_state(tenant).await? == ContainerState::Running {
            return Err(Error::refused(
                reason::WRONG_STATE,
                format!("{tenant} still runs; stop it first (`featherctl tenant stop {tenant}`)"),
            ));
        }
        // What is no archive at all is refused before anything is touched.
        let (start, pieces) = first_block(in_time(pieces)).await?;
        volume::check_archive_start(&start)?;
        let staging = staging(tenant);
        self.runtime.remove_volume(&staging).await?;
        let unpacked = self.unpack(&staging, pieces).await;
        let found = match unpacked {
            Ok(found) => found,
            Err(error) => {
                // What came in makes room at once; if that fails, the reconciler does it.
                if let Err(left) = self.runtime.remove_volume(&staging).await {
                    tracing::warn!(%tenant, error = %left, "what was unpacked of a refused archive is still there");
                }
                return Err(untouched(tenant, exists, error));
            }
        };
        let marked = self.write(target.marked).await?;
        let (path, _) = self.runtime.ensure_volume(&tenant.container()).await?;
        let (unpacked, _) = self.runtime.ensure_volume(&staging).await?;
        blocking(move || volume::exchange(&path, &unpacked)).await?;
        self.notes.forget(&tenant.container());
        let volume = Volume::whole(target.generation, Some(found.clone()));
        self.write(Record { volume, ..marked }).await?;
        if let Err(error) = self.runtime.remove_volume(&staging).await {
            tracing::warn!(%tenant, %error, "what the volume held before the import is deleted later");
        }
        Ok(found)
    }

    async fn unpack(
        &self,
        staging: &str,
        pieces: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<VolumeSummary, Error> {
        let limits = self.limits().await?;
        let (path, _) = self.runtime.ensure_volume(staging).await?;
        let root = volume::open_root(&path)?;
        let found = volume::import_tar(pieces, root, limits, watch::Sender::new(Progress::default())).await?;
        Ok(summary(&found))
    }

    /// Deletes what imports that were cut off have left, among these volumes of the engine.
    pub(crate) async fn clear_staging(&self, volumes: &[String]) -> Result<(), Error> {
        for name in volumes {
            let tenant = name.strip_prefix(STAGING_PREFIX).and_then(|tenant| tenant.parse::<TenantName>().ok());
            // A tenant that is busy may be importing; what is nobody's is not ours.
            let Some(_lock) = tenant.and_then(|tenant| self.try_lock(&tenant)) else { continue };
            self.runtime.remove_volume(name).await?;
            tracing::info!(volume = name, "deleted what an import that was cut off has left");
        }
        Ok(())
    }

    /// Deletes a volume for good.
    pub(crate) async fn remove_volume(&self, tenant: &TenantName, generation: Generation) -> Result<(), Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let marked = transition::admit_remove_volume(record.as_ref(), tenant, generation)?;
        let marked = self.write(marked).await?;
        self.remove_container(tenant).await?;
        self.runtime.remove_volume(&tenant.container()).await?;
        self.notes.forget(&tenant.container());
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

/// A stream that stands still would hold its tenant for ever.
fn in_time<S>(pieces: S) -> impl Stream<Item = Result<Bytes, Error>> + Send
where
    S: Stream<Item = Result<Bytes, Error>> + Send,
{
    let timed = futures::stream::unfold(Some(Box::pin(pieces)), |pieces| async move {
        let mut pieces = pieces?;
        match tokio::time::timeout(PIECE_LIMIT, pieces.next()).await {
            Ok(piece) => Some((piece?, Some(pieces))),
            Err(_) => Some((Err(stalled()), None)),
        }
    });
    timed.fuse()
}

fn stalled() -> Error {
    let seconds = PIECE_LIMIT.as_secs();
    Error::invalid(reason::BAD_STREAM, format!("no more of the archive came for {seconds} s; send it again"))
}

/// A failed import says what is true now: exit codes alone would leave people in doubt about the data that was there.
fn untouched(tenant: &TenantName, exists: bool, error: Error) -> Error {
    let now = match exists {
        true => format!("the volume of {tenant} is as it was"),
        false => format!("there is still no volume of {tenant}"),
    };
    Error { message: format!("{}. Nothing was imported: {now}", error.message), ..error }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use feather_proto::error::reason;
    use futures::{StreamExt as _, stream};

    use super::{PIECE_LIMIT, in_time};

    #[tokio::test(start_paused = true)]
    async fn an_archive_that_stands_still_is_given_up() {
        let slow = stream::unfold(0, |count| async move {
            tokio::time::sleep(if count < 3 { PIECE_LIMIT / 2 } else { PIECE_LIMIT * 2 }).await;
            Some((Ok(Bytes::new()), count + 1))
        });
        let taken: Vec<_> = in_time(slow).collect().await;
        assert_eq!(taken.len(), 4);
        assert!(taken[..3].iter().all(Result::is_ok));
        assert_eq!(taken[3].as_ref().unwrap_err().reason, reason::BAD_STREAM);
        assert_eq!(in_time(stream::iter([Ok(Bytes::new())])).count().await, 1);
    }
}
