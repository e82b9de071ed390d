//! `featherctl tenant list`

use feather_proto::{ids::ServerName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::server_name,
    error::Failure,
    view::{
        tenant::{self, TenantView},
        wide,
    },
};

/// Show all tenants, and where they live.
///
/// With `--output wide` also the generation, restarts, what each may use, what it runs, where placement may put it, and how old its newest
/// verified backup is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also removed tenants whose data is kept.
    #[arg(long)]
    all: bool,
    /// Only those on this server.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    server: Option<ServerName>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::ListTenantsRequest {
        include_removed: arguments.all,
        server: arguments.server.map(String::from).unwrap_or_default(),
    };
    let on_server = if request.server.is_empty() { String::new() } else { format!(" on {}", request.server) };
    let response = connection.call(connection.tenants().list_tenants(request)).await?;
    let tenants: Vec<TenantView> = response.tenants.into_iter().map(TenantView::from).collect();
    context.output.show(&tenants, || match tenants.is_empty() {
        true => String::new(),
        false if context.output.is_wide() => wide::tenants(&tenants),
        false => tenant::list(&tenants),
    })?;
    if tenants.is_empty() {
        context.output.note(&format!("There are no tenants{on_server}; `featherctl tenant add NAME` adds one."));
    }
    tenants.iter().filter_map(TenantView::remark).for_each(|remark| context.output.note(&remark));
    Ok(())
}
