//! `featherctl warning show`

use crate::{arguments::Context, error::Failure};

/// Show one warning: since when, what about, and who knows of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one, as `warning list` names it: disk/nyc.
    #[arg(value_name = "WARNING")]
    id: String,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let (warnings, _) = super::fetch(&connection, true).await?;
    let warning = warnings.into_iter().find(|one| one.id == arguments.id).ok_or_else(|| {
        Failure::refused(
            feather_proto::error::reason::WARNING_NOT_FOUND,
            format!("there is no warning {}; it may be cured", arguments.id),
            "`featherctl warning list --all` shows those that hold",
        )
    })?;
    context.output.show(&warning, || warning.details())
}
