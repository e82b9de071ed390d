//! Moves: reservation, trial, activation and undo on the target; hand-off and retirement on the source.
//!
//! Owns the order of effects after each decision. The transfer of the data itself is in `transfer.rs`.

use std::time::Duration;

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
    model::TenantReport,
};
use time::OffsetDateTime;

use super::{
    Agent,
    lifecycle::{Started, spec_of},
};
use crate::{
    ledger::{Desired, Hold, Record, Residence, Spec, Volume},
    transition::{self, Abandon, Next, ReserveFacts, ReserveRequest},
};

/// A change of routes may cost a connection or two: this many requests through the router before a trial counts as failed.
const PROBES_MAX: u32 = 20;
const PROBE_PAUSE: Duration = Duration::from_millis(100);
const PROBE_LIMIT: Duration = Duration::from_secs(5);

impl Agent {
    /// Holds a port for a tenant that may come.
    pub(crate) async fn reserve(&self, reserve: &ReserveRequest) -> Result<u16, Error> {
        let tenant = &reserve.tenant;
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let _allocation = self.allocation.lock().await;
        let facts = ReserveFacts {
            image_exists: self.runtime.image(&reserve.image_digest).await?.is_some(),
            port: self.free_port().await?,
            disk_free_bytes: self.runtime.capacity().await?.disk_free_bytes,
            volume_exists: self.runtime.volume(&tenant.container()).await?.is_some(),
        };
        let record = self.commit(transition::admit_reserve(record.as_ref(), reserve, &facts)?).await?;
        let port = record.incoming.as_ref().map(|incoming| incoming.port);
        port.ok_or_else(|| Error::bug(format!("the reservation of {tenant} has no port")))
    }

    /// Gives everything back that a move towards this server took, or (`keep_data`) all but the volume.
    pub(crate) async fn abandon(
        &self,
        tenant: &TenantName,
        generation: Generation,
        keep_data: bool,
    ) -> Result<(), Error> {
        self.interrupt_pull(tenant, generation);
        self.interrupt_wait(tenant, generation);
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        match transition::admit_abandon(record.as_ref(), tenant, generation)? {
            Abandon::Nothing => Ok(()),
            Abandon::Floor(record) => self.write(record).await.map(drop),
            Abandon::GiveBack { marked, volume } => {
                let marked = self.commit(Next::Write(marked)).await?;
                self.forget_probe(tenant);
                let routed = self.apply_routes().await;
                self.remove_container(tenant).await?;
                let volume = volume && !keep_data;
                if volume {
                    self.runtime.remove_volume(&tenant.container()).await?;
                    self.notes.forget(&tenant.container());
                }
                self.write(transition::abandoned(&marked, volume)).await?;
                routed.map(drop)
            }
        }
    }

    /// Starts a received tenant without a public route, and proves that it would serve.
    pub(crate) async fn trial(&self, tenant: &TenantName, generation: Generation) -> Result<Started, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let record = self.commit(transition::admit_trial(record.as_ref(), tenant, generation)?).await?;
        let spec = trial_spec(&record)?;
        match self.prove(tenant, spec).await {
            Ok(healthy_after) => Ok(Started { report: self.report(&record).await, healthy_after }),
            Err(error) => Err(self.end_trial(&record, error).await),
        }
    }

    async fn prove(&self, tenant: &TenantName, spec: &Spec) -> Result<Duration, Error> {
        let started = self.start_container(tenant, spec).await?;
        let healthy_after = self.wait_healthy(tenant, spec).await?;
        self.apply_routes().await?;
        let token = self.probe_token(tenant)?;
        let mut last = Ok(0);
        for _ in 0..PROBES_MAX {
            last = self.router.probe(tenant, Some(&token), PROBE_LIMIT).await;
            if matches!(last, Ok(200)) {
                return Ok(if started { healthy_after } else { Duration::ZERO });
            }
            tokio::time::sleep(PROBE_PAUSE).await;
        }
        let status = last?;
        Err(Error::refused(
            reason::ROUTER,
            format!("{tenant} is healthy on its port but answers {status} through the router by its host name; look at the routes of Caddy"),
        )
        .with("tenant", tenant))
    }

    /// Whatever the reason, nothing of a failed trial runs on.
    async fn end_trial(&self, record: &Record, error: Error) -> Error {
        let tenant = &record.tenant;
        let ended = async {
            self.remove_container(tenant).await?;
            self.write(transition::trial_failed(record)).await?;
            self.forget_probe(tenant);
            self.apply_routes().await
        };
        if let Err(end) = ended.await {
            tracing::warn!(%tenant, error = %end, "cannot clean up after a failed trial; abandoning the move will");
        }
        error
    }

    /// After the commit: the trial becomes the tenant, with its public route.
    pub(crate) async fn activate(
        &self,
        tenant: &TenantName,
        generation: Generation,
        desired: Desired,
    ) -> Result<TenantReport, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let next = transition::admit_activate(record.as_ref(), tenant, generation, desired)?;
        let record = self.commit(next).await?;
        self.forget_probe(tenant);
        self.serve_if_wanted(&record).await?;
        Ok(self.report(&record).await)
    }

    /// After the commit, on the source: requests go to where the tenant lives now. Also says how long they were held, in milliseconds;
    /// in the record, so that whoever missed the answer gets the same one.
    pub(crate) async fn hand_off(
        &self,
        tenant: &TenantName,
        generation: Generation,
        forward_to: Option<String>,
    ) -> Result<(TenantReport, Option<u64>), Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let next = transition::admit_hand_off(record.as_ref(), tenant, generation, forward_to)?;
        // It was sealed, so nothing runs; but two copies are the one thing that must never be.
        self.stop_container(tenant).await?;
        let record = self.commit(next).await?;
        self.grants.revoke(tenant);
        self.apply_routes().await?;
        let record = self.note_hold(record).await?;
        let held_ms = record.hold.as_ref().and_then(|hold| hold.lasted_ms);
        Ok((self.report(&record).await, held_ms))
    }

    /// Behind the release: how long the hold of a tenant that has left was.
    async fn note_hold(&self, record: Record) -> Result<Record, Error> {
        let (Residence::Departed { .. }, Some(hold)) = (&record.residence, &record.hold) else { return Ok(record) };
        if hold.lasted_ms.is_some() {
            return Ok(record);
        }
        let measured = self.gates.last_held(&record.tenant).filter(|_| hold.boot_id == self.boot_id);
        let lasted = match measured {
            Some(held) => held.time.as_millis(),
            // The gate was opened anew when this process started: only the clock on the wall knows the whole.
            None => u128::try_from((self.clock.now() - hold.since).whole_milliseconds()).unwrap_or(0),
        };
        let hold = Hold { lasted_ms: Some(u64::try_from(lasted).unwrap_or(u64::MAX).max(1)), ..hold.clone() };
        self.write(Record { hold: Some(hold), ..record }).await
    }

    /// Last step on the source: only the volume stays.
    pub(crate) async fn retire(
        &self,
        tenant: &TenantName,
        generation: Generation,
        keep_until: OffsetDateTime,
    ) -> Result<TenantReport, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let record = self.commit(transition::admit_retire(record.as_ref(), tenant, generation, keep_until)?).await?;
        self.remove_container(tenant).await?;
        Ok(self.report(&record).await)
    }

    /// What is here becomes the data that an add will find. Idempotent.
    pub(crate) async fn reclaim(
        &self,
        tenant: &TenantName,
        generation: Generation,
        needs_data: bool,
    ) -> Result<TenantReport, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let next = transition::admit_reclaim(record.as_ref(), tenant, generation, needs_data)?;
        let record = self.commit(next).await?;
        if !record.should_run() {
            // Of a move, stopped long ago; the add makes another.
            self.remove_container(tenant).await?;
        }
        self.grants.revoke(tenant);
        self.apply_routes().await?;
        Ok(self.report(&record).await)
    }

    /// Deletes the undo copy of a tenant that has moved away, once its time has passed. The floor stays.
    pub(crate) async fn collect(&self, record: Record) -> Result<(), Error> {
        self.remove_container(&record.tenant).await?;
        self.runtime.remove_volume(&record.tenant.container()).await?;
        self.notes.forget(&record.tenant.container());
        tracing::info!(tenant = %record.tenant, "deleted the volume whose time to be kept has passed");
        self.write(Record { volume: Volume::None, ..record }).await.map(drop)
    }
}

fn trial_spec(record: &Record) -> Result<&Spec, Error> {
    let incoming = record.incoming.as_ref().and_then(|incoming| incoming.spec.as_ref());
    match (incoming, &record.residence) {
        (Some(spec), Residence::Absent | Residence::Departed { .. }) => Ok(spec),
        _ => spec_of(record),
    }
}
