//! A process of the fleet: a runtime of its own that can be killed.

use std::{future::Future, time::Duration};

use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Longest wait for the end of what was killed, should it hang in a call of the system.
const GONE_MAX: Duration = Duration::from_secs(5);

/// A controller or an agent.
pub struct Process {
    runtime: Option<Runtime>,
    main: Option<JoinHandle<()>>,
    shutdown: CancellationToken,
}

impl Process {
    /// Starts one; it is asked to end by the token.
    pub fn start<F>(main: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let shutdown = CancellationToken::new();
        let main = runtime.spawn(main(shutdown.clone()));
        Self { runtime: Some(runtime), main: Some(main), shutdown }
    }

    /// As SIGKILL: everything stops where it is. On return nothing of it runs any more: what a task still did in the step that it was in
    /// when it was killed must not follow what the caller does next, as a container that starts behind a power failure would.
    pub fn kill(mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // Not on this thread, which may belong to a runtime itself and must not wait inside of it.
        let ending = std::thread::spawn(move || runtime.shutdown_timeout(GONE_MAX));
        ending.join().expect("a runtime ends");
    }

    /// As SIGTERM.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(main) = self.main.take() {
            main.await.expect("the process ends without a panic");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.runtime.take().map(Runtime::shutdown_background).unwrap_or_default();
    }
}
