//! `featherctl tenant migrate`

use std::time::Duration;

use feather_proto::{
    ids::{ServerName, TenantName},
    labels::Label,
    pb::controller::v1 as pb,
};
use serde::Serialize;

use flow::Flow;

use crate::{
    arguments::Context,
    commands::{finish, label, labels, plan, request_id, server_name, tenant_name},
    error::Failure,
    follow::Wait,
    units,
    view::migration::{PredictionView, RoomView},
};

pub(in crate::commands) mod flow;
mod several;

/// Move tenants with all their data to another server.
///
/// A tenant runs on while its data is copied; then its requests wait while the rest is. The data is proved identical on both sides
/// before anything is switched; until then every failure puts the tenant back where it was. The copy on the old server is kept for a
/// while: --undo moves back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenants.
    #[arg(value_name = "TENANT", value_parser = tenant_name, required_unless_present = "all_from")]
    tenants: Vec<TenantName>,
    /// All that live on this server.
    #[arg(long, value_name = "SERVER", value_parser = server_name, conflicts_with = "tenants")]
    all_from: Option<ServerName>,
    /// Server to move to, instead of the one with most room.
    #[arg(long, value_name = "SERVER", value_parser = server_name, conflicts_with = "undo")]
    to: Option<ServerName>,
    /// A label that the new server must have, as region=eu, beside those that the tenant was added with; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    on: Vec<Label>,
    /// Move back to the server it came from.
    #[arg(long)]
    undo: bool,
    /// Moves at once, of several.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = at_once)]
    parallel: u8,
    #[command(flatten)]
    flow: Flow,
    /// How long the old server keeps its copy.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = units::parse_duration)]
    keep_source: Duration,
    /// Only print what would move, what that takes, and what the new server has left then.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

fn at_once(text: &str) -> Result<u8, String> {
    let count = text.parse().ok().filter(|count| (1..=16).contains(count));
    count.ok_or_else(|| format!("{text:?} is not a number of moves at once: write 1 to 16"))
}

/// What a dry run finds.
#[derive(Serialize)]
struct PlanView {
    dry_run: bool,
    tenant: String,
    source: String,
    target: String,
    volume_bytes: u64,
    explanation: Vec<String>,
    prediction: Option<PredictionView>,
    /// Why there is none.
    not_predicted: Option<String>,
    target_after: Option<RoomView>,
}

impl PlanView {
    fn new(tenant: &str, response: pb::MigrateTenantResponse) -> Self {
        Self {
            dry_run: true,
            tenant: tenant.to_owned(),
            source: response.source,
            target: response.target,
            volume_bytes: response.volume_bytes,
            explanation: response.explanation,
            prediction: response.prediction.map(PredictionView::from),
            not_predicted: Some(response.not_predicted).filter(|why| !why.is_empty()),
            target_after: response.target_after.map(RoomView::from),
        }
    }

    fn told(&self) -> String {
        let size = units::bytes(self.volume_bytes);
        let headline = format!("would move {} {} -> {}, {size} of data", self.tenant, self.source, self.target);
        let mut lines = self.explanation.clone();
        lines.extend(self.prediction.as_ref().map(|prediction| format!("predicted: {}", prediction.told())));
        lines.extend(self.not_predicted.as_ref().map(|why| format!("no prediction: {why}")));
        lines.extend(self.target_after.as_ref().map(|left| format!("{} has left then: {}", self.target, left.told())));
        plan(&headline, &lines)
    }
}

impl Args {
    fn request(&self, tenant: &TenantName) -> pb::MigrateTenantRequest {
        pb::MigrateTenantRequest {
            request_id: request_id(),
            tenant: tenant.to_string(),
            server: self.to.clone().map(String::from).unwrap_or_default(),
            dry_run: self.dry_run,
            undo: self.undo,
            keep_source_seconds: self.keep_source.as_secs(),
            bytes_per_second_max: self.flow.bytes_per_second_max(),
            route: self.flow.route().into(),
            planned_before: Vec::new(),
            on: labels(&self.on),
        }
    }
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let [tenant] = &arguments.tenants[..] else { return several::run(&arguments, context).await };
    let connection = context.connect()?;
    let request = arguments.request(tenant);
    let response = connection.change(async || connection.tenants().migrate_tenant(request.clone()).await).await?;
    if arguments.dry_run {
        let view = PlanView::new(tenant.as_str(), response);
        return context.output.show(&view, || view.told());
    }
    finish(context, &connection, response.operation, arguments.wait, None).await
}
