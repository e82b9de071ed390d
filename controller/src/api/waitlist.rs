//! `WaitlistService`.

use std::sync::Arc;

use feather_proto::{
    model::{request_id, to_timestamp},
    pb::controller::v1::{self as pb, waitlist_service_server::WaitlistService},
};
use futures::{StreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status};

use super::{given, operation, operator, optional};
use crate::{
    waitlist::{Entry, Invite, Waitlist},
    world::World,
};

/// Entries in one message: some 60 KiB.
const PAGE: usize = 500;

/// Lists, removes, invites.
pub struct WaitlistApi {
    world: Arc<World>,
    waitlist: Waitlist,
}

impl WaitlistApi {
    /// Over this world.
    pub fn new(world: Arc<World>, waitlist: Waitlist) -> Self {
        Self { world, waitlist }
    }
}

fn encode(entry: &Entry) -> pb::WaitlistEntry {
    pb::WaitlistEntry {
        email: entry.email.as_str().to_owned(),
        server: entry.server.to_string(),
        signed_up: Some(to_timestamp(entry.signed_up)),
        invited: entry.invited.as_ref().map(|(at, _)| to_timestamp(*at)),
        tenant: optional(entry.invited.as_ref().map(|(_, tenant)| tenant)),
    }
}

#[tonic::async_trait]
impl WaitlistService for WaitlistApi {
    type ListEntriesStream = BoxStream<'static, Result<pb::ListEntriesResponse, Status>>;

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<Self::ListEntriesStream>, Status> {
        operator(&request)?;
        let only = given(&request.get_ref().server)?;
        let listed = self.waitlist.list(only.as_ref()).await?;
        let first = pb::ListEntriesResponse {
            entries: Vec::new(),
            unreachable_servers: listed.unreachable.iter().map(ToString::to_string).collect(),
            problems: listed.problems,
        };
        let pages = listed
            .entries
            .chunks(PAGE)
            .map(|page| pb::ListEntriesResponse { entries: page.iter().map(encode).collect(), ..Default::default() });
        let messages: Vec<_> = std::iter::once(first).chain(pages).map(Ok).collect();
        Ok(Response::new(futures::stream::iter(messages).boxed()))
    }

    async fn remove_entry(
        &self,
        request: Request<pb::RemoveEntryRequest>,
    ) -> Result<Response<pb::RemoveEntryResponse>, Status> {
        let caller = operator(&request)?;
        let removed = self.waitlist.remove(&request.get_ref().email.parse()?).await?;
        tracing::info!(by = %caller, "an address was taken off the waitlist");
        Ok(Response::new(pb::RemoveEntryResponse {
            servers: removed.servers.iter().map(ToString::to_string).collect(),
            tenant: optional(removed.tenant),
        }))
    }

    async fn invite(&self, request: Request<pb::InviteRequest>) -> Result<Response<pb::InviteResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let invite = Invite {
            request_id: request_id(&message.request_id)?,
            email: message.email.parse()?,
            tenant: given(&message.tenant)?,
            server: given(&message.server)?,
            requested_by: caller.to_string(),
            dry_run: message.dry_run,
        };
        let (tenant, planned) = self.waitlist.invite(&invite).await?;
        let operation = match &planned.operation {
            Some(id) => Some(operation::view(&self.world, id).await?),
            None => None,
        };
        Ok(Response::new(pb::InviteResponse {
            operation,
            url: self.world.url(&tenant),
            tenant: tenant.into(),
            server: optional(planned.target),
            explanation: planned.explanation,
        }))
    }
}
