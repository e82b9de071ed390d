//! `VolumeService`: passes archives between featherctl and the agent that holds the volume.

use std::sync::Arc;

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    ids::TenantName,
    model::{Residence, VolumeReport, VolumeState, required, to_timestamp},
    pb::controller::v1::{self as pb, volume_service_server::VolumeService},
};
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming};

use super::{operator, reader};
use crate::{agents::Reading, world::World};

/// Lists and passes on volumes.
pub struct Volumes {
    world: Arc<World>,
}

impl Volumes {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

fn role(report: &VolumeReport, residence: Option<Residence>) -> pb::VolumeRole {
    match (report.state, residence) {
        (VolumeState::Incomplete, _) => pb::VolumeRole::Incomplete,
        (_, Some(Residence::Running | Residence::Stopped | Residence::Sealed)) => pb::VolumeRole::Live,
        (_, Some(Residence::Departed)) => pb::VolumeRole::UndoCopy,
        _ if report.keep_until.is_some() => pb::VolumeRole::UndoCopy,
        _ => pb::VolumeRole::Kept,
    }
}

/// Pieces of an import, up to its end mark. Ending without the mark is an error, so that a broken upload is never taken for a
/// short archive.
fn pieces(upload: Streaming<pb::ImportVolumeRequest>) -> BoxStream<'static, Result<Bytes, Error>> {
    futures::stream::unfold(Some(upload), |upload| async move {
        let mut upload = upload?;
        match upload.next().await {
            Some(Ok(message)) if message.end => None,
            Some(Ok(message)) => Some((Ok(message.data), Some(upload))),
            Some(Err(status)) => Some((Err(status.into()), None)),
            None => Some((
                Err(Error::invalid(
                    reason::BAD_STREAM,
                    "the archive was cut off before its end; import the whole archive again",
                )),
                None,
            )),
        }
    })
    .boxed()
}

#[tonic::async_trait]
impl VolumeService for Volumes {
    async fn list_volumes(
        &self,
        request: Request<pb::ListVolumesRequest>,
    ) -> Result<Response<pb::ListVolumesResponse>, Status> {
        reader(&request)?;
        let mut answer = pb::ListVolumesResponse::default();
        for row in self.world.store.servers().await.map_err(Error::from)? {
            let observed = self.world.fleet.observed(&row.name);
            let Some(snapshot) = observed.alive() else {
                answer.unreachable_servers.push(row.name.to_string());
                continue;
            };
            answer.volumes.extend(snapshot.volumes.iter().map(|report| pb::Volume {
                tenant: report.tenant.to_string(),
                server: row.name.to_string(),
                name: report.tenant.container(),
                role: role(report, snapshot.tenant(&report.tenant).map(|one| one.residence)).into(),
                keep_until: report.keep_until.map(to_timestamp),
                last_summary: report.last_summary.clone().map(Into::into),
            }));
        }
        answer.volumes.sort_by(|left, right| (&left.tenant, &left.server).cmp(&(&right.tenant, &right.server)));
        Ok(Response::new(answer))
    }

    type ExportVolumeStream = BoxStream<'static, Result<pb::ExportVolumeResponse, Status>>;

    async fn export_volume(
        &self,
        request: Request<pb::ExportVolumeRequest>,
    ) -> Result<Response<Self::ExportVolumeStream>, Status> {
        operator(&request)?;
        let tenant: TenantName = request.get_ref().tenant.parse()?;
        let (_, server) = self.world.holder(&tenant).await?;
        let stream = self.world.agent(&server).await?.export_volume(&tenant).await?;
        let stream = stream.map_ok(|data| pb::ExportVolumeResponse { data }).map_err(Status::from);
        Ok(Response::new(stream.boxed()))
    }

    async fn import_volume(
        &self,
        request: Request<Streaming<pb::ImportVolumeRequest>>,
    ) -> Result<Response<pb::ImportVolumeResponse>, Status> {
        let caller = operator(&request)?;
        let mut upload = request.into_inner();
        let first = required(upload.message().await?, "tenant")?;
        let tenant: TenantName = first.tenant.parse()?;
        let (row, server) = self.world.holder(&tenant).await?;
        self.world.not_held(&tenant).await?;
        let head = futures::stream::iter((!first.data.is_empty()).then_some(Ok(first.data)));
        let archive = if first.end { head.boxed() } else { head.chain(pieces(upload)).boxed() };
        let agent = self.world.agent(&server).await?;
        let imported = agent.import_volume(&tenant, row.generation, archive).await;
        self.world.look_again(&server).await;
        let summary = imported?;
        tracing::info!(%tenant, %server, by = %caller, "volume imported");
        Ok(Response::new(pb::ImportVolumeResponse { summary: Some(summary.into()) }))
    }

    async fn verify_volume(
        &self,
        request: Request<pb::VerifyVolumeRequest>,
    ) -> Result<Response<pb::VerifyVolumeResponse>, Status> {
        operator(&request)?;
        let tenant: TenantName = request.get_ref().tenant.parse()?;
        let (_, server) = self.world.holder(&tenant).await?;
        let summary = self.world.agent(&server).await?.verify_volume(&tenant, Reading::Everything).await?;
        Ok(Response::new(pb::VerifyVolumeResponse { server: server.to_string(), summary: Some(summary.into()) }))
    }
}
