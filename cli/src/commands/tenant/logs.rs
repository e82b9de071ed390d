//! `featherctl tenant logs`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use crate::{arguments::Context, commands::tenant_name, error::Failure};

/// Show what a tenant's container has printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// Go on with new lines as they come, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Begin this many lines before the end.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10000))]
    lines: u32,
}

#[derive(Serialize)]
struct LineView<'a> {
    stderr: bool,
    text: &'a str,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request =
        pb::TailLogsRequest { tenant: arguments.tenant.into(), lines: arguments.lines, follow: arguments.follow };
    let mut stream = connection.call(connection.tenants().tail_logs(request)).await?;
    while let Some(message) = stream.next().await {
        let line = message.map_err(|status| connection.failure(status))?.line.unwrap_or_default();
        context.output.stream(&LineView { stderr: line.stderr, text: &line.text }, &format!("{}\n", line.text))?;
    }
    Ok(())
}
