//! `featherctl audit verify`

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use crate::{arguments::Context, error::Failure};

/// Check that no row of the audit log was changed, removed, added or moved.
///
/// Prints the head: keep it somewhere else, and pass it to a later check with --expect-head. Only so can it be seen that rows were removed from
/// the end, or that all were written anew.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The head that an earlier check printed.
    #[arg(long, value_name = "HASH", default_value = "", hide_default_value = true)]
    expect_head: String,
}

#[derive(Serialize)]
struct VerdictView {
    intact: bool,
    rows: u64,
    head: String,
    problem: Option<String>,
    broken_sequence: Option<u64>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::VerifyAuditRequest { expect_head: arguments.expect_head };
    let answer = connection.long_call(connection.audit().verify_audit(request)).await?;
    let view = VerdictView {
        intact: answer.problem.is_empty(),
        rows: answer.rows,
        head: answer.head,
        problem: Some(answer.problem).filter(|problem| !problem.is_empty()),
        broken_sequence: Some(answer.broken_sequence).filter(|sequence| *sequence > 0),
    };
    context.output.show(&view, || view.head.clone())?;
    match view.problem {
        None => {
            context.output.note(&format!("{} rows, none changed; above is the head", view.rows));
            Ok(())
        }
        Some(problem) => Err(Failure::refused(
            "AUDIT",
            format!("the audit log is not what was written: {problem}"),
            "compare with a backup of the store; until then trust only rows before that one",
        )),
    }
}
