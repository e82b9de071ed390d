//! For how long a digest holds: the stamp of an inode, and the moment that decides whether it can be trusted.
//!
//! Owns the one rule by which content is not read again. A digest is taken over exactly when inode, size, modification time
//! and change time are what they were when the content was hashed, and both times were *old* then. Old means: before the
//! moment at which the pass began, by a margin.
//!
//! Why old. A file that is written to within the clock's granularity of its hashing looks the same afterwards. And a page that
//! a process has mapped and dirtied may be written to again without any change of time until the kernel has cleaned it; a pass
//! over a volume in use therefore first brings everything to disk, which makes the kernel note the next write to each page, and
//! takes the moment before that. A time from after that moment is no proof of anything; one from before it is: every later
//! write, by whatever way, sets a later time. (`docs/decisions/0031-which-digests-are-trusted.md` has the argument in full.)

use rustix::time::{ClockId, clock_gettime};

use super::{entry::Timestamp, inode::Status};

/// Coarsest timestamps that file systems in use keep.
const MARGIN_SECONDS: i64 = 2;

/// A moment on the clock that the kernel stamps files with. Compared with nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) Timestamp);

impl Moment {
    /// Now, as the kernel would stamp a file.
    pub(super) fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self(Timestamp { seconds: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) })
    }

    /// Whether a time lies so far back that no file system could confuse the two.
    fn is_well_after(self, time: Timestamp) -> bool {
        let limit = Timestamp { seconds: self.0.seconds - MARGIN_SECONDS, nanos: self.0.nanos };
        time < limit
    }
}

/// How far the clock that stamps files is ahead of one that nobody can set.
///
/// A clock that is set back during a pass would give what is written then a time from before the pass, which looks like proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lead {
    milliseconds: i64,
}

impl Lead {
    /// Now.
    pub(super) fn now() -> Self {
        let milliseconds = |clock| {
            let now = clock_gettime(clock);
            now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
        };
        Self { milliseconds: milliseconds(ClockId::Realtime).saturating_sub(milliseconds(ClockId::Boottime)) }
    }

    /// Whether the clock was set back since, by enough to outdo the margin. Steering it takes far longer.
    pub(super) fn fell_since(self, earlier: Self) -> bool {
        earlier.milliseconds.saturating_sub(self.milliseconds) >= MARGIN_SECONDS * 1000 / 2
    }
}

/// What of an inode's status says that its content is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    /// Whether an equal stamp proves equal content.
    pub(super) proves: bool,
}

impl Stamp {
    /// Of something that others may write to. `moment` is when the pass began.
    pub(super) fn of_shared(status: &Status, moment: Moment) -> Self {
        let proves = moment.is_well_after(status.mtime) && moment.is_well_after(status.ctime);
        Self::of(status, proves)
    }

    /// Of something that only this process has written to: its change time is our own doing. Whoever writes to it later sets a
    /// modification time of then, so only that one needs to be old. Where the file system keeps whole seconds only, the change
    /// time might hide a later change, so it proves nothing.
    pub(super) fn of_own(status: &Status, moment: Moment) -> Self {
        let proves = moment.is_well_after(status.mtime) && (status.ctime.nanos != 0);
        Self::of(status, proves)
    }

    fn of(status: &Status, proves: bool) -> Self {
        let Status { identity, size, mtime, ctime, .. } = *status;
        Self { device: identity.device, inode: identity.inode, size, mtime, ctime, proves }
    }

    /// Whether it is the same inode, untouched as far as its status says.
    pub(super) fn fits(&self, status: &Status) -> bool {
        (self.device, self.inode) == (status.identity.device, status.identity.inode)
            && self.size == status.size
            && self.mtime == status.mtime
            && self.ctime == status.ctime
    }

    /// Whether the content is what it was when it was hashed.
    pub(super) fn proves(&self, status: &Status) -> bool {
        self.proves && self.fits(status)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd as _};

    use super::{Lead, Moment, Stamp, Timestamp};
    use crate::volume::inode;

    fn later(moment: Moment, seconds: i64) -> Moment {
        Moment(Timestamp { seconds: moment.0.seconds + seconds, ..moment.0 })
    }

    #[test]
    fn what_was_written_just_now_proves_nothing_and_what_is_old_does() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"x").unwrap();
        let root = inode::open_root(dir.path()).unwrap();
        let status = inode::status_at(root.as_fd(), b"file").unwrap();
        assert!(!Stamp::of_shared(&status, Moment::now()).proves(&status));
        assert!(!Stamp::of_shared(&status, later(Moment::now(), 1)).proves(&status));
        let old = Stamp::of_shared(&status, later(Moment::now(), 10));
        assert!(old.proves(&status));
        fs::write(dir.path().join("file"), b"y").unwrap();
        assert!(!old.proves(&inode::status_at(root.as_fd(), b"file").unwrap()));
    }

    #[test]
    fn a_clock_that_is_set_back_is_noticed_and_one_that_runs_is_not() {
        let before = Lead::now();
        assert!(!Lead::now().fell_since(before));
        assert!(!Lead { milliseconds: before.milliseconds + 3_600_000 }.fell_since(before), "set forward");
        assert!(!Lead { milliseconds: before.milliseconds - 500 }.fell_since(before), "steered");
        assert!(Lead { milliseconds: before.milliseconds - 1_000 }.fell_since(before));
    }

    #[test]
    fn a_moment_is_not_before_what_was_written_before_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"x").unwrap();
        let root = inode::open_root(dir.path()).unwrap();
        let status = inode::status_at(root.as_fd(), b"file").unwrap();
        // The margin is what covers timestamps finer than the coarse clock.
        assert!(later(Moment::now(), 1) > Moment(status.mtime));
    }
}
