//! `featherctl status`

use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, error::Failure, view::status::StatusView};

/// Show the whole fleet on one screen, and what needs a person.
///
/// Shows what is known now and asks nobody. The server with the star is the ingress.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// All servers, operations and warnings, however many screens that takes.
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let response = connection.call(connection.status().get_status(pb::GetStatusRequest {})).await?;
    let view = StatusView::from(response);
    context.output.show(&view, || view.text(arguments.all))?;
    if view.servers.is_empty() {
        context.output.note("The fleet has no servers yet; `featherctl server invite NAME` lets one join.");
    }
    Ok(())
}
