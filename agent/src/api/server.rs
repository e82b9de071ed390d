//! `feather.agent.v1.ServerService`.

use std::time::Duration;

use feather_proto::{
    model::invalid_field,
    pb::{agent::v1 as pb, agent::v1::server_service_server::ServerService},
};
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{Answers, Api, authorize};
use crate::reconcile::Changes;

const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);

fn heartbeat(milliseconds: u32) -> Result<Duration, Status> {
    match milliseconds {
        0 => Ok(HEARTBEAT_DEFAULT),
        100..=60_000 => Ok(Duration::from_millis(milliseconds.into())),
        _ => Err(invalid_field("heartbeat_ms", "0, or from 100 to 60000").into()),
    }
}

#[tonic::async_trait]
impl ServerService for Api {
    async fn get_info(&self, request: Request<pb::GetInfoRequest>) -> Result<Response<pb::GetInfoResponse>, Status> {
        authorize(&request)?;
        let snapshot = self.agent.snapshot(&self.server).await;
        Ok(Response::new(pb::GetInfoResponse { snapshot: Some(snapshot.into()) }))
    }

    type WatchStream = Answers<pb::WatchResponse>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        authorize(&request)?;
        let heartbeat = heartbeat(request.into_inner().heartbeat_ms)?;
        let api = self.clone();
        let changes = Changes::of(&self.agent);
        let snapshots = stream::unfold((api, changes, true), move |(api, mut changes, first)| async move {
            if !first {
                tokio::select! {
                    () = changes.next() => {}
                    () = tokio::time::sleep(heartbeat) => {}
                }
            }
            let snapshot = api.agent.snapshot(&api.server).await;
            Some((Ok(pb::WatchResponse { snapshot: Some(snapshot.into()) }), (api, changes, false)))
        });
        let closing = self.agent.closing.clone().cancelled_owned();
        Ok(Response::new(Box::pin(snapshots.take_until(closing))))
    }
}
