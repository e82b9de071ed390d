//! `featherctl server`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod adopt;
mod cordon;
mod drain;
mod invite;
mod label;
mod list;
mod lost;
mod remove;
mod rename;
mod retire;
mod r#return;
mod show;
mod swap;
mod uncordon;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    List(list::Args),
    Show(show::Args),
    Invite(invite::Args),
    Adopt(adopt::Args),
    Swap(swap::Args),
    Cordon(cordon::Args),
    Uncordon(uncordon::Args),
    Label(label::Args),
    Rename(rename::Args),
    Drain(drain::Args),
    Return(r#return::Args),
    Retire(retire::Args),
    Lost(lost::Args),
    Remove(remove::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Show(arguments) => show::run(arguments, context).await,
        Verb::Invite(arguments) => invite::run(arguments, context).await,
        Verb::Adopt(arguments) => adopt::run(arguments, context).await,
        Verb::Swap(arguments) => swap::run(arguments, context).await,
        Verb::Cordon(arguments) => cordon::run(arguments, context).await,
        Verb::Uncordon(arguments) => uncordon::run(arguments, context).await,
        Verb::Label(arguments) => label::run(arguments, context).await,
        Verb::Rename(arguments) => rename::run(arguments, context).await,
        Verb::Drain(arguments) => drain::run(arguments, context).await,
        Verb::Return(arguments) => r#return::run(arguments, context).await,
        Verb::Retire(arguments) => retire::run(arguments, context).await,
        Verb::Lost(arguments) => lost::run(arguments, context).await,
        Verb::Remove(arguments) => remove::run(arguments, context).await,
    }
}
