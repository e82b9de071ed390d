//! Joining, renewing, and what an agent shows of itself.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use feather_proto::{
    error::{Error, reason},
    join_token::JoinToken,
    pb::controller::v1::{
        self as pb,
        enrollment_service_server::{EnrollmentService, EnrollmentServiceServer},
    },
    tls::{self, ClientCertificate, Identity, Principal, Role, Rotating, sha256_hex},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

use super::harness::{Ca, SetClock, World, wait_until};
use crate::{
    Config,
    join::{self, Addresses, Membership, join},
    renew::Renewal,
};

/// Whoever calls from here takes a member's place.
const REJOINS: &str = "192.0.2.8:7443";

/// A controller that signs, and loses its first replies.
struct Controller {
    ca: Arc<Ca>,
    lose: AtomicUsize,
    requests: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl EnrollmentService for Controller {
    async fn create_join_token(
        &self,
        _request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<pb::CreateJoinTokenResponse>, Status> {
        Err(Error::denied(reason::ROLE, "not here").into())
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let request = request.into_inner();
        if request.secret != "good" {
            return Err(Error::denied(reason::JOIN_TOKEN, "the token was used").into());
        }
        self.requests.lock().unwrap().push(request.csr_pem.clone());
        if self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Status::unavailable("the reply got lost"));
        }
        let certificate_pem = self.ca.sign(&request.csr_pem, &Principal::agent("nyc"));
        let (server, ca_pem) = ("nyc".into(), self.ca.pem.clone());
        Ok(Response::new(pb::JoinResponse { server, certificate_pem, ca_pem, anew: request.address != REJOINS }))
    }

    async fn renew_certificate(
        &self,
        request: Request<pb::RenewCertificateRequest>,
    ) -> Result<Response<pb::RenewCertificateResponse>, Status> {
        let who = tls::require(&request, &[Role::Agent])?;
        let certificate_pem = self.ca.sign(&request.into_inner().csr_pem, &who);
        Ok(Response::new(pb::RenewCertificateResponse { certificate_pem, ca_pem: self.ca.pem.clone() }))
    }

    async fn get_standing(
        &self,
        _request: Request<pb::GetStandingRequest>,
    ) -> Result<Response<pb::GetStandingResponse>, Status> {
        Err(Error::denied(reason::ROLE, "not here").into())
    }
}

/// A controller at `controller:7400`, and the signing requests that it saw.
fn controller(world: &World, ca: &Arc<Ca>, lose: usize) -> Arc<Mutex<Vec<String>>> {
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let identity = Rotating::new(ca.issue(&Principal::controller())).unwrap();
    let incoming = world.pipes.listen("controller:7400");
    let connections = tls::incoming(incoming, &identity, ClientCertificate::Optional, true).unwrap();
    let service = Controller { ca: ca.clone(), lose: AtomicUsize::new(lose), requests: requests.clone() };
    let server = Server::builder().add_service(EnrollmentServiceServer::new(service));
    tokio::spawn(server.serve_with_incoming(connections));
    requests
}

fn token(ca: &Ca, secret: &str) -> JoinToken {
    JoinToken {
        controller: "controller:7400".into(),
        ca_fingerprint: sha256_hex(&ca.der),
        server: "nyc".parse().unwrap(),
        secret: secret.into(),
    }
}

fn addresses() -> Addresses {
    Addresses { agent: "192.0.2.7:7443".into(), public: "192.0.2.7".into() }
}

#[tokio::test]
async fn a_join_whose_reply_got_lost_is_repeated_with_the_same_key() {
    let (world, ca, dir) = (World::new(), Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    let requests = controller(&world, &ca, 1);
    let config = Config::new(dir.path());
    let first = join(&config, world.pipes.clone(), &token(&ca, "good"), &addresses()).await;
    assert!(matches!(first, Err(join::Error::Call(error)) if error.code.retryable()));
    assert!(!config.identity_file().exists());
    let identity = join(&config, world.pipes.clone(), &token(&ca, "good"), &addresses()).await.unwrap();
    assert_eq!(identity.principal().unwrap(), Principal::agent("nyc"));
    let seen = requests.lock().unwrap().clone();
    assert_eq!((seen.len(), &seen[0]), (2, &seen[1]));
    Rotating::new(Identity::load(&config.identity_file()).unwrap()).unwrap();
    assert_eq!(Membership::load(&config.controller_file()).unwrap().controller, "controller:7400");
    let again = join(&config, world.pipes.clone(), &token(&ca, "good"), &addresses()).await;
    assert!(matches!(again, Err(join::Error::Member { .. })));
}

#[tokio::test]
async fn a_join_believes_only_the_controller_of_its_token() {
    let (world, ca, dir) = (World::new(), Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    controller(&world, &ca, 0);
    let config = Config::new(dir.path());
    let foreign = join(&config, world.pipes.clone(), &token(&Ca::new(), "good"), &addresses()).await;
    assert!(matches!(foreign, Err(join::Error::Call(error)) if error.is(reason::JOIN_TOKEN)));
    let used = join(&config, world.pipes.clone(), &token(&ca, "used"), &addresses()).await;
    assert!(matches!(used, Err(join::Error::Call(error)) if error.is(reason::JOIN_TOKEN)));
    assert!(!config.identity_file().exists());
}

#[tokio::test]
async fn a_server_that_served_a_fleet_and_joins_anew_runs_nobody_of_then() {
    let (world, ca) = (World::new(), Arc::new(Ca::new()));
    controller(&world, &ca, 0);
    let rejoins = Addresses { agent: REJOINS.into(), ..addresses() };
    for (served, addresses, fenced) in [(true, addresses(), true), (true, rejoins, false), (false, addresses(), false)]
    {
        let what = format!("served: {served}, {addresses:?}");
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path());
        let earlier = serde_json::json!({ "controller": "controller:7400", "server": "nyc", "served": served });
        std::fs::write(config.controller_file(), earlier.to_string()).unwrap();
        join(&config, world.pipes.clone(), &token(&ca, "good"), &addresses).await.unwrap();
        assert_eq!(config.fenced_file().exists(), fenced, "{what}");
        let known = Membership::load(&config.controller_file()).unwrap();
        assert_eq!(known.served, served, "{what}: a join that is repeated must not forget it");
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_in_use_and_on_disk() {
    let (world, ca, dir) = (World::new(), Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    controller(&world, &ca, 0);
    let first = ca.issue(&Principal::agent("nyc"));
    let (identity, file) = (Rotating::new(first.clone()).unwrap(), dir.path().join("agent.identity"));
    let (_, not_after) = first.validity().unwrap();
    let late = time::OffsetDateTime::from_unix_timestamp(not_after - 3600).unwrap();
    let renewal = Renewal {
        identity: identity.clone(),
        file: file.clone(),
        controller: "controller:7400".into(),
        dial: world.pipes.clone(),
        clock: Arc::new(SetClock(Mutex::new(late))),
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(renewal.run(shutdown.clone()));
    wait_until("a new certificate", async || {
        let changed = identity.identity().certificate_pem != first.certificate_pem && file.exists();
        (changed, file.exists())
    })
    .await;
    shutdown.cancel();
    assert_eq!(Identity::load(&file).unwrap().principal().unwrap(), Principal::agent("nyc"));
}
