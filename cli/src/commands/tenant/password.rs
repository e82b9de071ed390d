//! `featherctl tenant password`

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};
use serde::Serialize;

use crate::{
    arguments::Context,
    commands::{request_id, tenant_name},
    error::{Failure, Kind},
    outcome,
};

/// Set a new random password, and print it.
///
/// The tenant is restarted with it, so its open connections end.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

#[derive(Serialize)]
struct PasswordView<'a> {
    tenant: &'a str,
    url: &'a str,
    password: &'a str,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::ResetPasswordRequest { request_id: request_id(), tenant: arguments.tenant.into() };
    let answer = connection.change(async || connection.tenants().reset_password(request.clone()).await).await;
    let response = answer.map_err(|failure| match failure.kind {
        Kind::Unreachable | Kind::Interrupted if !failure.never_sent => {
            failure.with_hint("whether the password changed is unknown: type the command again to set another")
        }
        _ => failure,
    })?;
    let view = PasswordView { tenant: &request.tenant, url: &response.url, password: &response.password };
    context.output.show(&view, || outcome::credentials(view.url, view.password))
}
