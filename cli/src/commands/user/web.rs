//! `featherctl user web`

use std::time::Duration;

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use crate::{
    arguments::Context,
    error::Failure,
    units,
    view::{Moment, moment, set},
};

/// Print a token for the controller's web page, which only shows.
///
/// For yourself, or as an admin for any name, for instance of a screen on a wall. Whoever has the token may look until it ends or
/// until `featherctl user revoke` of that name, which ends it at once. The page is served by `feather-controller serve --http`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose it is [default: you].
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// How long it is good: 1m to 90d.
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = units::parse_duration)]
    ttl: Duration,
}

#[derive(Serialize)]
struct TokenView<'a> {
    user: &'a str,
    token: &'a str,
    expires: Option<Moment>,
    page: Option<String>,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let request = pb::CreateWebTokenRequest {
        name: arguments.name.unwrap_or_default(),
        ttl_seconds: u32::try_from(arguments.ttl.as_secs()).unwrap_or(u32::MAX),
    };
    let response = connection.call(connection.users().create_web_token(request)).await?;
    let (expires, page) = (moment!(response.expires), set(response.page));
    let until = expires.map(|expires| format!(", until {expires}")).unwrap_or_default();
    context.output.note(&match &page {
        Some(page) => {
            format!("Paste it at http://{page}/ on the controller's machine; {} may look{until}:\n", response.name)
        }
        None => format!(
            "This controller serves no page: start it with `feather-controller serve --http`. {} may look{until}:\n",
            response.name
        ),
    });
    let view = TokenView { user: &response.name, token: &response.token, expires, page };
    context.output.show(&view, || response.token.clone())
}
