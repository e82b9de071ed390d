//! New files whose content came with them, made by two threads.
//!
//! Owns what of a batch is put off: files to make, directories to seal behind them, and notes that need what the files' status
//! turns out to be. Everything is judged and counted before it comes here; a thread only does what it is told, and a digest that
//! does not fit its content ends the stream as always. What is put off never outlives its batch.
//!
//! Why: most of what a home directory costs is the kernel making one small file after the other, and it makes two at a time in
//! nearly half the time.

use std::{
    fs::File,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;

use super::{
    super::{
        digest::{Content, ContentHasher, Digest},
        entry::{Entry, Extent, Metadata, check_extents},
        error::show,
        inode::{self, Status},
        manifest::Record,
        stamp::Stamp,
        writer,
    },
    Error, Receiver, State,
};

/// As many as there are cores to be used by a move.
const THREADS: usize = 2;
/// Fewer files are made faster than a thread begins.
const WORTH_A_THREAD: usize = 6;
/// Directories held open for files to come.
const DIRECTORIES_MAX: usize = 64;

/// A file to be made.
pub(super) struct NewFile {
    directory: Arc<OwnedFd>,
    name: Bytes,
    /// For errors.
    path: Vec<u8>,
    metadata: Metadata,
    size: u64,
    extents: Vec<Extent>,
    digest: Digest,
}

/// A file that was made.
struct Made {
    content: Content,
    status: Status,
}

/// What is put off.
#[derive(Default)]
pub(super) struct Crew {
    files: Vec<NewFile>,
    /// In the order of the stream; with the number of the file that it waits for.
    notes: Vec<(Record, Option<usize>)>,
    directories: usize,
    last: Option<Arc<OwnedFd>>,
}

impl Receiver {
    /// A new file that came whole.
    pub(super) fn new_file(
        &mut self,
        entry: Entry,
        metadata: Metadata,
        size: u64,
        (extents, digest): (Vec<Extent>, Digest),
    ) -> Result<State, Error> {
        check_extents(&extents, 0, size).map_err(|problem| self.refused(&entry.name, problem))?;
        let data_bytes: u64 = extents.iter().map(|extent| extent.data.len() as u64).sum();
        self.written_bytes += data_bytes;
        if self.written_bytes > self.limits.max_bytes {
            return Err(Error::TooLarge { what: "bytes of data", limit: self.limits.max_bytes });
        }
        let directory = self.writer.directory_for(&entry.name)?;
        if !self.crew.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &directory)) {
            self.crew.directories += 1;
            self.crew.last = Some(directory.clone());
        }
        let (name, path) = (entry.name.clone(), self.writer.path_of(&entry.name));
        self.changes.files_changed += 1;
        self.changes.bytes_changed += size;
        // The digest is what the sender says until the file is made, which is before anything can come of it.
        let record = Record::new(entry, Some(Content { digest, blocks: Vec::new(), data_bytes }), None);
        self.tree.add(&record.entry, record.content.as_ref());
        self.crew.notes.push((record, Some(self.crew.files.len())));
        self.crew.files.push(NewFile { directory, name, path, metadata, size, extents, digest });
        if self.crew.directories >= DIRECTORIES_MAX {
            self.catch_up()?;
        }
        Ok(State::Steps)
    }

    /// An entry is done.
    pub(super) fn add(&mut self, record: Record) {
        self.tree.add(&record.entry, record.content.as_ref());
        match (&mut self.draft, self.crew.files.is_empty()) {
            (Some(draft), true) => draft.add(&record),
            (Some(_), false) => self.crew.notes.push((record, None)),
            (None, _) => {}
        }
    }

    /// Does what was put off.
    pub(super) fn catch_up(&mut self) -> Result<(), Error> {
        let Crew { files, notes, .. } = std::mem::take(&mut self.crew);
        let made = make_all(&files).map_err(|error| self.writer.with_free_space(error))?;
        drop(files);
        self.writer.seal_left()?;
        let Some(draft) = &mut self.draft else { return Ok(()) };
        let mut made = made.into_iter();
        for (mut record, file) in notes {
            if file.is_some()
                && let Some(Made { content, status }) = made.next()
            {
                record.content = Some(content);
                record.stamp = Some(Stamp::of_own(&status, self.moment));
            }
            draft.add(&record);
        }
        Ok(())
    }
}

/// In the order of the files; or the error of the first of them that has one.
fn make_all(files: &[NewFile]) -> Result<Vec<Made>, Error> {
    if files.len() < WORTH_A_THREAD {
        let mut hasher = ContentHasher::new();
        return files.iter().map(|file| make(file, &mut hasher)).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let (mut hasher, mut done) = (ContentHasher::new(), Vec::new());
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(number) else { break };
            let made = make(file, &mut hasher);
            failed.fetch_or(made.is_err(), Ordering::Relaxed);
            done.push((number, made));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().map_err(|_| Error::Panicked)?);
        }
        Ok(done)
    })?;
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, made)| made).collect()
}

fn make(new: &NewFile, hasher: &mut ContentHasher) -> Result<Made, Error> {
    let failed = |action, error: std::io::Error| Error::io(action, &new.path, error);
    let file = inode::create_file(new.directory.as_fd(), &new.name)
        .map(File::from)
        .map_err(|errno| failed("create the file", errno.into()))?;
    let mut position = 0;
    for extent in &new.extents {
        hasher.zeros(extent.offset - position);
        hasher.update(&extent.data);
        file.write_all_at(&extent.data, extent.offset).map_err(|error| failed("write the file", error))?;
        position = extent.offset + extent.data.len() as u64;
    }
    hasher.zeros(new.size - position);
    let content = hasher.finish();
    if content.digest != new.digest {
        return Err(Error::Corrupt { path: show(&new.path) });
    }
    if position != new.size {
        file.set_len(new.size).map_err(|error| failed("write the file", error))?;
    }
    let status = writer::finish_file(&file, &new.metadata, new.size, || new.path.clone())?;
    Ok(Made { content, status })
}
