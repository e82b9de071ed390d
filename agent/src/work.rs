//! The admin container: it answers whatever is for no tenant, and is swapped for another without refusing a request.
//!
//! There are two colours, each with a name and a port of its own, and one of them serves. A swap starts the other one, proves
//! it, lets the requests go there and then ends the first, so that the colours serve in turns. Owns the durable record of
//! which one serves and how far a swap is; [`transition`] decides what may become of it, [`diff`] what differs from it, both
//! pure. Knows no tenants. The effects are in `keep.rs` and `swap.rs`.

mod diff;
mod keep;
mod record;
mod swap;
mod transition;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

pub(crate) use keep::{Memory, reconcile};
pub(crate) use record::{Book, Colour};
pub(crate) use swap::Swapped;
pub(crate) use transition::By;

/// Names of both begin with it, and nobody else's does.
pub(crate) const PREFIX: &str = "feather-work-";

/// What an agent holds of its admin container.
pub(crate) struct Work {
    pub(crate) book: Arc<Book>,
    /// One change at a time; held from the decision to the last effect.
    lock: Arc<AsyncMutex<()>>,
    /// Colours whose container this process has made sure of.
    settled: Mutex<BTreeSet<Colour>>,
    /// Ends the wait for a new one's health.
    waiting: Mutex<CancellationToken>,
    /// Why it is not as it should be.
    problem: Mutex<Option<String>>,
}

impl Work {
    pub(crate) fn new(book: Arc<Book>) -> Self {
        Self {
            book,
            lock: Arc::default(),
            settled: Mutex::default(),
            waiting: Mutex::default(),
            problem: Mutex::default(),
        }
    }

    async fn lock(&self) -> OwnedMutexGuard<()> {
        self.lock.clone().lock_owned().await
    }

    fn try_lock(&self) -> Option<OwnedMutexGuard<()>> {
        self.lock.clone().try_lock_owned().ok()
    }
}
