//! `featherctl tenant set`

use feather_proto::{ids::TenantName, limits::Limits, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::tenant_name,
    confirm::NothingToConfirm,
    error::Failure,
    limits::{cpus, memory, pids, told},
    view::{set, tenant::LimitsView},
};

/// Say how much of its server a tenant may use.
///
/// It takes hold at once, without a restart, and stays with the tenant wherever it is moved. A limit of memory that is below what the
/// tenant uses now is refused, because it would be killed for it, and so is one that its server has not got beside the limits of others.
#[derive(Debug, clap::Args)]
#[command(override_usage = "featherctl tenant set [OPTIONS] <TENANT>")]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["memory", "cpus", "pids"]))]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    #[command(flatten)]
    limits: LimitArgs,
    /// Only say what would change, and whether it could.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    _confirm: NothingToConfirm,
}

/// What a tenant may use. A value of 0 takes the limit away.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct LimitArgs {
    /// Most memory, as 512m or 4g; none for no limit. Kept with the tenant, and counted by placement as taken.
    #[arg(long, value_name = "SIZE|none", value_parser = memory)]
    pub(crate) memory: Option<u64>,
    /// Most processor time in cores, as 1.5; none for no limit. Kept with the tenant.
    #[arg(long, value_name = "CORES|none", value_parser = cpus)]
    pub(crate) cpus: Option<u32>,
    /// Most processes and threads; none for the engine's own limit (2048). Kept with the tenant.
    #[arg(long, value_name = "COUNT|none", value_parser = pids)]
    pub(crate) pids: Option<u32>,
}

impl LimitArgs {
    /// For the wire; nothing when no flag was given.
    pub(crate) fn change(self) -> Option<pb::LimitsChange> {
        let change = pb::LimitsChange { memory_bytes: self.memory, cpu_millis: self.cpus, pids: self.pids };
        (change != pb::LimitsChange::default()).then_some(change)
    }
}

#[derive(Serialize)]
struct SetView<'a> {
    tenant: &'a str,
    server: String,
    dry_run: bool,
    changed: bool,
    limits: LimitsView,
    applied: bool,
    problem: Option<String>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let (tenant, dry_run) = (arguments.tenant.as_str(), arguments.dry_run);
    let request = pb::LimitTenantRequest { tenant: tenant.to_owned(), change: arguments.limits.change(), dry_run };
    let response = connection.change(async || connection.tenants().limit_tenant(request.clone()).await).await?;
    let limits = response.limits.map(Limits::from).unwrap_or_default();
    let view = SetView {
        tenant,
        server: response.server,
        dry_run,
        changed: response.changed,
        limits: limits.into(),
        applied: response.applied,
        problem: set(response.problem),
    };
    context.output.show(&view, String::new)?;
    let (has, server) = (told(&limits), &view.server);
    context.output.note(&match (view.changed, dry_run) {
        (false, _) => format!("{tenant} has {has} already"),
        (true, true) => format!("{tenant} would have {has} on {server}"),
        (true, false) => format!("{tenant} has {has} from now on"),
    });
    if !dry_run && !view.applied {
        let why = view.problem.as_deref().unwrap_or("its server has not said that it has them");
        context.output.note(&format!(
            "{server} has not applied that yet ({why}). The controller goes on trying; `featherctl tenant show {tenant}` shows when it is done."
        ));
    }
    Ok(())
}
