//! `featherctl dns ingress`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::server_name,
    error::Failure,
    view::{dns::PlanView, set},
};

/// Make another server the one that the wildcard record leads to.
///
/// It forwards requests for tenants that live elsewhere. The server that was the ingress goes on forwarding what still reaches it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// Only show what would change in the zone.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

#[derive(Serialize)]
struct IngressView<'a> {
    dry_run: bool,
    server: &'a str,
    before: Option<String>,
    plan: Option<PlanView>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let server = arguments.server.as_str();
    let request = pb::SetIngressRequest { server: server.to_owned(), dry_run: arguments.dry_run };
    let response = connection.call(connection.dns().set_ingress(request)).await?;
    let plan = response.plan.map(PlanView::from);
    let view = IngressView { dry_run: arguments.dry_run, server, before: set(response.before), plan };
    let text = || view.plan.as_ref().map(PlanView::text).unwrap_or_default();
    context.output.show(&view, || if arguments.dry_run { text() } else { String::new() })?;
    let before = view.before.as_deref().unwrap_or("nobody");
    context.output.note(&match (arguments.dry_run, before == server, &view.plan) {
        (_, true, _) => format!("{server} is the ingress already"),
        (true, false, _) => format!("{server} would be the ingress instead of {before}"),
        (false, false, None) => format!(
            "{server} is the ingress instead of {before}; this controller writes no DNS, so point the wildcard record there by hand"
        ),
        (false, false, Some(_)) => {
            format!("{server} is the ingress instead of {before}; `featherctl dns status` shows the wildcard following")
        }
    });
    Ok(())
}
