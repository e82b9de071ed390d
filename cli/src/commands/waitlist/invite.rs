//! `featherctl waitlist invite`

use feather_proto::{
    email::EmailAddress,
    ids::{ServerName, TenantName},
    pb::controller::v1 as pb,
};
use serde::Serialize;

use super::email;
use crate::{
    arguments::Context,
    commands::{finish, plan, request_id, server_name, tenant_name},
    error::Failure,
    follow::Wait,
};

/// Add a tenant for somebody on the waitlist, and print its address and password.
///
/// The name is made from what stands before the @, with a number behind it when somebody else has it. An address is invited
/// once; a tenant that could not be added does not count. Nothing is mailed: pass the printed line on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whom.
    #[arg(value_name = "EMAIL", value_parser = email)]
    email: EmailAddress,
    /// Name of the tenant, instead of one made from the address.
    #[arg(long, value_name = "TENANT", value_parser = tenant_name)]
    name: Option<TenantName>,
    /// Server to put it on, instead of the one with most room.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    server: Option<ServerName>,
    /// Only print what it would be called, where it would go, and why.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

#[derive(Serialize)]
struct PlanView<'a> {
    dry_run: bool,
    email: &'a str,
    tenant: &'a str,
    server: &'a str,
    url: &'a str,
    explanation: &'a [String],
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::InviteRequest {
        request_id: request_id(),
        email: arguments.email.as_str().to_owned(),
        tenant: arguments.name.map(String::from).unwrap_or_default(),
        server: arguments.server.map(String::from).unwrap_or_default(),
        dry_run: arguments.dry_run,
    };
    let response = connection.change(async || connection.waitlist().invite(request.clone()).await).await?;
    if arguments.dry_run {
        let view = PlanView {
            dry_run: true,
            email: &request.email,
            tenant: &response.tenant,
            server: &response.server,
            url: &response.url,
            explanation: &response.explanation,
        };
        let headline = format!("would add {} for {} on {}, at {}", view.tenant, view.email, view.server, view.url);
        return context.output.show(&view, || plan(&headline, view.explanation));
    }
    finish(context, &connection, response.operation, arguments.wait, Some(response.url)).await
}
