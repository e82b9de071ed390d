//! `featherctl volume verify`

use feather_proto::{
    ids::TenantName,
    pb::controller::v1::{self as pb, verify_backup_response::Event},
};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::told;
use crate::{
    arguments::Context,
    commands::{present, tenant_name},
    connect::{Connection, interrupt},
    error::Failure,
    output::pairs,
    units,
    view::{SummaryView, backup::BackupView},
};

/// Read a tenant's whole volume and print its root digest, or read a backup of it back.
///
/// Two volumes with the same root digest are identical in every path, owner, mode, time, link and byte. The digest of a
/// running tenant changes with its data. With --backup or --from a backup is compared with what was written instead.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// Read back this backup, as `volume backups` names it; without a name the newest.
    #[arg(long, value_name = "BACKUP", num_args = 0..=1, default_missing_value = "")]
    backup: Option<String>,
    /// Where the backup is; without it in the repository with the newest that the controller knows of.
    #[arg(long, value_name = "DIR|s3://...")]
    from: Option<String>,
}

#[derive(Serialize)]
struct VerifiedView<'a> {
    tenant: &'a str,
    server: &'a str,
    summary: &'a SummaryView,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let tenant = arguments.tenant.as_str();
    if arguments.backup.is_some() || arguments.from.is_some() {
        let request = pb::VerifyBackupRequest {
            tenant: tenant.to_owned(),
            repository: arguments.from.unwrap_or_default(),
            backup: arguments.backup.unwrap_or_default(),
        };
        return read_back(request, &connection, context).await;
    }
    let request = pb::VerifyVolumeRequest { tenant: tenant.to_owned() };
    let mut progress = context.output.progress();
    progress.step(&format!("reading {tenant}'s volume"));
    let response = tokio::select! {
        answer = async { connection.long_call(connection.volumes().verify_volume(request)).await } => answer?,
        () = interrupt() => return Err(Failure::interrupted("stopped before the volume was read", "nothing was changed")),
    };
    drop(progress);
    let summary = SummaryView::from(present(response.summary, "summary")?);
    let view = VerifiedView { tenant, server: &response.server, summary: &summary };
    context.output.show(&view, || {
        pairs(&[
            ("tenant", tenant.to_owned()),
            ("server", response.server.clone()),
            ("size", summary.size()),
            ("directories", summary.directories.to_string()),
            ("entries", summary.entries.to_string()),
            ("root digest", summary.root_digest.clone()),
            ("note", skipped(&summary)),
        ])
    })
}

async fn read_back(
    request: pb::VerifyBackupRequest,
    connection: &Connection,
    context: &Context,
) -> Result<(), Failure> {
    let mut progress = context.output.progress();
    progress.step(&format!("reading a backup of {}", request.tenant));
    let followed = async {
        let mut phase = "checking".to_owned();
        let mut events = connection.call(connection.backups().verify_backup(request)).await?;
        while let Some(message) = events.next().await {
            match message.map_err(|status| connection.failure(status))?.event {
                Some(Event::Progress(now)) => told(&mut progress, &mut phase, &now),
                Some(Event::Done(done)) => return Ok(done),
                None => {}
            }
        }
        Err(Failure::bug("the controller ended without saying how it went"))
    };
    let done = tokio::select! {
        done = followed => done?,
        () = interrupt() => return Err(Failure::interrupted("stopped before the backup was read", "nothing was changed")),
    };
    drop(progress);
    let backup = BackupView::from(done);
    context.output.show(&backup, || backup.details())
}

fn skipped(summary: &SummaryView) -> String {
    match summary.skipped_sockets {
        0 => String::new(),
        count => format!("{} left out: a socket means nothing without its process", units::counted(count, "socket")),
    }
}
