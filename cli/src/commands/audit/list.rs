//! `featherctl audit list`

use std::time::Duration;

use feather_proto::{model, pb::controller::v1 as pb};
use time::OffsetDateTime;

use crate::{arguments::Context, error::Failure, units, view::audit};

/// Show what was changed, and what was refused: who, from where, what, how it ended.
///
/// The newest rows, the newest last. What is secret or private is hidden already when a row is written.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what happened within this time, for instance 24h.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    since: Option<Duration>,
    /// Only what this person or server did.
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// How many rows at most: 1 to 1000.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[allow(clippy::disallowed_methods, reason = "an age is told by the clock of whoever asks")]
pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let now = OffsetDateTime::now_utc();
    // Nothing is older than the calendar.
    let ago = |since: Duration| now.checked_sub(since.try_into().ok()?);
    let since = arguments.since.map(|since| ago(since).unwrap_or(OffsetDateTime::UNIX_EPOCH));
    let request =
        pb::ListAuditRequest { since: since.map(model::to_timestamp), user: arguments.user, limit: arguments.limit };
    let response = connection.call(connection.audit().list_audit(request)).await?;
    let views: Vec<_> = response.entries.into_iter().map(audit::EntryView::from).collect();
    context.output.show(&views, || audit::list(&views))
}
