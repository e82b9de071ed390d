//! `ServerService`.

use std::sync::Arc;

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
    labels::Labels,
    model::{request_id, to_timestamp},
    pb::controller::v1::{self as pb, server_service_server::ServerService},
    tls::Principal,
};
use tonic::{Request, Response, Status};

use super::{admin, change_id, losing, operation, operator, optional, reader, resettling};
use crate::{
    adoption::{self, Names},
    fleet::{self, Observed, Reachability},
    intent::{Asker, Intent, Planned, Resettling},
    placement::Candidate,
    rename::{self, Asked, Change},
    retirement::{self, GivenUp, KeptCopy},
    store::{ServerRow, TenantState, server_not_found},
    upkeep::{self, Edit},
    warnings,
    world::World,
};

/// Lists and removes servers.
pub struct Servers {
    world: Arc<World>,
    intent: Intent,
}

impl Servers {
    /// Over this world.
    pub fn new(world: Arc<World>, intent: Intent) -> Self {
        Self { world, intent }
    }

    async fn operation(&self, planned: &Planned) -> Result<Option<pb::Operation>, Error> {
        match &planned.operation {
            Some(id) => operation::view(&self.world, id).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn views(&self) -> Result<Vec<pb::Server>, Error> {
        let (store, fleet) = (&self.world.store, &self.world.fleet);
        let (members, tenants, running, observed, ingress) = loop {
            let names = fleet.settled().await;
            let (members, tenants, running) =
                (store.servers().await?, store.tenants().await?, store.unfinished_operations().await?);
            let (observed, ingress) = (fleet.all(), crate::dns::wanted(&self.world).await?.ingress);
            if fleet.holds(names) {
                break (members, tenants, running, observed, ingress);
            }
        };
        let candidates = fleet::candidates(&members, &observed, &tenants, &running);
        let held = running.iter().filter_map(|one| one.subject.tenant().cloned());
        let names = Names::new(tenants.clone(), held, &members);
        let views = members.into_iter().zip(candidates).map(|(row, candidate)| {
            let living = |one: &&crate::store::TenantRow| {
                one.state == TenantState::Active && one.server.as_ref() == Some(&row.name)
            };
            let tenants = tenants.iter().filter(living).count();
            let is_ingress = ingress.as_ref() == Some(&row.name);
            let seen = observed.get(&row.name).cloned().unwrap_or_default();
            let told = fleet::told(&row.name, &observed, &names);
            encode(&row, &seen, &candidate, tenants, is_ingress, told)
        });
        Ok(views.collect())
    }
}

fn asker(id: &str, dry_run: bool, caller: &Principal) -> Result<Asker, Error> {
    Ok(Asker { request_id: change_id(id, dry_run)?, requested_by: caller.to_string(), dry_run })
}

fn encode(
    row: &ServerRow,
    observed: &Observed,
    candidate: &Candidate,
    tenants: usize,
    ingress: bool,
    told: Vec<String>,
) -> pb::Server {
    let snapshot = observed.snapshot.as_ref();
    let (state, mut problems) = match (&observed.reachability, snapshot) {
        (Reachability::Alive, Some(snapshot)) if snapshot.problems.is_empty() && told.is_empty() => {
            (pb::ServerState::Ready, vec![])
        }
        (Reachability::Alive, Some(snapshot)) => {
            (pb::ServerState::Degraded, [snapshot.problems.clone(), told].concat())
        }
        (Reachability::Silent(why), _) => (pb::ServerState::Unreachable, vec![why.clone()]),
        _ => (pb::ServerState::Connecting, vec![]),
    };
    problems.dedup();
    pb::Server {
        name: row.name.to_string(),
        state: state.into(),
        address: row.address.clone(),
        public_address: row.public_address.clone(),
        joined: Some(to_timestamp(row.joined)),
        last_seen: observed.last_seen.map(to_timestamp),
        agent_version: snapshot.map(|one| one.version.clone()).unwrap_or_default(),
        slots_total: snapshot.map_or(0, |one| u32::try_from(one.ports.len()).unwrap_or(u32::MAX)),
        slots_free: candidate.slots_free,
        tenants: u32::try_from(tenants).unwrap_or(u32::MAX),
        memory_total_bytes: snapshot.map_or(0, |one| one.memory_total_bytes),
        memory_free_bytes: snapshot.map_or(0, |one| one.memory_free_bytes),
        disk_total_bytes: snapshot.map_or(0, |one| one.disk_total_bytes),
        disk_free_bytes: snapshot.map_or(0, |one| one.disk_free_bytes),
        images: snapshot.map(|one| one.images.iter().cloned().map(Into::into).collect()).unwrap_or_default(),
        problems,
        ingress,
        admin: snapshot.and_then(|one| one.admin.clone()).map(Into::into),
        events: snapshot.map(|one| one.events.iter().cloned().map(Into::into).collect()).unwrap_or_default(),
        cordoned: row.upkeep.cordoned,
        labels: row.upkeep.labels.encode(),
        version: count(row.upkeep.version),
        identity: row.identity.to_string(),
        protocol_oldest: snapshot.map_or(0, |one| one.protocol.oldest()),
        protocol_newest: snapshot.map_or(0, |one| one.protocol.newest()),
    }
}

fn count(version: i64) -> u64 {
    u64::try_from(version).unwrap_or_default()
}

fn renamed(change: Change) -> pb::RenameServerResponse {
    let names = |tenants: Vec<TenantName>| tenants.into_iter().map(String::from).collect();
    pb::RenameServerResponse {
        changed: !change.already,
        version: count(change.version),
        identity: change.identity,
        tenants: names(change.tenants),
        kept: names(change.kept),
        pinned: names(change.pinned),
        moved_away: names(change.moved_away),
        sent_away: names(change.sent_away),
        ingress: change.ingress,
        former_ingress: change.former_ingress,
    }
}

/// A server that is out of the fleet runs none of its tenants, also those that the fleet never took in: while it answers, they are looked
/// for.
async fn no_strangers(world: &World, server: &ServerName) -> Result<(), Error> {
    let observed = world.fleet.observed(server);
    // Behind what was observed, as its reconciler does it.
    let known = adoption::Names::read(world).await?;
    let strange = observed
        .alive()
        .into_iter()
        .flat_map(|snapshot| snapshot.tenants.iter())
        .filter(|one| adoption::lives(one) || adoption::is_stray(server, one, &known));
    let names: Vec<_> = strange.map(|one| one.tenant.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(", ");
    let message = format!(
        "{names} would be stopped, and out of sight: {server} has tenants that the store does not have there. `featherctl server show {server}` \
         says why; let the fleet take them in and move them away, or remove them in the birth container (`tenant.sh remove NAME`)"
    );
    Err(Error::refused(reason::WRONG_STATE, message).with("server", server))
}

#[tonic::async_trait]
impl ServerService for Servers {
    async fn swap_admin(
        &self,
        request: Request<pb::SwapAdminRequest>,
    ) -> Result<Response<pb::SwapAdminResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let asker = asker(&message.request_id, message.dry_run, &caller)?;
        let (planned, image_digest) = self.intent.swap(&asker, &message.server.parse()?, &message.image).await?;
        let operation = self.operation(&planned).await?;
        Ok(Response::new(pb::SwapAdminResponse { operation, explanation: planned.explanation, image_digest }))
    }

    async fn cordon_server(
        &self,
        request: Request<pb::CordonServerRequest>,
    ) -> Result<Response<pb::CordonServerResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let server: ServerName = message.server.parse()?;
        let edit = Edit::Cordon(message.cordoned);
        let (now, changed) = upkeep::edit(&self.world, &server, &edit, message.dry_run).await?;
        if changed && !message.dry_run {
            tracing::info!(%server, cordoned = now.cordoned, by = %caller, "server cordon changed");
        }
        Ok(Response::new(pb::CordonServerResponse { cordoned: now.cordoned, changed, version: count(now.version) }))
    }

    async fn label_server(
        &self,
        request: Request<pb::LabelServerRequest>,
    ) -> Result<Response<pb::LabelServerResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let server: ServerName = message.server.parse()?;
        let remove: Result<_, Error> = message.remove.iter().map(|name| name.parse()).collect();
        let edit = Edit::Labels { set: Labels::decode(message.set)?, remove: remove? };
        let (now, changed) = upkeep::edit(&self.world, &server, &edit, message.dry_run).await?;
        if changed && !message.dry_run {
            tracing::info!(%server, labels = %now.labels, by = %caller, "server labels changed");
        }
        Ok(Response::new(pb::LabelServerResponse { labels: now.labels.encode(), changed, version: count(now.version) }))
    }

    async fn drain_server(
        &self,
        request: Request<pb::DrainServerRequest>,
    ) -> Result<Response<pb::DrainServerResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let flow = resettling::flow(message.bytes_per_second_max, message.route());
        let wanted = Resettling {
            to: super::given(&message.to)?,
            ..resettling::wanted(message.parallel, message.deadline_seconds, message.partial, flow)?
        };
        let asker = asker(&message.request_id, message.dry_run, &caller)?;
        let (planned, moves) = self.intent.drain(&asker, &message.server.parse()?, &wanted).await?;
        let (operation, moves) = (self.operation(&planned).await?, resettling::foreseen(moves));
        Ok(Response::new(pb::DrainServerResponse { operation, moves }))
    }

    async fn return_server(
        &self,
        request: Request<pb::ReturnServerRequest>,
    ) -> Result<Response<pb::ReturnServerResponse>, Status> {
        let caller = operator(&request)?;
        let message = request.into_inner();
        let flow = resettling::flow(message.bytes_per_second_max, message.route());
        let wanted = resettling::wanted(message.parallel, message.deadline_seconds, message.partial, flow)?;
        let asker = asker(&message.request_id, message.dry_run, &caller)?;
        let (planned, moves) = self.intent.bring_home(&asker, &message.server.parse()?, &wanted).await?;
        let (operation, moves) = (self.operation(&planned).await?, resettling::foreseen(moves));
        Ok(Response::new(pb::ReturnServerResponse { operation, moves }))
    }

    async fn lose_server(
        &self,
        request: Request<pb::LoseServerRequest>,
    ) -> Result<Response<pb::LoseServerResponse>, Status> {
        let caller = if request.get_ref().dry_run { reader(&request)? } else { admin(&request)? };
        let message = request.into_inner();
        let wanted = losing::losing(&message)?;
        let asker = asker(&message.request_id, message.dry_run, &caller)?;
        let (planned, loss) = self.intent.lose(&asker, &message.server.parse()?, &wanted).await?;
        Ok(Response::new(pb::LoseServerResponse {
            operation: self.operation(&planned).await?,
            tenants: losing::fates(loss.fates, self.world.clock.now()),
            last_heard: loss.last_heard.map(to_timestamp),
        }))
    }

    async fn list_servers(
        &self,
        request: Request<pb::ListServersRequest>,
    ) -> Result<Response<pb::ListServersResponse>, Status> {
        reader(&request)?;
        let warnings = u32::try_from(warnings::open(&self.world).await?).unwrap_or(u32::MAX);
        Ok(Response::new(pb::ListServersResponse { servers: self.views().await?, warnings }))
    }

    async fn get_server(
        &self,
        request: Request<pb::GetServerRequest>,
    ) -> Result<Response<pb::GetServerResponse>, Status> {
        reader(&request)?;
        let name: ServerName = request.get_ref().server.parse()?;
        self.world.store.member(&name).await.map_err(Error::from)?;
        let server = self.views().await?.into_iter().find(|one| one.name == name.as_str());
        Ok(Response::new(pb::GetServerResponse { server: Some(server.ok_or_else(|| server_not_found(&name))?) }))
    }

    async fn remove_server(
        &self,
        request: Request<pb::RemoveServerRequest>,
    ) -> Result<Response<pb::RemoveServerResponse>, Status> {
        admin(&request)?;
        let name: ServerName = request.get_ref().server.parse()?;
        no_strangers(&self.world, &name).await?;
        if request.get_ref().dry_run {
            self.world.store.check_server_removable(&name).await.map_err(Error::from)?;
        } else {
            self.world.remove_server(&name).await?;
            tracing::info!(server = %name, "server removed");
        }
        Ok(Response::new(pb::RemoveServerResponse {}))
    }

    async fn retire_server(
        &self,
        request: Request<pb::RetireServerRequest>,
    ) -> Result<Response<pb::RetireServerResponse>, Status> {
        let caller = admin(&request)?;
        let message = request.into_inner();
        let server: ServerName = message.server.parse()?;
        let given_up = GivenUp {
            copies: message.discard_kept_copies,
            names: message.dns_elsewhere,
            waitlist: message.discard_waitlist,
        };
        let copies = retirement::retire(&self.world, &server, given_up, message.dry_run).await?;
        if !message.dry_run {
            tracing::info!(%server, kept_copies = copies.len(), by = %caller, "server retired");
        }
        let encode = |one: KeptCopy| pb::KeptCopy {
            tenant: one.tenant.into(),
            lives_on: optional(one.lives_on),
            keep_until: one.keep_until.map(to_timestamp),
        };
        Ok(Response::new(pb::RetireServerResponse { kept_copies: copies.into_iter().map(encode).collect() }))
    }

    async fn rename_server(
        &self,
        request: Request<pb::RenameServerRequest>,
    ) -> Result<Response<pb::RenameServerResponse>, Status> {
        let caller = if request.get_ref().dry_run { reader(&request)? } else { admin(&request)? };
        let message = request.into_inner();
        let (server, name): (ServerName, ServerName) = (message.server.parse()?, message.name.parse()?);
        // Those of the version before have none.
        let request = Some(message.request_id.as_str()).filter(|id| !id.is_empty()).map(request_id).transpose()?;
        let asked = Asked { by: &caller.to_string(), request };
        let change = rename::rename(&self.world, &server, &name, asked, message.dry_run).await?;
        if !message.dry_run && !change.already {
            tracing::info!(%server, %name, identity = change.identity, by = %caller, "server renamed");
        }
        Ok(Response::new(renamed(change)))
    }

    async fn adopt_server(
        &self,
        request: Request<pb::AdoptServerRequest>,
    ) -> Result<Response<pb::AdoptServerResponse>, Status> {
        let dry_run = request.get_ref().dry_run;
        let caller = if dry_run { reader(&request)? } else { admin(&request)? };
        let server: ServerName = request.get_ref().server.parse()?;
        let chosen = request.get_ref().tenants.iter().map(|name| name.parse()).collect::<Result<_, Error>>()?;
        let world = self.world.clone();
        // Goes on when the caller leaves: a half is finished by itself, but a whole is nicer.
        let adopting = tokio::spawn(async move { adoption::adopt(&world, &server, &chosen, dry_run).await });
        let done = adopting.await.map_err(|panic| Error::bug(format!("the task of a call ended: {panic}")))??;
        if !dry_run {
            tracing::info!(server = request.get_ref().server, by = %caller, "server adopted");
        }
        Ok(Response::new(pb::AdoptServerResponse {
            findings: done.findings.into_iter().map(Into::into).collect(),
            problems: done.problems,
        }))
    }
}
