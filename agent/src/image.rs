//! Loading an image so that what is not in order changes nothing.
//!
//! Podman takes an archive for any machine and moves the name onto whatever came last. So an archive is read while it passes
//! (`image/archive.rs`), and Podman gets its end, without which it begins nothing, only when the archive is whole, holds an image
//! for this machine and, for a copy, the very image that was sent for.

pub(crate) mod archive;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    model::Image,
};
use futures::{StreamExt as _, stream::BoxStream};
use tokio_util::io::ReaderStream;

use self::archive::{Found, Inspector};
use crate::{agent::locked, runtime::Runtime};

/// Longest silence in an archive: Podman waits for its rest.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What is read of a file at once.
const FILE_PIECE_BYTES: usize = 256 * 1024;

/// What is to come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// About so many bytes; 0 when unknown.
    pub(crate) size_bytes: u64,
    /// Exactly this image. Else any that has a name.
    pub(crate) digest: Option<String>,
}

/// This machine, in the words of images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Loads an archive; returns what it held. An error in the stream, or an archive that is not in order, leaves every image as it was.
pub(crate) async fn load(
    runtime: &dyn Runtime,
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    wanted: Wanted,
) -> Result<Vec<Image>, Error> {
    let free = runtime.capacity().await?.disk_free_bytes;
    if free < wanted.size_bytes {
        let mib = |bytes: u64| bytes >> 20;
        let message = format!(
            "the image takes about {} MiB and {} MiB are free on this server; make room, for example by removing images that nobody \
             uses (`podman image prune` in its birth)",
            mib(wanted.size_bytes).max(1),
            mib(free)
        );
        return Err(Error::full(reason::NO_DISK, message));
    }
    let verdict = Arc::new(Mutex::new(None));
    let checked = checked(pieces, wanted.digest.clone(), verdict.clone());
    let loaded = runtime.load_image(checked).await;
    // Why the archive was held back explains what the engine says of it, not the other way round.
    if let Some(error) = locked(&verdict).take() {
        return Err(error);
    }
    let images = loaded?;
    match wanted.digest {
        Some(digest) if !images.iter().any(|image| image.digest == digest) => {
            Err(Error::bug(format!("the engine made {images:?} of an archive that holds {digest}")))
        }
        _ => Ok(images),
    }
}

/// Loads an archive that lies on this machine's disk.
///
/// # Errors
/// A file that cannot be read, an archive that is not in order, a full disk, an engine that does not answer.
pub async fn load_file(runtime: &dyn Runtime, file: &Path) -> Result<Vec<Image>, Error> {
    let unreadable = |error: io::Error| Error::invalid(reason::BAD_STREAM, format!("it cannot be read: {error}"));
    let archive = tokio::fs::File::open(file).await.map_err(unreadable)?;
    let size_bytes = archive.metadata().await.map_err(unreadable)?.len();
    let pieces = ReaderStream::with_capacity(archive, FILE_PIECE_BYTES).map(move |piece| piece.map_err(unreadable));
    load(runtime, pieces.boxed(), Wanted { size_bytes, digest: None }).await
}

/// Where an archive stands on its way.
struct Passing {
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    inspector: Inspector,
    digest: Option<String>,
    verdict: Arc<Mutex<Option<Error>>>,
    over: bool,
}

impl Passing {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let next = tokio::time::timeout(SILENCE_MAX, self.pieces.next()).await;
        match next.map_err(|_| stalled())? {
            Some(piece) => {
                let piece = piece?;
                self.inspector.feed(&piece).map_err(bad)?;
                Ok(Some(piece))
            }
            None => {
                let found = std::mem::take(&mut self.inspector).finish().map_err(bad)?;
                accept(&found, self.digest.as_deref(), architecture()).map(|()| None)
            }
        }
    }
}

/// The same pieces; what is not in order ends in an error instead of an end, and the reason is left in `verdict`.
fn checked(
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    digest: Option<String>,
    verdict: Arc<Mutex<Option<Error>>>,
) -> BoxStream<'static, Result<Bytes, io::Error>> {
    let start = Passing { pieces, inspector: Inspector::default(), digest, verdict, over: false };
    futures::stream::unfold(start, |mut passing| async move {
        if passing.over {
            return None;
        }
        match passing.next().await {
            Ok(Some(piece)) => Some((Ok(piece), passing)),
            Ok(None) => None,
            Err(error) => {
                let broken = io::Error::other(error.message.clone());
                *locked(&passing.verdict) = Some(error);
                passing.over = true;
                Some((Err(broken), passing))
            }
        }
    })
    .boxed()
}

fn stalled() -> Error {
    let seconds = SILENCE_MAX.as_secs();
    Error::invalid(reason::BAD_STREAM, format!("no more of the archive came for {seconds} s; send it again"))
}

fn bad(problem: String) -> Error {
    Error::invalid(
        reason::BAD_STREAM,
        format!(
            "this is no archive of an image that can be loaded: {problem}; make one with `podman save --output FILE IMAGE`"
        ),
    )
}

/// Is this what may be loaded here? Pure.
fn accept(found: &[Found], digest: Option<&str>, here: &str) -> Result<(), Error> {
    let fitting: Vec<_> = found.iter().filter(|image| image.architecture == here).collect();
    let stranger = found.iter().find(|image| image.architecture != here);
    // An index may hold one image for several machines; a plain archive is loaded whole.
    if let Some(stranger) = stranger.filter(|one| fitting.is_empty() || !one.one_of_several) {
        let message = format!(
            "the image {} was built for {}, and this server is {here}; build or save it for {here}, for example with --platform linux/{here}",
            stranger.name(),
            stranger.architecture
        );
        return Err(Error::refused(reason::WRONG_ARCHITECTURE, message).with("architecture", &stranger.architecture));
    }
    match digest {
        Some(digest) if !fitting.iter().any(|image| image.digest == digest) => Err(Error::refused(
            reason::IMAGE_DIFFERS,
            format!(
                "the archive holds {} and not {digest}, which was sent for: the name has moved to another image meanwhile; try again",
                fitting.iter().map(|image| image.digest.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )),
        None if fitting.iter().all(|image| image.references.is_empty()) => {
            Err(bad("the image in it has no name".to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use feather_proto::error::{Error, reason};
    use futures::{StreamExt as _, stream};

    use super::{Wanted, accept, architecture, archive::Found, load, load_file};
    use crate::runtime::{
        Runtime as _,
        fake::{Behaviour, Fake, archive},
    };

    const NAME: &str = "localhost/feather-work:latest";

    fn found(architecture: &str, several: bool) -> Found {
        Found {
            references: vec![NAME.to_owned()],
            digest: format!("sha256:{architecture}"),
            architecture: architecture.to_owned(),
            config: Vec::new(),
            one_of_several: several,
        }
    }

    #[test]
    fn only_an_image_for_this_machine_is_taken() {
        assert!(accept(&[found("amd64", false)], None, "amd64").is_ok());
        let error = accept(&[found("arm64", false)], None, "amd64").unwrap_err();
        assert_eq!(error.reason, reason::WRONG_ARCHITECTURE);
        assert!(error.message.contains("arm64") && error.message.contains("amd64"), "{error}");
        assert!(
            accept(&[found("amd64", false), found("arm64", false)], None, "amd64").is_err(),
            "all of it would be loaded"
        );
        assert!(
            accept(&[found("amd64", true), found("arm64", true)], None, "amd64").is_ok(),
            "the fitting one is loaded"
        );
        assert!(accept(&[found("s390x", true), found("arm64", true)], None, "amd64").is_err());
    }

    #[test]
    fn a_copy_must_be_the_image_that_was_sent_for() {
        assert!(accept(&[found("amd64", false)], Some("sha256:amd64"), "amd64").is_ok());
        let error = accept(&[found("amd64", false)], Some("sha256:other"), "amd64").unwrap_err();
        assert_eq!(error.reason, reason::IMAGE_DIFFERS);
        let nameless = Found { references: Vec::new(), ..found("amd64", false) };
        assert!(accept(std::slice::from_ref(&nameless), Some("sha256:amd64"), "amd64").is_ok());
        assert_eq!(accept(&[nameless], None, "amd64").unwrap_err().reason, reason::BAD_STREAM);
    }

    #[tokio::test]
    async fn an_archive_on_disk_is_loaded_or_told_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, old) = engine(&dir);
        let file = dir.path().join("feather-work.tar");
        let error = load_file(&*engine, &file).await.unwrap_err();
        assert!(error.message.contains("cannot be read"), "{error}");
        assert!(load_file(&*engine, dir.path()).await.is_err(), "a folder");
        let good = archive(NAME, "new", Behaviour::Healthy, architecture());
        std::fs::write(&file, &good[..good.len() / 2]).unwrap();
        let error = load_file(&*engine, &file).await.unwrap_err();
        assert!(error.message.contains("cut off"), "{error}");
        assert_eq!(now(&engine).await, old);
        std::fs::write(&file, &good).unwrap();
        let images = load_file(&*engine, &file).await.unwrap();
        assert_eq!((images[0].reference.as_str(), images[0].digest.clone()), (NAME, now(&engine).await));
        assert_ne!(images[0].digest, old);
    }

    fn engine(dir: &tempfile::TempDir) -> (Arc<Fake>, String) {
        let engine = Arc::new(Fake::new(dir.path()));
        let digest = engine.add_image(NAME, "old", Behaviour::Healthy);
        (engine, digest)
    }

    async fn send(engine: &Fake, bytes: &[u8], wanted: Wanted) -> Result<String, Error> {
        let pieces: Vec<_> = bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let images = load(engine, stream::iter(pieces).boxed(), wanted).await?;
        Ok(images[0].digest.clone())
    }

    async fn now(engine: &Fake) -> String {
        engine.image(NAME).await.unwrap().unwrap().digest
    }

    #[tokio::test]
    async fn what_is_not_in_order_leaves_the_image_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, old) = engine(&dir);
        let good = archive(NAME, "new", Behaviour::Healthy, architecture());
        let foreign = archive(NAME, "new", Behaviour::Healthy, "s390x");
        let mut damaged = good.to_vec();
        // In the configuration, whose name is its digest.
        damaged[530] ^= 1;
        let cases: &[(&[u8], &str)] = &[
            (b"", reason::BAD_STREAM),
            (b"not an image", reason::BAD_STREAM),
            (&[b'x'; 4096], reason::BAD_STREAM),
            (&good[..good.len() - 1024], reason::BAD_STREAM),
            (&good[..700], reason::BAD_STREAM),
            (&damaged, reason::BAD_STREAM),
            (&foreign, reason::WRONG_ARCHITECTURE),
        ];
        for (bytes, wanted) in cases {
            let error = send(&engine, bytes, Wanted::default()).await.unwrap_err();
            assert_eq!(error.reason, *wanted, "{error}");
            assert_eq!(now(&engine).await, old, "{error}");
        }
        let elsewhere = Wanted { digest: Some(old.clone()), size_bytes: 0 };
        assert_eq!(send(&engine, &good, elsewhere).await.unwrap_err().reason, reason::IMAGE_DIFFERS);
        let large = Wanted { size_bytes: u64::MAX, digest: None };
        assert_eq!(send(&engine, &good, large).await.unwrap_err().reason, reason::NO_DISK);
        assert_eq!(now(&engine).await, old);
        let new = send(&engine, &good, Wanted::default()).await.unwrap();
        assert_eq!(now(&engine).await, new);
        assert_ne!(new, old);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_stands_still_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, old) = engine(&dir);
        let half = archive(NAME, "new", Behaviour::Healthy, architecture())[..700].to_vec();
        let pieces = stream::iter([Ok(Bytes::from(half))]).chain(stream::pending()).boxed();
        let error = load(&*engine, pieces, Wanted::default()).await.unwrap_err();
        assert!(error.is(reason::BAD_STREAM) && error.message.contains("60 s"), "{error}");
        assert_eq!(now(&engine).await, old);
    }

    #[tokio::test]
    async fn a_sender_that_breaks_off_is_named_as_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, old) = engine(&dir);
        let good = Bytes::from(archive(NAME, "new", Behaviour::Healthy, architecture()));
        let gone = Error::unavailable(reason::SERVER_UNREACHABLE, "nyc went away");
        let pieces = stream::iter([Ok(good), Err(gone.clone())]).boxed();
        assert_eq!(load(&*engine, pieces, Wanted::default()).await.unwrap_err(), gone);
        assert_eq!(now(&engine).await, old);
    }
}
