//! `featherctl operation list`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::tenant_name,
    error::Failure,
    view::operation::{self, OperationView, State},
};

/// Show operations, the newest first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only those of this tenant.
    #[arg(long, value_name = "TENANT", value_parser = tenant_name)]
    tenant: Option<TenantName>,
    /// At most this many.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let tenant = arguments.tenant.map(String::from).unwrap_or_default();
    let request = pb::ListOperationsRequest { tenant, limit: arguments.limit };
    let response = connection.call(connection.operations().list_operations(request)).await?;
    let operations: Vec<OperationView> = response.operations.into_iter().map(OperationView::from).collect();
    context
        .output
        .show(&operations, || if operations.is_empty() { String::new() } else { operation::list(&operations) })?;
    if operations.is_empty() {
        context.output.note("There are no operations yet; `featherctl tenant add NAME` begins one.");
    }
    for stuck in operations.iter().filter(|operation| operation.state == State::Stuck) {
        context.output.note(&format!("{0} is stuck; `featherctl operation show {0}` says what to do", stuck.id));
    }
    Ok(())
}
