//! `ImageService`: passes archives of images between featherctl and agents, and between agents.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
    model::{Image, ServerSnapshot, required},
    pb::controller::v1::{self as pb, image_service_server::ImageService, sync_image_response::Event},
};
use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{admin, given, reader};
use crate::{agents::ImageWanted, world::World};

/// Lists and passes on images.
pub struct Images {
    world: Arc<World>,
}

/// How often somebody who waits is told how far a copy is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

type Archive = BoxStream<'static, Result<Bytes, Error>>;

impl Images {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// What a server holds now; an error when it cannot be asked.
    async fn look(&self, server: &ServerName) -> Result<ServerSnapshot, Error> {
        self.world.agent(server).await?.snapshot().await
    }
}

/// An image by reference or digest, with or without its algorithm; nothing named means the work image. Pure.
fn find(server: &ServerName, snapshot: &ServerSnapshot, named: &str) -> Result<Image, Error> {
    let named = if named.is_empty() { snapshot.work_image.as_str() } else { named };
    let tagged = format!("{named}:latest");
    let is_it = |image: &&Image| {
        let digest = image.digest.trim_start_matches("sha256:");
        let by_digest = named.len() >= 12 && digest.starts_with(named.trim_start_matches("sha256:"));
        image.reference == named || image.reference == tagged || by_digest
    };
    snapshot.images.iter().find(is_it).cloned().ok_or_else(|| {
        Error::refused(
            reason::IMAGE_MISSING,
            format!("{server} has no image {named}; `featherctl image list --server {server}` shows what it has"),
        )
        .with("server", server)
    })
}

/// Pieces of an upload, up to its end mark. Ending without the mark is an error, so that a broken one is never taken for whole.
fn pieces(first: pb::LoadImageRequest, upload: Streaming<pb::LoadImageRequest>) -> Archive {
    let messages = futures::stream::iter([Ok(first)]).chain(upload);
    futures::stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        match messages.next().await {
            Some(Ok(message)) if message.end && message.data.is_empty() => None,
            Some(Ok(message)) => Some((Ok(message.data), (!message.end).then_some(messages))),
            Some(Err(status)) => Some((Err(status.into()), None)),
            None => Some((Err(Error::invalid(reason::BAD_STREAM, "the archive was not sent whole")), None)),
        }
    })
    .boxed()
}

/// The same archive; counts what passes, and remembers why it broke: that explains what the other end says of it.
fn watched(archive: Archive, passed: watch::Sender<u64>, broken: Arc<Mutex<Option<Error>>>) -> Archive {
    archive
        .inspect(move |piece| match piece {
            Ok(data) => passed.send_modify(|bytes| *bytes += data.len() as u64),
            Err(error) => *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone()),
        })
        .boxed()
}

/// A copy under way.
struct Copy {
    world: Arc<World>,
    from: ServerName,
    to: ServerName,
    image: Image,
}

impl Copy {
    async fn run(self, passed: watch::Sender<u64>) -> Result<pb::SyncImageDone, Error> {
        let Self { world, from, to, image } = self;
        // By name, if it has one, so that the copy has it too; what comes must be this image all the same.
        let named = if image.reference.is_empty() { &image.digest } else { &image.reference };
        let broken = Arc::new(Mutex::new(None));
        let archive = world.agent(&from).await?.export_image(named).await?;
        let archive = watched(archive, passed, broken.clone());
        let wanted = ImageWanted { size_bytes: image.size_bytes, digest: Some(image.digest.clone()) };
        let loaded = world.agent(&to).await?.load_image(&wanted, archive).await;
        world.look_again(&to).await;
        if let Some(error) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error.context(format!("{from} did not send the image whole")));
        }
        loaded.map_err(|error| error.context(format!("{to} did not take the image")))?;
        tracing::info!(%from, %to, digest = %image.digest, "image copied");
        Ok(pb::SyncImageDone { image: Some(image.into()), present: false })
    }
}

/// Progress while the copy runs, then its end. Dropping it ends the copy, which leaves the target as it was.
fn events(copy: Copy) -> BoxStream<'static, Result<pb::SyncImageResponse, Status>> {
    let total_bytes = copy.image.size_bytes;
    let (sender, passed) = watch::channel(0);
    let copying = Box::pin(copy.run(sender));
    futures::stream::unfold(Some((copying, passed)), move |state| async move {
        let (mut copying, passed) = state?;
        tokio::select! {
            biased;
            done = &mut copying => {
                let event = done.map(|done| pb::SyncImageResponse { event: Some(Event::Done(done)) });
                Some((event.map_err(Status::from), None))
            }
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                let bytes = *passed.borrow();
                let progress = pb::SyncImageProgress { bytes, total_bytes };
                Some((Ok(pb::SyncImageResponse { event: Some(Event::Progress(progress)) }), Some((copying, passed))))
            }
        }
    })
    .boxed()
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        reader(&request)?;
        let only: Option<ServerName> = given(&request.get_ref().server)?;
        let mut members = self.world.store.servers().await.map_err(Error::from)?;
        if let Some(only) = &only {
            let only = self.world.store.member(only).await.map_err(Error::from)?;
            members.retain(|row| row.name == only.name);
        }
        let mut answer = pb::ListImagesResponse::default();
        for row in members {
            let observed = self.world.fleet.observed(&row.name);
            let Some(snapshot) = observed.alive() else {
                answer.unreachable_servers.push(row.name.to_string());
                continue;
            };
            answer.images.extend(snapshot.images.iter().map(|image| pb::ServerImage {
                server: row.name.to_string(),
                work: image.reference == snapshot.work_image,
                image: Some(image.clone().into()),
            }));
        }
        Ok(Response::new(answer))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<pb::LoadImageRequest>>,
    ) -> Result<Response<pb::LoadImageResponse>, Status> {
        let caller = admin(&request)?;
        let mut upload = request.into_inner();
        let first = required(upload.message().await?, "server")?;
        let server: ServerName = first.server.parse()?;
        let wanted = ImageWanted { size_bytes: first.size_bytes, digest: None };
        let loaded = self.world.agent(&server).await?.load_image(&wanted, pieces(first, upload)).await;
        self.world.look_again(&server).await;
        let images = loaded?;
        tracing::info!(%server, by = %caller, "image loaded");
        Ok(Response::new(pb::LoadImageResponse { images: images.into_iter().map(Into::into).collect() }))
    }

    type SyncImageStream = BoxStream<'static, Result<pb::SyncImageResponse, Status>>;

    async fn sync_image(
        &self,
        request: Request<pb::SyncImageRequest>,
    ) -> Result<Response<Self::SyncImageStream>, Status> {
        admin(&request)?;
        let message = request.into_inner();
        let (from, to): (ServerName, ServerName) = (message.from.parse()?, message.to.parse()?);
        let image = find(&from, &self.look(&from).await?, &message.image)?;
        let target = self.look(&to).await?;
        let has_it = |held: &Image| {
            held.digest == image.digest && (held.reference == image.reference || image.reference.is_empty())
        };
        if target.images.iter().any(has_it) {
            let done = pb::SyncImageDone { image: Some(image.into()), present: true };
            let event = pb::SyncImageResponse { event: Some(Event::Done(done)) };
            return Ok(Response::new(futures::stream::iter([Ok(event)]).boxed()));
        }
        Ok(Response::new(events(Copy { world: self.world.clone(), from, to, image })))
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::{
        ids::ServerName,
        model::{Image, ServerSnapshot},
    };

    use super::find;

    fn snapshot() -> ServerSnapshot {
        let image = |reference: &str, digit: &str| Image {
            reference: reference.into(),
            digest: format!("sha256:{}", digit.repeat(64)),
            size_bytes: 1,
        };
        ServerSnapshot {
            images: vec![image("", "a"), image("localhost/feather-work:latest", "b"), image("localhost/other:1", "c")],
            work_image: "localhost/feather-work:latest".into(),
            ..ServerSnapshot::empty("nyc".parse().unwrap())
        }
    }

    #[test]
    fn images_are_found_by_name_by_digest_and_as_the_work_image() {
        let (nyc, snapshot): (ServerName, _) = ("nyc".parse().unwrap(), snapshot());
        let digit = |named: &str| find(&nyc, &snapshot, named).ok().and_then(|image| image.digest.chars().last());
        let (full, short) = (format!("sha256:{}", "a".repeat(64)), "c".repeat(12));
        let cases =
            [("", 'b'), ("localhost/feather-work", 'b'), ("localhost/other:1", 'c'), (&full, 'a'), (&short, 'c')];
        for (named, wanted) in cases {
            assert_eq!(digit(named), Some(wanted), "{named}");
        }
        for named in ["localhost/other", "a", "sha256:", "localhost/feather-work:old"] {
            assert_eq!(digit(named), None, "{named}");
        }
    }
}
