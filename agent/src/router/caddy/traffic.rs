//! Does anybody still ask here for a tenant that lives elsewhere?
//!
//! Caddy lists the folder of a host name for each request (`files.rs`), and Linux tells who wants to know (inotify) when a folder is
//! opened. That needs no word in Caddy's configuration, costs requests of tenants that live here nothing, and sees every request,
//! whatever becomes of it. The agent lists the same folders; what happens while it does is left out, so a request that
//! comes in the same millisecond as a pass of the reconciler may not be noticed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use feather_proto::ids::TenantName;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::time::Instant;

/// The kernel puts equal events in a row together, so that few are ever waiting.
const BUFFER_BYTES: usize = 4096;

/// When each of the watched folders was last opened by somebody else than this process.
#[derive(Default)]
pub(super) struct Traffic {
    /// Held while folders are changed, which waits for the disk.
    watched: Mutex<Watched>,
    /// Held for a moment: reports read it, and a report waits for no disk.
    last: Mutex<BTreeMap<TenantName, Last>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    At(Instant),
    /// It cannot be watched: somebody may be coming all the time.
    Unknown,
}

#[derive(Default)]
struct Watched {
    queue: Option<OwnedFd>,
    /// By the kernel's number of the watch.
    folders: BTreeMap<i32, TenantName>,
}

impl Traffic {
    /// Does something to the folders, which does not count as traffic; then exactly these are watched. One that was not before counts
    /// as opened now, because nobody knows when it was. One that cannot be watched counts as opened at every moment.
    pub(super) fn apart<T>(
        &self,
        folders: &BTreeMap<TenantName, PathBuf>,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut watched = lock(&self.watched);
        self.note(watched.take_events());
        let done = work();
        watched.take_events();
        let failed = watched.watch(folders).err();
        if let Some(error) = &failed {
            tracing::warn!(%error, "cannot see whether forwards are still used; they stay");
            *watched = Watched::default();
        }
        let mut last = lock(&self.last);
        let now = Last::At(Instant::now());
        let known = |tenant: &TenantName| match last.get(tenant) {
            _ if failed.is_some() => Last::Unknown,
            Some(Last::Unknown) | None => now,
            Some(at) => *at,
        };
        *last = folders.keys().map(|tenant| (tenant.clone(), known(tenant))).collect();
        done
    }

    /// The same without a change of what is watched.
    pub(super) fn unnoticed<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut watched = lock(&self.watched);
        self.note(watched.take_events());
        let done = work();
        watched.take_events();
        done
    }

    /// When the folder was last opened; `None` for one that nobody asked to watch. While folders are being changed: as far as it was
    /// known before.
    pub(super) fn last(&self, tenant: &TenantName) -> Option<Instant> {
        if let Ok(mut watched) = self.watched.try_lock() {
            self.note(watched.take_events());
        }
        lock(&self.last).get(tenant).map(|last| match last {
            Last::At(at) => *at,
            Last::Unknown => Instant::now(),
        })
    }

    fn note(&self, seen: BTreeSet<TenantName>) {
        if !seen.is_empty() {
            let now = Last::At(Instant::now());
            lock(&self.last).extend(seen.into_iter().map(|tenant| (tenant, now)));
        }
    }
}

/// Nothing is left half done by whoever panicked with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    /// Whose folders were opened since the last call.
    fn take_events(&mut self) -> BTreeSet<TenantName> {
        let mut opened = BTreeSet::new();
        let Some(queue) = &self.queue else { return opened };
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(queue, &mut buffer);
        // The queue does not block: it ends with an error that says that nothing is left.
        while let Ok(event) = reader.next() {
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                // The kernel could not keep all of it.
                opened.extend(self.folders.values().cloned());
            } else if flags.contains(ReadFlags::IGNORED) {
                self.folders.remove(&event.wd());
            } else if flags.contains(ReadFlags::OPEN | ReadFlags::ISDIR) {
                opened.extend(self.folders.get(&event.wd()).cloned());
            }
        }
        opened
    }

    fn watch(&mut self, folders: &BTreeMap<TenantName, PathBuf>) -> io::Result<()> {
        let gone: Vec<i32> =
            self.folders.iter().filter(|(_, tenant)| !folders.contains_key(*tenant)).map(|(watch, _)| *watch).collect();
        if let Some(queue) = &self.queue {
            for watch in gone {
                // It may have ended with its folder.
                let _ = inotify::remove_watch(queue, watch);
                self.folders.remove(&watch);
            }
        }
        if folders.is_empty() {
            return Ok(());
        }
        let queue = match self.queue.take() {
            Some(queue) => queue,
            None => inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
        };
        let queue = self.queue.insert(queue);
        for (tenant, folder) in folders {
            // The same folder is the same watch, however often it is named.
            let watch = inotify::add_watch(&*queue, folder, WatchFlags::OPEN | WatchFlags::ONLYDIR)?;
            self.folders.insert(watch, tenant.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

    use feather_proto::ids::TenantName;

    use super::Traffic;

    fn folders(place: &std::path::Path, names: &[&str]) -> BTreeMap<TenantName, PathBuf> {
        let folder = |name: &&str| {
            let folder = place.join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("forward:192.0.2.7:80"), "").unwrap();
            (name.parse().unwrap(), folder)
        };
        names.iter().map(folder).collect()
    }

    async fn later() {
        tokio::time::advance(Duration::from_secs(60)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_others_open_counts() {
        let place = tempfile::tempdir().unwrap();
        let both = folders(place.path(), &["alice", "bob"]);
        let [alice, bob]: [TenantName; 2] = ["alice".parse().unwrap(), "bob".parse().unwrap()];
        let traffic = Traffic::default();
        let last = || (traffic.last(&alice), traffic.last(&bob));
        assert_eq!(last(), (None, None));
        traffic.apart(&both, || Ok(())).unwrap();
        let begin = tokio::time::Instant::now();
        assert_eq!(last(), (Some(begin), Some(begin)), "nobody knows, so it counts from here");

        later().await;
        let list = |name: &TenantName| fs::read_dir(&both[name]).map(Iterator::count);
        traffic.unnoticed(|| list(&alice)).unwrap();
        traffic.apart(&both, || list(&bob)).unwrap();
        assert_eq!(last(), (Some(begin), Some(begin)), "our own looks are none");

        list(&alice).unwrap();
        let asked = tokio::time::Instant::now();
        assert_eq!(last(), (Some(asked), Some(begin)));
        later().await;
        list(&bob).unwrap();
        // Noticed before our own look, which is not.
        traffic.unnoticed(|| list(&alice)).unwrap();
        assert_eq!(last(), (Some(asked), Some(tokio::time::Instant::now())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_comes_again_is_watched_again_and_one_that_goes_is_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let alice: TenantName = "alice".parse().unwrap();
        let traffic = Traffic::default();
        let both = folders(place.path(), &["alice", "bob"]);
        traffic.apart(&both, || Ok(())).unwrap();
        fs::remove_dir_all(&both[&alice]).unwrap();
        later().await;
        let again = folders(place.path(), &["alice"]);
        traffic.apart(&again, || Ok(())).unwrap();
        assert_eq!(traffic.last(&"bob".parse().unwrap()), None);
        later().await;
        fs::read_dir(&again[&alice]).unwrap().count();
        assert_eq!(traffic.last(&alice), Some(tokio::time::Instant::now()));
        traffic.apart(&BTreeMap::new(), || Ok(())).unwrap();
        assert_eq!(traffic.last(&alice), None);
        // Of what cannot be watched nobody knows that it is over, and nothing else fails for that.
        traffic.apart(&[(alice.clone(), place.path().join("absent"))].into(), || Ok(())).unwrap();
        later().await;
        assert_eq!(traffic.last(&alice), Some(tokio::time::Instant::now()));
        traffic.apart(&folders(place.path(), &["alice"]), || Ok(())).unwrap();
        let begin = tokio::time::Instant::now();
        later().await;
        assert_eq!(traffic.last(&alice), Some(begin), "from here on it is known again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_does_not_wait_while_folders_are_changed() {
        let place = tempfile::tempdir().unwrap();
        let alice: TenantName = "alice".parse().unwrap();
        let traffic = Traffic::default();
        let one = folders(place.path(), &["alice"]);
        traffic.apart(&one, || Ok(())).unwrap();
        let begin = tokio::time::Instant::now();
        let meanwhile = traffic.unnoticed(|| Ok(traffic.last(&alice))).unwrap();
        assert_eq!(meanwhile, Some(begin));
    }
}
