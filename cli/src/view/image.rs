//! Images as they are shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::ImageView;
use crate::{output::table, units};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServerImageView {
    pub(crate) server: String,
    #[serde(flatten)]
    pub(crate) image: ImageView,
    /// New tenants of this server get it.
    pub(crate) work: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct ImagesView {
    pub(crate) images: Vec<ServerImageView>,
    pub(crate) unreachable_servers: Vec<String>,
}

impl From<pb::ListImagesResponse> for ImagesView {
    fn from(pb: pb::ListImagesResponse) -> Self {
        let images = pb.images.into_iter().map(|one| ServerImageView {
            server: one.server,
            image: ImageView::from(one.image.unwrap_or_default()),
            work: one.work,
        });
        Self { images: images.collect(), unreachable_servers: pb.unreachable_servers }
    }
}

pub(crate) fn list(images: &[ServerImageView]) -> String {
    let rows: Vec<_> = images
        .iter()
        .map(|one| {
            [
                one.server.clone(),
                one.image.reference.clone().unwrap_or_default(),
                one.image.short_digest().to_owned(),
                units::bytes(one.image.size_bytes),
                if one.work { "work".to_owned() } else { String::new() },
            ]
        })
        .collect();
    table(["SERVER", "IMAGE", "DIGEST", "SIZE", "USE"], &rows)
}
