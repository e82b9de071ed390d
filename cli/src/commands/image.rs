//! `featherctl image`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod list;
mod load;
mod sync;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    Load(load::Args),
    Sync(sync::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Load(arguments) => load::run(arguments, context).await,
        Verb::Sync(arguments) => sync::run(arguments, context).await,
    }
}
