//! `featherctl controller backup`

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use feather_proto::pb::controller::v1 as pb;
use sha2::{Digest as _, Sha256};

use crate::{arguments::Context, connect::Connection, error::Failure, units};

/// Copy the controller's store while it is in use.
///
/// The file holds who lives where, and secrets only sealed: the key for them, and the fleet's authority, are in the controller's state folder,
/// which must be kept separately. `feather-controller restore FILE` puts it back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to; `-` for stdout.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if there is one already.
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let connection = context.connect()?;
    if arguments.file.as_os_str() == "-" {
        if context.output.stdout_is_terminal() {
            return Err(Failure::usage("a backup is no text for a screen", "name a file, or pipe it somewhere"));
        }
        let bytes = copy(&connection, &mut |piece| context.output.bytes(piece)).await?;
        return said(context, bytes);
    }
    if arguments.file.exists() && !arguments.yes {
        return Err(Failure::usage(
            format!("{} exists", arguments.file.display()),
            "choose another file, or replace it with --yes",
        ));
    }
    let mut part = arguments.file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let copied = write(&connection, &part, &arguments.file).await;
    if copied.is_err() {
        // If it cannot be removed, its name still says that it is not whole.
        drop(fs::remove_file(&part));
    }
    said(context, copied?)
}

fn said(context: &Context, bytes: u64) -> Result<(), Failure> {
    context.output.note(&format!(
        "backed up {}; not in it: the controller's state folder with the fleet's authority and store.key",
        units::bytes(bytes)
    ));
    Ok(())
}

/// Appears under its name only when it is whole.
async fn write(connection: &Connection, part: &Path, whole: &Path) -> Result<u64, Failure> {
    let failed = |error: io::Error| {
        Failure::file(
            format!("cannot write {}", whole.display()),
            &error,
            "check the folder and its free space, then try again",
        )
    };
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(part).map_err(failed)?;
    let bytes = copy(connection, &mut |piece| file.write_all(piece).map_err(failed)).await?;
    file.sync_all().and_then(|()| fs::rename(part, whole)).map_err(failed)?;
    Ok(bytes)
}

/// Takes all of the copy, and makes sure that it was all.
async fn copy(
    connection: &Connection,
    take: &mut (dyn FnMut(&[u8]) -> Result<(), Failure> + Send),
) -> Result<u64, Failure> {
    let mut pieces = connection.call(connection.store().backup_store(pb::BackupStoreRequest {})).await?;
    let (mut hash, mut bytes, mut digest) = (Sha256::new(), 0, String::new());
    // To the very end: the controller puts down that all of it was taken.
    while let Some(piece) = pieces.message().await.map_err(|status| connection.failure(status))? {
        hash.update(&piece.data);
        bytes += piece.data.len() as u64;
        take(&piece.data)?;
        digest = piece.digest;
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == digest {
        return Ok(bytes);
    }
    Err(Failure::unreachable("the backup did not arrive whole", "try again"))
}
