//! What Prometheus reads. Counters grow in this process and begin at zero with it; gauges say how things stand at the moment
//! at which they are read, from the store and from what was observed. Reading them asks no agent and no provider.
//!
//! Labels name servers, kinds, states and methods; never a tenant or a person, of which there may be thousands.

use std::{sync::Arc, time::Duration};

use feather_proto::{ids::ServerName, trace::Meter};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use time::OffsetDateTime;

use crate::{
    dns,
    fleet::{self, Reachability, Standing},
    operations::{Kind, State, migrate::Measured},
    store::{self, OperationRow},
    world::World,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    service: String,
    method: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    service: String,
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    server: String,
}

/// The counters of one controller; cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Counters>);

struct Counters {
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
    operations: Family<OutcomeLabels, Counter>,
    operation_seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    outages: Histogram,
    moved_bytes: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 9))),
            operations: Family::default(),
            operation_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.25, 2.0, 14))),
            outages: Histogram::new(exponential_buckets(0.125, 2.0, 11)),
            moved_bytes: Counter::default(),
        }
    }
}

impl Meter for Metrics {
    fn ended(&self, service: &str, method: &str, code: i32, took: Duration) {
        let (service, method) = (service.to_owned(), method.to_owned());
        let code = format!("{:?}", tonic::Code::from_i32(code));
        self.0
            .call_seconds
            .get_or_create(&MethodLabels { service: service.clone(), method: method.clone() })
            .observe(took.as_secs_f64());
        self.0.calls.get_or_create(&CallLabels { service, method, code }).inc();
    }
}

impl Metrics {
    /// An operation has ended, in this state, at this moment.
    pub(crate) fn operation_ended(&self, row: &OperationRow, state: State, now: OffsetDateTime) {
        let kind = row.kind.name();
        self.0.operations.get_or_create(&OutcomeLabels { kind, outcome: state.name() }).inc();
        let seconds = (now - row.created).as_seconds_f64().max(0.0);
        self.0.operation_seconds.get_or_create(&KindLabels { kind }).observe(seconds);
        let measured = if row.kind == Kind::Migrate { Measured::of(row) } else { None };
        if let Some(measured) = measured {
            self.0.moved_bytes.inc_by(measured.wire_bytes());
            if let Some(outage_ms) = measured.outage_ms {
                self.0.outages.observe(Duration::from_millis(outage_ms).as_secs_f64());
            }
        }
    }

    /// Everything, in Prometheus' text form.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn text(&self, world: &World) -> store::Result<String> {
        let mut registry = Registry::with_prefix("feather");
        self.counters(&mut registry);
        tenants(&mut registry, world).await?;
        servers(&mut registry, world).await?;
        names(&mut registry, world).await;
        certificate(&mut registry, world);
        let mut content = String::new();
        text::encode(&mut content, &registry).map_err(|error| store::Error::Corrupt(error.to_string()))?;
        Ok(content)
    }

    fn counters(&self, registry: &mut Registry) {
        let counters = &self.0;
        registry.register("calls", "gRPC calls that ended, by status code", counters.calls.clone());
        registry.register_with_unit(
            "call_duration",
            "From the arrival of a gRPC call to its last message",
            Unit::Seconds,
            counters.call_seconds.clone(),
        );
        registry.register("operations", "Operations that ended, by kind and outcome", counters.operations.clone());
        registry.register_with_unit(
            "operation_duration",
            "From the beginning of an operation to its end",
            Unit::Seconds,
            counters.operation_seconds.clone(),
        );
        registry.register_with_unit(
            "outage",
            "How long the requests of a tenant waited while it moved, from hold to release",
            Unit::Seconds,
            counters.outages.clone(),
        );
        registry.register_with_unit(
            "moved",
            "Sent between servers by moves that ended",
            Unit::Bytes,
            counters.moved_bytes.clone(),
        );
    }
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Running => "running",
        Standing::Stopped => "stopped",
        Standing::Starting => "starting",
        Standing::Changing => "changing",
        Standing::Unknown => "unknown",
        Standing::Removed => "removed",
        Standing::CrashLoop => "crash-loop",
        Standing::Broken => "broken",
    }
}

const STANDINGS: [Standing; 8] = [
    Standing::Running,
    Standing::Stopped,
    Standing::Starting,
    Standing::Changing,
    Standing::Unknown,
    Standing::Removed,
    Standing::CrashLoop,
    Standing::Broken,
];

async fn tenants(registry: &mut Registry, world: &World) -> store::Result<()> {
    let (rows, unfinished) = (world.store.tenants().await?, world.store.unfinished_operations().await?);
    let (tenants, running) = (Family::<StateLabels, Gauge>::default(), Family::<KindLabels, Gauge>::default());
    // A state in which nobody is has to be told too, or the last number of it stays on the screen.
    for standing in STANDINGS {
        drop(tenants.get_or_create(&StateLabels { state: standing_name(standing) }));
    }
    let stuck = Gauge::<i64>::default();
    for operation in &unfinished {
        running.get_or_create(&KindLabels { kind: operation.kind.name() }).inc();
        if operation.state == State::Stuck {
            stuck.inc();
        }
    }
    let observed = world.fleet.all();
    for row in &rows {
        let busy = unfinished.iter().any(|operation| operation.subject.tenant() == Some(&row.name));
        let seen = row.server.as_ref().and_then(|server| observed.get(server)).cloned();
        let standing = fleet::standing(row, busy, &seen.unwrap_or_default());
        tenants.get_or_create(&StateLabels { state: standing_name(standing) }).inc();
    }
    registry.register("tenants", "Tenants, by what is the matter with them", tenants);
    registry.register("operations_running", "Operations that have not ended, by kind", running);
    registry.register("operations_stuck", "Operations that need a person", stuck);
    Ok(())
}

async fn servers(registry: &mut Registry, world: &World) -> store::Result<()> {
    let members = world.store.servers().await?;
    let (tenants, unfinished) = (world.store.tenants().await?, world.store.unfinished_operations().await?);
    let observed = world.fleet.all();
    let gauge = Family::<ServerLabels, Gauge>::default;
    let (reachable, slots, memory, disk, seen) = (gauge(), gauge(), gauge(), gauge(), gauge());
    for candidate in fleet::candidates(&members, &observed, &tenants, &unfinished) {
        let label = ServerLabels { server: candidate.server.to_string() };
        let set = |family: &Family<ServerLabels, Gauge>, value: u64| {
            family.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&reachable, u64::from(is_alive(&observed, &candidate.server)));
        set(&slots, u64::from(candidate.slots_free));
        set(&memory, candidate.memory_free_bytes);
        set(&disk, candidate.disk_free_bytes);
        if let Some(last) = observed.get(&candidate.server).and_then(|one| one.last_seen) {
            set(&seen, u64::try_from(last.unix_timestamp()).unwrap_or_default());
        }
    }
    registry.register("server_reachable", "1 while the server's agent reports", reachable);
    registry.register("server_slots_free", "Tenants that still fit on the server", slots);
    registry.register_with_unit("server_memory_free", "Memory that is free on the server", Unit::Bytes, memory);
    registry.register_with_unit("server_disk_free", "Disk that is free on the server", Unit::Bytes, disk);
    registry.register("server_last_seen_timestamp_seconds", "When the server's agent last reported", seen);
    Ok(())
}

fn is_alive(observed: &std::collections::BTreeMap<ServerName, fleet::Observed>, server: &ServerName) -> bool {
    observed.get(server).is_some_and(|one| one.reachability == Reachability::Alive)
}

/// What the provider and the name servers were last heard to say.
async fn names(registry: &mut Registry, world: &World) {
    let Ok(keeper) = world.dns.keeper() else { return };
    let (wanted, known) = (dns::wanted(world).await, world.dns.known());
    if let Ok(wanted) = wanted {
        let names = Family::<StateLabels, Gauge>::default();
        for state in ["converged", "pending"] {
            drop(names.get_or_create(&StateLabels { state }));
        }
        for record in &wanted.records {
            let host = keeper.names().record(record).host;
            let converged = known.converged_ms(keeper.names(), &host).is_some();
            names.get_or_create(&StateLabels { state: if converged { "converged" } else { "pending" } }).inc();
        }
        registry.register("dns_names", "Names of the fleet, by whether every name server answers as wanted", names);
    }
    let failed = Gauge::<i64>::default();
    failed.set(i64::from(world.dns.last().is_some_and(|pass| pass.outcome.is_err())));
    registry.register("dns_failing", "1 while the last look at the zone, or change of it, failed", failed);
}

fn certificate(registry: &mut Registry, world: &World) {
    let state = world.certificates.state();
    let Some(held) = state.held else { return };
    let moment = |name: &str, help: &str, at: OffsetDateTime, registry: &mut Registry| {
        let gauge = Gauge::<i64>::default();
        gauge.set(at.unix_timestamp());
        registry.register(name, help, gauge);
    };
    moment(
        "certificate_not_before_timestamp_seconds",
        "Since when the tenants' certificate is valid",
        held.facts.not_before,
        registry,
    );
    moment(
        "certificate_not_after_timestamp_seconds",
        "Until when the tenants' certificate is valid",
        held.facts.not_after,
        registry,
    );
    let failures = Gauge::<i64>::default();
    failures.set(i64::from(state.attempts.failures));
    registry.register("certificate_renewal_failures", "Attempts to renew it that failed one after the other", failures);
}
