//! Changes what a tenant is bound to. Moves nothing: it holds when placement chooses again.

use feather_proto::{error::Error, ids::TenantName};

use super::Intent;
use crate::{placement::Bounds, store::server_not_found};

impl Intent {
    /// Binds a tenant to servers, or to none any more. Returns whether that is new, and what does not hold where it lives now.
    /// Idempotent.
    ///
    /// # Errors
    /// No such tenant or server, or somebody else changed the tenant at the same moment.
    pub async fn bind(
        &self,
        tenant: &TenantName,
        bounds: &Bounds,
        dry_run: bool,
    ) -> Result<(bool, Vec<String>), Error> {
        let store = &self.world.store;
        let row = store.require_tenant(tenant).await?;
        if let Some(pin) = &bounds.pin {
            self.member(pin).await?;
        }
        let unmet = match &row.server {
            Some(home) => {
                let there = self.candidates().await?.into_iter().find(|candidate| candidate.server == *home);
                let there = there.ok_or_else(|| server_not_found(home))?;
                bounds.unmet(Some(tenant), home, &there.labels, &there.groups)
            }
            None => Vec::new(),
        };
        let changed = row.bounds != *bounds;
        if changed && !dry_run {
            store.set_bounds(tenant, row.version, bounds).await?;
        }
        Ok((changed, unmet))
    }
}
