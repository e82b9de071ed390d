//! A process of the fleet: a runtime of its own that can be killed.

use std::future::Future;

use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

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

    /// As SIGKILL: everything stops where it is.
    pub fn kill(mut self) {
        self.runtime.take().map(Runtime::shutdown_background).unwrap_or_default();
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
