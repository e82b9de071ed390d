//! `featherctl audit`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod list;
mod verify;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    Verify(verify::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Verify(arguments) => verify::run(arguments, context).await,
    }
}
