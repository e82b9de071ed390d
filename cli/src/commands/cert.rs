//! `featherctl cert`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod renew;
mod status;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Status(status::Args),
    Renew(renew::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Status(arguments) => status::run(arguments, context).await,
        Verb::Renew(arguments) => renew::run(arguments, context).await,
    }
}
