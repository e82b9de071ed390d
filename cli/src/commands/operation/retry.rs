//! `featherctl operation retry`

use feather_proto::{ids::OperationId, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::{operation_id, present},
    error::Failure,
    follow::{Stuck, Wait, follow},
    outcome,
    view::operation::OperationView,
};

/// Try a stuck operation again now, instead of at its next interval.
///
/// Then follows it like `featherctl operation watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which operation.
    #[arg(value_name = "ID", value_parser = operation_id)]
    id: OperationId,
    #[command(flatten)]
    wait: Wait,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::RetryOperationRequest { id: arguments.id.into() };
    let response = connection.call(connection.operations().retry_operation(request)).await?;
    let operation = OperationView::from(present(response.operation, "operation")?);
    if !arguments.wait.follows() {
        return outcome::begun(context, &operation);
    }
    let done = follow(context, &connection, &operation.id, Stuck::Watch).await?;
    outcome::report(context, &connection, done, None).await
}
