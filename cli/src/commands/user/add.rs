//! `featherctl user add`

use std::time::Duration;

use clap::ValueEnum;
use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use crate::{
    arguments::Context,
    error::Failure,
    units,
    view::{Moment, moment},
};

/// Let a person in: print a token that they log in with.
///
/// The token works once, for this name only, and is a secret until it is used. The key is made on the person's own machine, by
/// `featherctl login`, and never leaves it. Another token for the same name makes the one before void.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Login name; shown as the one who asked for an operation.
    #[arg(value_name = "NAME")]
    name: String,
    /// What it entitles to: `viewer` looks, `operator` changes tenants, `admin` changes the fleet.
    #[arg(long, value_enum)]
    role: Entitled,
    /// Life of the certificate: 1h to 366d. featherctl renews it at two thirds: who does not use it for that long is out.
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = units::parse_duration)]
    expires: Duration,
    /// How long the token may be used: 1m to 7d.
    #[arg(long, value_name = "DURATION", default_value = "3h", value_parser = units::parse_duration)]
    ttl: Duration,
    /// For somebody who lost a certificate that is still good; it is revoked when the token is used.
    #[arg(long)]
    again: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Entitled {
    Viewer,
    Operator,
    Admin,
}

#[derive(Serialize)]
struct InvitationView<'a> {
    user: &'a str,
    role: &'a str,
    token: &'a str,
    expires: Option<Moment>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let role = match arguments.role {
        Entitled::Viewer => "viewer",
        Entitled::Operator => "operator",
        Entitled::Admin => "admin",
    };
    let request = pb::AddUserRequest {
        name: arguments.name.clone(),
        role: role.into(),
        life_seconds: arguments.expires.as_secs(),
        ttl_seconds: u32::try_from(arguments.ttl.as_secs()).unwrap_or(u32::MAX),
        again: arguments.again,
    };
    let response = connection.call(connection.users().add_user(request)).await?;
    let expires = moment!(response.expires);
    let view = InvitationView { user: &arguments.name, role, token: &response.token, expires };
    let until = expires.map(|expires| format!(", until {expires}")).unwrap_or_default();
    context.output.note(&format!(
        "Hand this token to {}, once, within {}{until}; it is pasted where `featherctl login` asks for it:\n",
        arguments.name,
        units::spelled(arguments.ttl)
    ));
    context.output.show(&view, || response.token.clone())
}
