//! `featherctl waitlist`

use clap::Subcommand;
use feather_proto::{email::EmailAddress, error::Error, pb::controller::v1 as pb};
use tokio_stream::StreamExt as _;

use crate::{arguments::Context, connect::Connection, error::Failure, view::waitlist::WaitlistView};

mod export;
mod invite;
mod list;
mod remove;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    Export(export::Args),
    Invite(invite::Args),
    Remove(remove::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Export(arguments) => export::run(arguments, context).await,
        Verb::Invite(arguments) => invite::run(arguments, context).await,
        Verb::Remove(arguments) => remove::run(arguments, context).await,
    }
}

fn email(text: &str) -> Result<EmailAddress, Error> {
    text.parse()
}

/// The whole list, page by page.
async fn fetch(connection: &Connection, server: String) -> Result<WaitlistView, Failure> {
    let request = pb::ListEntriesRequest { server };
    let mut pages = connection.call(connection.waitlist().list_entries(request)).await?;
    let mut view = WaitlistView::default();
    while let Some(page) = pages.next().await {
        view.add(page.map_err(|status| connection.failure(status))?);
    }
    Ok(view)
}

/// What is missing from a list, and why.
fn remark(context: &Context, view: &WaitlistView) {
    for server in &view.unreachable_servers {
        context.output.note(&format!("{server} does not answer: who signed up there is missing from this list"));
    }
    view.problems.iter().for_each(|problem| context.output.note(problem));
}
