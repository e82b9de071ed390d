//! One file per verb: its arguments, whose documentation is its help, and what it does.

use feather_proto::{
    error::Error,
    ids::{OperationId, ServerName, TenantName},
    labels::{Label, LabelName},
    pb::{controller::v1 as pb, types::v1 as types_pb},
};

use crate::{
    arguments::Context,
    connect::Connection,
    error::Failure,
    follow::{Stuck, Wait, follow},
    outcome,
    view::operation::OperationView,
};

pub(crate) mod audit;
pub(crate) mod cert;
pub(crate) mod completions;
pub(crate) mod controller;
pub(crate) mod dns;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod login;
pub(crate) mod operation;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod top;
pub(crate) mod user;
pub(crate) mod version;
pub(crate) mod volume;
pub(crate) mod waitlist;
pub(crate) mod warning;

fn tenant_name(text: &str) -> Result<TenantName, Error> {
    text.parse()
}

fn server_name(text: &str) -> Result<ServerName, Error> {
    text.parse()
}

fn label(text: &str) -> Result<Label, Error> {
    text.parse()
}

fn group(text: &str) -> Result<LabelName, Error> {
    text.parse()
}

/// As they were typed; the controller judges them together.
fn labels(typed: &[Label]) -> Vec<types_pb::Label> {
    let label = |one: &Label| types_pb::Label { name: one.name.to_string(), value: one.value.to_string() };
    typed.iter().map(label).collect()
}

fn operation_id(text: &str) -> Result<OperationId, Error> {
    text.parse()
}

/// One per invocation, so that repeating a call whose reply was lost begins nothing twice.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn present<T>(answer: Option<T>, what: &str) -> Result<T, Failure> {
    answer.ok_or_else(|| Failure::bug(format!("the controller's answer lacks the {what}")))
}

/// Says which operation began, then follows it to its end and prints that, or leaves it to itself.
async fn finish(
    context: &Context,
    connection: &Connection,
    operation: Option<pb::Operation>,
    wait: Wait,
    url: Option<String>,
) -> Result<(), Failure> {
    let operation = OperationView::from(present(operation, "operation")?);
    if !wait.follows() {
        return outcome::begun(context, &operation);
    }
    context.output.operation(&operation.id);
    let done = follow(context, connection, &operation.id, Stuck::GiveUp).await?;
    outcome::report(context, connection, done, url).await
}

/// The lines of a plan, below what it would come to.
fn plan(headline: &str, explanation: &[String]) -> String {
    let mut text = format!("{headline}\n");
    for line in explanation {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}
