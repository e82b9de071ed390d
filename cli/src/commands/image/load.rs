//! `featherctl image load`

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use feather_proto::{error::reason, ids::ServerName, pb::controller::v1 as pb};
use serde::Serialize;
use tokio::{fs::File, io::AsyncReadExt as _};
use tokio_stream::Stream;

use crate::{
    arguments::Context,
    commands::server_name,
    connect::{Connection, interrupt},
    error::Failure,
    view::ImageView,
};

const CHUNK_BYTES: usize = 512 << 10;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Load an image from an archive onto a server.
///
/// The archive is what `podman save` or `docker save` wrote, not compressed. It is checked on its way, and an archive that is
/// damaged, cut off or for other machines changes nothing. An image of the same name is replaced for new tenants; those that are
/// there keep theirs. From a compressed one: zcat feather-work.tar.gz | featherctl image load nyc -
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Onto which server.
    #[arg(value_name = "SERVER", value_parser = server_name)]
    server: ServerName,
    /// The archive; `-` means stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    _confirm: crate::confirm::NothingToConfirm,
}

#[derive(Serialize)]
struct LoadedView<'a> {
    server: &'a str,
    images: &'a [ImageView],
}

pub(crate) async fn run(arguments: Args, context: &Context) -> Result<(), Failure> {
    let server = arguments.server.as_str();
    let file = Some(arguments.file.as_path()).filter(|file| file.as_os_str() != "-");
    if file.is_none() && io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no archive to read",
            format!("name its file: `featherctl image load {server} feather-work.tar`"),
        ));
    }
    let (source, size_bytes) = open(file)?;
    if let Some((file, unpack)) = file.and_then(|file| Some((file, unpacker(file)?))) {
        let file = file.display();
        return Err(Failure::usage(
            format!("{file} is compressed"),
            format!("decompress it on its way: {unpack} {file} | featherctl image load {server} -"),
        ));
    }
    let connection = context.connect()?;
    let reading = Reading {
        source,
        first: Some((server.to_owned(), size_bytes)),
        ended: false,
        broken: Arc::default(),
        sent_bytes: Arc::default(),
    };
    let response = send(context, &connection, server, reading, size_bytes).await?;
    let images: Vec<_> = response.images.into_iter().map(ImageView::from).collect();
    context
        .output
        .show(&LoadedView { server, images: &images }, || images.iter().map(|image| image.line() + "\n").collect())?;
    context.output.note(&format!(
        "tenants that are on {server} keep the image they have; `featherctl image list` shows what new ones get"
    ));
    Ok(())
}

async fn send(
    context: &Context,
    connection: &Connection,
    server: &str,
    reading: Reading,
    size_bytes: u64,
) -> Result<pb::LoadImageResponse, Failure> {
    let (broken, sent_bytes) = (reading.broken.clone(), reading.sent_bytes.clone());
    let mut progress = context.output.progress();
    progress.step(&format!("loading onto {server}"));
    let mut client = connection.images();
    let mut call = std::pin::pin!(connection.long_call(client.load_image(messages(reading))));
    let answer = loop {
        tokio::select! {
            answer = &mut call => break answer,
            () = tokio::time::sleep(PROGRESS_INTERVAL) => progress.transfer(sent_bytes.load(Ordering::Relaxed), size_bytes),
            () = interrupt() => return Err(Failure::interrupted(
                "stopped before the archive was sent whole",
                format!("the images on {server} are as they were; load again"),
            )),
        }
    };
    // What went wrong here explains what the controller refused, not the other way round.
    if let Some(error) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let hint = format!("the images on {server} are as they were; load again");
        return Err(Failure::file("cannot read the archive to its end", &error, hint));
    }
    answer.map_err(|failure| match failure.reason.as_str() {
        reason::BAD_STREAM => {
            failure.with_hint(format!("the images on {server} are as they were; look at the archive, then load again"))
        }
        _ => failure,
    })
}

/// The archive, and how long it is if that can be known.
fn open(file: Option<&Path>) -> Result<(File, u64), Failure> {
    let (name, opened) = match file {
        Some(path) => (path.display().to_string(), std::fs::File::open(path)),
        None => ("standard input".to_owned(), io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from)),
    };
    let opened = opened.and_then(|file| file.metadata().map(|about| (file, about)));
    let (file, about) = opened
        .map_err(|error| Failure::file(format!("cannot read {name}"), &error, "check the name of the archive"))?;
    Ok((File::from_std(file), if about.is_file() { about.len() } else { 0 }))
}

/// What decompresses the file, if something has to.
fn unpacker(file: &Path) -> Option<&'static str> {
    const KINDS: &[(&[u8], &str)] = &[
        (&[0x1f, 0x8b], "zcat"),
        (b"BZh", "bzcat"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xzcat"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstdcat"),
    ];
    let mut start = [0; 8];
    std::fs::File::open(file).and_then(|mut file| io::Read::read(&mut file, &mut start)).ok()?;
    KINDS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, unpack)| *unpack)
}

/// Where the stream of an archive stands.
struct Reading {
    source: File,
    /// Server and size go into the first message.
    first: Option<(String, u64)>,
    ended: bool,
    broken: Arc<Mutex<Option<io::Error>>>,
    sent_bytes: Arc<AtomicU64>,
}

/// The messages of an upload. Only an archive that was read to its end gets the message that says so.
fn messages(start: Reading) -> impl Stream<Item = pb::LoadImageRequest> + Send + 'static {
    futures::stream::unfold(start, |mut reading| async move {
        if reading.ended {
            return None;
        }
        let mut data = vec![0; CHUNK_BYTES];
        match reading.source.read(&mut data).await {
            Ok(count) => {
                data.truncate(count);
                reading.ended = count == 0;
                reading.sent_bytes.fetch_add(count as u64, Ordering::Relaxed);
                let (server, size_bytes) = reading.first.take().unwrap_or_default();
                let message = pb::LoadImageRequest { server, size_bytes, data: data.into(), end: reading.ended };
                Some((message, reading))
            }
            Err(error) => {
                *reading.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    })
}
