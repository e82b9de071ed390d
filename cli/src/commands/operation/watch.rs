//! `featherctl operation watch`

use feather_proto::ids::OperationId;

use crate::{
    arguments::Context,
    commands::operation_id,
    error::Failure,
    follow::{Stuck, follow},
    outcome,
};

/// Follow an operation until it ends.
///
/// Prints what the command that began it would have printed. Ctrl-C stops watching, not the operation. A stuck operation is
/// watched on, because it is tried again at intervals.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which operation.
    #[arg(value_name = "ID", value_parser = operation_id)]
    id: OperationId,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let done = follow(context, &connection, arguments.id.as_str(), Stuck::Watch).await?;
    outcome::report(context, &connection, done, None).await
}
