//! `featherctl user renew`

use serde::Serialize;
use time::OffsetDateTime;

use crate::{arguments::Context, connect::identity_path, error::Failure, view::Moment};

/// Renew your own certificate now.
///
/// featherctl does so by itself when two thirds of its life are over. A key is made on this machine; the old certificate stays good until
/// it ends.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct RenewedView {
    identity: String,
    until: Option<Moment>,
}

pub(crate) async fn run(_: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let file = identity_path(context.global.identity.as_deref())?;
    let fresh = super::renew(&connection, &file).await?;
    let (_, until) = fresh.validity()?;
    let until = OffsetDateTime::from_unix_timestamp(until).ok().map(Moment);
    let view = RenewedView { identity: file.display().to_string(), until };
    context.output.show(&view, || match until {
        Some(until) => format!("{} is valid until {until}", view.identity),
        None => view.identity.clone(),
    })
}
