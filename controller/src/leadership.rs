//! Which of several controllers on one store works, and when it stops.
//!
//! Owns the lease's rhythm. The others wait here, and only show the fleet meanwhile; whoever leads renews long before the end, and its work is over before
//! anybody else's can begin. That an old leader writes nothing is up to the store, not to this timing.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::store::{Stood, Store};

/// The rhythm of leading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// How long a lead lasts that is not renewed.
    pub life: Duration,
    /// Pause between renewals, and between looks of those that wait.
    pub beat: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self { life: Duration::from_secs(10), beat: Duration::from_secs(2) }
    }
}

/// The lead, from the moment at which it was asked for or last renewed.
#[derive(Debug, Clone, Copy)]
pub struct Lead {
    epoch: i64,
    since: Instant,
}

/// What a leader does, so long after it last began a renewal that succeeded.
#[derive(Debug, PartialEq, Eq)]
enum Duty {
    /// All is well.
    Work,
    /// Come to an orderly end.
    Stop,
    /// Be gone.
    Vanish,
}

fn stop_after(rhythm: Rhythm) -> Duration {
    rhythm.life * 6 / 10
}

/// Leaves a tenth of the life for clocks that do not run equally fast.
fn vanish_after(rhythm: Rhythm) -> Duration {
    rhythm.life * 9 / 10
}

/// Pure.
fn duty(elapsed: Duration, rhythm: Rhythm) -> Duty {
    match () {
        () if elapsed >= vanish_after(rhythm) => Duty::Vanish,
        () if elapsed >= stop_after(rhythm) => Duty::Stop,
        () => Duty::Work,
    }
}

/// What a controller that waits knows of the one that leads.
#[derive(Debug, Clone)]
pub struct Following(watch::Receiver<String>);

impl Following {
    /// Where it is reached; empty before anybody was heard of.
    pub fn leader(&self) -> String {
        self.0.borrow().clone()
    }
}

/// What shows the fleet has so long to end before this process begins to lead.
const SHOWING_MAX: Duration = Duration::from_secs(3);

/// Waits until this process leads, and lets it show the fleet meanwhile, by what `show` begins and ends with its token; `None` at shutdown.
/// From the beginning until there is a lead nothing is written to the store. See [`wait_to_lead`].
pub async fn follow<F>(
    store: &Store,
    address: &str,
    rhythm: Rhythm,
    shutdown: &CancellationToken,
    show: impl FnOnce(Following, CancellationToken) -> F,
) -> Option<Lead>
where
    F: Future<Output = Result<(), crate::Error>> + Send + 'static,
{
    store.epoch().wait();
    let (known, following) = watch::channel(String::new());
    let over = shutdown.child_token();
    let mut showing = tokio::spawn(show(Following(following), over.clone()));
    let lead = wait_to_lead(store, address, rhythm, shutdown, &known).await;
    over.cancel();
    match tokio::time::timeout(SHOWING_MAX, &mut showing).await {
        Ok(Ok(Err(error))) => tracing::error!(error = &error as &dyn std::error::Error, "the fleet was not shown"),
        Ok(Err(error)) => tracing::error!(error = &error as &dyn std::error::Error, "the fleet was not shown"),
        Ok(Ok(Ok(()))) => {}
        Err(_) => showing.abort(),
    }
    lead
}

/// Waits until this process leads; `None` at shutdown. A store that does not answer is asked again. `address` is where others find the
/// leader, `known` hears where that is meanwhile.
pub async fn wait_to_lead(
    store: &Store,
    address: &str,
    rhythm: Rhythm,
    shutdown: &CancellationToken,
    known: &watch::Sender<String>,
) -> Option<Lead> {
    let holder = uuid::Uuid::new_v4().to_string();
    loop {
        let since = Instant::now();
        let pause = match store.stand(&holder, address, rhythm.life).await {
            Ok(Stood::Leads(epoch)) => {
                tracing::info!(epoch, "this controller leads");
                return Some(Lead { epoch, since });
            }
            Ok(Stood::Follows { leader, left }) => {
                if *known.borrow() != leader {
                    tracing::info!(%leader, "another controller leads; waiting to take over");
                    known.send_replace(leader);
                }
                rhythm.beat.min(left + Duration::from_millis(10))
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the store does not say who leads");
                rhythm.beat
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return None,
        }
    }
}

/// Keeps the lead while `serving` runs; its end gives it back ([`Store::close`]). When the lead cannot be kept, `stop` is cancelled early
/// enough for an orderly end, and before anybody else can lead, `serving` is dropped: then there is no output, and the process is to end.
pub async fn lead<F: Future>(
    store: Store,
    lead: Lead,
    rhythm: Rhythm,
    stop: CancellationToken,
    serving: F,
) -> Option<F::Output> {
    // A task of its own: a renewal does not wait for what the work does.
    let mut keeping = tokio::spawn(keep(store, lead, rhythm, stop));
    let ended = tokio::select! {
        output = serving => Some(output),
        _ = &mut keeping => None,
    };
    keeping.abort();
    ended
}

/// Renews; returns when the work must be over.
async fn keep(store: Store, lead: Lead, rhythm: Rhythm, stop: CancellationToken) {
    // At once the first time: what showed the fleet may have taken a while to end.
    let (mut since, mut pause) = (lead.since, Duration::ZERO);
    loop {
        let renewal = async {
            tokio::time::sleep(std::mem::replace(&mut pause, rhythm.beat)).await;
            let asked = Instant::now();
            (asked, tokio::time::timeout(rhythm.life / 5, store.go_on_leading(lead.epoch, rhythm.life)).await)
        };
        let mut renewal = std::pin::pin!(renewal);
        let (asked, renewed) = loop {
            let next = match duty(since.elapsed(), rhythm) {
                Duty::Work => since + stop_after(rhythm),
                Duty::Stop => {
                    stop.cancel();
                    since + vanish_after(rhythm)
                }
                Duty::Vanish => {
                    // For all that was spawned and is not dropped with the rest.
                    stop.cancel();
                    tracing::error!("the lead could not be kept in time");
                    return;
                }
            };
            tokio::select! {
                renewed = &mut renewal => break renewed,
                () = tokio::time::sleep_until(next) => {}
            }
        };
        match renewed {
            Ok(Ok(true)) => since = asked,
            // An orderly end has given it back, or is about to find that it is gone.
            Ok(Ok(false)) if stop.is_cancelled() => {}
            Ok(Ok(false)) => {
                tracing::error!("another controller leads");
                stop.cancel();
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the lead was not renewed; trying again");
            }
            Err(_) => tracing::warn!("the store is slow to renew the lead; trying again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::{Duty, Rhythm, duty, lead, wait_to_lead};
    use crate::store::Store;

    #[test]
    fn a_leader_stops_early_and_is_gone_before_its_time_is_over() {
        let rhythm = Rhythm { life: Duration::from_secs(10), beat: Duration::from_secs(2) };
        for (seconds, expected) in
            [(0, Duty::Work), (5, Duty::Work), (6, Duty::Stop), (8, Duty::Stop), (9, Duty::Vanish), (60, Duty::Vanish)]
        {
            assert_eq!(duty(Duration::from_secs(seconds), rhythm), expected, "{seconds}");
        }
        let usual = Rhythm::default();
        assert!(usual.beat * 2 < super::stop_after(usual), "one renewal may fail");
    }

    #[tokio::test]
    async fn who_loses_the_lead_stops_and_who_ends_gives_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("store.db").display());
        let (one, two) = (Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap());
        let rhythm = Rhythm { life: Duration::from_secs(60), beat: Duration::from_millis(5) };
        let (shutdown, stop) = (CancellationToken::new(), CancellationToken::new());
        let (known, _) = tokio::sync::watch::channel(String::new());
        let first = wait_to_lead(&one, "one:7400", rhythm, &shutdown, &known).await.unwrap();
        // Somebody else takes it away, as after a long sleep of this process.
        one.stop_leading(first.epoch).await.unwrap();
        let second = wait_to_lead(&two, "two:7400", rhythm, &shutdown, &known).await.unwrap();
        assert!(second.epoch > first.epoch);
        let ended = lead(one.clone(), first, rhythm, stop.clone(), std::future::pending::<()>()).await;
        assert!(ended.is_none() && stop.is_cancelled());
        assert!(one.set_setting("ingress", "nyc").await.is_err());

        // The other one works until it is done.
        let stop = CancellationToken::new();
        let ended = lead(two.clone(), second, rhythm, stop.clone(), two.set_setting("ingress", "fra")).await;
        assert!(matches!(ended, Some(Ok(()))) && !stop.is_cancelled());
        two.close().await;
        let third = wait_to_lead(&one, "one:7400", rhythm, &shutdown, &known).await.unwrap();
        assert!(third.epoch > second.epoch, "at once, not after a minute");

        // Whoever waits is asked to end.
        shutdown.cancel();
        let waiting = Store::open(&url).await.unwrap();
        assert!(wait_to_lead(&waiting, "three:7400", rhythm, &shutdown, &known).await.is_none());
    }
}
