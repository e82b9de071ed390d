//! `featherctl dns`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod adopt;
mod apply;
mod ingress;
mod plan;
mod records;
mod restore;
mod snapshots;
mod status;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Status(status::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Records(records::Args),
    Adopt(adopt::Args),
    Ingress(ingress::Args),
    Snapshots(snapshots::Args),
    Restore(restore::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Status(arguments) => status::run(arguments, context).await,
        Verb::Plan(arguments) => plan::run(arguments, context).await,
        Verb::Apply(arguments) => apply::run(arguments, context).await,
        Verb::Records(arguments) => records::run(arguments, context).await,
        Verb::Adopt(arguments) => adopt::run(arguments, context).await,
        Verb::Ingress(arguments) => ingress::run(arguments, context).await,
        Verb::Snapshots(arguments) => snapshots::run(arguments, context).await,
        Verb::Restore(arguments) => restore::run(arguments, context).await,
    }
}
