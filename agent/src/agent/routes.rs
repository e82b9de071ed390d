//! Which routes must hold on this server, from its records.
//!
//! Owns the mapping from residence to route and its application in one change. Knows nothing of Caddy.

use std::collections::{BTreeMap, BTreeSet};

use feather_proto::{
    error::{Error, reason},
    forward::ForwardTarget,
    ids::TenantName,
};

use super::{Agent, locked};
use crate::{
    edge,
    ledger::{Desired, Record, Residence, Volume},
    password::random_token,
    router::Route,
};

/// The public's route to a tenant, leaving a trial aside. None while its first healthy answer is awaited.
fn public_route(record: &Record) -> Option<Route> {
    match &record.residence {
        Residence::Active { provisioning: Some(_), .. } | Residence::Absent => None,
        Residence::Active { desired: Desired::Run, .. } => {
            record.spec.as_ref().map(|spec| Route::Serve { port: spec.port })
        }
        Residence::Active { desired: Desired::Stop, .. } | Residence::Sealed => Some(Route::Unavailable),
        Residence::Departed { forward_to } => forward_to.clone().map(|to| Route::Forward { to }),
    }
}

/// The whole route of a tenant; `probe` is the secret of its trial.
fn route(record: &Record, probe: Option<&str>) -> Option<Route> {
    let public = public_route(record);
    match (record.on_trial(), probe) {
        (Some(incoming), Some(token)) => {
            Some(Route::Probe { port: incoming.port, token: token.to_owned(), otherwise: public.map(Box::new) })
        }
        _ => public,
    }
}

impl Agent {
    /// Makes the router's routes what the records say. Returns whether a change was made.
    pub(crate) async fn apply_routes(&self) -> Result<bool, Error> {
        let _order = self.routing.lock().await;
        // Before the routes, which forward by it; and before the records are read, which must not get older meanwhile. A failure is
        // one of other servers' requests: this one's tenants are served all the same.
        let linked = self.apply_link().await;
        let mut wanted = BTreeMap::new();
        let out = self.fence.is_closed();
        let records = self.records();
        let recorded: BTreeSet<TenantName> = records.iter().map(|record| record.tenant.clone()).collect();
        for record in records {
            let probe = if record.on_trial().is_some() { Some(self.probe_token(&record.tenant)?) } else { None };
            let held = if self.shall_hold(&record) { self.open_gate(&record) } else { None };
            let route = held.or_else(|| route(&record, probe.as_deref()));
            // Whoever still comes here for somebody who lived here is not to take the admin container for it.
            let unavailable = (out && record.volume != Volume::None).then_some(Route::Unavailable);
            if let Some(route) = route.or(unavailable) {
                wanted.insert(record.tenant, route);
            }
        }
        let changed = self.router.ensure_among(&wanted, self.has_strangers(&recorded).then_some(&recorded)).await?;
        self.release_gates(&wanted);
        if linked.is_ok() {
            self.forget_earlier_links();
        }
        *locked(&self.link_problem) = linked.err().map(|error| error.to_string());
        // Behind the tenants', which more people wait for.
        let admin = self.router.ensure_admin(self.admin_port().await?).await?;
        Ok(changed || admin)
    }

    /// Makes the proxy recognise the other servers of the fleet, and show itself to them, by the certificate in force.
    async fn apply_link(&self) -> Result<(), Error> {
        let unusable = |error: std::io::Error| {
            Error::unavailable(
                reason::STORAGE,
                format!("the proxy cannot be given this server's certificate of the fleet: {error}"),
            )
        };
        let Some(link) = self.links.of(&self.config.identity_file()).map_err(unusable)? else { return Ok(()) };
        if self.router.ensure_link(&link).await? {
            tracing::info!("the proxy shows this server's certificate of the fleet");
        }
        Ok(())
    }

    /// Files of earlier certificates go when neither a route nor the proxy's own list names them any more.
    fn forget_earlier_links(&self) {
        let kept = self.links.of(&self.config.identity_file()).and_then(|link| match link {
            Some(link) => self.links.keep_only(&link),
            None => Ok(()),
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "files of an earlier certificate cannot be removed");
        }
    }

    /// May a certificate be got for this host name? For what this server serves or forwards, and for its own name.
    pub(crate) fn may_have_certificate(&self, host: &str) -> bool {
        if self.config.edge.domain().is_some_and(|domain| domain.is(host)) {
            return true;
        }
        let Some(tenant) = edge::tenant_of(host, &self.config.domain_suffix) else { return false };
        match self.ledger.get(&tenant) {
            // Whoever is told its address may come before the first healthy answer.
            Ok(Some(record)) => {
                !matches!(record.residence, Residence::Absent | Residence::Departed { forward_to: None })
            }
            Ok(None) => false,
            // Its route stays as it is.
            Err(_) => true,
        }
    }

    /// Requests wait while a tenant that ran is sealed, and while it comes back from that: until its first healthy answer there
    /// is nobody to serve them.
    fn shall_hold(&self, record: &Record) -> bool {
        match record.residence {
            Residence::Sealed => true,
            Residence::Active { desired: Desired::Run, .. } => locked(&self.returning).contains(&record.tenant),
            _ => false,
        }
    }

    /// Requests that wait for a sealed tenant go on waiting while it starts again, as long as what this returns lives.
    pub(super) fn hold_until_healthy(&self, record: Option<&Record>) -> Option<Returning<'_>> {
        let sealed = record.filter(|record| record.residence == Residence::Sealed)?;
        locked(&self.returning).insert(sealed.tenant.clone());
        Some(Returning { agent: self, tenant: sealed.tenant.clone() })
    }

    /// Requests for a running tenant wait while its container is made anew, as long as what this returns lives.
    pub(super) fn hold_for_restart(&self, tenant: &TenantName) -> Returning<'_> {
        locked(&self.returning).insert(tenant.clone());
        Returning { agent: self, tenant: tenant.clone() }
    }

    /// It answers: nobody needs to wait for it.
    pub(super) fn is_back(&self, tenant: &TenantName) {
        locked(&self.returning).remove(tenant);
    }

    /// The route through the tenant's gate, which is open on return. Without a gate its requests are answered 503.
    fn open_gate(&self, record: &Record) -> Option<Route> {
        let port = record.spec.as_ref()?.port;
        match self.gates.hold(&record.tenant) {
            Ok(gate) => Some(Route::Hold { gate, port }),
            Err(error) => {
                tracing::warn!(tenant = %record.tenant, %error, "cannot hold requests during this move; they are refused for its time");
                None
            }
        }
    }

    /// Whoever waits for a tenant whose route leads somewhere goes there. Behind the change of routes, so that nobody comes to
    /// wait any more.
    fn release_gates(&self, routes: &BTreeMap<TenantName, Route>) {
        for tenant in self.gates.open() {
            let to = match routes.get(&tenant) {
                Some(Route::Hold { .. }) => continue,
                Some(Route::Serve { port }) => Some(format!("127.0.0.1:{port}")),
                // By TLS only through this server's own proxy, which knows how the other one is recognised.
                Some(Route::Forward { to }) if is_by_tls(to) => Some(self.router.entrance()),
                Some(Route::Forward { to }) => Some(to.clone()),
                Some(Route::Unavailable | Route::Probe { .. } | Route::Foreign) | None => None,
            };
            if let Some(held) = self.gates.release(&tenant, to.as_deref()) {
                let held_ms = u64::try_from(held.time.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(%tenant, connections = held.connections, held_ms, to, "released the requests that waited");
            }
        }
    }

    /// Routes of tenants that no readable record accounts for stay as they are: nobody decided that they should go. On a server
    /// that was run by hand until now, all of its routes are such. `recorded` are those whose records were looked at: one that is adopted
    /// meanwhile keeps its route for now, too.
    fn has_strangers(&self, recorded: &BTreeSet<TenantName>) -> bool {
        let condition = self.condition.borrow();
        let unknown = condition.tenants.keys().any(|tenant| !recorded.contains(tenant));
        recorded.is_empty() || unknown || condition.containers.is_none() || !self.ledger.damaged().is_empty()
    }

    /// The secret of a tenant's probe route, made when first asked for.
    pub(crate) fn probe_token(&self, tenant: &TenantName) -> Result<String, Error> {
        if let Some(token) = locked(&self.probes).get(tenant) {
            return Ok(token.clone());
        }
        let token = random_token()?;
        Ok(locked(&self.probes).entry(tenant.clone()).or_insert(token).clone())
    }

    /// The next trial has another secret.
    pub(crate) fn forget_probe(&self, tenant: &TenantName) {
        locked(&self.probes).remove(tenant);
    }
}

fn is_by_tls(to: &str) -> bool {
    to.parse::<ForwardTarget>().is_ok_and(|target| target.server.is_some())
}

/// A sealed tenant is being started where it was.
pub(super) struct Returning<'a> {
    agent: &'a Agent,
    tenant: TenantName,
}

impl Drop for Returning<'_> {
    fn drop(&mut self) {
        self.agent.is_back(&self.tenant);
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::{ids::Generation, model::IncomingStage};

    use super::{Route, route};
    use crate::ledger::{Desired, Incoming, Provisioning, Record, Residence, Spec};
    use crate::password::Password;

    fn record(residence: Residence) -> Record {
        let mut record = Record::floor("alice".parse().unwrap(), Generation(3));
        record.residence = residence;
        record.spec = Some(Spec {
            placed: Generation(3),
            port: 9001,
            password: Password::generate(10).unwrap(),
            image: String::new(),
            image_digest: String::new(),
            created: time::OffsetDateTime::UNIX_EPOCH,
            found_data: false,
            adopted: None,
            limits: Default::default(),
        });
        record
    }

    #[test]
    fn every_residence_has_its_route() {
        let active = |desired, provisioning| record(Residence::Active { desired, provisioning });
        let forward = |to: Option<&str>| record(Residence::Departed { forward_to: to.map(str::to_owned) });
        let fresh = Some(Provisioning { volume_is_new: true });
        let table = [
            (record(Residence::Absent), None),
            (active(Desired::Run, fresh), None),
            (active(Desired::Run, None), Some(Route::Serve { port: 9001 })),
            (active(Desired::Stop, None), Some(Route::Unavailable)),
            (record(Residence::Sealed), Some(Route::Unavailable)),
            (forward(Some("192.0.2.7:80")), Some(Route::Forward { to: "192.0.2.7:80".into() })),
            (forward(None), None),
        ];
        for (record, wanted) in table {
            assert_eq!(route(&record, None), wanted, "{:?}", record.residence);
            for (stage, on_trial) in [(IncomingStage::Received, false), (IncomingStage::Trial, true)] {
                let mut record = record.clone();
                record.incoming = Some(Incoming {
                    generation: Generation(4),
                    port: 9002,
                    image_digest: String::new(),
                    stage,
                    spec: None,
                });
                let probe = Route::Probe { port: 9002, token: "t".into(), otherwise: wanted.clone().map(Box::new) };
                assert_eq!(route(&record, Some("t")), if on_trial { Some(probe) } else { wanted.clone() });
            }
        }
    }
}
