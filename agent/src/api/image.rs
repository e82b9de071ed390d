//! `feather.agent.v1.ImageService`.

use std::io;

use feather_proto::{
    error::Error,
    pb::{agent::v1 as pb, agent::v1::image_service_server::ImageService},
};
use futures::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Api, authorize};

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
        let pieces = request.into_inner().map(|piece| piece.map(|piece| piece.data).map_err(io::Error::other));
        let images = self.agent.runtime.load_image(pieces.boxed()).await.map_err(Error::from)?;
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
