//! `featherctl tenant place`

use feather_proto::{
    ids::{ServerName, TenantName},
    labels::{Label, LabelName},
    pb::controller::v1 as pb,
};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{group, label, labels, server_name, tenant_name},
    confirm::NothingToConfirm,
    error::Failure,
    view::{labels::LabelsView, set},
};

/// Say where placement may put a tenant from now on.
///
/// Moves nothing. In place of what the tenant was added with. It holds when a server is drained and for `featherctl tenant migrate` without --to; who
/// names a server with --to is not bound by it.
#[derive(Debug, clap::Args)]
#[command(override_usage = "featherctl tenant place [OPTIONS] <TENANT>")]
#[command(group = clap::ArgGroup::new("where").required(true).multiple(true).args(["on", "pin", "spread", "anywhere"]))]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// A label that its server must have; may be given several times, and all must hold.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    on: Vec<Label>,
    /// The only server it may be on.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    pin: Option<ServerName>,
    /// A group, of which no two are put on one server.
    #[arg(long, value_name = "GROUP", value_parser = group)]
    spread: Option<LabelName>,
    /// On any server.
    #[arg(long, conflicts_with_all = ["on", "pin", "spread"])]
    anywhere: bool,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

#[derive(Serialize)]
struct PlacedView<'a> {
    tenant: &'a str,
    dry_run: bool,
    on: LabelsView,
    pin: Option<String>,
    spread: Option<String>,
    changed: bool,
    unmet: Vec<String>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let on = labels(&arguments.on);
    let connection = context.connect()?;
    let (tenant, dry_run) = (arguments.tenant.as_str(), arguments.dry_run);
    let pin = arguments.pin.map(String::from).unwrap_or_default();
    let spread = arguments.spread.map(String::from).unwrap_or_default();
    let request = pb::PlaceTenantRequest { tenant: tenant.to_owned(), on, pin, dry_run, spread };
    let response = connection.change(async || connection.tenants().place_tenant(request.clone()).await).await?;
    let view = PlacedView {
        tenant,
        dry_run,
        on: request.on.into(),
        pin: set(request.pin),
        spread: set(request.spread),
        changed: response.changed,
        unmet: response.unmet,
    };
    context.output.show(&view, String::new)?;
    let would = if dry_run { "would be" } else { "is" };
    context.output.note(&match view.changed {
        true => format!("{tenant} {would} bound to {}", view.bounds()),
        false => format!("{tenant} is bound to {} already", view.bounds()),
    });
    if !view.unmet.is_empty() {
        context.output.note(&format!(
            "where it lives now that does not hold: {}. It stays there until `featherctl tenant migrate {tenant}`.",
            view.unmet.join(", ")
        ));
    }
    Ok(())
}

impl PlacedView<'_> {
    fn bounds(&self) -> String {
        let bounds = match (&self.pin, self.on.is_empty()) {
            (None, true) => "no server in particular".to_owned(),
            (None, false) => format!("servers with {}", self.on.told()),
            (Some(pin), true) => pin.clone(),
            (Some(pin), false) => format!("{pin}, if it has {}", self.on.told()),
        };
        match &self.spread {
            None => bounds,
            Some(group) => format!("{bounds}, and away from others of the group {group}"),
        }
    }
}
