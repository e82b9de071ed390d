//! Bounded waiting for something to become true.

use std::{fmt::Debug, future::Future, time::Duration};

/// Looks again and again until the answer is `Ok`; panics with the last `Err` when the bound is over. For facts that come
/// about by themselves (a watcher notices, a reconciler has passed); the bound is generous, because it is only met on failure.
pub async fn until<T, E, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    const BOUND: Duration = Duration::from_secs(30);
    const INTERVAL: Duration = Duration::from_millis(5);
    let deadline = tokio::time::Instant::now() + BOUND;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) if tokio::time::Instant::now() > deadline => {
                panic!("{what}: not within {BOUND:?}; last: {last:?}")
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
