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
    let request = pb::GetOperationRequest { id: arguments.id.as_str().to_owned() };
    let before = connection.call(connection.operations().get_operation(request)).await?;
    let before = OperationView::from(present(before.operation, "operation")?);
    let request = pb::RetryOperationRequest { id: before.id.clone() };
    let response = connection.call(connection.operations().retry_operation(request)).await?;
    let operation = OperationView::from(present(response.operation, "operation")?);
    if !arguments.wait.follows() {
        return outcome::begun(context, &operation);
    }
    // The first thing that watching shows may still be the old failure.
    let known = before.log.last().map_or(0, |entry| entry.sequence);
    let done = follow(context, &connection, &before.id, Stuck::GiveUpAfter(known)).await?;
    outcome::report(context, &connection, done, None).await
}
