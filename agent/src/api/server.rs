//! `feather.agent.v1.ServerService`.

use std::time::Duration;

use feather_proto::{
    error::Error,
    ids::ServerName,
    model::invalid_field,
    pb::{agent::v1 as pb, agent::v1::server_service_server::ServerService},
};
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{Answers, Api, authorize};
use crate::{fenced::Watching, reconcile::Changes};

const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);
/// Others that one call asks for, and how many at once.
const PEERS_MAX: usize = 64;
const PARALLEL: usize = 16;
/// The proxy has this long to answer.
const ROUTER_MAX: Duration = Duration::from_secs(3);

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

    async fn probe(&self, request: Request<pb::ProbeRequest>) -> Result<Response<pb::ProbeResponse>, Status> {
        authorize(&request)?;
        let peers = request.into_inner().peers;
        if peers.len() > PEERS_MAX {
            return Err(invalid_field("peers", "at most 64 servers").into());
        }
        let peers: Vec<(ServerName, String)> =
            peers.into_iter().map(|peer| Ok((peer.server.parse()?, peer.address))).collect::<Result<_, Error>>()?;
        let reach = stream::iter(peers).map(|(server, address)| async move {
            let (took, problem) = self.peers.reach(&server, &address).await;
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            pb::ProbedPeer { server: server.into(), took_ms, problem: problem.unwrap_or_default() }
        });
        let (router, peers) = tokio::join!(
            tokio::time::timeout(ROUTER_MAX, self.agent.router.observe()),
            reach.buffered(PARALLEL).collect::<Vec<_>>()
        );
        let router_problem = match router {
            Ok(Ok(_)) => String::new(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ROUTER_MAX.as_secs()),
        };
        Ok(Response::new(pb::ProbeResponse { router_problem, peers }))
    }

    type WatchStream = Answers<pb::WatchResponse>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        authorize(&request)?;
        let heartbeat = heartbeat(request.into_inner().heartbeat_ms)?;
        let api = self.clone();
        let changes = Changes::of(&self.agent);
        // Goes with the stream: whoever is not watched asks where it stands.
        let watching = Watching::begin(&self.agent);
        let snapshots = stream::unfold((api, changes, watching, true), move |state| async move {
            let (api, mut changes, watching, first) = state;
            if !first {
                tokio::select! {
                    () = changes.next() => {}
                    () = tokio::time::sleep(heartbeat) => {}
                }
            }
            let snapshot = api.agent.snapshot(&api.server).await;
            Some((Ok(pb::WatchResponse { snapshot: Some(snapshot.into()) }), (api, changes, watching, false)))
        });
        let closing = self.agent.closing.clone().cancelled_owned();
        Ok(Response::new(Box::pin(snapshots.take_until(closing))))
    }
}
