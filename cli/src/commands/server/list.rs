//! `featherctl server list`

use feather_proto::pb::controller::v1 as pb;

use crate::{
    arguments::Context,
    error::Failure,
    view::{
        server::{self, ServerView},
        warning, wide,
    },
};

/// Show all servers, and how much room each has.
///
/// With `--output wide` also where the world reaches each, since when it is a member, the version of its agent and of the protocol that it
/// speaks, whether it is the ingress, and its labels.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let response = connection.call(connection.servers().list_servers(pb::ListServersRequest {})).await?;
    let servers: Vec<ServerView> = response.servers.into_iter().map(ServerView::from).collect();
    context.output.show(&servers, || match servers.is_empty() {
        true => String::new(),
        false if context.output.is_wide() => wide::servers(&servers),
        false => server::list(&servers),
    })?;
    if servers.is_empty() {
        context.output.note("The fleet has no servers yet; `featherctl server invite NAME` lets one join.");
    }
    servers.iter().filter_map(ServerView::remark).for_each(|remark| context.output.note(&remark));
    warning::footer(response.warnings).iter().for_each(|footer| context.output.note(footer));
    Ok(())
}
