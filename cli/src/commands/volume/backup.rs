//! `featherctl volume backup`

use std::time::Duration;

use feather_proto::{
    ids::TenantName,
    pb::controller::v1::{self as pb, backup_volume_response::Event},
};
use tokio_stream::StreamExt as _;

use super::told;
use crate::{
    arguments::Context,
    commands::tenant_name,
    connect::{Connection, interrupt},
    error::Failure,
    units,
    view::backup::BackupView,
};

/// Copy a tenant's data out of the fleet, and read the copy back.
///
/// Only what the repository does not hold yet is written. The tenant may go on running; for a copy of one moment, stop it first.
/// `volume schedule` makes backups by themselves, `volume restore` brings one back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// Repository: a folder of the controller's machine, by its absolute path, or s3://BUCKET/PREFIX. Credentials for S3 are in
    /// the controller's environment (AWS_ACCESS_KEY_ID and so on).
    #[arg(long, value_name = "DIR|s3://...")]
    to: String,
    /// It may be deleted after this time, unless it is the tenant's newest there. Without it: only by hand.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    keep: Option<Duration>,
    /// Do not read it back. It does not count as verified then.
    #[arg(long)]
    no_verify: bool,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::BackupVolumeRequest {
        tenant: arguments.tenant.to_string(),
        repository: arguments.to,
        keep_seconds: arguments.keep.map_or(0, |keep| keep.as_secs().max(1)),
        unverified: arguments.no_verify,
    };
    let done = tokio::select! {
        done = follow(context, &connection, request) => done?,
        () = interrupt() => return Err(Failure::interrupted(
            "stopped before the backup was whole",
            "no half backup was left behind; back up again",
        )),
    };
    let backup = BackupView::from(done);
    context.output.show(&backup, || backup.details())
}

async fn follow(
    context: &Context,
    connection: &Connection,
    request: pb::BackupVolumeRequest,
) -> Result<pb::Backup, Failure> {
    let mut progress = context.output.progress();
    progress.step(&format!("backing up {}", request.tenant));
    let mut phase = "reading".to_owned();
    let mut events = connection.call(connection.backups().backup_volume(request)).await?;
    while let Some(message) = events.next().await {
        match message.map_err(|status| connection.failure(status))?.event {
            Some(Event::Progress(now)) => told(&mut progress, &mut phase, &now),
            Some(Event::Done(done)) => return Ok(done),
            None => {}
        }
    }
    Err(Failure::bug("the controller ended the backup without saying how it went"))
}
