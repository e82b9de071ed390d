//! `featherctl warning`

use clap::Subcommand;
use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, connect::Connection, error::Failure, view::warning::WarningView};

mod ack;
mod list;
mod show;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    Show(show::Args),
    Ack(ack::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Show(arguments) => show::run(arguments, context).await,
        Verb::Ack(arguments) => ack::run(arguments, context).await,
    }
}

/// All that hold, and how many were left out because somebody knows of them.
async fn fetch(connection: &Connection, all: bool) -> Result<(Vec<WarningView>, u32), Failure> {
    let request = pb::ListWarningsRequest { acknowledged: all };
    let response = connection.call(connection.warnings().list_warnings(request)).await?;
    Ok((response.warnings.into_iter().map(WarningView::from).collect(), response.acknowledged))
}
