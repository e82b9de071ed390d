//! Where manifests are kept: one for each volume, and what passes that were cut off have left.
//!
//! Owns the files' names and their replacement. A manifest spares work and is never needed: what cannot be written is said in
//! the log, and costs a pass that reads more.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    digest::Summary,
    inode::Status,
    manifest::{Ending, Origin, Reader, Record, Writer},
};

const WHOLE: &str = "whole";
const BEGUN: &str = "begun";
/// Passes that were cut off and are still of use: the last ones.
const BEGUN_MAX: usize = 2;

/// The directory of all manifests.
#[derive(Debug)]
pub struct Notes {
    directory: PathBuf,
}

impl Notes {
    /// In this directory, which is made when it is first needed.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Forgets everything about a volume: it is gone, or was replaced by other means.
    pub fn forget(&self, volume: &str) {
        for path in self.begun(volume).into_iter().chain([self.whole(volume)]) {
            remove(&path);
        }
    }

    /// What is known of a volume after its last whole pass.
    pub(super) fn ending(&self, volume: &str, root: &Status) -> Option<Ending> {
        Reader::ending(&self.whole(volume), &Origin::of(root)?)
    }

    /// The manifest of the last whole pass.
    pub(super) fn last(&self, volume: &str, root: &Status) -> Option<Reader> {
        Reader::open(&self.whole(volume), &Origin::of(root)?)
    }

    /// Whether a pass was cut off since the last whole one: then the volume may hold something else than its manifest says.
    pub(super) fn is_cut(&self, volume: &str) -> bool {
        !self.begun(volume).is_empty()
    }

    /// What passes that were cut off have noted, the newest first.
    pub(super) fn cut(&self, volume: &str, root: &Status) -> Vec<Reader> {
        let Some(origin) = Origin::of(root) else { return Vec::new() };
        self.begun(volume).into_iter().rev().filter_map(|path| Reader::open(&path, &origin)).collect()
    }

    /// Begins a manifest. From here on the volume counts as cut off until it is published.
    pub(super) fn begin(&self, volume: &str, root: &Status) -> Option<Draft> {
        let origin = Origin::of(root)?;
        let older = self.begun(volume);
        older.iter().rev().skip(BEGUN_MAX - 1).for_each(|path| remove(path));
        let path = self.directory.join(format!("{volume}.{}.{BEGUN}", Uuid::new_v4()));
        let made = fs::create_dir_all(&self.directory).and_then(|()| Writer::create(&path, &origin));
        let whole = self.whole(volume);
        match made {
            Ok(writer) => Some(Draft { state: State::Open(writer), path, whole }),
            Err(error) => {
                tracing::warn!(volume, %error, "no manifest is kept of this pass");
                None
            }
        }
    }

    fn whole(&self, volume: &str) -> PathBuf {
        self.directory.join(format!("{volume}.{WHOLE}"))
    }

    /// Passes that have not ended, the newest last.
    fn begun(&self, volume: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let mine =
            |name: &str| name.strip_prefix(volume).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(BEGUN));
        let paths = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            let changed = entry.metadata().ok()?.modified().ok()?;
            entry.file_name().to_str().is_some_and(mine).then(|| (changed, entry.path()))
        });
        let mut paths: Vec<_> = paths.collect();
        paths.sort();
        paths.into_iter().map(|(_, path)| path).collect()
    }
}

#[derive(Debug)]
enum State {
    Open(Writer),
    Whole,
    Failed,
}

/// A manifest that is being written.
#[derive(Debug)]
pub(super) struct Draft {
    state: State,
    path: PathBuf,
    whole: PathBuf,
}

impl Draft {
    /// Appends a record.
    pub(super) fn add(&mut self, record: &Record) {
        if let State::Open(writer) = &mut self.state
            && let Err(error) = writer.add(record)
        {
            self.fail(&error);
        }
    }

    /// Sets the end mark.
    pub(super) fn finish(&mut self, summary: &Summary) {
        if let State::Open(writer) = std::mem::replace(&mut self.state, State::Whole)
            && let Err(error) = writer.finish(summary)
        {
            self.fail(&error);
        }
    }

    /// From here on it is what is known of the volume.
    pub(super) fn publish(self, notes: &Notes, volume: &str) {
        match self.state {
            State::Whole => match fs::rename(&self.path, &self.whole) {
                // Earlier passes that were cut off say nothing that this one does not.
                Ok(()) => notes.begun(volume).iter().for_each(|path| remove(path)),
                // A newer pass has ended before this one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %self.path.display(), %error, "a manifest cannot be kept"),
            },
            // What was known before is about a volume that has changed.
            State::Open(_) | State::Failed => notes.forget(volume),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "no manifest is kept of this pass");
        self.state = State::Failed;
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "a manifest cannot be removed"),
    }
}
