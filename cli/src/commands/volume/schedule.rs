//! `featherctl volume schedule`

use std::time::Duration;

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::tenant_name,
    error::Failure,
    units,
    view::backup::{self, ScheduleView},
};

/// Have a tenant backed up by itself, or show who is.
///
/// The first backup is made at once. One that fails is tried again, and `warning list` tells of it. Expired backups are deleted, but
/// never a tenant's newest, nor its newest that was read back in order.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant; without one all schedules are shown.
    #[arg(value_name = "TENANT", value_parser = tenant_name, requires = "change")]
    tenant: Option<TenantName>,
    #[command(flatten)]
    change: Change,
    /// Repository: a folder of the controller's machine, by its absolute path, or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "DIR|s3://...", requires = "every")]
    to: Option<String>,
    /// How long each is kept, at least as long as the interval. Without it: until somebody deletes it.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, requires = "every")]
    keep: Option<Duration>,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

#[derive(Debug, clap::Args)]
#[group(id = "change", multiple = false)]
struct Change {
    /// From one backup to the next, at least a minute: 24h.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, requires_all = ["tenant", "to"])]
    every: Option<Duration>,
    /// No more. Backups that were made stay.
    #[arg(long, requires = "tenant")]
    off: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let Some(tenant) = arguments.tenant else {
        let request = pb::ListBackupSchedulesRequest {};
        let response = connection.call(connection.backups().list_backup_schedules(request)).await?;
        let rows: Vec<_> = response.schedules.into_iter().map(ScheduleView::from).collect();
        context.output.show(&rows, || if rows.is_empty() { String::new() } else { backup::schedules(&rows) })?;
        if rows.is_empty() {
            context.output.note(
                "Nobody is backed up by itself; `featherctl volume schedule TENANT --every 24h --keep 30d --to DIR` changes that.",
            );
        }
        return Ok(());
    };
    let request = pb::SetBackupScheduleRequest {
        tenant: tenant.to_string(),
        repository: arguments.to.unwrap_or_default(),
        every_seconds: arguments.change.every.map_or(0, |every| every.as_secs().max(1)),
        keep_seconds: arguments.keep.map_or(0, |keep| keep.as_secs().max(1)),
    };
    let response = connection.call(connection.backups().set_backup_schedule(request)).await?;
    let schedule = response.schedule.map(ScheduleView::from);
    context.output.show(&schedule, || {
        schedule.as_ref().map_or_else(String::new, |one| backup::schedules(std::slice::from_ref(one)))
    })?;
    if schedule.is_none() {
        context.output.note(&format!("{tenant} is not backed up by itself; its backups stay"));
    }
    Ok(())
}
