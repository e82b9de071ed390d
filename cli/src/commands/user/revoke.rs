//! `featherctl user revoke`

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use crate::{
    arguments::Context,
    confirm::{Question, confirm},
    error::Failure,
};

/// Take all certificates of a person back, at once.
///
/// Calls of that person that are under way end, too. The last admin stays. `featherctl user add` lets the person in again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose.
    #[arg(value_name = "NAME")]
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Also a name that never called: its certificate was made by hand, and stolen before its first use.
    #[arg(long)]
    unseen: bool,
}

#[derive(Serialize)]
struct RevokedView<'a> {
    user: &'a str,
    revoked: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let name = arguments.name.as_str();
    let consequence =
        format!("This takes all certificates of {name} back: every call with one is refused from now on.");
    confirm(context.output, &Question { name, consequence: &consequence, yes: arguments.yes })?;
    let request = pb::RevokeUserRequest { name: name.to_owned(), unseen: arguments.unseen };
    connection.call(connection.users().revoke_user(request)).await?;
    context.output.show(&RevokedView { user: name, revoked: true }, String::new)?;
    context.output.note(&format!("{name} is out; `featherctl user add {name}` lets {name} in again"));
    Ok(())
}
