//! `featherctl volume export`

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};
use tokio_stream::StreamExt as _;

use crate::{
    arguments::Context,
    commands::tenant_name,
    connect::{Connection, interrupt},
    error::Failure,
    output::{Output, Progress},
    units,
};

/// Write a tenant's data to a tar archive.
///
/// `podman volume import` and `featherctl volume import` read it. For a copy of one moment, stop the tenant first. Without
/// --file the archive goes to stdout: featherctl volume export alice > alice.tar
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// Write to this file; it appears only when the archive is whole.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replace the file if there is one already.
    #[arg(long, requires = "file")]
    yes: bool,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let tenant = arguments.tenant.as_str();
    if arguments.file.is_none() && context.output.stdout_is_terminal() {
        return Err(Failure::usage(
            "an archive is not for the screen",
            format!("write it to a file: `featherctl volume export {tenant} --file {tenant}.tar`"),
        ));
    }
    if let Some(file) = arguments.file.as_ref().filter(|file| file.exists() && !arguments.yes) {
        return Err(Failure::usage(
            format!("{} exists", file.display()),
            "choose another file, or replace it with --yes",
        ));
    }
    let connection = context.connect()?;
    let mut sink = Sink::open(context.output, arguments.file.as_deref())?;
    let mut progress = context.output.progress();
    progress.step(&format!("exporting {tenant}"));
    tokio::select! {
        copied = copy(&connection, tenant, &mut sink, &mut progress) => copied.map_err(|failure| sink.explain(failure))?,
        () = interrupt() => {
            return Err(sink.explain(Failure::interrupted("stopped before the archive was whole", "export again")));
        }
    };
    sink.finish()?;
    drop(progress);
    context.output.note(&format!("exported {tenant}: an archive of {}", units::bytes(sink.written_bytes)));
    Ok(())
}

async fn copy(connection: &Connection, tenant: &str, sink: &mut Sink, progress: &mut Progress) -> Result<(), Failure> {
    let request = pb::ExportVolumeRequest { tenant: tenant.to_owned() };
    let mut stream = connection.call(connection.volumes().export_volume(request)).await?;
    while let Some(message) = stream.next().await {
        let data = message.map_err(|status| connection.failure(status))?.data;
        sink.write(&data)?;
        progress.transfer(sink.written_bytes, 0);
    }
    Ok(())
}

/// Where the archive goes. A file has another name until it is whole, and is removed if it never gets so.
struct Sink {
    place: Place,
    written_bytes: u64,
}

enum Place {
    Stdout(Output),
    File { file: fs::File, part: PathBuf, whole: PathBuf, finished: bool },
}

impl Sink {
    fn open(output: Output, whole: Option<&Path>) -> Result<Self, Failure> {
        let place = match whole {
            None => Place::Stdout(output),
            Some(whole) => {
                let mut part = whole.as_os_str().to_owned();
                part.push(".part");
                let part = PathBuf::from(part);
                // What a tenant keeps to itself must not become readable by everyone through its archive.
                let mut options = fs::OpenOptions::new();
                options.create(true).truncate(true).write(true).mode(0o600);
                let file = options.open(&part).map_err(|error| failure(&part, &error))?;
                Place::File { file, part, whole: whole.to_owned(), finished: false }
            }
        };
        Ok(Self { place, written_bytes: 0 })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.written_bytes += data.len() as u64;
        match &mut self.place {
            // A reader that went away is no harmless end here: it has half an archive.
            Place::Stdout(output) => output.bytes(data).map_err(|_| {
                Failure::refused("OUTPUT_CLOSED", "standard output took only a part of the archive", "export again")
            }),
            Place::File { file, part, .. } => file.write_all(data).map_err(|error| failure(part, &error)),
        }
    }

    /// Says what became of the part that was written.
    fn explain(&self, failure: Failure) -> Failure {
        let next = match &self.place {
            _ if self.written_bytes == 0 => return failure,
            Place::Stdout(_) => format!("throw away what was written, it is not whole; then {}", failure.hint),
            Place::File { .. } => format!("nothing was left behind; {}", failure.hint),
        };
        failure.with_hint(next)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match &mut self.place {
            Place::Stdout(_) => Ok(()),
            Place::File { file, part, whole, finished } => {
                file.sync_all().and_then(|()| fs::rename(&*part, &*whole)).map_err(|error| failure(whole, &error))?;
                *finished = true;
                Ok(())
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Place::File { part, finished: false, .. } = &self.place {
            // If it cannot be removed, its name still says that it is not whole.
            drop(fs::remove_file(part));
        }
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::file(
        format!("cannot write {}", path.display()),
        error,
        "check the folder and its free space, then export again",
    )
}
