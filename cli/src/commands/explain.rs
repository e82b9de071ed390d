//! `featherctl explain`

use feather_proto::{
    ids::{ServerName, TenantName},
    pb::controller::v1 as pb,
};

use crate::{
    arguments::Context,
    commands::{present, server_name, tenant_name},
    error::Failure,
    view::explanation::ExplanationView,
};

/// Say why a tenant or a server is as it is, what is pending, and what to type next.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "featherctl explain [OPTIONS] <TENANT>\n       featherctl explain [OPTIONS] --server <SERVER>"
)]
#[group(required = true, multiple = false)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: Option<TenantName>,
    /// A server instead.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    server: Option<ServerName>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let mut status = connection.status();
    let (subject, explanation) = match (arguments.tenant, arguments.server) {
        (Some(tenant), _) => {
            let request = pb::ExplainTenantRequest { tenant: tenant.to_string() };
            (tenant.to_string(), connection.call(status.explain_tenant(request)).await?.explanation)
        }
        (None, Some(server)) => {
            let request = pb::ExplainServerRequest { server: server.to_string() };
            (server.to_string(), connection.call(status.explain_server(request)).await?.explanation)
        }
        (None, None) => return Err(Failure::bug("neither a tenant nor a server was given")),
    };
    let view = ExplanationView::new(subject, present(explanation, "explanation")?);
    context.output.show(&view, || view.text())
}
