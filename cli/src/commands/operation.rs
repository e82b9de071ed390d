//! `featherctl operation`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod cancel;
mod list;
mod retry;
mod show;
mod watch;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    Show(show::Args),
    Watch(watch::Args),
    Cancel(cancel::Args),
    Retry(retry::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Show(arguments) => show::run(arguments, context).await,
        Verb::Watch(arguments) => watch::run(arguments, context).await,
        Verb::Cancel(arguments) => cancel::run(arguments, context).await,
        Verb::Retry(arguments) => retry::run(arguments, context).await,
    }
}
