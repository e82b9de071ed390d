//! `featherctl waitlist export`

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use feather_proto::ids::ServerName;

use super::fetch;
use crate::{arguments::Context, commands::server_name, error::Failure, view::waitlist};

/// Write the waitlist as CSV: email,signed_up,server.
///
/// Without --file it goes to stdout, whatever --output says: featherctl waitlist export > waitlist.csv
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write to this file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only who signed up there.
    #[arg(long, value_name = "SERVER", value_parser = server_name)]
    server: Option<ServerName>,
    /// Replace the file if there is one already.
    #[arg(long, requires = "file")]
    yes: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    if let Some(file) = arguments.file.as_ref().filter(|file| file.exists() && !arguments.yes) {
        return Err(Failure::usage(
            format!("{} exists", file.display()),
            "choose another file, or replace it with --yes",
        ));
    }
    let connection = context.connect()?;
    let view = fetch(&connection, arguments.server.map(String::from).unwrap_or_default()).await?;
    let csv = waitlist::csv(&view.entries);
    match &arguments.file {
        None => context.output.bytes(csv.as_bytes())?,
        Some(file) => {
            write(file, csv.as_bytes()).map_err(|error| {
                let attempt = format!("cannot write {}", file.display());
                Failure::file(attempt, &error, "check the folder and its free space, then export again")
            })?;
            let count = view.entries.len();
            let noun = if count == 1 { "address" } else { "addresses" };
            context.output.note(&format!("exported {count} {noun} to {}", file.display()));
        }
    }
    view.problems.iter().for_each(|problem| context.output.note(problem));
    if view.unreachable_servers.is_empty() {
        return Ok(());
    }
    // A script must not take a part for the whole.
    let missing = view.unreachable_servers.join(", ");
    let message = format!("who signed up on {missing} is missing from the export: no answer from there");
    Err(Failure::unreachable(message, "`featherctl server list` shows which servers answer; then export again"))
}

/// Appears under its name only when it is whole; addresses are for the eyes of whoever exported them.
fn write(whole: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = whole.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, whole));
    if written.is_err() {
        // If it cannot be removed, its name still says that it is not whole.
        drop(fs::remove_file(&part));
    }
    written
}
