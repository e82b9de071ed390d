//! `DnsService`.

use std::{net::SocketAddr, sync::Arc};

use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
    model::to_timestamp,
    pb::controller::v1::{self as pb, dns_service_server::DnsService},
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{admin, reader};
use crate::{
    dns::{
        self, Mode,
        converge::Answer,
        keeper::{Ask, Keeper, View, token},
        names::Names,
        plan::Wanted,
        propose::{APEX_RECORDS_MAX, Cap, Conflict, SUB_RECORDS_MAX},
        remarks::{explain, forwarded, remarks},
        zone::ZoneRecord,
    },
    world::World,
};

/// Shows and changes the zone.
pub struct DnsApi {
    world: Arc<World>,
}

impl DnsApi {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Goes on when the caller leaves: a change that has begun is better ended.
    async fn outlive<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let task = tokio::spawn(work);
        task.await.map_err(|panic| Error::bug(format!("the task of a call ended: {panic}")))?
    }

    fn encode_plan(&self, keeper: &Keeper, wanted: &Wanted, view: &View) -> pb::DnsPlan {
        let (proposal, names, now) = (&view.proposal, keeper.names(), self.world.clock.now());
        let now_ms = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
        let records = |records: &[ZoneRecord]| records.iter().map(|one| record(names, one)).collect::<Vec<_>>();
        let changes_max = self.world.settings.dns.cap.of(view.standing.ours.len());
        pb::DnsPlan {
            plan: token(proposal, now_ms),
            expires: Some(to_timestamp(now + self.world.settings.dns.plan_life)),
            zone: keeper.key().to_owned(),
            ttl_seconds: proposal.ttl,
            create: records(&proposal.create),
            remove: records(&proposal.remove),
            kept: count(proposal.kept),
            foreign: count(proposal.foreign),
            conflicts: proposal.conflicts.iter().map(|one| conflict(names, one)).collect(),
            no_slot: records(&proposal.no_slot),
            slots_used: count(proposal.slots.0),
            slots_after: count(proposal.slots.1),
            slots_max: count(SUB_RECORDS_MAX),
            apex_used: count(proposal.apex_slots),
            apex_max: count(APEX_RECORDS_MAX),
            changes: count(proposal.names_changed()),
            changes_max: count(changes_max),
            refusal: dns::keeper::refusal(view).map(|error| error.message).unwrap_or_default(),
            ingress: wanted.ingress.as_ref().map(ToString::to_string).unwrap_or_default(),
            forwarded: forwarded(names, wanted, &proposal.no_slot),
            unaddressable_servers: wanted.unaddressable.iter().map(ToString::to_string).collect(),
            pending: view.pending,
        }
    }

    fn names_of(&self, keeper: &Keeper, wanted: &Wanted, view: &View) -> Vec<pb::DnsName> {
        let (names, known) = (keeper.names(), self.world.dns.known());
        let named = wanted.records.iter().map(|one| (one, names.record(one)));
        named
            .map(|(wanted, record)| {
                let changed = view.ledger.since.get(&record.host);
                let in_zone = view.standing.ours.count(&record) + view.standing.foreign.count(&record) > 0;
                let since = known.converged_ms(names, &record.host);
                pb::DnsName {
                    name: names.full(&record.host),
                    wanted: vec![wanted.address.to_string()],
                    in_zone,
                    changed: changed.and_then(|ms| moment(*ms)).map(to_timestamp),
                    answers: known.answers_for(&record.host).into_iter().map(answer).collect(),
                    converged: since.is_some(),
                    converged_since: since.and_then(moment).map(to_timestamp),
                }
            })
            .collect()
    }
}

fn answer((server, answer): (SocketAddr, Answer)) -> pb::DnsAnswer {
    pb::DnsAnswer {
        server: server.to_string(),
        values: answer.values.into_iter().collect(),
        as_wanted: answer.good_since_ms.is_some(),
        since: answer.good_since_ms.and_then(moment).map(to_timestamp),
        problem: answer.problem.unwrap_or_default(),
    }
}

fn moment(ms: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn record(names: &Names, record: &ZoneRecord) -> pb::DnsRecord {
    pb::DnsRecord {
        name: names.full(&record.host),
        kind: record.kind.clone(),
        value: record.value.clone(),
        extra: record.extra.clone(),
        owned: false,
    }
}

fn conflict(names: &Names, conflict: &Conflict) -> pb::DnsConflict {
    let (kind, wanted, present) = match conflict {
        Conflict::Identical(wanted) => (pb::DnsConflictKind::Identical, Some(wanted), wanted),
        Conflict::Occupied { wanted, by } => (pb::DnsConflictKind::Occupied, Some(wanted), by),
        Conflict::Shared(present) => (pb::DnsConflictKind::Shared, None, present),
    };
    pb::DnsConflict {
        kind: kind.into(),
        wanted: wanted.map(|wanted| record(names, wanted)),
        present: Some(record(names, present)),
        explanation: explain(names, conflict),
    }
}

#[tonic::async_trait]
impl DnsService for DnsApi {
    async fn plan_dns(&self, request: Request<pb::PlanDnsRequest>) -> Result<Response<pb::PlanDnsResponse>, Status> {
        reader(&request)?;
        let keeper = self.world.dns.keeper()?;
        let (wanted, view) = dns::view(&self.world, keeper).await?;
        Ok(Response::new(pb::PlanDnsResponse { plan: Some(self.encode_plan(keeper, &wanted, &view)) }))
    }

    async fn apply_dns(&self, request: Request<pb::ApplyDnsRequest>) -> Result<Response<pb::ApplyDnsResponse>, Status> {
        let caller = admin(&request)?;
        let message = request.into_inner();
        let world = self.world.clone();
        world.dns.keeper()?;
        if message.plan.is_empty() {
            return Err(
                Error::invalid(reason::INVALID_FIELD, "say which plan; `featherctl dns plan` prints its name").into()
            );
        }
        let wrong = |text| Error::invalid(reason::INVALID_FIELD, text);
        let cap: Option<Cap> =
            if message.max_changes.is_empty() { None } else { Some(message.max_changes.parse().map_err(wrong)?) };
        let ask = Ask {
            plan: Some(message.plan),
            cap: cap.unwrap_or(self.world.settings.dns.cap),
            accept_fewer: message.accept_fewer,
        };
        let who = caller.to_string();
        let done = self.outlive(async move { dns::apply(&world, &ask, &who).await }).await?;
        tracing::info!(by = %caller, created = done.created, removed = done.removed, "dns applied");
        // So that what is known of the zone is of now.
        self.world.ring_desired();
        Ok(Response::new(pb::ApplyDnsResponse {
            created: count(done.created),
            removed: count(done.removed),
            owned: count(done.owned),
            snapshot: done.snapshot.unwrap_or_default(),
            noticed: done.noticed.unwrap_or_default(),
        }))
    }

    async fn get_dns_status(
        &self,
        request: Request<pb::GetDnsStatusRequest>,
    ) -> Result<Response<pb::GetDnsStatusResponse>, Status> {
        reader(&request)?;
        let Ok(keeper) = self.world.dns.keeper() else {
            let message = "this controller writes no DNS (--dns none)".to_owned();
            let status = pb::GetDnsStatusResponse { mode: "none".into(), message, ..Default::default() };
            return Ok(Response::new(status));
        };
        let last = self.world.dns.last();
        let mut status = pb::GetDnsStatusResponse {
            mode: if self.world.settings.dns.mode == Mode::Auto { "auto" } else { "manual" }.into(),
            zone: keeper.key().to_owned(),
            looked: last.as_ref().map(|pass| to_timestamp(pass.at)),
            ..Default::default()
        };
        match last.map(|pass| pass.outcome) {
            Some(Ok(message)) => status.message = message,
            Some(Err(error)) => status.problem = error.message,
            None => {}
        }
        match dns::view(&self.world, keeper).await {
            Ok((wanted, view)) => {
                status.names = self.names_of(keeper, &wanted, &view);
                status.warnings = warnings(keeper.names(), &wanted, &view);
                status.warnings.extend(self.world.dns.known().problem().cloned());
                status.plan = Some(self.encode_plan(keeper, &wanted, &view));
            }
            Err(error) => status.warnings.push(error.message),
        }
        status.warnings.extend(self.world.certificates.warning());
        Ok(Response::new(status))
    }

    async fn list_dns_records(
        &self,
        request: Request<pb::ListDnsRecordsRequest>,
    ) -> Result<Response<pb::ListDnsRecordsResponse>, Status> {
        reader(&request)?;
        let keeper = self.world.dns.keeper()?;
        let (_, view) = dns::view(&self.world, keeper).await?;
        let of = |bag: &dns::bag::Bag, owned| {
            bag.listed().iter().map(|one| pb::DnsRecord { owned, ..record(keeper.names(), one) }).collect::<Vec<_>>()
        };
        let standing = &view.standing;
        let mut records = of(&standing.ours.with(&standing.markers), true);
        records.extend(of(&standing.foreign, false));
        records.sort_by(|one, other| (&one.name, &one.kind, &one.value).cmp(&(&other.name, &other.kind, &other.value)));
        Ok(Response::new(pb::ListDnsRecordsResponse { ttl_seconds: view.zone.ttl, records }))
    }

    async fn list_dns_snapshots(
        &self,
        request: Request<pb::ListDnsSnapshotsRequest>,
    ) -> Result<Response<pb::ListDnsSnapshotsResponse>, Status> {
        reader(&request)?;
        let snapshots = self.world.dns.keeper()?.snapshots().await?.into_iter().map(|(row, kept)| pb::DnsSnapshot {
            id: row.id,
            taken: Some(to_timestamp(row.taken)),
            reason: row.reason,
            records: count(kept.zone.records.len()),
            owned: count(kept.ours.len()),
            ttl_seconds: kept.zone.ttl,
        });
        Ok(Response::new(pb::ListDnsSnapshotsResponse { snapshots: snapshots.collect() }))
    }

    async fn restore_dns_snapshot(
        &self,
        request: Request<pb::RestoreDnsSnapshotRequest>,
    ) -> Result<Response<pb::RestoreDnsSnapshotResponse>, Status> {
        let caller = if request.get_ref().dry_run { reader(&request)? } else { admin(&request)? };
        let message = request.into_inner();
        let world = self.world.clone();
        world.dns.keeper()?;
        let (id, dry_run) = (message.id, message.dry_run);
        let restored = self
            .outlive(async move {
                let confirmed = (!message.dry_run).then_some(message.zone_hash.as_str());
                world.dns.keeper()?.restore(message.id, confirmed).await
            })
            .await?;
        if !dry_run {
            tracing::warn!(by = %caller, snapshot = id, "a snapshot of the zone was restored");
            self.world.ring_desired();
        }
        let names = self.world.dns.keeper()?.names();
        let records = |records: &[ZoneRecord]| records.iter().map(|one| record(names, one)).collect();
        Ok(Response::new(pb::RestoreDnsSnapshotResponse {
            create: records(&restored.create),
            remove: records(&restored.remove),
            kept: count(restored.kept),
            ttl_seconds_before: restored.ttl.0,
            ttl_seconds_after: restored.ttl.1,
            zone_hash: restored.zone_hash,
        }))
    }

    async fn adopt_dns_records(
        &self,
        request: Request<pb::AdoptDnsRecordsRequest>,
    ) -> Result<Response<pb::AdoptDnsRecordsResponse>, Status> {
        let caller = if request.get_ref().dry_run { reader(&request)? } else { admin(&request)? };
        let message = request.into_inner();
        let world = self.world.clone();
        let names = self.world.dns.keeper()?.names();
        let hosts: Vec<_> = message.names.iter().map(|name| names.typed(name)).collect();
        let (take_over, dry_run) = (message.take_over, message.dry_run);
        let adopted = self.outlive(async move { world.dns.keeper()?.adopt(&hosts, take_over, dry_run).await }).await?;
        if !dry_run {
            tracing::info!(by = %caller, records = adopted.records.len(), "records of the zone were adopted");
            self.world.ring_desired();
        }
        let records = adopted.records.iter().map(|one| record(names, one)).collect();
        Ok(Response::new(pb::AdoptDnsRecordsResponse { records }))
    }

    async fn set_ingress(
        &self,
        request: Request<pb::SetIngressRequest>,
    ) -> Result<Response<pb::SetIngressResponse>, Status> {
        let dry_run = request.get_ref().dry_run;
        let caller = if dry_run { reader(&request)? } else { admin(&request)? };
        let server: ServerName = request.get_ref().server.parse()?;
        let world = &self.world;
        let row = world.store.member(&server).await.map_err(Error::from)?;
        if world.dns.keeper().is_ok() && row.public_address.parse::<std::net::IpAddr>().is_err() {
            let message = format!(
                "the public address of {server} is {}, which is no IP address: no record can lead to it, and every name without a record of its \
                 own would lead nowhere; let it join anew with --public-address IP, or choose another server",
                row.public_address
            );
            return Err(Error::refused(reason::WRONG_STATE, message).into());
        }
        let before = dns::wanted(world).await?.ingress;
        // Planned before it is said, so that a zone that cannot be read does not leave a half-told change.
        let plan = match world.dns.keeper() {
            Ok(keeper) => {
                let wanted = dns::wanted_with(world, &server).await?;
                let view = keeper.view(&dns::terms(world, keeper.names(), &wanted).await?).await?;
                Some(self.encode_plan(keeper, &wanted, &view))
            }
            Err(_) => None,
        };
        if !dry_run && before.as_ref() != Some(&server) {
            let tenants = world.store.tenants().await.map_err(Error::from)?;
            let left = crate::forwards::dns_knows(world, &tenants).await?.former.is_empty();
            // Together, so that at no moment nobody forwards for those who are led to the former one.
            world.store.set_ingress(&server, before.as_ref(), left).await.map_err(Error::from)?;
            tracing::info!(by = %caller, ingress = %server, "another server is the ingress");
            world.ring_desired();
        }
        let before = before.map(|name| name.to_string()).unwrap_or_default();
        Ok(Response::new(pb::SetIngressResponse { before, plan }))
    }
}

/// What a person should read who asks how DNS stands.
fn warnings(names: &Names, wanted: &Wanted, view: &View) -> Vec<String> {
    let refusal = dns::keeper::refusal(view).map(|error| error.message);
    refusal
        .into_iter()
        .chain(remarks(names, wanted, &view.found(names)).into_iter().map(|remark| remark.message))
        .collect()
}
