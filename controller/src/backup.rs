//! Copies of the embedded store: taken while it is in use, and put in place of a lost one.
//!
//! Owns the file of a copy, which is a database like the store's own. Knows nothing of what is in it.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::store::{self, Store};

/// Begins every file of SQLite.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Why a copy is not put in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot {attempt} {path}")]
    File {
        /// `read`, `write`...
        attempt: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{0} is no backup of a controller's store; make one with `featherctl controller backup FILE`")]
    NoBackup(PathBuf),
    /// It was damaged.
    #[error("{path} is damaged ({what}); use another backup")]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What the database says.
        what: String,
    },
    /// It cannot be opened by this version.
    #[error(
        "{path} cannot be opened by this version of feather-controller; use the version that made it, or a later one"
    )]
    Version {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: store::Error,
    },
    /// A store is there.
    #[error(
        "{0} exists; to put the backup in its place, say --replace (the old one is kept beside it as *.replaced-1, -2...)"
    )]
    Exists(PathBuf),
    /// Not a file at all.
    #[error(
        "a backup is put in place of an embedded store only: --store sqlite:///PATH; a store in {0} is copied and brought back by pg_dump and pg_restore"
    )]
    NotEmbedded(String),
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { attempt, path, source }
}

/// The file of an embedded store's URL.
pub fn file_of(url: &str) -> Result<PathBuf, Error> {
    let path = url
        .strip_prefix("sqlite://")
        .map(|rest| rest.split('?').next().unwrap_or(rest))
        .filter(|path| !path.is_empty());
    path.map(PathBuf::from).ok_or_else(|| Error::NotEmbedded(url.split("://").next().unwrap_or_default().to_owned()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn is_database(file: &Path) -> Result<bool, Error> {
    let mut magic = [0; MAGIC.len()];
    let mut opened = fs::File::open(file).map_err(failed("read", file))?;
    Ok(opened.read_exact(&mut magic).is_ok() && magic == MAGIC)
}

/// What is where behind a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The store that was put back.
    pub target: PathBuf,
    /// What was there before.
    pub kept: Option<PathBuf>,
}

/// Checks a copy and puts it in place of the store with this URL, all of it or nothing. No controller may run on it.
///
/// # Errors
/// The copy is none, is damaged or too new, a store is there and nobody said that it may be replaced, or a file cannot be written. The
/// store that was there is then as it was.
pub async fn restore(backup: &Path, url: &str, replace: bool) -> Result<Restored, Error> {
    let target = file_of(url)?;
    if target.exists() && !replace {
        return Err(Error::Exists(target));
    }
    if !is_database(backup)? {
        return Err(Error::NoBackup(backup.to_owned()));
    }
    let new = beside(&target, ".restoring");
    for leftover in ["", "-wal", "-shm"] {
        // Of an earlier try.
        drop(fs::remove_file(beside(&new, leftover)));
    }
    fs::copy(backup, &new).map_err(failed("write", &new))?;
    let checked = check(backup, &new).await;
    if checked.is_err() {
        drop(fs::remove_file(&new));
    }
    checked?;
    if target.exists()
        && is_database(&target)?
        && let Err(why) = store::fold_log(&target).await
    {
        // Damaged, it may be: that is why there is a backup. It is kept as it is, with its log.
        tracing::warn!(%why, "the old store's log could not be written into it");
    }
    let kept = swap(&new, &target).map_err(failed("replace", &target))?;
    Ok(Restored { target, kept })
}

/// Puts the new store over the old one, which keeps another name. Wherever this ends, there is a whole store at the target.
fn swap(new: &Path, target: &Path) -> io::Result<Option<PathBuf>> {
    let sync = || target.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all());
    fs::File::open(new)?.sync_all()?;
    let log = beside(target, "-wal");
    let parts: Vec<_> = ["", "-wal"].into_iter().filter(|part| beside(target, part).exists()).collect();
    let kept = (!parts.is_empty()).then(|| free_name(target));
    if let Some(kept) = &kept {
        for part in parts {
            fs::hard_link(beside(target, part), beside(kept, part))?;
        }
        sync()?;
    }
    // A log that is still there is that of a store which could not be opened, or of none. It must not be taken for one of the new store.
    for leftover in [log, beside(target, "-shm")] {
        if leftover.exists() {
            fs::remove_file(leftover)?;
        }
    }
    fs::rename(new, target)?;
    sync()?;
    Ok(kept)
}

/// A name that neither an earlier store nor the log of one has.
fn free_name(target: &Path) -> PathBuf {
    let taken = |name: &Path| ["", "-wal", "-shm"].iter().any(|part| beside(name, part).exists());
    let mut number = 1_u32;
    loop {
        let name = beside(target, &format!(".replaced-{number}"));
        if !taken(&name) {
            return name;
        }
        number += 1;
    }
}

/// Opens the copy, which brings its schema up to date, and has it look at every page.
async fn check(backup: &Path, new: &Path) -> Result<(), Error> {
    let opened = Store::open(&format!("sqlite://{}?mode=rw", new.display())).await;
    let version = |source: store::Error| match source.is_of_another_version() {
        true => Error::Version { path: backup.to_owned(), source },
        false => Error::Damaged { path: backup.to_owned(), what: source.to_string() },
    };
    let store = opened.map_err(version)?;
    let found = store.integrity().await.map_err(version)?;
    store.close().await;
    match found {
        None => Ok(()),
        Some(what) => Err(Error::Damaged { path: backup.to_owned(), what }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, file_of, restore};
    use crate::store::Store;

    fn url(path: &std::path::Path) -> String {
        format!("sqlite://{}", path.display())
    }

    #[test]
    fn only_embedded_stores_have_a_file_and_no_password_is_shown_of_others() {
        assert_eq!(file_of("sqlite:///var/x.db?mode=rwc").unwrap(), std::path::Path::new("/var/x.db"));
        let error = file_of("postgres://me:hush@db/x").unwrap_err().to_string();
        assert!(error.contains("postgres") && !error.contains("hush"), "{error}");
    }

    #[tokio::test]
    async fn a_copy_of_a_store_in_use_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let store = Store::open(&url(&at("store.db"))).await.unwrap();
        store.set_setting("ingress", "nyc").await.unwrap();
        store.copy_to(&at("backup.db")).await.unwrap();
        store.set_setting("ingress", "fra").await.unwrap();
        let exists = restore(&at("backup.db"), &url(&at("store.db")), false).await;
        assert!(matches!(exists, Err(Error::Exists(_))), "{exists:?}");
        store.close().await;
        let done = restore(&at("backup.db"), &url(&at("store.db")), true).await.unwrap();
        assert_eq!(done.kept, Some(at("store.db.replaced-1")));
        let restored = Store::open(&url(&at("store.db"))).await.unwrap();
        assert_eq!(restored.setting("ingress").await.unwrap().as_deref(), Some("nyc"));
        let old = Store::open(&url(&at("store.db.replaced-1"))).await.unwrap();
        assert_eq!(old.setting("ingress").await.unwrap().as_deref(), Some("fra"), "nothing is lost");
    }

    #[tokio::test]
    async fn what_was_replaced_before_is_never_replaced_nor_is_what_was_only_in_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let store = Store::open(&url(&at("store.db"))).await.unwrap();
        store.copy_to(&at("backup.db")).await.unwrap();
        // Of a controller that was killed: the last write is in the log alone.
        store.set_setting("ingress", "fra").await.unwrap();
        for part in ["", "-wal"] {
            std::fs::copy(at(&format!("store.db{part}")), at(&format!("killed.db{part}"))).unwrap();
        }
        assert!(std::fs::metadata(at("killed.db-wal")).unwrap().len() > 0);
        // And the log of an earlier one, which lies where somebody left it.
        std::fs::write(at("killed.db.replaced-1-wal"), "not of this one").unwrap();
        let first = restore(&at("backup.db"), &url(&at("killed.db")), true).await.unwrap();
        assert_eq!(first.kept, Some(at("killed.db.replaced-2")));
        assert!(!at("killed.db-wal").exists() && !at("killed.db.replaced-2-wal").exists(), "one file is all");
        let second = restore(&at("backup.db"), &url(&at("killed.db")), true).await.unwrap();
        assert_eq!(second.kept, Some(at("killed.db.replaced-3")));
        let old = Store::open(&url(&at("killed.db.replaced-2"))).await.unwrap();
        assert_eq!(old.setting("ingress").await.unwrap().as_deref(), Some("fra"), "nothing is lost");
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_opened_is_kept_with_its_log_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let store = Store::open(&url(&at("good.db"))).await.unwrap();
        store.set_setting("ingress", "nyc").await.unwrap();
        store.copy_to(&at("backup.db")).await.unwrap();
        std::fs::write(at("store.db"), "no database any more, whatever it was").unwrap();
        std::fs::write(at("store.db-wal"), "its log").unwrap();
        let done = restore(&at("backup.db"), &url(&at("store.db")), true).await.unwrap();
        let kept = |part: &str| std::fs::read_to_string(at(&format!("store.db.replaced-1{part}"))).unwrap();
        assert_eq!(done.kept, Some(at("store.db.replaced-1")));
        assert_eq!((kept("").as_str(), kept("-wal").as_str()), ("no database any more, whatever it was", "its log"));
        let restored = Store::open(&url(&at("store.db"))).await.unwrap();
        assert_eq!(restored.setting("ingress").await.unwrap().as_deref(), Some("nyc"));
    }

    #[tokio::test]
    async fn what_is_no_backup_or_damaged_or_too_new_is_refused_and_the_store_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let store = Store::open(&url(&at("store.db"))).await.unwrap();
        for number in 0..200 {
            let entry = crate::audit::Entry {
                at: time::OffsetDateTime::UNIX_EPOCH,
                caller: format!("admin/{number}"),
                address: String::new(),
                rpc: "x".repeat(500),
                arguments: String::new(),
                code: String::new(),
                reason: String::new(),
                operation: String::new(),
            };
            store.append_audit(&entry).await.unwrap();
        }
        store.copy_to(&at("good.db")).await.unwrap();
        store.close().await;
        std::fs::write(at("text"), "hello, this is a long enough text").unwrap();
        let mut bytes = std::fs::read(at("good.db")).unwrap();
        std::fs::write(at("cut.db"), &bytes[..bytes.len() / 2]).unwrap();
        let middle = bytes.len() - 8192;
        bytes[middle..middle + 4096].fill(0x55);
        std::fs::write(at("damaged.db"), &bytes).unwrap();
        let before = std::fs::read(at("store.db")).unwrap();
        for name in ["text", "cut.db", "damaged.db", "missing.db"] {
            let refused = restore(&at(name), &url(&at("store.db")), true).await;
            assert!(refused.is_err(), "{name} was put in place");
            assert_eq!(std::fs::read(at("store.db")).unwrap(), before, "{name}: the store is as it was");
            assert!(!at("store.db.restoring").exists(), "{name} left something");
        }
        let error = restore(&at("text"), &url(&at("store.db")), true).await.unwrap_err();
        assert!(matches!(error, Error::NoBackup(_)), "{error}");
    }
}
