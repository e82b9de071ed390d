//! Both ends of a pass with all that is noted of volumes: what is known before it, and what is noted after it.
//!
//! Owns the order of things: a pass is noted as begun before the first change, its notes take the place of older ones after
//! everything is on disk, and what turned out to be wrong is forgotten before anybody tries again. Blocking, like the engine;
//! `stream.rs` puts it on threads.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::{
    Error,
    cursor::{Cursor, Source},
    digest::{Digest, Summary},
    entry::Frame,
    inode::{self, Names, Status},
    manifest::{Reader, Record},
    notes::Notes,
    receive::{Limits, Onto, Receiver},
    send::{Base, Pass, Passed, pass},
    stamp::{Lead, Moment},
    walk::{Expect, Usage, Walk, measure},
};

/// Bytes of entries in one message of a list.
const LISTING_BYTES: usize = 256 * 1024;

/// A volume, and where notes are kept of it.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Name under which notes are kept.
    pub name: String,
    /// All notes of this server.
    pub notes: Arc<Notes>,
}

/// What of the notes is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Nothing: every content is read.
    Nothing,
    /// Single digests, as far as their stamps prove them: all metadata is looked at.
    Stamps,
    /// That the last pass left the volume as its notes say. Whatever is used of them is still looked at.
    LastPass,
}

/// Next entries of a receiver's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub(super) records: Vec<Record>,
    /// Nothing follows.
    pub(super) last: bool,
}

impl Listing {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }
}

/// What the receiver says of its base, and where its list comes from if it is asked for.
pub(super) struct Told {
    pub(super) digest: Option<Digest>,
    pub(super) listing: Box<dyn FnMut() -> Option<Result<Listing, Error>> + Send>,
}

impl Told {
    /// The list, entry by entry.
    fn records(mut self) -> Box<dyn FnMut() -> Result<Option<Record>, Error> + Send> {
        let mut records = Vec::new().into_iter();
        let mut ended = false;
        Box::new(move || {
            loop {
                if let Some(record) = records.next() {
                    return Ok(Some(record));
                }
                if ended {
                    return Ok(None);
                }
                let next = (self.listing)();
                let listing = next.ok_or(Error::Malformed { problem: "the list of the base was cut off" })??;
                if listing.records.is_empty() && !listing.last {
                    return Err(Error::Malformed { problem: "a part of the list of the base is empty" });
                }
                ended = listing.last;
                records = listing.records.into_iter();
            }
        })
    }
}

impl Volume {
    /// One pass over a source, which begins at this moment.
    pub(super) fn send(
        &self,
        root: OwnedFd,
        expect: Expect,
        moment: Moment,
        told: Told,
        sink: &mut dyn FnMut(Frame) -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let status = look(&root)?;
        let lead = Lead::now();
        if expect == Expect::Live {
            // From here on the kernel notes the next write to every page, also through a mapping: see `stamp.rs`.
            rustix::fs::syncfs(&root).map_err(|errno| Error::io("bring to disk", b"", errno))?;
        }
        let ending = self.notes.ending(&self.name, &status);
        let last = self.notes.last(&self.name, &status);
        let shared = ending.as_ref().is_some_and(|ending| Some(ending.summary.root_digest) == told.digest);
        let base = match (told.digest, &last) {
            (None, _) => Base::Nothing,
            (Some(_), Some(_)) if shared => Base::Shared,
            (Some(_), _) => Base::Listed(told.records()),
        };
        let expected = match &ending {
            Some(ending) => (ending.summary.files, ending.summary.bytes),
            None => {
                let usage = measure(root.try_clone().map_err(|error| Error::io("open", b"", error))?)?;
                (usage.files, usage.bytes)
            }
        };
        let known = last.into_iter().chain(self.notes.cut(&self.name, &status)).collect();
        let draft = self.notes.begin(&self.name, &status);
        let passed = pass(root, Pass { moment, known, base, draft, expected, ..Pass::plain(expect) }, Some(sink));
        let summary = self.noted(passed)?;
        if Lead::now().fell_since(lead) {
            tracing::warn!(volume = self.name, "the clock was set back during a pass; what it noted is not relied on");
            self.notes.forget(&self.name);
        }
        Ok(summary)
    }

    /// Publishes the notes of a pass that went well; forgets what misled one that did not.
    fn noted(&self, passed: Result<Passed, Error>) -> Result<Summary, Error> {
        match passed {
            Ok(Passed { summary, draft, .. }) => {
                if let Some(draft) = draft {
                    draft.publish(&self.notes, &self.name);
                }
                Ok(summary)
            }
            Err(error) => {
                if matches!(error, Error::BaseLost { .. }) {
                    self.notes.forget(&self.name);
                }
                Err(error)
            }
        }
    }

    /// Looks at a still volume, and reads what is not known of it, until it is stopped.
    ///
    /// # Errors
    /// As [`super::scan`]; [`Error::Cancelled`] when stopped: the next look builds on what this one noted.
    pub fn look_at(&self, root: OwnedFd, trust: Trust, stop: &CancellationToken) -> Result<Summary, Error> {
        let moment = Moment::now();
        let status = look(&root)?;
        let known = match trust {
            Trust::Nothing => Vec::new(),
            Trust::Stamps | Trust::LastPass => {
                let last = self.notes.last(&self.name, &status);
                last.into_iter().chain(self.notes.cut(&self.name, &status)).collect()
            }
        };
        let draft = self.notes.begin(&self.name, &status);
        let plain = Pass::plain(Expect::Still);
        self.noted(pass(root, Pass { moment, known, draft, stop: stop.clone(), ..plain }, None))
    }

    /// Finds out what a receiver has: `None` when it begins with an empty directory.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::MountInside`], [`Error::Changed`], [`Error::Cancelled`] when stopped.
    pub fn prepare(&self, root: &OwnedFd, trust: Trust, stop: &CancellationToken) -> Result<Option<Digest>, Error> {
        let again = || root.try_clone().map_err(|error| Error::io("open", b"", error));
        let status = look(root)?;
        if Names::read(root.as_fd()).map_err(|errno| Error::io("list the directory", b"", errno))?.is_empty() {
            self.notes.forget(&self.name);
            return Ok(None);
        }
        if trust == Trust::LastPass
            && !self.notes.is_cut(&self.name)
            && let Some(ending) = self.notes.ending(&self.name, &status)
        {
            return Ok(Some(ending.summary.root_digest));
        }
        let summary = self.look_at(again()?, trust, stop)?;
        if self.notes.ending(&self.name, &status).is_some() {
            return Ok(Some(summary.root_digest));
        }
        // Nothing can be noted here, so nothing can be built on.
        Ok(None)
    }

    /// The list of what is there, for a sender that asks for it.
    pub(super) fn list(&self, root: &OwnedFd, sink: &mut dyn FnMut(Listing) -> Result<(), Error>) -> Result<(), Error> {
        let status = look(root)?;
        let reader = self.notes.last(&self.name, &status).ok_or_else(gone)?;
        let mut cursor = Cursor::new(Source::File(reader));
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(record) = cursor.take()? {
            bytes += record.entry.weight() + record.content.as_ref().map_or(0, |content| content.blocks.len() * 32);
            records.push(record);
            if bytes >= LISTING_BYTES {
                bytes = 0;
                sink(Listing { records: std::mem::take(&mut records), last: false })?;
            }
        }
        sink(Listing { records, last: true })
    }

    /// Begins to receive onto what was prepared.
    pub(super) fn receiver(&self, root: OwnedFd, base: Option<Digest>, limits: Limits) -> Result<Receiver, Error> {
        let status = look(&root)?;
        let base = match base {
            Some(_) => Some(self.notes.last(&self.name, &status).ok_or_else(gone)?),
            None => None,
        };
        let draft = self.notes.begin(&self.name, &status);
        Receiver::onto(Onto { root, base, draft, limits })
    }

    /// What has changed since the last pass, by metadata alone: the usage, the bytes of changed files, and the last root digest.
    ///
    /// # Errors
    /// As [`measure`].
    pub fn changed(&self, root: OwnedFd) -> Result<(Usage, u64, Option<Digest>), Error> {
        let status = look(&root)?;
        let ending = self.notes.ending(&self.name, &status);
        let last: Option<Reader> = ending.as_ref().and_then(|_| self.notes.last(&self.name, &status));
        let mut last = last.map(|reader| Cursor::new(Source::File(reader)));
        let mut walk = Walk::new(root, Expect::Live);
        let (mut usage, mut changed) = (Usage::default(), 0);
        while let Some(item) = walk.next()? {
            usage.count(&item);
            // What cannot be read of the notes counts as changed.
            let known = last.as_mut().and_then(|cursor| cursor.go_to(item.depth, &item.name).ok()?.1);
            let bytes = item.regular_bytes();
            if bytes > 0 && !known.and_then(|known| known.stamp).is_some_and(|stamp| stamp.fits(&item.status)) {
                changed += bytes;
            }
        }
        Ok((usage, changed, ending.map(|ending| ending.summary.root_digest)))
    }
}

fn look(root: &OwnedFd) -> Result<Status, Error> {
    inode::status(root.as_fd()).map_err(|errno| Error::io("look at", b"", errno))
}

fn gone() -> Error {
    Error::BaseLost { cause: "its notes are gone".to_owned() }
}
