//! `featherctl volume backups`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::tenant_name,
    error::Failure,
    view::backup::{self, BackupView},
};

/// Show backups, the newest first.
///
/// Without --from those that the controller knows of; with it what is in that repository, also if another controller made it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this tenant's.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: Option<TenantName>,
    /// Look into this repository.
    #[arg(long, value_name = "DIR|s3://...", default_value = "", hide_default_value = true)]
    from: String,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let tenant = arguments.tenant.map_or_else(String::new, |tenant| tenant.to_string());
    let request = pb::ListBackupsRequest { tenant, repository: arguments.from };
    let response = connection.call(connection.backups().list_backups(request)).await?;
    let backups: Vec<_> = response.backups.into_iter().map(BackupView::from).collect();
    context.output.show(&backups, || if backups.is_empty() { String::new() } else { backup::list(&backups) })?;
    if backups.is_empty() {
        context.output.note("There are no backups; `featherctl volume backup TENANT --to DIR` makes one.");
    }
    for damaged in backups.iter().filter_map(|one| Some((one, one.damage.as_ref()?))) {
        context.output.note(&format!("{} of {}: {}", damaged.0.id, damaged.0.tenant, damaged.1));
    }
    Ok(())
}
