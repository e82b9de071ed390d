//! `EventService`.

use std::{collections::VecDeque, sync::Arc};

use feather_proto::{
    error::Error,
    model::{from_timestamp, invalid_field, to_timestamp},
    pb::controller::v1::{self as pb, event_service_server::EventService},
};
use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{optional, reader};
use crate::{
    store::events::{EventRow, Wanted},
    world::World,
};

/// Events that are read at once.
const BATCH: i64 = 256;
const SUBJECT_MAX: usize = 100;

/// Sends events.
pub struct EventApi {
    world: Arc<World>,
}

impl EventApi {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

fn encode(EventRow { id, event }: EventRow) -> pb::FleetEvent {
    pb::FleetEvent {
        id,
        at: Some(to_timestamp(event.at)),
        kind: event.kind,
        subject: event.subject,
        server: optional(event.server),
        message: event.message,
        operation: optional(event.operation),
        who: event.who.unwrap_or_default(),
    }
}

fn wanted(message: &pb::WatchEventsRequest) -> Result<Wanted, Error> {
    if message.after < 0 {
        return Err(invalid_field("after", "the number of an event, or 0"));
    }
    if message.subject.len() > SUBJECT_MAX {
        return Err(invalid_field("subject", "a tenant, a server, `dns` or `certificate`"));
    }
    let since = message.since.as_ref().map(from_timestamp).transpose()?;
    Ok(Wanted { after: message.after, since, subject: message.subject.clone() })
}

/// Where one stream is.
struct Reader {
    world: Arc<World>,
    news: watch::Receiver<i64>,
    wanted: Wanted,
    follow: bool,
    read: VecDeque<EventRow>,
}

impl Reader {
    /// The next event; none when all were sent and nobody waits for more.
    async fn next(&mut self) -> Result<Option<EventRow>, Error> {
        loop {
            if let Some(row) = self.read.pop_front() {
                self.wanted.after = row.id;
                return Ok(Some(row));
            }
            self.news.mark_unchanged();
            self.read = self.world.store.events(&self.wanted, BATCH).await?.into();
            if !self.read.is_empty() {
                continue;
            }
            if !self.follow {
                return Ok(None);
            }
            // Another controller on the same store rings no bell here.
            tokio::select! {
                rung = self.news.changed() => if rung.is_err() { return Ok(None) },
                () = tokio::time::sleep(self.world.settings.reconcile) => {}
            }
        }
    }
}

#[tonic::async_trait]
impl EventService for EventApi {
    type WatchEventsStream = BoxStream<'static, Result<pb::WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        reader(&request)?;
        let message = request.into_inner();
        let mut wanted = wanted(&message)?;
        let store = &self.world.store;
        // What is wrong with the number is said before the stream begins.
        store.events(&wanted, 1).await.map_err(Error::from)?;
        if message.newest > 0 {
            wanted.after = store.event_before_newest(&wanted, message.newest.into()).await.map_err(Error::from)?;
        }
        let (news, world) = (store.subscribe(), self.world.clone());
        let reader = Reader { world, news, wanted, follow: message.follow, read: VecDeque::new() };
        let begin = pb::WatchEventsResponse { event: None, cursor: reader.wanted.after };
        let begin = futures::stream::once(async move { Ok(begin) });
        let events = futures::stream::unfold(Some(reader), |state| async move {
            let mut reader = state?;
            match reader.next().await {
                Ok(row) => {
                    let row = row?;
                    let message = pb::WatchEventsResponse { cursor: row.id, event: Some(encode(row)) };
                    Some((Ok(message), Some(reader)))
                }
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(begin.chain(events))))
    }
}
