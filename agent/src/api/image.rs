//! `feather.agent.v1.ImageService`.

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    model::required,
    pb::{agent::v1 as pb, agent::v1::image_service_server::ImageService},
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Api, authorize};
use crate::image::{self, Wanted};

/// Pieces of an archive, up to its end mark. Ending without the mark is an error: what broke off is never taken for whole.
fn pieces(
    first: pb::LoadImageRequest,
    rest: Streaming<pb::LoadImageRequest>,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let messages = stream::iter([Ok(first)]).chain(rest);
    stream::unfold(Some(messages), |messages| async move {
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

#[tonic::async_trait]
impl ImageService for Api {
    async fn list_images(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        authorize(&request)?;
        let images = self.agent.runtime.images().await.map_err(Error::from)?;
        Ok(Response::new(pb::ListImagesResponse { images: images.into_iter().map(Into::into).collect() }))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<pb::LoadImageRequest>>,
    ) -> Result<Response<pb::LoadImageResponse>, Status> {
        authorize(&request)?;
        let mut messages = request.into_inner();
        let first = required(messages.message().await?, "data")?;
        let digest = Some(first.expected_digest.clone()).filter(|digest| !digest.is_empty());
        let wanted = Wanted { size_bytes: first.size_bytes, digest };
        let images = image::load(&*self.agent.runtime, pieces(first, messages), wanted).await?;
        for image in &images {
            tracing::info!(image = image.reference, digest = image.digest, "image loaded");
        }
        self.agent.wake.notify_one();
        Ok(Response::new(pb::LoadImageResponse { images: images.into_iter().map(Into::into).collect() }))
    }

    type ExportImageStream = Answers<pb::ExportImageResponse>;

    async fn export_image(
        &self,
        request: Request<pb::ExportImageRequest>,
    ) -> Result<Response<Self::ExportImageStream>, Status> {
        authorize(&request)?;
        let pieces = self.agent.runtime.export_image(&request.into_inner().image).await.map_err(Error::from)?;
        let answers = pieces.map(|piece| match piece {
            Ok(data) => Ok(pb::ExportImageResponse { data }),
            Err(error) => Err(Error::from(error).into()),
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
