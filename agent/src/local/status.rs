//! What the server tells a person at one glance. It needs no controller, and no longer than Podman takes to be found silent.

use std::time::Duration;

use feather_proto::{ids::TenantName, model::TenantReport};

use crate::{agent::Agent, ledger::Residence, standing::Standing};

/// A look at the server never waits longer than this for the engine.
const ENGINE_MAX: Duration = Duration::from_secs(3);

/// The server as it is now.
pub(crate) struct Status {
    pub(crate) standing: Standing,
    pub(crate) slots_total: usize,
    pub(crate) slots_used: usize,
    pub(crate) work_image: String,
    pub(crate) work_image_digest: Option<String>,
    pub(crate) problems: Vec<String>,
}

/// A tenant that lives here.
pub(crate) struct Inhabitant {
    pub(crate) report: TenantReport,
    pub(crate) url: String,
    pub(crate) being_added: bool,
}

impl Agent {
    /// What the public calls a tenant.
    pub(crate) fn url(&self, tenant: &TenantName) -> String {
        format!("https://{}", tenant.host(&self.config.domain_suffix))
    }

    /// Everybody who lives here, by name.
    pub(crate) async fn inhabitants(&self) -> Vec<Inhabitant> {
        let reports = self.tenant_reports().await;
        let inhabitant = |report: TenantReport| {
            let record = self.ledger.get(&report.tenant).ok()??;
            let lives_here = matches!(record.residence, Residence::Active { .. } | Residence::Sealed);
            let (url, being_added) = (self.url(&report.tenant), record.provisioning().is_some());
            lives_here.then_some(Inhabitant { report, url, being_added })
        };
        reports.into_iter().filter_map(inhabitant).collect()
    }

    /// The server at one glance.
    pub(crate) async fn status(&self) -> Status {
        let standing = self.authority.standing();
        let lost = (standing == Standing::Lost).then(|| self.authority.lost().message);
        let image = tokio::time::timeout(ENGINE_MAX, self.runtime.image(&self.config.work_image)).await;
        let mut problems: Vec<_> = lost.into_iter().chain(self.condition.borrow().problems.clone()).collect();
        // Also before the reconciler has passed.
        if let Some(fenced) = self.fence.problem().filter(|fenced| !problems.contains(fenced)) {
            problems.insert(0, fenced);
        }
        let work_image_digest = match image {
            Ok(Ok(image)) => {
                if image.is_none() {
                    problems.push(format!(
                        "the work image {} is not in storage, so that no tenant can be added; load it with `podman load` in the birth container",
                        self.config.work_image
                    ));
                }
                image.map(|image| image.digest)
            }
            _ => {
                problems.push("Podman does not answer; the states of containers are unknown".to_owned());
                None
            }
        };
        Status {
            standing,
            slots_total: self.config.ports.len(),
            slots_used: self.ledger.all().iter().map(|record| record.ports().count()).sum(),
            work_image: self.config.work_image.clone(),
            work_image_digest,
            problems,
        }
    }
}
