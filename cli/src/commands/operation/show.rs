//! `featherctl operation show`

use feather_proto::{ids::OperationId, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::{operation_id, present},
    error::Failure,
    view::operation::{OperationView, Times},
};

/// Show one operation with its log.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which operation, for example op-0198c7d2-5a4e-7cc3-98c4-dc0c0c07398f.
    #[arg(value_name = "ID", value_parser = operation_id)]
    id: OperationId,
    /// How the log's times are written: since the operation began, or as UTC.
    #[arg(long, value_enum, default_value = "relative")]
    times: Times,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::GetOperationRequest { id: arguments.id.into() };
    let response = connection.call(connection.operations().get_operation(request)).await?;
    let operation = OperationView::from(present(response.operation, "operation")?);
    context.output.show(&operation, || operation.details(arguments.times))
}
