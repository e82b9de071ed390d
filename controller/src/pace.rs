//! Reconcilers look as soon as something changes, and not all the time.
//!
//! One look of theirs is at everything, and in a large fleet something changes all the time: without a rest between looks a thousand
//! servers would keep the controller busy with looking. So each leaves the machine to others for a multiple of what its last
//! look took. In a small fleet that is nothing that anybody would notice.

use std::time::Duration;

use tokio::time::Instant;

/// A reconciler takes at most one part in so many of one core, and of an agent that it waits for.
const PARTS: u32 = 20;
/// The same when somebody waits for it: what was just decided is to be carried out.
const PARTS_URGENT: u32 = 5;
/// Whatever a look took, the next one is not put off for longer.
const REST_MAX: Duration = Duration::from_secs(1);

/// How long to rest after a look that took so long.
pub fn rest(took: Duration) -> Duration {
    (took * (PARTS - 1)).min(REST_MAX)
}

/// Rests after a look that began then.
pub async fn rest_since(began: Instant) {
    tokio::time::sleep(rest(began.elapsed())).await;
}

/// The same, and less when it is called for.
pub async fn rest_until_called(began: Instant, call: impl Future) {
    let took = began.elapsed();
    let called = async {
        call.await;
        tokio::time::sleep_until(began + took + (took * (PARTS_URGENT - 1)).min(REST_MAX)).await;
    };
    tokio::select! {
        () = tokio::time::sleep(rest(took)) => {}
        () = called => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::rest;

    #[test]
    fn a_look_at_few_is_followed_by_the_next_at_once_and_none_is_put_off_for_long() {
        assert_eq!(rest(Duration::ZERO), Duration::ZERO);
        assert_eq!(rest(Duration::from_micros(500)), Duration::from_micros(9_500));
        assert_eq!(rest(Duration::from_secs(30)), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_shortens_the_rest() {
        let begun = || async {
            let began = tokio::time::Instant::now();
            tokio::time::advance(Duration::from_millis(10)).await;
            began
        };
        let began = begun().await;
        super::rest_until_called(began, std::future::pending::<()>()).await;
        assert_eq!(began.elapsed(), Duration::from_millis(200));
        let began = begun().await;
        super::rest_until_called(began, std::future::ready(())).await;
        assert_eq!(began.elapsed(), Duration::from_millis(50));
    }
}
