//! What tenants may use: changed while they run, and made sure of at each start.
//!
//! Owns the order: the record first, then the container. What may be is decided in `transition/limiting.rs`.

use feather_proto::{
    error::Error,
    ids::{Generation, TenantName},
    limits::Limits,
    model::{ContainerState, TenantReport},
};

use super::{Agent, locked};
use crate::{
    ledger::{Record, Spec},
    transition::{self, LimitFacts, Next},
};

impl Agent {
    /// Sets what a tenant may use, without touching its process. With `check_only` it only says whether that could be.
    pub(crate) async fn limit(
        &self,
        tenant: &TenantName,
        generation: Generation,
        limits: Limits,
        check_only: bool,
    ) -> Result<TenantReport, Error> {
        let _lock = self.lock(tenant).await;
        let before = self.load(tenant).await?;
        let used = self.runtime.resources(&tenant.container()).await?;
        let facts = LimitFacts { used, capacity: self.runtime.capacity().await? };
        let next = transition::admit_limits(before.as_ref(), tenant, generation, limits, &facts)?;
        if check_only {
            let (Next::Unchanged(record) | Next::Write(record)) = next;
            return Ok(self.report(&before.unwrap_or(record)).await);
        }
        // Its container is as sure as it was, once it has the new limits.
        let was_sure = before.and_then(|before| before.spec).is_some_and(|spec| self.is_settled(tenant, &spec));
        let record = self.commit(next).await?;
        if let Some(spec) = &record.spec {
            self.ensure_limits(tenant, spec).await?;
            if was_sure {
                locked(&self.settled).insert(tenant.clone(), spec.clone());
            }
        }
        Ok(self.report(&record).await)
    }

    /// A container that runs gets the limits of its record. Where nobody has said anything the engine's own are left as they are.
    pub(super) async fn ensure_limits(&self, tenant: &TenantName, spec: &Spec) -> Result<(), Error> {
        if spec.limits.is_said() {
            self.runtime.ensure_limits(&tenant.container(), &spec.limits).await?;
        }
        Ok(())
    }

    /// Its container runs, and this process has not made sure yet that it has its limits.
    pub(super) fn limits_pending(&self, record: &Record, container: ContainerState) -> bool {
        let spec = record.spec.as_ref().filter(|spec| spec.limits.is_said());
        container == ContainerState::Running && spec.is_some_and(|spec| !self.is_settled(&record.tenant, spec))
    }
}
