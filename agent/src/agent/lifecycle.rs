//! Tenants that live here: added, removed, started, stopped, given a new password.
//!
//! Owns the order of effects after each decision. Every function here holds the tenant's lock from the decision to the last
//! effect and may be repeated after any cut.

use std::time::Duration;

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, TenantName},
    model::{ContainerState, StopReason, TenantReport},
};
use uuid::Uuid;

use super::{Agent, drain::Streams};
use crate::{
    ledger::{Hold, Record, Residence, Spec, Volume},
    password::Password,
    transition::{self, AddFacts, AddRequest, Next},
};

/// A tenant that was added.
pub(crate) struct Added {
    pub(crate) report: TenantReport,
    pub(crate) password: Password,
    pub(crate) found_data: bool,
}

/// A tenant that was started.
pub(crate) struct Started {
    pub(crate) report: TenantReport,
    /// Zero when it was running already.
    pub(crate) healthy_after: Duration,
}

impl Agent {
    /// Adds a tenant and waits for its health; undoes everything but the floor when it fails for good.
    pub(crate) async fn add(&self, add: &AddRequest) -> Result<Added, Error> {
        let _lock = self.lock(&add.tenant).await;
        let record = self.load(&add.tenant).await?;
        let record = {
            let _allocation = self.allocation.lock().await;
            let facts = self.add_facts(add).await?;
            self.commit(transition::admit_add(record.as_ref(), add, &facts)?).await?
        };
        let record = match record.provisioning() {
            Some(_) if record.should_run() => match self.provision(record.clone()).await {
                Ok(record) => record,
                Err(error) => return Err(self.undo_add(&record, error).await),
            },
            _ => {
                self.serve_if_wanted(&record).await?;
                record
            }
        };
        let spec = spec_of(&record)?;
        Ok(Added { report: self.report(&record).await, password: spec.password.clone(), found_data: spec.found_data })
    }

    async fn add_facts(&self, add: &AddRequest) -> Result<AddFacts, Error> {
        Ok(AddFacts {
            image: self.runtime.image(&add.image).await?,
            port: self.free_port().await?,
            volume_exists: self.runtime.volume(&add.tenant.container()).await?.is_some(),
            password: Password::generate(self.config.password_length)?,
            now: self.clock.now(),
        })
    }

    /// Lowest port that neither a record nor a container of ours holds.
    pub(crate) async fn free_port(&self) -> Result<Option<u16>, Error> {
        let mut taken: Vec<u16> =
            self.ledger.all().iter().flat_map(|record| record.ports().collect::<Vec<_>>()).collect();
        let containers = self.runtime.containers("feather-user-").await?;
        let running = containers.iter().filter(|container| container.state == ContainerState::Running);
        taken.extend(running.filter_map(|container| container.host_port));
        Ok(self.config.ports.clone().find(|port| !taken.contains(port)))
    }

    /// Brings an added tenant to its first healthy answer and then into public. The same code goes on after a crash.
    pub(crate) async fn provision(&self, mut record: Record) -> Result<Record, Error> {
        let tenant = record.tenant.clone();
        let spec = spec_of(&record)?.clone();
        if record.provisioning().is_some_and(|provisioning| provisioning.volume_is_new) {
            self.runtime.ensure_volume(&tenant.container()).await?;
            if record.volume == Volume::None {
                record.volume = Volume::whole(record.generation, None);
                record = self.write(record).await?;
            }
        }
        self.start_container(&tenant, &spec).await?;
        self.wait_healthy(&tenant, &spec).await?;
        if let Residence::Active { desired, .. } = record.residence {
            record.residence = Residence::Active { desired, provisioning: None };
        }
        record.volume = Volume::whole(record.generation, None);
        let record = self.write(record).await?;
        self.apply_routes().await?;
        Ok(record)
    }

    /// An outcome that nobody knows is left for the retry; a failure is undone and remembered.
    async fn undo_add(&self, record: &Record, error: Error) -> Error {
        if error.code.retryable() {
            return error;
        }
        // Healthy, and only its route is missing: the reconciler keeps trying that.
        if !matches!(self.ledger.get(&record.tenant), Ok(Some(now)) if now.provisioning().is_some()) {
            return error;
        }
        let undone = async {
            let name = record.tenant.container();
            self.remove_container(&record.tenant).await?;
            if record.provisioning().is_some_and(|provisioning| provisioning.volume_is_new) {
                self.runtime.remove_volume(&name).await?;
            }
            self.write(transition::failed_add(record, &error)).await
        };
        match undone.await {
            Ok(_) => error,
            Err(undo) => Error::unavailable(
                reason::RUNTIME,
                format!("{error}; and what was begun could not be undone yet ({undo}): try again"),
            ),
        }
    }

    /// Removes container and route; the volume stays, unless this takes back the add that made it.
    pub(crate) async fn remove(
        &self,
        tenant: &TenantName,
        generation: Generation,
        discard_new: bool,
    ) -> Result<TenantReport, Error> {
        self.interrupt_wait(tenant, generation);
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let next = transition::admit_remove(record.as_ref(), tenant, generation, discard_new)?;
        let record = self.commit(next).await?;
        self.grants.revoke(tenant);
        let routed = self.apply_routes().await;
        self.remove_container(tenant).await?;
        let record = if record.volume == (Volume::Incomplete { generation }) {
            self.runtime.remove_volume(&tenant.container()).await?;
            self.write(Record { volume: Volume::None, ..record }).await?
        } else {
            record
        };
        routed?;
        Ok(self.report(&record).await)
    }

    /// Starts a stopped or sealed tenant and waits for its health.
    pub(crate) async fn start(&self, tenant: &TenantName, generation: Generation) -> Result<Started, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let _returning = self.hold_until_healthy(record.as_ref());
        let record = self.commit(transition::admit_start(record.as_ref(), tenant, generation)?).await?;
        // A peer that still reads the volume would read what the tenant is about to change.
        self.grants.revoke(tenant);
        let (record, healthy_after) = match record.provisioning() {
            Some(_) => (self.provision(record).await?, Duration::ZERO),
            None => {
                let healthy_after = self.serve_if_wanted(&record).await?;
                (record, healthy_after)
            }
        };
        Ok(Started { report: self.report(&record).await, healthy_after })
    }

    /// Makes the container of a tenant anew, with what this server gives to its tenants now. Requests wait meanwhile.
    pub(crate) async fn restart(&self, tenant: &TenantName, generation: Generation) -> Result<Started, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let next = transition::admit_restart(record.as_ref(), tenant, generation)?;
        let changed = matches!(next, Next::Write(_));
        let record = self.commit(next).await?;
        let _returning = changed.then(|| self.hold_for_restart(tenant));
        if changed {
            self.hold_routes(tenant).await;
            self.remove_container(tenant).await?;
        }
        let healthy_after = self.serve_if_wanted(&record).await?;
        Ok(Started { report: self.report(&record).await, healthy_after })
    }

    /// Puts the gate of a tenant that is about to restart before it. A router that does not answer must not keep the tenant from
    /// its restart; requests are refused for its time then.
    async fn hold_routes(&self, tenant: &TenantName) {
        if let Err(error) = self.apply_routes().await {
            tracing::warn!(%tenant, %error, "restarting without holding requests");
        }
    }

    /// Container, health and route of a tenant that should run; only the route of one that should not.
    pub(crate) async fn serve_if_wanted(&self, record: &Record) -> Result<Duration, Error> {
        let mut healthy_after = Duration::ZERO;
        if record.should_run() {
            let spec = spec_of(record)?;
            let started = self.start_container(&record.tenant, spec).await?;
            let waited = self.wait_healthy(&record.tenant, spec).await?;
            if started {
                healthy_after = waited;
            }
        }
        self.is_back(&record.tenant);
        self.apply_routes().await?;
        Ok(healthy_after)
    }

    /// Stops a tenant. On return its process has ended.
    pub(crate) async fn stop(
        &self,
        tenant: &TenantName,
        generation: Generation,
        why: StopReason,
    ) -> Result<TenantReport, Error> {
        // An add is not ended by a stop, which would undo it.
        if !matches!(self.ledger.get(tenant), Ok(Some(record)) if record.provisioning().is_some()) {
            self.interrupt_wait(tenant, generation);
        }
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let next = transition::admit_stop(record.as_ref(), tenant, generation, why)?;
        let streams = match (&next, why) {
            (Next::Write(record), StopReason::Move) => self.find_streams(record).await,
            _ => Streams::default(),
        };
        let sealed = Hold { since: self.clock.now(), boot_id: self.boot_id.clone(), lasted_ms: None };
        let record = self.commit(transition::holding(record.as_ref(), next, sealed)).await?;
        // First the route, so that people wait or read "unavailable" rather than meet a broken connection; but a router that
        // does not answer must not keep the tenant running. The reconciler tries again.
        match self.apply_routes().await {
            Ok(_) if why == StopReason::Move => self.drain(&record, &streams).await,
            Ok(_) => {}
            Err(error) => tracing::warn!(%tenant, %error, "stopping without its route"),
        }
        self.stop_container(tenant).await?;
        Ok(self.report(&record).await)
    }

    /// Sets a new password; a running tenant restarts with it.
    pub(crate) async fn reset_password(
        &self,
        tenant: &TenantName,
        generation: Generation,
        request: Uuid,
    ) -> Result<Password, Error> {
        let _lock = self.lock(tenant).await;
        let record = self.load(tenant).await?;
        let password = Password::generate(self.config.password_length)?;
        let next = transition::admit_reset(record.as_ref(), tenant, generation, request, &password)?;
        let changed = matches!(next, Next::Write(_));
        let record = self.commit(next).await?;
        if record.should_run() && record.provisioning().is_none() {
            // Requests wait while its process is replaced.
            let _returning = changed.then(|| self.hold_for_restart(tenant));
            if changed {
                self.hold_routes(tenant).await;
                self.stop_container(tenant).await?;
            }
            self.serve_if_wanted(&record).await?;
        }
        Ok(spec_of(&record)?.password.clone())
    }
}

/// Every tenant that lives here has a spec; a record without one was not written by this agent.
pub(super) fn spec_of(record: &Record) -> Result<&Spec, Error> {
    record.spec.as_ref().ok_or_else(|| Error::bug(format!("the record of {} has no spec", record.tenant)))
}
