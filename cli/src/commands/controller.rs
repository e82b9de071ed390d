//! `featherctl controller`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod backup;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Backup(backup::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Backup(arguments) => backup::run(arguments, context).await,
    }
}
