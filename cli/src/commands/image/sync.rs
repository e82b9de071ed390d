//! `featherctl image sync`

use feather_proto::{
    ids::ServerName,
    pb::controller::v1::{self as pb, sync_image_response::Event},
};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use crate::{
    arguments::Context,
    commands::{present, server_name},
    connect::{Connection, interrupt},
    error::Failure,
    view::ImageView,
};

/// Copy an image from one server to another.
///
/// By default the work image. Nothing is sent when the other server has it. It takes effect when it is there as a whole and is
/// the same, by digest.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Server that has it.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    from: ServerName,
    /// Server that is to have it.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    to: ServerName,
    /// Another image than the work image, by name or digest.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

#[derive(Serialize)]
struct SyncedView<'a> {
    from: &'a str,
    to: &'a str,
    /// It was there; nothing was sent.
    present: bool,
    image: &'a ImageView,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let (from, to) = (arguments.from.as_str(), arguments.to.as_str());
    if from == to {
        return Err(Failure::usage(
            format!("{from} cannot be copied to itself"),
            "name two servers; `featherctl image list` shows what each of them has",
        ));
    }
    let connection = context.connect()?;
    let request =
        pb::SyncImageRequest { from: from.to_owned(), to: to.to_owned(), image: arguments.image.unwrap_or_default() };
    let done = tokio::select! {
        done = follow(context, &connection, request) => done?,
        () = interrupt() => return Err(Failure::interrupted(
            "stopped before the image was there as a whole",
            format!("the images on {to} are as they were; copy again"),
        )),
    };
    let image = ImageView::from(present(done.image, "image")?);
    context.output.show(&SyncedView { from, to, present: done.present, image: &image }, || image.line())?;
    context.output.note(&if done.present {
        format!("{to} had it already; nothing was sent")
    } else {
        format!("{to} has it now, with the same digest as {from}")
    });
    Ok(())
}

async fn follow(
    context: &Context,
    connection: &Connection,
    request: pb::SyncImageRequest,
) -> Result<pb::SyncImageDone, Failure> {
    let mut progress = context.output.progress();
    progress.step(&format!("copying from {} to {}", request.from, request.to));
    let mut events = connection.call(connection.images().sync_image(request)).await?;
    while let Some(message) = events.next().await {
        match message.map_err(|status| connection.failure(status))?.event {
            Some(Event::Progress(now)) => progress.transfer(now.bytes, now.total_bytes),
            Some(Event::Done(done)) => return Ok(done),
            None => {}
        }
    }
    Err(Failure::bug("the controller ended the copy without saying how it went"))
}
