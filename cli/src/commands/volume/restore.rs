//! `featherctl volume restore`

use feather_proto::{
    ids::TenantName,
    pb::controller::v1::{self as pb, restore_volume_response::Event},
};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::told;
use crate::{
    arguments::Context,
    commands::{present, tenant_name},
    confirm::{Question, confirm},
    connect::{Connection, interrupt},
    error::Failure,
    view::{Moment, SummaryView, backup::BackupView},
};

/// Replace a tenant's data by that of a backup.
///
/// The tenant must be stopped or removed first. Everything is compared with what was backed up before it is used; a damaged
/// backup changes nothing. Asks before it does anything.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// Repository; without it the one that holds the newest backup that the controller knows of.
    #[arg(long, value_name = "DIR|s3://...", default_value = "", hide_default_value = true)]
    from: String,
    /// Which backup, as `volume backups` names it; without it the newest.
    #[arg(long, value_name = "BACKUP", default_value = "", hide_default_value = true)]
    backup: String,
    /// Say which backup would be restored, and where to.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct RestoredView<'a> {
    backup: &'a BackupView,
    server: &'a str,
    /// What the volume holds now; none for a dry run.
    summary: Option<&'a SummaryView>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let tenant = arguments.tenant.as_str();
    let connection = context.connect()?;
    let request = |backup: String, repository: String, dry_run| pb::RestoreVolumeRequest {
        tenant: tenant.to_owned(),
        repository,
        backup,
        dry_run,
    };
    // What is asked about is what is restored, also when a newer one comes meanwhile.
    let planned = follow(context, &connection, request(arguments.backup, arguments.from, true)).await?;
    let backup = BackupView::from(present(planned.backup, "backup")?);
    if arguments.dry_run {
        let view = RestoredView { backup: &backup, server: &planned.server, summary: None };
        context.output.show(&view, || backup.details())?;
        context
            .output
            .note(&format!("this would replace what {tenant} holds on {}; nothing was changed", planned.server));
        return Ok(());
    }
    let age = backup.taken.map(Moment::age).unwrap_or_default();
    let consequence = format!(
        "This replaces all data of {tenant} on {} by backup {}, which was taken {age} ago.",
        planned.server, backup.id
    );
    confirm(context.output, &Question { name: tenant, consequence: &consequence, yes: arguments.yes })?;
    let chosen = request(backup.id.clone(), backup.repository.clone(), false);
    let done = tokio::select! {
        done = follow(context, &connection, chosen) => done?,
        () = interrupt() => return Err(Failure::interrupted(
            "stopped before all of it was there",
            format!("what {tenant} holds stays as it was until a whole backup is there: restore it again"),
        )),
    };
    let summary = SummaryView::from(present(done.summary, "summary")?);
    let view = RestoredView { backup: &backup, server: &done.server, summary: Some(&summary) };
    context.output.show(&view, || {
        format!("{tenant} holds {} on {}, root digest {}", summary.size(), done.server, summary.root_digest)
    })?;
    context.output.note(&format!("`featherctl tenant start {tenant}` starts it (`tenant add`, if it was removed)"));
    Ok(())
}

async fn follow(
    context: &Context,
    connection: &Connection,
    request: pb::RestoreVolumeRequest,
) -> Result<pb::RestoreDone, Failure> {
    let mut progress = context.output.progress();
    let mut phase = "reading".to_owned();
    let mut events = connection.call(connection.backups().restore_volume(request)).await?;
    while let Some(message) = events.next().await {
        match message.map_err(|status| connection.failure(status))?.event {
            Some(Event::Progress(now)) => told(&mut progress, &mut phase, &now),
            Some(Event::Done(done)) => return Ok(done),
            None => {}
        }
    }
    Err(Failure::bug("the controller ended without saying how it went"))
}
