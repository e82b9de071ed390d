//! `featherctl operation list`

use feather_proto::{error::reason, ids::TenantName, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::tenant_name,
    connect::Connection,
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
    let of = arguments.tenant.as_ref();
    let request =
        pb::ListOperationsRequest { tenant: of.map(TenantName::to_string).unwrap_or_default(), limit: arguments.limit };
    let response = connection.call(connection.operations().list_operations(request)).await?;
    if let Some(tenant) = of.filter(|_| response.operations.is_empty()) {
        require_tenant(&connection, tenant).await?;
    }
    let operations: Vec<OperationView> = response.operations.into_iter().map(OperationView::from).collect();
    context
        .output
        .show(&operations, || if operations.is_empty() { String::new() } else { operation::list(&operations) })?;
    if operations.is_empty() {
        context.output.note(&match of {
            Some(tenant) => {
                format!("There are no operations of {tenant} yet; `featherctl tenant show {tenant}` shows it.")
            }
            None => "There are no operations yet; `featherctl tenant add NAME` begins one.".to_owned(),
        });
    }
    for stuck in operations.iter().filter(|operation| operation.state == State::Stuck) {
        context.output.note(&format!("{0} is stuck; `featherctl operation show {0}` says what to do", stuck.id));
    }
    Ok(())
}

/// Whom no operation names may have been adopted, or may be a slip of the pen.
async fn require_tenant(connection: &Connection, tenant: &TenantName) -> Result<(), Failure> {
    let request = pb::GetTenantRequest { tenant: tenant.to_string() };
    match connection.call(connection.tenants().get_tenant(request)).await {
        Err(error) if error.reason == reason::TENANT_NOT_FOUND => {
            let message = format!("there is no tenant {tenant}, and no operation of the log names it");
            Err(Failure { message, hint_said: false, ..error })
        }
        answer => answer.map(drop),
    }
}
