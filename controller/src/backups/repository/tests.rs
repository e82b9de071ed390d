//! A repository keeps what it was given, says when it does not, and loses nothing that a backup names.

use std::{collections::HashSet, fs, path::Path};

use bytes::Bytes;
use feather_proto::error::{Error, reason};
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use time::OffsetDateTime;

use super::{Description, Place, Repository, decode, encode};
use crate::world::{Clock as _, SystemClock};

mod bucket;

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    StdRng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}

fn archive(data: &[u8]) -> BoxStream<'static, Result<Bytes, Error>> {
    let pieces: Vec<_> = data.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

fn place(folder: &Path) -> Place {
    folder.to_str().unwrap().parse().unwrap()
}

async fn keep(repository: &Repository, tenant: &str, number: i64, data: &[u8]) -> Description {
    let held = repository.pieces_of(&tenant.parse().unwrap()).await.unwrap();
    let written = repository.write(archive(data), held).await.unwrap();
    let description = Description {
        id: format!("b{number}"),
        tenant: tenant.into(),
        generation: 1,
        server: "nyc".into(),
        taken: OffsetDateTime::from_unix_timestamp(1_700_000_000 + number).unwrap(),
        live: false,
        bytes: written.bytes,
        new_bytes: written.new_bytes,
        digest: written.digest,
        list_digest: String::new(),
        keep_until: None,
    };
    repository.publish(description, &written.pieces).await.unwrap()
}

async fn read(repository: &Repository, description: &Description) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = repository.read(description).await.try_collect().await?;
    Ok(pieces.concat())
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_is_kept_is_read_again_and_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::open(&place(folder.path()), false).await.unwrap();
    let mut data = noise(1, 4 << 20);
    let first = keep(&repository, "alice", 1, &data).await;
    assert_eq!((first.bytes, first.new_bytes), (data.len() as u64, data.len() as u64));
    let same = keep(&repository, "alice", 2, &data).await;
    assert_eq!(same.new_bytes, 0);
    data[2 << 20] ^= 1;
    let changed = keep(&repository, "alice", 3, &data).await;
    assert!(changed.new_bytes > 0 && changed.new_bytes < 1 << 21, "{}", changed.new_bytes);
    assert_eq!(read(&repository, &changed).await.unwrap(), data);
    data[2 << 20] ^= 1;
    assert_eq!(read(&repository, &first).await.unwrap(), data);
    let empty = keep(&repository, "bob", 1, &[]).await;
    assert_eq!(read(&repository, &empty).await.unwrap(), b"");
    assert_eq!(repository.descriptions(Some(&"alice".parse().unwrap())).await.unwrap().len(), 3);
    assert_eq!(repository.descriptions(None).await.unwrap().len(), 4);
    // Another process finds the same.
    let again = Repository::open_existing(&place(folder.path())).await.unwrap();
    assert_eq!(read(&again, &changed).await.unwrap().len(), data.len());
}

#[tokio::test]
async fn an_archive_that_ends_early_leaves_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::open(&place(folder.path()), false).await.unwrap();
    let broken = archive(&noise(2, 3 << 20)).chain(stream::iter([Err(Error::bug("cut"))])).boxed();
    assert!(repository.write(broken, HashSet::new()).await.is_err());
    assert!(repository.descriptions(None).await.unwrap().is_empty());
}

/// Whatever happens to any file of a backup, it is told, and nothing that is not as it was is passed on.
#[tokio::test]
async fn damage_anywhere_is_found_before_it_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::open(&place(folder.path()), false).await.unwrap();
    let data = noise(3, 2 << 20);
    let description = keep(&repository, "alice", 1, &data).await;
    let names: Vec<_> = ["pieces", "lists"].iter().flat_map(|part| files(&folder.path().join(part))).collect();
    assert!(names.len() > 2);
    for name in names {
        let content = fs::read(&name).unwrap();
        let mut flipped = content.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for damage in [Some(flipped), Some(content[..content.len() - 1].to_vec()), Some(vec![]), None] {
            match &damage {
                Some(bytes) => fs::write(&name, bytes).unwrap(),
                None => fs::remove_file(&name).unwrap(),
            }
            let mut passed = vec![];
            let mut pieces = repository.read(&description).await;
            let mut found = None;
            while let Some(piece) = pieces.next().await {
                match piece {
                    Ok(piece) => passed.extend_from_slice(&piece),
                    Err(error) => found = Some(error),
                }
            }
            let error = found.unwrap_or_else(|| panic!("{} was damaged and nobody said so", name.display()));
            assert!(error.is(reason::BACKUP_DAMAGED), "{error:?}");
            assert_eq!(passed, data[..passed.len()], "what was passed on before is right");
        }
        fs::write(&name, content).unwrap();
    }
    assert_eq!(read(&repository, &description).await.unwrap(), data);
}

#[tokio::test]
async fn a_sweep_takes_what_nobody_names_and_is_old_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::open(&place(folder.path()), false).await.unwrap();
    let (first, second) = (noise(4, 3 << 20), [noise(4, 1 << 20), noise(5, 2 << 20)].concat());
    let alice = keep(&repository, "alice", 1, &first).await;
    let bob = keep(&repository, "bob", 1, &second).await;
    let all = files(&folder.path().join("pieces")).len();
    let now = SystemClock.now();
    let later = now + time::Duration::days(2);
    assert_eq!(repository.sweep(later).await.unwrap(), 0, "everything is named");
    repository.remove(&"alice".parse().unwrap(), "b1").await.unwrap();
    repository.remove(&"alice".parse().unwrap(), "b1").await.unwrap();
    assert_eq!(repository.sweep(now).await.unwrap(), 0, "it may be part of one that is being written");
    let gone = repository.sweep(later).await.unwrap();
    assert!(gone > 0);
    assert_eq!(files(&folder.path().join("pieces")).len() as u64, all as u64 - gone);
    assert_eq!(read(&repository, &bob).await.unwrap(), second);
    assert!(read(&repository, &alice).await.unwrap_err().is(reason::BACKUP_DAMAGED));
    // In doubt nothing is deleted.
    fs::write(folder.path().join("lists/bob/b1"), b"?").unwrap();
    assert!(repository.sweep(later).await.is_err());
    assert_eq!(files(&folder.path().join("pieces")).len() as u64, all as u64 - gone);
}

#[tokio::test]
async fn only_an_empty_place_becomes_one_and_an_unmounted_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = place(&folder.path().join("new"));
    let refused = |opened: Result<Repository, Error>| opened.map(drop).unwrap_err();
    assert!(refused(Repository::open_existing(&fresh).await).is(reason::REPOSITORY));
    assert!(refused(Repository::open(&fresh, true).await).is(reason::REPOSITORY), "its disk is not mounted");
    assert!(!folder.path().join("new").exists());
    Repository::open(&fresh, false).await.unwrap();
    Repository::open(&fresh, true).await.unwrap();

    let used = folder.path().join("used");
    fs::create_dir(&used).unwrap();
    assert!(refused(Repository::open(&place(&used), true).await).message.contains("mounted"));
    fs::write(used.join("letter.txt"), b"dear").unwrap();
    assert!(refused(Repository::open(&place(&used), false).await).message.contains("letter.txt"));
    assert_eq!(files(&used).len(), 1, "nothing was written there");
    fs::write(used.join(super::MARK), b"{\"form\":9}").unwrap();
    assert!(refused(Repository::open(&place(&used), false).await).message.contains("version"));
}

#[tokio::test]
async fn a_bucket_keeps_the_same_promises() {
    let bucket = bucket::Bucket::default();
    let place: Place = "s3://bucket/fleet".parse().unwrap();
    let repository = Repository::on(bucket.serve("fleet").await, &place, false).await.unwrap();
    let data = noise(6, 2 << 20);
    let first = keep(&repository, "alice", 1, &data).await;
    assert_eq!(keep(&repository, "alice", 2, &data).await.new_bytes, 0);
    assert!(bucket.names().iter().all(|name| name.starts_with("fleet/")), "{:?}", bucket.names());
    let again = Repository::on(bucket.serve("fleet").await, &place, true).await.unwrap();
    assert_eq!(again.descriptions(None).await.unwrap().len(), 2);
    assert_eq!(read(&again, &first).await.unwrap(), data);
    again.remove(&"alice".parse().unwrap(), "b2").await.unwrap();
    assert_eq!(again.sweep(SystemClock.now()).await.unwrap(), 0);
    assert_eq!(read(&again, &first).await.unwrap(), data);
    let piece = bucket.names().into_iter().find(|name| name.contains("/pieces/")).unwrap();
    bucket.spoil(&piece);
    assert!(read(&again, &first).await.unwrap_err().is(reason::BACKUP_DAMAGED));
    again.remove(&"alice".parse().unwrap(), "b1").await.unwrap();
    assert!(again.sweep(SystemClock.now()).await.unwrap() > 0);
    assert_eq!(bucket.names(), ["fleet/feather-backups.json"]);
    let strangers = Repository::on(bucket.serve("fleet/pieces").await, &place, true).await;
    assert!(strangers.map(drop).unwrap_err().is(reason::REPOSITORY));
}

#[test]
fn lists_are_read_as_they_were_written_or_not_at_all() {
    let piece = super::Piece { digest: [7; 32], bytes: 1 << 20 };
    let pieces = vec![piece; 3];
    assert_eq!(decode(&encode(&pieces)), Some(pieces.clone()));
    assert_eq!(decode(&encode(&pieces)[1..]), None);
    assert_eq!(decode(&encode(&[super::Piece { bytes: u32::MAX, ..piece }])), None, "no piece is so large");
}
