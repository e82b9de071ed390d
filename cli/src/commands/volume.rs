//! `featherctl volume`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod archive;
mod backup;
mod backups;
mod export;
mod import;
mod list;
mod restore;
mod schedule;
mod verify;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    Export(export::Args),
    Import(import::Args),
    Verify(verify::Args),
    Backup(backup::Args),
    Backups(backups::Args),
    Restore(restore::Args),
    Schedule(schedule::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Export(arguments) => export::run(arguments, context).await,
        Verb::Import(arguments) => import::run(arguments, context).await,
        Verb::Verify(arguments) => verify::run(arguments, context).await,
        Verb::Backup(arguments) => backup::run(arguments, context).await,
        Verb::Backups(arguments) => backups::run(arguments, context).await,
        Verb::Restore(arguments) => restore::run(arguments, context).await,
        Verb::Schedule(arguments) => schedule::run(arguments, context).await,
    }
}
