//! Bounded waiting for something to become true.

use std::{fmt::Debug, future::Future, time::Duration};

/// Looks again and again until the answer is `Ok`; panics with the last `Err` when the bound is over. For facts that come
/// about by themselves (a watcher notices, a reconciler has passed); the bound is generous, because it is only met on failure.
pub async fn until<T, E, F>(what: &str, look: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    within(Duration::from_secs(30), what, look).await
}

/// The same with a bound of one's own.
pub async fn within<T, E, F>(bound: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    const INTERVAL: Duration = Duration::from_millis(5);
    let deadline = tokio::time::Instant::now() + bound;
    loop {
        // A look that hangs is a failure like any other.
        let looked = tokio::time::timeout_at(deadline + bound, look()).await;
        let Ok(looked) = looked else { panic!("{what}: a look did not come back within {:?}", bound * 2) };
        match looked {
            Ok(found) => return found,
            Err(last) if tokio::time::Instant::now() > deadline => {
                panic!("{what}: not within {bound:?}; last: {last:?}")
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
