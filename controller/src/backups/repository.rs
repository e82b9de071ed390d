//! One repository: pieces by their digest, a list of pieces and a description for each backup.
//!
//! ```text
//! feather-backups.json            says that this is one, and of which form
//! pieces/ab/abcdef...             one piece of an archive, zstd, named by the BLAKE3 digest of what is in it
//! lists/alice/ID                  digests and lengths of a backup's pieces, in order
//! backups/alice/ID.json           what the backup is; written last, deleted first
//! ```
//!
//! Nothing is ever changed in place. Whatever is read is compared with its digest.

use std::{collections::HashSet, fs, io::Write as _, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    ids::TenantName,
};
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, path::Path};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{
    Place,
    cut::{self, Cutter},
};

const MARK: &str = "feather-backups.json";
/// Of what is in a repository. Another one is refused.
const FORM: u32 = 1;
/// Pieces that are written or read at once.
const AT_ONCE: usize = 4;
const LEVEL: i32 = 1;
/// How long one object may take, with all tries: a disk of another machine that hangs must not hold up others for ever.
const ANSWER_MAX: std::time::Duration = std::time::Duration::from_secs(5 * 60);
/// Longest list of pieces: 2 TiB of archive.
const LIST_MAX_BYTES: u64 = 512 << 20;
const DESCRIPTION_MAX_BYTES: u64 = 64 << 10;
/// Pieces that no backup names are left alone for so long: somebody may be writing that backup.
const YOUNG: Duration = Duration::days(1);
/// A digest and a length.
const ENTRY_BYTES: usize = 36;

/// BLAKE3 of a piece.
pub type Digest = [u8; 32];

/// A piece of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub bytes: u32,
}

/// What a backup is, as it lies in its repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Unique in the repository.
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// Generation of the placement that it was read from.
    pub generation: u64,
    /// Server that it was read from.
    pub server: String,
    /// When reading began.
    #[serde(with = "time::serde::rfc3339")]
    pub taken: OffsetDateTime,
    /// The tenant ran meanwhile.
    pub live: bool,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Of them: not there before.
    pub new_bytes: u64,
    /// BLAKE3 of the archive.
    pub digest: String,
    /// BLAKE3 of the list of its pieces.
    pub list_digest: String,
    /// It may go from then on.
    #[serde(with = "time::serde::rfc3339::option")]
    pub keep_until: Option<OffsetDateTime>,
}

/// What was written of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// In order.
    pub pieces: Vec<Piece>,
    /// Of the archive.
    pub bytes: u64,
    /// Of them: not there before.
    pub new_bytes: u64,
    /// Of the archive.
    pub digest: String,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    form: u32,
}

/// A repository that is there.
#[derive(Clone)]
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    place: Place,
}

fn hex(digest: &Digest) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

fn piece_path(digest: &Digest) -> Path {
    let name = hex(digest);
    Path::from(format!("pieces/{}/{name}", &name[..2]))
}

fn list_path(tenant: &str, id: &str) -> Path {
    Path::from(format!("lists/{tenant}/{id}"))
}

fn description_path(tenant: &str, id: &str) -> Path {
    Path::from(format!("backups/{tenant}/{id}.json"))
}

fn encode(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.digest.into_iter().chain(piece.bytes.to_le_bytes())).collect()
}

fn decode(list: &[u8]) -> Option<Vec<Piece>> {
    let (entries, rest) = list.as_chunks::<ENTRY_BYTES>();
    let piece = |entry: &[u8; ENTRY_BYTES]| {
        let (digest, bytes) = entry.split_at(32);
        let bytes = u32::from_le_bytes(bytes.try_into().ok()?);
        (bytes as usize <= cut::MOST).then_some(Piece { digest: digest.try_into().ok()?, bytes })
    };
    rest.is_empty().then(|| entries.iter().map(piece).collect()).flatten()
}

/// Something in it is not as it was written.
fn damaged(place: &Place, what: impl std::fmt::Display) -> Error {
    Error::refused(
        reason::BACKUP_DAMAGED,
        format!(
            "{what} in {place} is not what was written there; use another backup, and back up again: all of it is written anew then"
        ),
    )
}

impl Repository {
    /// Opens a place for writing; an empty one becomes a repository. `expected`: it was one already.
    ///
    /// # Errors
    /// `REPOSITORY`: something else is there, or it was a repository and is empty now, as when its disk is not mounted.
    pub async fn open(place: &Place, expected: bool) -> Result<Self, Error> {
        Self::on(place.open(!expected)?, place, expected).await
    }

    async fn on(store: Arc<dyn ObjectStore>, place: &Place, expected: bool) -> Result<Self, Error> {
        let repository = Self { store, place: place.clone() };
        match repository.mark().await? {
            Some(()) => return Ok(repository),
            None if expected => return Err(repository.empty()),
            None => {}
        }
        if let Some(stranger) =
            repository.store.list(None).next().await.transpose().map_err(|error| repository.failed(&error))?
        {
            return Err(Error::refused(
                reason::REPOSITORY,
                format!(
                    "{place} holds something else already, such as {}; name a place that is empty",
                    stranger.location
                ),
            ));
        }
        let mark = serde_json::to_vec(&Mark { form: FORM }).map_err(|error| Error::bug(error.to_string()))?;
        repository.put(&Path::from(MARK), mark).await?;
        repository.durable().await?;
        Ok(repository)
    }

    /// Opens one that is there.
    pub async fn open_existing(place: &Place) -> Result<Self, Error> {
        let repository = Self { store: place.open(false)?, place: place.clone() };
        repository.mark().await?.ok_or_else(|| repository.empty())?;
        Ok(repository)
    }

    fn empty(&self) -> Error {
        Error::refused(
            reason::REPOSITORY,
            format!(
                "there are no backups in {} (no {MARK}); is what it lies on mounted, is its name right?",
                self.place
            ),
        )
    }

    async fn mark(&self) -> Result<Option<()>, Error> {
        let Some(mark) = self.get(&Path::from(MARK), DESCRIPTION_MAX_BYTES).await? else { return Ok(None) };
        match serde_json::from_slice(&mark) {
            Ok(Mark { form: FORM }) => Ok(Some(())),
            _ => Err(Error::refused(
                reason::REPOSITORY,
                format!("{} is of a form that this version does not know; use the version that made it", self.place),
            )),
        }
    }

    fn failed(&self, error: &object_store::Error) -> Error {
        let text = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
            .last()
            .map_or_else(String::new, ToString::to_string);
        Error::unavailable(reason::REPOSITORY, format!("{} does not do what it should: {text}; try again", self.place))
    }

    fn silent(&self) -> Error {
        let minutes = ANSWER_MAX.as_secs() / 60;
        let message =
            format!("{} did not answer for {minutes} min; look at what it lies on, then try again", self.place);
        Error::unavailable(reason::REPOSITORY, message)
    }

    async fn put(&self, path: &Path, content: Vec<u8>) -> Result<(), Error> {
        let put = tokio::time::timeout(ANSWER_MAX, self.store.put(path, PutPayload::from(content)));
        put.await.map_err(|_| self.silent())?.map(drop).map_err(|error| self.failed(&error))
    }

    /// `None`: it is not there.
    async fn get(&self, path: &Path, most: u64) -> Result<Option<Bytes>, Error> {
        let get = async {
            match self.store.get(path).await? {
                found if found.meta.size > most => Ok(None),
                found => found.bytes().await.map(Some),
            }
        };
        let found = tokio::time::timeout(ANSWER_MAX, get).await.map_err(|_| self.silent())?;
        match found.map(|content| content.ok_or_else(|| damaged(&self.place, path))) {
            Ok(content) => content.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Everything that was written until now outlives a power failure. Object stores promise that for each write.
    async fn durable(&self) -> Result<(), Error> {
        let Place::Folder(folder) = self.place.clone() else { return Ok(()) };
        let synced = tokio::task::spawn_blocking(move || sync(&folder)).await;
        match synced.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => Ok(()),
            Err(error) => Err(Error::unavailable(
                reason::REPOSITORY,
                format!("what was written to {} cannot be brought to disk: {error}; try again", self.place),
            )),
        }
    }

    /// Pieces that this tenant's backups name, and that are therefore there.
    pub async fn pieces_of(&self, tenant: &TenantName) -> Result<HashSet<Digest>, Error> {
        let mut held = HashSet::new();
        // The newest hold nearly all that older ones do; a list that cannot be read only costs writing again.
        let mut described = self.descriptions(Some(tenant)).await?;
        described.sort_by_key(|one| std::cmp::Reverse(one.taken));
        for one in described.iter().take(3) {
            if let Ok(list) = self.list(one).await {
                held.extend(list.iter().map(|piece| piece.digest));
            }
        }
        Ok(held)
    }

    /// Cuts an archive and writes what is not `held`.
    pub async fn write(
        &self,
        archive: BoxStream<'static, Result<Bytes, Error>>,
        held: HashSet<Digest>,
    ) -> Result<Written, Error> {
        let mut whole = blake3::Hasher::new();
        let mut held = held;
        let (mut pieces, mut bytes, mut new_bytes) = (vec![], 0_u64, 0_u64);
        let cut = cut_up(archive).map_ok(|data| {
            let piece = Piece { digest: *blake3::hash(&data).as_bytes(), bytes: data.len() as u32 };
            whole.update(&data);
            bytes += data.len() as u64;
            pieces.push(piece);
            let new = held.insert(piece.digest);
            new_bytes += if new { data.len() as u64 } else { 0 };
            (piece, new.then_some(data))
        });
        let written = cut.map_ok(|(piece, data)| async move {
            match data {
                Some(data) => self.put(&piece_path(&piece.digest), packed(data).await?).await,
                None => Ok(()),
            }
        });
        written.try_buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(Written { pieces, bytes, new_bytes, digest: whole.finalize().to_hex().to_string() })
    }

    /// Makes what was written a backup. Returns its description as it lies there.
    pub async fn publish(&self, description: Description, pieces: &[Piece]) -> Result<Description, Error> {
        let list = encode(pieces);
        let list_digest = blake3::hash(&list).to_hex().to_string();
        let description = Description { list_digest, ..description };
        self.put(&list_path(&description.tenant, &description.id), list).await?;
        self.durable().await?;
        let text = serde_json::to_vec_pretty(&description).map_err(|error| Error::bug(error.to_string()))?;
        self.put(&description_path(&description.tenant, &description.id), text).await?;
        self.durable().await?;
        Ok(description)
    }

    /// Of all backups, or of one tenant's. One that cannot be read is an error: it may be the one that is looked for.
    pub async fn descriptions(&self, tenant: Option<&TenantName>) -> Result<Vec<Description>, Error> {
        let folder = tenant.map_or_else(|| "backups".to_owned(), |tenant| format!("backups/{tenant}"));
        let listed = self.store.list(Some(&Path::from(folder)));
        let names: Vec<_> =
            listed.map_ok(|one| one.location).try_collect().await.map_err(|error| self.failed(&error))?;
        let read = |name: Path| async move {
            let text = self.get(&name, DESCRIPTION_MAX_BYTES).await?;
            // Deleted since it was listed.
            let Some(text) = text else { return Ok(None) };
            let one: Description = serde_json::from_slice(&text).map_err(|_| damaged(&self.place, &name))?;
            let at_home = description_path(&one.tenant, &one.id) == name;
            if at_home { Ok(Some(one)) } else { Err(damaged(&self.place, &name)) }
        };
        stream::iter(names).map(read).buffered(AT_ONCE).try_filter_map(|one| async { Ok(one) }).try_collect().await
    }

    async fn list(&self, description: &Description) -> Result<Vec<Piece>, Error> {
        let path = list_path(&description.tenant, &description.id);
        let list = self.get(&path, LIST_MAX_BYTES).await?.ok_or_else(|| damaged(&self.place, &path))?;
        let right = blake3::hash(&list).to_hex().as_str() == description.list_digest;
        decode(&list).filter(|_| right).ok_or_else(|| damaged(&self.place, &path))
    }

    /// The archive, each piece compared with its digest before it is passed on, and the whole at the end.
    pub async fn read(&self, description: &Description) -> BoxStream<'static, Result<Bytes, Error>> {
        let pieces = match self.list(description).await {
            Ok(pieces) => pieces,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let (repository, wanted) = (self.clone(), description.digest.clone());
        let read = stream::iter(pieces)
            .map(move |piece| {
                let repository = repository.clone();
                async move { repository.piece(piece).await }
            })
            .buffered(AT_ONCE);
        let (place, id) = (self.place.clone(), description.id.clone());
        let state = Some((read.boxed(), blake3::Hasher::new()));
        stream::unfold(state, move |state| {
            let (wanted, place, id) = (wanted.clone(), place.clone(), id.clone());
            async move {
                let (mut read, mut whole) = state?;
                match read.next().await {
                    Some(Ok(data)) => {
                        whole.update(&data);
                        Some((Ok(data), Some((read, whole))))
                    }
                    Some(Err(error)) => Some((Err(error), None)),
                    None if whole.finalize().to_hex().as_str() == wanted => None,
                    None => Some((Err(damaged(&place, format!("backup {id}"))), None)),
                }
            }
        })
        .boxed()
    }

    async fn piece(&self, piece: Piece) -> Result<Bytes, Error> {
        let path = piece_path(&piece.digest);
        // What does not shrink is a little larger than before.
        let most = u64::from(piece.bytes) + 4096;
        let content = self.get(&path, most).await?.ok_or_else(|| damaged(&self.place, &path))?;
        let unpacked = tokio::task::spawn_blocking(move || {
            let data = zstd::bulk::decompress(&content, piece.bytes as usize).ok()?;
            (*blake3::hash(&data).as_bytes() == piece.digest).then_some(data)
        });
        let data = unpacked.await.map_err(|error| Error::bug(error.to_string()))?;
        data.map(Bytes::from).ok_or_else(|| damaged(&self.place, &path))
    }

    /// Deletes a backup; again is no error. Its pieces stay until the next sweep.
    pub async fn remove(&self, tenant: &TenantName, id: &str) -> Result<(), Error> {
        for path in [description_path(tenant.as_str(), id), list_path(tenant.as_str(), id)] {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        self.durable().await
    }

    /// Deletes pieces that no backup names and that are not young. In doubt nothing is deleted. Returns how many.
    pub async fn sweep(&self, now: OffsetDateTime) -> Result<u64, Error> {
        let mut named = HashSet::new();
        for one in self.descriptions(None).await? {
            named.extend(self.list(&one).await?.iter().map(|piece| piece_path(&piece.digest)));
        }
        let old = |one: &object_store::ObjectMeta| one.last_modified.timestamp() < (now - YOUNG).unix_timestamp();
        let listed = self.store.list(Some(&Path::from("pieces")));
        let unnamed: Vec<_> = listed
            .try_filter_map(|one| {
                let goes = old(&one) && !named.contains(&one.location);
                async move { Ok(goes.then_some(one.location)) }
            })
            .try_collect()
            .await
            .map_err(|error| self.failed(&error))?;
        for path in &unnamed {
            self.store.delete(path).await.map_err(|error| self.failed(&error))?;
        }
        Ok(unnamed.len() as u64)
    }
}

/// An archive in pieces.
fn cut_up(archive: BoxStream<'static, Result<Bytes, Error>>) -> BoxStream<'static, Result<Vec<u8>, Error>> {
    stream::unfold(Some((archive, Cutter::default())), |state| async move {
        let (mut archive, mut cutter) = state?;
        loop {
            if let Some(piece) = cutter.piece() {
                return Some((Ok(piece), Some((archive, cutter))));
            }
            match archive.next().await {
                Some(Ok(data)) => cutter.push(&data),
                Some(Err(error)) => return Some((Err(error), None)),
                None => {
                    cutter.end();
                    let last = cutter.piece()?;
                    return Some((Ok(last), Some((stream::empty().boxed(), cutter))));
                }
            }
        }
    })
    .boxed()
}

async fn packed(data: Vec<u8>) -> Result<Vec<u8>, Error> {
    let packing = tokio::task::spawn_blocking(move || zstd::bulk::compress(&data, LEVEL));
    packing.await.map_err(std::io::Error::other).flatten().map_err(|error| Error::bug(error.to_string()))
}

fn sync(folder: &FilePath) -> std::io::Result<()> {
    let folder = fs::File::open(folder)?;
    rustix::fs::syncfs(&folder)?;
    // Errors of earlier writes are told to whoever syncs a file.
    folder.sync_all()?;
    std::io::sink().flush()
}

#[cfg(test)]
mod tests;
