//! `featherctl volume`

use clap::Subcommand;
use feather_proto::pb::controller::v1 as pb;

use crate::{arguments::Context, error::Failure, output::Progress};

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

/// Shows how far a backup or its way back is; a new phase begins a new line.
fn told(progress: &mut Progress, phase: &mut String, now: &pb::BackupProgress) {
    if *phase != now.phase {
        phase.clone_from(&now.phase);
        progress.step(match phase.as_str() {
            "checking" => "reading it back",
            "restoring" => "sending it to its server",
            other => other,
        });
    }
    progress.transfer(now.bytes, now.total_bytes);
}
