//! `CertService`.

use std::sync::Arc;

use feather_proto::{
    model::to_timestamp,
    pb::controller::v1::{self as pb, cert_service_server::CertService},
};
use tonic::{Request, Response, Status};

use super::{admin, optional, reader};
use crate::{certificate::State, world::World};

/// Shows the certificate and asks for another.
pub struct CertApi {
    world: Arc<World>,
}

impl CertApi {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    fn server(&self, name: &feather_proto::ids::ServerName, current: Option<&str>) -> pb::ServerCertificate {
        let observed = self.world.fleet.observed(name);
        let held = observed.snapshot.as_ref().and_then(|snapshot| snapshot.certificate.clone());
        let fingerprint = held.as_ref().map(|held| held.fingerprint.clone()).unwrap_or_default();
        pb::ServerCertificate {
            server: name.to_string(),
            reachable: observed.alive().is_some(),
            current: current == Some(fingerprint.as_str()),
            fingerprint,
            not_after: held.map(|held| to_timestamp(held.not_after)),
        }
    }
}

#[tonic::async_trait]
impl CertService for CertApi {
    async fn get_cert_status(
        &self,
        request: Request<pb::GetCertStatusRequest>,
    ) -> Result<Response<pb::GetCertStatusResponse>, Status> {
        reader(&request)?;
        let certificates = &self.world.certificates;
        let State { held, attempts, doing, next } = certificates.state();
        let facts = held.map(|held| held.facts);
        let current = facts.as_ref().map(|facts| facts.fingerprint.as_str());
        let members = self.world.store.servers().await.map_err(feather_proto::error::Error::from)?;
        let servers: Vec<_> = members.iter().map(|row| self.server(&row.name, current)).collect();
        let mut warnings: Vec<_> = certificates.warning().into_iter().collect();
        if current.is_some() {
            let behind = servers.iter().filter(|server| !server.current);
            warnings.extend(behind.map(|server| {
                let reached = if server.reachable { "is being told" } else { "cannot be reached" };
                format!("{} does not hold the newest certificate, and {reached}", server.server)
            }));
        }
        Ok(Response::new(pb::GetCertStatusResponse {
            directory: optional(certificates.directory()),
            names: certificates.names().to_vec(),
            certificate: facts.as_ref().map(|facts| pb::Certificate {
                issuer: facts.issuer.clone(),
                serial: facts.serial.clone(),
                not_before: Some(to_timestamp(facts.not_before)),
                not_after: Some(to_timestamp(facts.not_after)),
                fingerprint: facts.fingerprint.clone(),
            }),
            next_renewal: next.map(to_timestamp),
            doing: doing.unwrap_or_default(),
            last_error: attempts.error.unwrap_or_default(),
            last_try: attempts.ended.map(to_timestamp),
            failures: attempts.failures,
            servers,
            warnings,
        }))
    }

    async fn renew_cert(
        &self,
        request: Request<pb::RenewCertRequest>,
    ) -> Result<Response<pb::RenewCertResponse>, Status> {
        admin(&request)?;
        self.world.certificates.renew()?;
        Ok(Response::new(pb::RenewCertResponse {}))
    }
}
