//! The file of the waitlist: one JSON line for each address, appended and brought to disk before anybody is told.
//!
//! Owns recovery. The last line of the file may be half of one after a crash: nobody was told that it is there, so it goes.
//! A line in the middle that cannot be read is somebody's address all the same: it is kept and reported. Removing rewrites the
//! file, so that what was forgotten is not on disk either.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use feather_proto::email::EmailAddress;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::ledger::storage::write_atomically;

/// Addresses on one server: some 10 MiB in memory and on disk.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// What can go wrong with the list. Neither sentence holds an address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No room by decision.
    #[error("the waitlist is full")]
    Full,
    /// No room, or no disk.
    #[error("the waitlist cannot be read or written; look at the disk of the server")]
    Disk(#[source] io::Error),
}

/// Who signed up, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) email: EmailAddress,
    pub(crate) signed_up: OffsetDateTime,
}

#[derive(Serialize, Deserialize)]
struct Line {
    email: String,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

/// The open list.
pub(super) struct Book {
    path: PathBuf,
    file: File,
    /// Bytes that are known to be whole lines on disk.
    length: u64,
    entries: BTreeMap<String, Entry>,
    damaged: Vec<Vec<u8>>,
    entries_max: usize,
}

fn encode(entry: &Entry) -> io::Result<Vec<u8>> {
    let line = Line { email: entry.email.as_str().to_owned(), at: entry.signed_up };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode(line: &[u8]) -> Option<Entry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(Entry { email: line.email.parse().ok()?, signed_up: line.at })
}

/// What a file holds, and how many of its bytes are to be kept. Pure.
fn read(bytes: &[u8]) -> (BTreeMap<String, Entry>, Vec<Vec<u8>>, usize) {
    let (mut entries, mut damaged, mut kept) = (BTreeMap::new(), Vec::new(), 0);
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        match decode(line) {
            // The first one counts: signing up again changes nothing.
            Some(entry) => drop(entries.entry(entry.email.key()).or_insert(entry)),
            // Pages reach the disk in any order: a torn line may have its end.
            None if behind.is_empty() => break,
            None => damaged.push(line.to_vec()),
        }
        rest = behind;
        kept = bytes.len() - rest.len();
    }
    (entries, damaged, kept)
}

impl Book {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, ENTRIES_MAX).map_err(Error::Disk)
    }

    pub(super) fn open_with(path: &Path, entries_max: usize) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The file's name must survive a power cut as well.
                write_atomically(path, b"")?;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let (entries, damaged, kept) = read(&bytes);
        let file = File::options().append(true).mode(0o600).open(path)?;
        let length = u64::try_from(kept).map_err(io::Error::other)?;
        if kept < bytes.len() {
            tracing::warn!(
                bytes = bytes.len() - kept,
                "the waitlist ended in half a line, which was never acknowledged"
            );
            file.set_len(length)?;
            file.sync_all()?;
        }
        Ok(Self { path: path.to_owned(), file, length, entries, damaged, entries_max })
    }

    /// Lines that could not be read.
    pub(super) fn damaged(&self) -> usize {
        self.damaged.len()
    }

    pub(super) fn sign_up(&mut self, email: EmailAddress, now: OffsetDateTime) -> Result<(), Error> {
        // Before it is looked up: a full list answers everybody alike.
        if self.entries.len() >= self.entries_max {
            return Err(Error::Full);
        }
        let key = email.key();
        if self.entries.contains_key(&key) {
            return Ok(());
        }
        let entry = Entry { email, signed_up: now };
        self.append(&encode(&entry).map_err(Error::Disk)?).map_err(Error::Disk)?;
        self.entries.insert(key, entry);
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(line).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part of the line may be there; the next one must not follow it. Where even this fails, opening cleans up.
                drop(self.file.set_len(self.length));
                Err(error)
            }
        }
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<_> = self.entries.values().cloned().collect();
        entries.sort_by_key(|entry| entry.signed_up);
        entries
    }

    pub(super) fn entry(&self, email: &EmailAddress) -> Option<Entry> {
        self.entries.get(&email.key()).cloned()
    }

    pub(super) fn remove(&mut self, email: &EmailAddress) -> Result<bool, Error> {
        let key = email.key();
        if !self.entries.contains_key(&key) {
            return Ok(false);
        }
        self.rewrite_without(&key).map_err(Error::Disk)?;
        self.entries.remove(&key);
        Ok(true)
    }

    fn rewrite_without(&mut self, key: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in &self.damaged {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        let mut entries: Vec<_> = self.entries.iter().filter(|(other, _)| *other != key).collect();
        entries.sort_by_key(|(_, entry)| entry.signed_up);
        for (_, entry) in entries {
            bytes.extend_from_slice(&encode(entry)?);
        }
        write_atomically(&self.path, &bytes)?;
        self.file = File::options().append(true).open(&self.path)?;
        self.length = bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;
    use time::{Duration, OffsetDateTime};

    use super::{Book, Error};

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds)
    }

    fn open(path: &Path) -> Book {
        Book::open(path).unwrap()
    }

    fn addresses(book: &Book) -> Vec<String> {
        book.entries().iter().map(|entry| entry.email.as_str().to_owned()).collect()
    }

    fn signed_up(book: &mut Book, address: &str, seconds: i64) {
        book.sign_up(address.parse().unwrap(), at(seconds)).unwrap();
    }

    #[test]
    fn addresses_are_there_after_a_restart_once_and_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waitlist.jsonl");
        let mut book = open(&path);
        signed_up(&mut book, "zoe@example.org", 1);
        signed_up(&mut book, "Ada@example.org", 2);
        signed_up(&mut book, "ada@EXAMPLE.org", 3);
        let again = open(&path);
        assert_eq!(addresses(&again), ["zoe@example.org", "Ada@example.org"]);
        assert_eq!(again.entries()[1].signed_up, at(2), "the first time counts");
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_removed_address_is_not_on_disk_any_more_and_may_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waitlist.jsonl");
        let mut book = open(&path);
        signed_up(&mut book, "ada@example.org", 1);
        signed_up(&mut book, "zoe@example.org", 2);
        assert!(book.remove(&"ADA@example.org".parse().unwrap()).unwrap());
        assert!(!book.remove(&"ada@example.org".parse().unwrap()).unwrap());
        assert!(!fs::read_to_string(&path).unwrap().contains("ada"));
        signed_up(&mut book, "ada@example.org", 3);
        assert_eq!(addresses(&open(&path)), ["zoe@example.org", "ada@example.org"]);
    }

    #[test]
    fn wherever_a_crash_cuts_the_file_only_the_last_line_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waitlist.jsonl");
        let mut book = open(&path);
        signed_up(&mut book, "ada@example.org", 1);
        let whole = fs::read(&path).unwrap().len();
        signed_up(&mut book, "zoe@example.org", 2);
        let bytes = fs::read(&path).unwrap();
        for cut in whole..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let mut book = open(&path);
            assert_eq!(addresses(&book), ["ada@example.org"], "cut at {cut}");
            signed_up(&mut book, "bob@example.org", 3);
            assert_eq!(addresses(&open(&path)), ["ada@example.org", "bob@example.org"], "cut at {cut}");
        }
        // The last page came to disk and the one before did not.
        let mut torn = bytes.clone();
        torn[whole..bytes.len() - 3].fill(0);
        fs::write(&path, &torn).unwrap();
        assert_eq!(addresses(&open(&path)), ["ada@example.org"]);
        assert_eq!(fs::read(&path).unwrap().len(), whole);
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_kept_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waitlist.jsonl");
        let mut book = open(&path);
        signed_up(&mut book, "ada@example.org", 1);
        signed_up(&mut book, "zoe@example.org", 2);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{{\"email\":\"bob\u{fffd}\n{text}")).unwrap();
        let mut book = open(&path);
        assert_eq!((book.damaged(), addresses(&book).len()), (1, 2));
        book.remove(&"ada@example.org".parse().unwrap()).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("bob"));
        assert_eq!(open(&path).damaged(), 1);
    }

    #[test]
    fn a_full_list_takes_nobody_and_says_so_to_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::open_with(&dir.path().join("waitlist.jsonl"), 1).unwrap();
        signed_up(&mut book, "ada@example.org", 1);
        for address in ["ada@example.org", "zoe@example.org"] {
            assert!(matches!(book.sign_up(address.parse().unwrap(), at(2)), Err(Error::Full)));
        }
        assert_eq!(book.entries().len(), 1);
    }

    #[test]
    fn a_disk_that_takes_nothing_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waitlist.jsonl");
        let mut book = open(&path);
        signed_up(&mut book, "ada@example.org", 1);
        // The kernel's own full disk.
        book.file = fs::File::options().append(true).open("/dev/full").unwrap();
        assert!(matches!(book.sign_up("zoe@example.org".parse().unwrap(), at(2)), Err(Error::Disk(_))));
        assert_eq!(addresses(&book), ["ada@example.org"], "who was told that it failed is not on the list");
        let mut book = open(&path);
        signed_up(&mut book, "zoe@example.org", 3);
        assert_eq!(addresses(&open(&path)).len(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_opened_and_taken_on(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("waitlist.jsonl");
            fs::write(&path, &bytes).unwrap();
            let mut book = open(&path);
            signed_up(&mut book, "ada@example.org", 1);
            let again = open(&path);
            prop_assert_eq!(addresses(&again), ["ada@example.org"]);
            prop_assert_eq!(again.damaged(), book.damaged());
        }
    }
}
