//! `featherctl operation cancel`

use feather_proto::{error::reason, ids::OperationId, pb::controller::v1 as pb};

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
    let answer = connection.call(connection.operations().cancel_operation(request)).await;
    let response = answer.map_err(|failure| match failure.reason.as_str() {
        reason::NOT_CANCELLABLE => failure.with_hint(format!("`featherctl operation show {id}` shows how far it is")),
        _ => failure,
    })?;
    let operation = OperationView::from(present(response.operation, "operation")?);
    if !arguments.wait.follows() {
        return outcome::begun(context, &operation);
    }
    let done = follow(context, &connection, id, Stuck::GiveUp).await?;
    match done.operation.state {
        State::Cancelled => {
            context.output.show(&done.operation, String::new)?;
            context.output.note(&format!("{id} is cancelled; {}", how_it_is(&done.operation)));
            Ok(())
        }
        State::Succeeded => Err(Failure::refused(
            reason::NOT_CANCELLABLE,
            format!("{id} could not be cancelled any more: it has succeeded"),
            format!("`featherctl operation show {id}` shows what it did"),
        )),
        _ => Err(done.operation.failure()),
    }
}

/// A move is built on what its target had kept, in place: given up, it leaves neither the old copy nor the new one.
fn how_it_is(operation: &OperationView) -> String {
    match (operation.kind, &operation.source, &operation.target) {
        ("migrate", Some(source), Some(target)) => format!(
            "{} lives on {source} as before. An older copy that {target} had kept is gone if this move had begun to send: \
             `featherctl volume list` shows what is kept",
            operation.tenant
        ),
        _ => "everything is as before it".to_owned(),
    }
}
