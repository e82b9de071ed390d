//! `feather.agent.v1.WaitlistService`.

use feather_proto::{
    model::to_timestamp,
    pb::{agent::v1 as pb, agent::v1::waitlist_service_server::WaitlistService},
};
use tonic::{Request, Response, Status};

use super::{Answers, Api, authorize};
use crate::waitlist::Entry;

/// Entries in one message: some 40 KiB.
const PAGE: usize = 500;

fn encode(entry: &Entry) -> pb::WaitlistEntry {
    pb::WaitlistEntry { email: entry.email.as_str().to_owned(), signed_up: Some(to_timestamp(entry.signed_up)) }
}

#[tonic::async_trait]
impl WaitlistService for Api {
    type ListEntriesStream = Answers<pb::ListEntriesResponse>;

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<Self::ListEntriesStream>, Status> {
        authorize(&request)?;
        let entries = self.agent.waitlist.entries().await?;
        let problem = self.agent.waitlist.problem().unwrap_or_default();
        let mut pages = vec![Ok(pb::ListEntriesResponse { entries: Vec::new(), problem })];
        pages.extend(entries.chunks(PAGE).map(|page| {
            Ok(pb::ListEntriesResponse { entries: page.iter().map(encode).collect(), problem: String::new() })
        }));
        Ok(Response::new(Box::pin(futures::stream::iter(pages))))
    }

    async fn get_entry(&self, request: Request<pb::GetEntryRequest>) -> Result<Response<pb::GetEntryResponse>, Status> {
        authorize(&request)?;
        let email = request.get_ref().email.parse()?;
        let entry = self.agent.waitlist.entry(email).await?;
        Ok(Response::new(pb::GetEntryResponse { entry: entry.as_ref().map(encode) }))
    }

    async fn remove_entry(
        &self,
        request: Request<pb::RemoveEntryRequest>,
    ) -> Result<Response<pb::RemoveEntryResponse>, Status> {
        authorize(&request)?;
        let email = request.get_ref().email.parse()?;
        let removed = self.agent.waitlist.remove(email).await?;
        if removed {
            tracing::info!("an address was taken off the waitlist");
        }
        Ok(Response::new(pb::RemoveEntryResponse { removed }))
    }
}
