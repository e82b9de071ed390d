//! `featherctl tenant`

use clap::Subcommand;

use crate::{arguments::Context, error::Failure};

mod add;
mod list;
mod logs;
pub(super) mod migrate;
mod password;
mod place;
pub(super) mod recover;
mod remove;
mod restart;
mod set;
mod show;
mod start;
mod stop;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Add(add::Args),
    List(list::Args),
    Show(show::Args),
    // What most people type first; the nearest other word would be `remove`.
    #[command(alias = "move")]
    Migrate(migrate::Args),
    Place(place::Args),
    Set(set::Args),
    Recover(recover::Args),
    Remove(remove::Args),
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Password(password::Args),
    Logs(logs::Args),
}

pub(crate) async fn run(verb: Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Add(arguments) => add::run(arguments, context).await,
        Verb::List(arguments) => list::run(arguments, context).await,
        Verb::Show(arguments) => show::run(arguments, context).await,
        Verb::Migrate(arguments) => migrate::run(arguments, context).await,
        Verb::Place(arguments) => place::run(arguments, context).await,
        Verb::Set(arguments) => set::run(arguments, context).await,
        Verb::Recover(arguments) => recover::run(arguments, context).await,
        Verb::Remove(arguments) => remove::run(arguments, context).await,
        Verb::Start(arguments) => start::run(arguments, context).await,
        Verb::Stop(arguments) => stop::run(arguments, context).await,
        Verb::Restart(arguments) => restart::run(arguments, context).await,
        Verb::Password(arguments) => password::run(arguments, context).await,
        Verb::Logs(arguments) => logs::run(arguments, context).await,
    }
}
