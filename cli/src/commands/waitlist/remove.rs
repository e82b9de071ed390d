//! `featherctl waitlist remove`

use feather_proto::{email::EmailAddress, pb::controller::v1 as pb};
use serde::Serialize;

use super::email;
use crate::{
    arguments::Context,
    confirm::{Question, confirm},
    error::Failure,
};

/// Forget an address, on every server.
///
/// If it was invited, that is forgotten too; its tenant stays.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which address.
    #[arg(value_name = "EMAIL", value_parser = email)]
    email: EmailAddress,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct RemovedView<'a> {
    email: &'a str,
    servers: Vec<String>,
    tenant: Option<String>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let email = arguments.email.as_str();
    let consequence = format!("This deletes {email} from the waitlist of every server, for good.");
    confirm(context.output, &Question { name: email, consequence: &consequence, yes: arguments.yes })?;
    let connection = context.connect()?;
    let request = pb::RemoveEntryRequest { email: email.to_owned() };
    let response = connection.call(connection.waitlist().remove_entry(request)).await?;
    let tenant = Some(response.tenant).filter(|tenant| !tenant.is_empty());
    let view = RemovedView { email, servers: response.servers, tenant };
    context.output.show(&view, String::new)?;
    let stays = view.tenant.as_ref().map(|tenant| format!("; the tenant {tenant} stays")).unwrap_or_default();
    context.output.note(&format!("{email} is not on the waitlist any more{stays}"));
    Ok(())
}
