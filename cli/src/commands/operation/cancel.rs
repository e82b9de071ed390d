//! `featherctl operation cancel`

use feather_proto::{ids::OperationId, pb::controller::v1 as pb};

use crate::{
    arguments::Context,
    commands::{operation_id, present},
    error::Failure,
    follow::{Stuck, Wait, follow},
    outcome,
    view::operation::{OperationView, State},
};

/// Undo an operation that has not passed its point of no return.
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
    let id = arguments.id.as_str();
    let request = pb::CancelOperationRequest { id: id.to_owned() };
    let response = connection.call(connection.operations().cancel_operation(request)).await.map_err(|failure| {
        if failure.metadata.contains_key("operation") { failure } else { failure.with("operation", id) }
    })?;
    let operation = OperationView::from(present(response.operation, "operation")?);
    if !arguments.wait.follows() {
        return outcome::begun(context, &operation);
    }
    let done = follow(context, &connection, id, Stuck::GiveUp).await?;
    match done.operation.state {
        State::Cancelled => {
            context.output.show(&done.operation, String::new)?;
            context.output.note(&format!("{id} is cancelled; everything is as before it"));
            Ok(())
        }
        State::Succeeded => Err(Failure::refused(
            "NOT_CANCELLABLE",
            format!("{id} could not be cancelled any more: it has succeeded"),
            format!("`featherctl operation show {id}` shows what it did"),
        )),
        _ => Err(done.operation.failure()),
    }
}
