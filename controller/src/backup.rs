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
    #[error("{0} exists; to put the backup in its place, say --replace (the old one is kept beside it as *.replaced)")]
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

/// Checks a copy and puts it in place of the store with this URL, all of it or nothing. No controller may run on it.
pub async fn restore(backup: &Path, url: &str, replace: bool) -> Result<PathBuf, Error> {
    let target = file_of(url)?;
    if target.exists() && !replace {
        return Err(Error::Exists(target));
    }
    let mut magic = [0; MAGIC.len()];
    let mut file = fs::File::open(backup).map_err(failed("read", backup))?;
    if file.read_exact(&mut magic).is_err() || magic != MAGIC {
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
    let swap = || -> io::Result<()> {
        fs::File::open(&new)?.sync_all()?;
        for part in ["", "-wal", "-shm"] {
            // The write-ahead log of the old store must not be taken for one of the new.
            let old = beside(&target, part);
            if old.exists() {
                fs::rename(&old, beside(&beside(&target, ".replaced"), part))?;
            }
        }
        fs::rename(&new, &target)?;
        target.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    };
    swap().map_err(failed("replace", &target))?;
    Ok(target)
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
        restore(&at("backup.db"), &url(&at("store.db")), true).await.unwrap();
        let restored = Store::open(&url(&at("store.db"))).await.unwrap();
        assert_eq!(restored.setting("ingress").await.unwrap().as_deref(), Some("nyc"));
        let old = Store::open(&url(&at("store.db.replaced"))).await.unwrap();
        assert_eq!(old.setting("ingress").await.unwrap().as_deref(), Some("fra"), "nothing is lost");
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
