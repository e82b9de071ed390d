//! `featherctl warning list`

use crate::{
    arguments::Context,
    error::Failure,
    view::warning::{self, known},
};

/// Show what needs a person, the oldest first.
///
/// A warning goes by itself when its cause is gone. One that somebody has taken note of is not shown again unless its cause goes
/// and comes back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also those that somebody has taken note of.
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    let (warnings, acknowledged) = super::fetch(&connection, arguments.all).await?;
    context.output.show(&warnings, || warning::list(&warnings))?;
    match (warnings.is_empty(), acknowledged) {
        (true, 0) => context.output.note("Nothing needs a person."),
        (_, 0) => {}
        (_, count) => context.output.note(&known(count)),
    }
    Ok(())
}
