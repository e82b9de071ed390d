//! `featherctl image list`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::server_name,
    error::Failure,
    view::image::{self, ImagesView},
};

/// Show the images on all servers.
///
/// New tenants of a server get the one marked as `work`; tenants that are there keep the one they were added with. An image
/// whose name has moved to another has no name any more, and is kept for those.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only that server's.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    server: Option<ServerName>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::ListImagesRequest { server: arguments.server.map(String::from).unwrap_or_default() };
    let view = ImagesView::from(connection.call(connection.images().list_images(request)).await?);
    context.output.show(&view, || if view.images.is_empty() { String::new() } else { image::list(&view.images) })?;
    if view.images.is_empty() && view.unreachable_servers.is_empty() {
        context.output.note("There are no images; `featherctl image load SERVER FILE` loads one.");
    }
    for server in &view.unreachable_servers {
        context.output.note(&format!("{server} does not answer: its images are missing from this list"));
    }
    Ok(())
}
