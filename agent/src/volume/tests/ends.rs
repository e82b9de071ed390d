//! The async ends: back-pressure, cancellation, and errors from both sides.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{mpsc, watch};

use super::{
    super::{
        Error, Expect, Frame, Header, Limits, Pace, Parcel, Progress, Receiving, Sending, export_tar, import_tar,
        parcels, receive, scan,
    },
    noted, open,
    tree::{assert_same, facts},
};

fn source() -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("large"), vec![7; 20 << 20]).unwrap();
    for index in 0..100 {
        fs::write(source.path().join(format!("{index}")), vec![1; 1000]).unwrap();
    }
    source
}

/// Opens a directory and holds a lock that lasts as long as any copy of the descriptor.
fn locked(path: &Path) -> OwnedFd {
    let root = open(path);
    flock(&root, FlockOperation::NonBlockingLockExclusive).unwrap();
    root
}

/// Waits until nobody has the locked descriptor any more.
async fn released(path: &Path) {
    let root = open(path);
    let waiting = tokio::task::spawn_blocking(move || flock(root.as_fd(), FlockOperation::LockExclusive));
    waiting.await.unwrap().unwrap();
}

/// All of a still volume, for somebody who has nothing.
fn sending(root: OwnedFd) -> Sending {
    let (_, listing) = mpsc::channel(1);
    Sending {
        volume: noted(Path::new("/dev/null")),
        root,
        expect: Expect::Still,
        base: None,
        listing,
        packs: Some(Pace::default()),
    }
}

/// What a receiver makes of parcels.
fn frames(sending: Sending) -> impl Stream<Item = Result<Frame, Error>> + Send + Unpin {
    parcels(sending).map(|parcel| parcel?.open())
}

fn receiving(root: OwnedFd) -> Receiving {
    Receiving { volume: noted(Path::new("/dev/null")), root, base: None, limits: Limits::default() }
}

fn progress() -> watch::Sender<Progress> {
    watch::Sender::new(Progress::default())
}

#[tokio::test]
async fn a_volume_goes_through_both_ends() {
    let (source, target) = (source(), tempfile::tempdir().unwrap());
    let (sender, watcher) = watch::channel(Progress::default());
    let received = receive(frames(sending(open(source.path()))), receiving(open(target.path())), sender).await;
    let received = received.unwrap().received;
    assert_eq!(received, scan(open(source.path())).unwrap());
    assert_same(&facts(source.path()), &facts(target.path()));
    let last = *watcher.borrow();
    assert_eq!((last.files, last.bytes, last.total_bytes_hint), (received.files, received.bytes, received.bytes));
}

#[tokio::test]
async fn an_archive_goes_through_both_ends() {
    let (source, target) = (source(), tempfile::tempdir().unwrap());
    let archive = export_tar(open(source.path()), Expect::Still);
    let imported = import_tar(archive, open(target.path()), Limits::default(), progress()).await.unwrap();
    assert_eq!(imported.root_digest, scan(open(source.path())).unwrap().root_digest);
}

#[tokio::test]
async fn dropping_the_frames_ends_the_reading_thread() {
    let source = source();
    let mut frames = frames(sending(locked(source.path())));
    assert!(matches!(frames.next().await, Some(Ok(Frame::Header(_)))));
    drop(frames);
    released(source.path()).await;
}

#[tokio::test]
async fn dropping_the_archive_ends_the_reading_thread() {
    let source = source();
    let mut archive = export_tar(locked(source.path()), Expect::Still);
    assert!(matches!(archive.next().await, Some(Ok(_))));
    drop(archive);
    released(source.path()).await;
}

#[tokio::test]
async fn dropping_the_receiver_ends_the_writing_thread() {
    let target = tempfile::tempdir().unwrap();
    let header: Result<Frame, Error> = Ok(Frame::Header(Header { version: 2, total_bytes: 7, ..Header::default() }));
    let endless = stream::iter([header]).chain(stream::pending());
    let (sender, mut watcher) = watch::channel(Progress::default());
    let receiving = tokio::spawn(receive(endless, receiving(locked(target.path())), sender));
    // The thread has taken the header, and waits for more that will never come.
    watcher.wait_for(|progress| progress.total_bytes_hint == 7).await.unwrap();
    receiving.abort();
    assert!(receiving.await.unwrap_err().is_cancelled());
    released(target.path()).await;
}

#[tokio::test]
async fn dropping_the_import_ends_the_writing_thread() {
    let target = tempfile::tempdir().unwrap();
    let endless = stream::pending::<Result<Bytes, Error>>();
    let importing = tokio::spawn(import_tar(endless, locked(target.path()), Limits::default(), progress()));
    tokio::task::yield_now().await;
    importing.abort();
    assert!(importing.await.unwrap_err().is_cancelled());
    released(target.path()).await;
}

#[tokio::test]
async fn a_failing_stream_is_a_transport_error_with_its_cause() {
    let (source, target) = (source(), tempfile::tempdir().unwrap());
    let cut = frames(sending(open(source.path())))
        .take(3)
        .map(|frame| frame.map_err(|error| error.to_string()))
        .chain(stream::iter([Err("connection reset".to_owned())]));
    let error = receive(cut, receiving(open(target.path())), progress()).await.unwrap_err();
    let Error::Transport(cause) = &error else { panic!("{error:?}") };
    assert_eq!(cause.to_string(), "connection reset");
    assert!(!error.to_string().contains("connection reset"));
}

#[tokio::test]
async fn a_stream_that_just_ends_is_truncated() {
    let (source, target) = (source(), tempfile::tempdir().unwrap());
    let cut = frames(sending(open(source.path()))).take(3);
    let error = receive(cut, receiving(open(target.path())), progress()).await.unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_is_told_although_the_sender_stays_silent() {
    let target = tempfile::tempdir().unwrap();
    let wrong: Result<Frame, Error> = Ok(Frame::Header(Header { version: 9, ..Header::default() }));
    let silent = stream::iter([wrong]).chain(stream::pending());
    let error = receive(silent, receiving(open(target.path())), progress()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_source_that_cannot_be_read_ends_the_stream_with_its_error() {
    let target = tempfile::tempdir().unwrap();
    let file = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let all: Vec<_> = frames(sending(file)).collect().await;
    assert!(matches!(all.last(), Some(Err(Error::Io { .. }))));
    let failing = stream::iter(all);
    let error = receive(failing, receiving(open(target.path())), progress()).await.unwrap_err();
    assert!(matches!(error, Error::Transport(_)), "{error:?}");
}

#[tokio::test]
async fn an_archive_that_is_cut_off_is_refused() {
    let (source, target) = (source(), tempfile::tempdir().unwrap());
    let cut = export_tar(open(source.path()), Expect::Still).take(2);
    let error = import_tar(cut, open(target.path()), Limits::default(), progress()).await.unwrap_err();
    assert!(matches!(error, Error::ArchiveTruncated { .. }), "{error:?}");
}

/// Takes a parcel only after about the time that a link of 10 MiB/s would need for it.
async fn over_a_slow_link(packs: Option<Pace>, mib: usize) -> (Vec<Parcel>, usize) {
    let source = tempfile::tempdir().unwrap();
    let lines: Vec<u8> =
        (0..2_000_000).flat_map(|line| format!("line {line}\n").into_bytes()).take(mib << 20).collect();
    fs::write(source.path().join("log"), lines).unwrap();
    let mut parcels = parcels(Sending { packs, ..sending(open(source.path())) });
    let mut all = Vec::new();
    while let Some(parcel) = parcels.next().await {
        let parcel = parcel.unwrap();
        tokio::time::sleep(Duration::from_nanos(parcel.weight() as u64 * 95)).await;
        all.push(parcel);
    }
    let target = tempfile::tempdir().unwrap();
    let unpacked = all.clone().into_iter().map(Parcel::open);
    receive(stream::iter(unpacked), receiving(open(target.path())), progress()).await.unwrap();
    assert_same(&facts(source.path()), &facts(target.path()));
    let bytes = all.iter().map(Parcel::weight).sum();
    (all, bytes)
}

#[tokio::test]
async fn a_slow_link_carries_fewer_bytes_and_the_same_data() {
    let (parcels, bytes) = over_a_slow_link(Some(Pace::default()), 24).await;
    assert!(matches!(parcels.last(), Some(Parcel::Plain(Frame::Trailer(_)))), "the end can be seen without unpacking");
    assert!(bytes < 16 << 20, "{bytes} bytes of 24 MiB, and at most the first 8 or so before the link was known");
}

#[tokio::test]
async fn a_receiver_that_knows_nothing_of_packing_gets_plain_frames() {
    let (parcels, bytes) = over_a_slow_link(None, 8).await;
    assert!(parcels.iter().all(|parcel| matches!(parcel, Parcel::Plain(_))));
    assert!(bytes >= 8 << 20);
}

#[tokio::test]
async fn nothing_is_packed_for_a_receiver_whose_disk_is_slower() {
    let pace = Pace::default();
    pace.set_behind(true);
    let (parcels, _) = over_a_slow_link(Some(pace), 8).await;
    assert!(parcels.iter().all(|parcel| matches!(parcel, Parcel::Plain(_))));
}
