//! `featherctl completions`

use clap_complete::Shell;

use crate::{arguments::Context, error::Failure};

/// Print a completion script for your shell.
///
/// For example: featherctl completions bash > /etc/bash_completion.d/featherctl
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which shell.
    #[arg(value_name = "SHELL", value_parser = clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish"]))]
    shell: String,
}

pub(crate) fn run(arguments: &Args, context: &Context, mut command: clap::Command) -> Result<(), Failure> {
    let shell: Shell =
        arguments.shell.parse().map_err(|error: String| Failure::usage(error, "choose bash, zsh or fish"))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "featherctl", &mut script);
    context.output.bytes(&script)
}
