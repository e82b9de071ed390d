//! All operations of one controller: begins to drive them, resumes them, cancels them. How one is driven is in `driver.rs`.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use feather_proto::{
    error::{Error, reason},
    ids::OperationId,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Context, Kind, Outcome,
    add::Add,
    driver::{Cancel, Driver},
    lost::Lose,
    migrate::Migrate,
    power::{Restart, Start, Stop},
    recover::Recover,
    remove::Remove,
    resettle::Resettle,
    swap::Swap,
};
use crate::{agents::Call, intent::Intent, store, world::World};

impl<P> Context<'_, P> {
    /// A call to an agent for what is to be achieved. The same step always gives the same request id.
    pub fn call(&self, step: &str) -> Call {
        self.keyed(step, self.fence.generation)
    }

    /// A call that puts the world back, fenced above everything of the attempt.
    pub fn undo_call(&self, step: &str) -> Call {
        self.keyed(&format!("undo-{step}"), self.fence.undo_generation)
    }

    fn keyed(&self, key: &str, generation: feather_proto::ids::Generation) -> Call {
        Call { request_id: self.request_id(key), tenant: self.subject.clone(), generation }
    }

    /// Now, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        i64::try_from(self.world.clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }
}

impl<P, S> Context<'_, P, S> {
    /// Begins operations that are part of this one.
    pub fn intent(&self) -> Intent {
        Intent::new(self.engine.world.clone(), self.engine.clone())
    }

    /// The same for every repetition of the same step of the same operation.
    pub fn request_id(&self, key: &str) -> uuid::Uuid {
        let digest = Sha256::digest(format!("{}/{key}", self.id));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// A ticket for one transfer: 256 bits from the operating system, in hexadecimal.
pub fn new_ticket() -> String {
    crate::enroll::new_secret()
}

/// Brings DNS up to date now, for a bounded time. Not being able to is no failure: the reconciler keeps at it, and the ingress
/// forwards meanwhile.
pub async fn settle_dns(world: &World) -> Result<Outcome, Error> {
    const PATIENCE: Duration = Duration::from_secs(1);
    Ok(Outcome::note(crate::dns::settle(world, PATIENCE).await))
}

/// How a running operation is spoken to.
struct Handle {
    /// Ends the pause before the next try.
    retry: Arc<Notify>,
    cancel: mpsc::Sender<Cancel>,
}

/// Drives all operations of one controller.
pub struct Engine {
    pub(super) world: Arc<World>,
    running: Mutex<BTreeMap<OperationId, Handle>>,
    tasks: TaskTracker,
    /// Park at the next boundary.
    shutdown: CancellationToken,
}

impl Engine {
    /// An engine that has not begun yet.
    pub fn new(world: Arc<World>, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self { world, running: Mutex::default(), tasks: TaskTracker::new(), shutdown })
    }

    /// Goes on with everything that has not ended. Called once, before the controller reports healthy.
    pub async fn resume(self: &Arc<Self>) -> Result<usize, store::Error> {
        let unfinished = self.world.store.unfinished_operations().await?;
        for row in &unfinished {
            tracing::info!(operation = %row.id, subject = %row.subject, "operation resumed");
            self.drive(row.id.clone(), row.kind);
        }
        Ok(unfinished.len())
    }

    /// Waits until every operation has ended or is parked.
    pub async fn parked(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Begins to drive an operation that is in the store.
    pub fn drive(self: &Arc<Self>, id: OperationId, kind: Kind) {
        let (cancel, cancelled) = mpsc::channel(4);
        let retry = Arc::new(Notify::new());
        let handle = Handle { retry: retry.clone(), cancel };
        match self.lock().entry(id.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(free) => drop(free.insert(handle)),
        }
        let engine = self.clone();
        self.tasks.spawn(async move {
            let driver = Driver::new(engine.clone(), engine.shutdown.clone(), id.clone(), retry, cancelled);
            match kind {
                Kind::Add => driver.run::<Add>().await,
                Kind::Remove => driver.run::<Remove>().await,
                Kind::Migrate => driver.run::<Migrate>().await,
                Kind::Start => driver.run::<Start>().await,
                Kind::Stop => driver.run::<Stop>().await,
                Kind::Restart => driver.run::<Restart>().await,
                Kind::Swap => driver.run::<Swap>().await,
                Kind::Drain | Kind::Return => driver.run::<Resettle>().await,
                Kind::Lost => driver.run::<Lose>().await,
                Kind::Recover => driver.run::<Recover>().await,
            }
            engine.lock().remove(&id);
            engine.world.volatile.ring(&id);
        });
    }

    /// Asks for an undo; returns when it is in the log.
    pub async fn cancel(&self, id: &OperationId) -> Result<(), Error> {
        let sender = self.lock().get(id).map(|handle| handle.cancel.clone());
        let Some(sender) = sender else {
            self.world.store.operation(id).await?;
            return Err(ended(id));
        };
        let (answer, answered) = oneshot::channel();
        if sender.send(answer).await.is_err() {
            return Err(ended(id));
        }
        answered.await.unwrap_or_else(|_| Err(ended(id)))
    }

    /// Tries a stuck operation again now.
    pub async fn retry(&self, id: &OperationId) -> Result<(), Error> {
        if let Some(handle) = self.lock().get(id) {
            handle.retry.notify_one();
            return Ok(());
        }
        self.world.store.operation(id).await?;
        Err(ended(id))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<OperationId, Handle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended(id: &OperationId) -> Error {
    Error::refused(
        reason::NOT_CANCELLABLE,
        format!("{id} has ended already; `featherctl operation show {id}` says how"),
    )
}
