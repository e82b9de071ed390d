//! `featherctl volume import`

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};
use serde::Serialize;
use tokio::{fs::File, io::AsyncReadExt as _};
use tokio_stream::Stream;

use crate::{
    arguments::Context,
    commands::{present, tenant_name},
    confirm::{Question, confirm},
    connect::interrupt,
    error::Failure,
    view::SummaryView,
};

const CHUNK_BYTES: usize = 256 << 10;

/// Replace a tenant's data by that of a tar archive.
///
/// Reads what `featherctl volume export` or `podman volume export` wrote. The tenant must be stopped or removed first.
/// Without a file the archive is read from stdin: featherctl volume import alice --yes < alice.tar
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which tenant.
    #[arg(value_name = "TENANT", value_parser = tenant_name)]
    tenant: TenantName,
    /// The archive; `-` or nothing means stdin.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct ImportedView<'a> {
    tenant: &'a str,
    summary: &'a SummaryView,
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let tenant = arguments.tenant.as_str();
    let file = arguments.file.filter(|file| file.as_os_str() != "-");
    if file.is_none() && io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no archive to read",
            format!("name its file: `featherctl volume import {tenant} {tenant}.tar`"),
        ));
    }
    let source = open(file.as_deref())?;
    let connection = context.connect()?;
    let consequence = format!("This replaces all data of {tenant} by that of the archive.");
    confirm(context.output, &Question { name: tenant, consequence: &consequence, yes: arguments.yes })?;

    let broken = Arc::new(Mutex::new(None));
    let stream = chunks(source, tenant, broken.clone());
    let answer = tokio::select! {
        answer = async { connection.long_call(connection.volumes().import_volume(stream)).await } => answer,
        () = interrupt() => return Err(Failure::interrupted(
            "stopped before the archive was sent whole",
            format!("what {tenant} holds stays as it was until a whole archive is there: import it again"),
        )),
    };
    // What went wrong here explains what the controller refused, not the other way round.
    if let Some(error) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let hint = format!("what {tenant} holds stays as it was until a whole archive is there: import it again");
        return Err(Failure::file("cannot read the archive to its end", &error, hint));
    }
    let summary = SummaryView::from(present(answer?.summary, "summary")?);
    context.output.show(&ImportedView { tenant, summary: &summary }, || {
        format!("{tenant} holds {}, root digest {}", summary.size(), summary.root_digest)
    })?;
    context.output.note(&format!("`featherctl tenant start {tenant}` starts it (`tenant add`, if it was removed)"));
    Ok(())
}

fn open(file: Option<&Path>) -> Result<File, Failure> {
    let (name, opened) = match file {
        Some(path) => (path.display().to_string(), std::fs::File::open(path)),
        None => ("standard input".to_owned(), io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from)),
    };
    opened
        .map(File::from_std)
        .map_err(|error| Failure::file(format!("cannot read {name}"), &error, "check the name of the archive"))
}

/// Where the stream of an archive stands.
struct Reading {
    source: File,
    /// Goes into the first message.
    tenant: Option<String>,
    ended: bool,
    broken: Arc<Mutex<Option<io::Error>>>,
}

/// The messages of an import. Only an archive that was read to its end gets the message that says so.
fn chunks(
    source: File,
    tenant: &str,
    broken: Arc<Mutex<Option<io::Error>>>,
) -> impl Stream<Item = pb::ImportVolumeRequest> + Send + 'static {
    let start = Reading { source, tenant: Some(tenant.to_owned()), ended: false, broken };
    futures::stream::unfold(start, |mut reading| async move {
        if reading.ended {
            return None;
        }
        let mut data = vec![0; CHUNK_BYTES];
        match reading.source.read(&mut data).await {
            Ok(count) => {
                data.truncate(count);
                reading.ended = count == 0;
                let tenant = reading.tenant.take().unwrap_or_default();
                Some((pb::ImportVolumeRequest { tenant, data: data.into(), end: reading.ended }, reading))
            }
            Err(error) => {
                *reading.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    })
}
