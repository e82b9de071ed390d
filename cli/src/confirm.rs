//! Asking before something is taken away.

use crate::{error::Failure, output::Output};

/// What is about to happen, and to whom.
pub(crate) struct Question<'a> {
    /// The name that has to be typed.
    pub(crate) name: &'a str,
    /// A sentence that says what will happen.
    pub(crate) consequence: &'a str,
    /// `--yes` was given.
    pub(crate) yes: bool,
}

/// Goes on with `--yes`, or when the name is typed on a terminal.
pub(crate) fn confirm(output: Output, question: &Question<'_>) -> Result<(), Failure> {
    if question.yes {
        return Ok(());
    }
    let (name, consequence) = (question.name, question.consequence);
    if !output.can_ask() {
        return Err(Failure::usage(
            "nobody can be asked to confirm this here, and --yes was not given",
            format!("add --yes if you mean it. {consequence}"),
        ));
    }
    output.note(consequence);
    match output.ask(&format!("Type {name} to go on:")) {
        Some(answer) if answer == name => Ok(()),
        _ => Err(Failure::refused("NOT_CONFIRMED", format!("{name} was not confirmed"), "nothing was changed")),
    }
}

/// `--yes` on a verb that asks nothing: accepted, so that scripts may say it with every change.
#[derive(Debug, clap::Args)]
pub(crate) struct NothingToConfirm {
    #[arg(long = "yes", hide = true)]
    _yes: bool,
}
