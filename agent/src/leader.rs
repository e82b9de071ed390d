//! The newest lead that a controller showed here, and what is told to an older one.
//!
//! Owns one small file in the state directory: who led before hears no for good, also after a restart. Decides nothing about tenants;
//! generations do, whoever calls.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicI64, Ordering},
};

use feather_proto::error::{Error, reason};
use tokio::sync::Mutex;

use crate::ledger::storage::write_atomically;

/// What is known of leads.
pub(crate) struct Leader {
    file: PathBuf,
    /// 0: none was shown yet.
    newest: AtomicI64,
    /// The newest one that was noted, or that the disk did not take.
    noted: AtomicI64,
    /// Held while a newer one is noted.
    noting: Mutex<()>,
}

impl Leader {
    /// Knows nothing before [`Leader::load`].
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, newest: AtomicI64::new(0), noted: AtomicI64::new(0), noting: Mutex::default() }
    }

    /// Knows what was noted on disk. A file that cannot be read is said and left out: it fences a rare mistake, and nothing could be
    /// done with a server that let nobody in.
    pub(crate) fn load(&self) {
        let newest = match fs::read_to_string(&self.file) {
            Ok(text) => text.trim().parse().unwrap_or_else(|error| {
                tracing::error!(%error, path = %self.file.display(), "the file that says which controller leads is damaged");
                0
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                tracing::error!(%error, path = %self.file.display(), "cannot read which controller leads");
                0
            }
        };
        self.newest.store(newest, Ordering::SeqCst);
        self.noted.store(newest, Ordering::SeqCst);
    }

    /// The newest one that was shown; 0 before the first.
    pub(crate) fn newest(&self) -> i64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// Lets a call of this lead in, unless a newer one was here. A newer one than all before is noted first: in memory before anything
    /// else, so that nothing of an older one is let in while the disk is slow. A disk that takes nothing keeps nobody out: the note
    /// holds until the agent restarts, then.
    pub(crate) async fn admit(&self, epoch: i64) -> Result<(), Error> {
        let newest = self.newest.fetch_max(epoch, Ordering::SeqCst);
        if epoch == newest && self.noted.load(Ordering::SeqCst) >= epoch {
            return Ok(());
        }
        if epoch < newest {
            return Err(older(epoch, newest));
        }
        let _noting = self.noting.lock().await;
        // Whoever waited here may be older by now, or has been noted with a newer one; the file never goes back.
        let newest = self.newest.load(Ordering::SeqCst);
        if epoch < newest {
            return Err(older(epoch, newest));
        }
        if self.noted.load(Ordering::SeqCst) >= epoch {
            return Ok(());
        }
        let file = self.file.clone();
        let text = format!("{epoch}\n");
        let written = tokio::task::spawn_blocking(move || write_atomically(&file, text.as_bytes())).await;
        match written.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => tracing::info!(epoch, "another lead began"),
            Err(error) => tracing::error!(%error, epoch, "cannot note which controller leads"),
        }
        self.noted.store(epoch, Ordering::SeqCst);
        Ok(())
    }
}

fn older(epoch: i64, newest: i64) -> Error {
    Error::unavailable(
        reason::NOT_LEADER,
        format!(
            "another controller leads this server now (lead {newest}); this one's lead, {epoch}, is over: ask the other one, and stop this one"
        ),
    )
    .with("lead", newest)
}

#[cfg(test)]
mod tests {
    use super::Leader;
    use feather_proto::error::reason;

    #[tokio::test]
    async fn whoever_led_before_is_not_let_in_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("leader");
        let leader = Leader::new(file.clone());
        leader.load();
        leader.admit(7).await.unwrap();
        leader.admit(7).await.unwrap();
        leader.admit(9).await.unwrap();
        let refused = leader.admit(8).await.unwrap_err();
        assert!(refused.is(reason::NOT_LEADER) && refused.code.retryable(), "{refused:?}");
        let next = Leader::new(file.clone());
        next.load();
        assert!(next.admit(8).await.is_err());
        next.admit(9).await.unwrap();
        std::fs::write(&file, "garbage").unwrap();
        next.load();
        next.admit(1).await.unwrap();
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let leader = Leader::new(folder.path().join("missing/leader"));
        leader.admit(7).await.unwrap();
        assert!(leader.admit(6).await.is_err());
    }
}
