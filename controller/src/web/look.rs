//! From what the services show to what the page shows. At most one look a second, however many browsers there are.

use std::{sync::Arc, time::Duration};

use feather_proto::{error::Error, model::from_timestamp, pb::controller::v1 as pb};
use tokio::{sync::Mutex, time::Instant};

use super::view::{Event, Mood, Move, Operation, Server, State, Tenant, Transfer, View, Warning};
use crate::{
    api::status::StatusApi,
    operations::migrate::Measured,
    store::{OperationRow, TenantState, events::Wanted},
    world::World,
};

/// A look is good for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Moves of the plot.
const MOVES_MAX: u32 = 400;
/// Events that are shown.
const EVENTS_MAX: i64 = 14;

/// Sees what the services of the controller show.
pub type Eyes = StatusApi;

/// The newest look.
pub(super) struct Look {
    world: Arc<World>,
    eyes: Eyes,
    newest: Mutex<Option<(Instant, Arc<View>)>>,
}

impl Look {
    pub(super) fn new(world: Arc<World>, eyes: Eyes) -> Self {
        Self { world, eyes, newest: Mutex::default() }
    }

    /// What was seen within the last second, or is seen now.
    pub(super) async fn newest(&self) -> Result<Arc<View>, Error> {
        let mut newest = self.newest.lock().await;
        if let Some((_, view)) = newest.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(view.clone());
        }
        let view = Arc::new(self.look().await?);
        *newest = Some((Instant::now(), view.clone()));
        Ok(view)
    }

    async fn look(&self) -> Result<View, Error> {
        let (glance, store) = (self.eyes.glance().await?, &self.world.store);
        let mut rows = store.tenants().await?;
        rows.retain(|row| row.state != TenantState::Removed);
        let tenants = self.eyes.tenants(rows).await?;
        let mut moves: Vec<_> = store.moves(MOVES_MAX).await?.iter().filter_map(moved).collect();
        moves.reverse();
        let wanted =
            Wanted { after: store.event_before_newest(&Wanted::default(), EVENTS_MAX).await?, ..Wanted::default() };
        let mut events: Vec<_> = store.events(&wanted, EVENTS_MAX).await?;
        events.reverse();
        let mut servers: Vec<_> = glance.servers.into_iter().map(server).collect();
        servers.sort_by(|one, other| (one.state.mood, &one.name).cmp(&(other.state.mood, &other.name)));
        Ok(View {
            now: self.world.clock.now(),
            version: glance.version,
            servers,
            tenants: tenants.into_iter().map(tenant).collect(),
            operations: glance.operations.into_iter().map(operation).collect(),
            moves,
            warnings: glance.warnings.into_iter().map(warning).collect(),
            acknowledged: glance.acknowledged,
            events: events
                .into_iter()
                .map(|row| Event { at: row.event.at, subject: row.event.subject, message: row.event.message })
                .collect(),
            dns: glance.dns.map(zone),
            certificate: glance.certificate.map(certificate),
        })
    }
}

/// A move of which is known how long requests waited.
fn moved(row: &OperationRow) -> Option<Move> {
    let measured = Measured::of(row)?;
    Some(Move {
        tenant: row.subject.tenant()?.to_string(),
        source: row.source.as_ref()?.to_string(),
        target: row.target.as_ref()?.to_string(),
        at: row.ended?,
        outage_ms: measured.outage_ms?,
        sent: measured.wire_bytes(),
    })
}

/// A time that is set.
macro_rules! at {
    ($stamp:expr) => {
        $stamp.as_ref().and_then(|stamp| from_timestamp(stamp).ok())
    };
}

fn state(mood: Mood, word: &'static str) -> State {
    State { mood, word }
}

fn server(pb: pb::Server) -> Server {
    let stands = match pb.state() {
        pb::ServerState::Ready if pb.cordoned => state(Mood::Idle, "ready"),
        pb::ServerState::Ready => state(Mood::Good, "ready"),
        pb::ServerState::Degraded => state(Mood::Doubtful, "degraded"),
        pb::ServerState::Unreachable => state(Mood::Bad, "unreachable"),
        pb::ServerState::Connecting | pb::ServerState::Unspecified => state(Mood::Busy, "connecting"),
    };
    Server {
        state: stands,
        cordoned: pb.cordoned,
        ingress: pb.ingress,
        labels: pb.labels.into_iter().map(|label| format!("{}={}", label.name, label.value)).collect(),
        slots: (pb.slots_free, pb.slots_total),
        memory: (pb.memory_free_bytes, pb.memory_total_bytes),
        disk: (pb.disk_free_bytes, pb.disk_total_bytes),
        seen: at!(pb.last_seen),
        problems: pb.problems,
        name: pb.name,
    }
}

fn tenant(pb: pb::Tenant) -> Tenant {
    let stands = match pb.state() {
        pb::TenantState::Running => state(Mood::Good, "running"),
        pb::TenantState::Stopped => state(Mood::Idle, "stopped"),
        pb::TenantState::Starting => state(Mood::Busy, "starting"),
        pb::TenantState::Changing => state(Mood::Busy, "changing"),
        pb::TenantState::Removed => state(Mood::Idle, "removed"),
        pb::TenantState::Broken => state(Mood::Bad, "broken"),
        pb::TenantState::CrashLoop => state(Mood::Bad, "crash-loop"),
        pb::TenantState::Lost => state(Mood::Bad, "lost"),
        pb::TenantState::Unknown | pb::TenantState::Unspecified => state(Mood::Doubtful, "unknown"),
    };
    Tenant {
        name: pb.name,
        state: stands,
        server: pb.server,
        url: pb.url,
        created: at!(pb.created),
        restarts: pb.restarts,
        problem: pb.problem,
    }
}

fn operation(pb: pb::OperationUnderWay) -> Operation {
    let (progress, pb) = (pb.progress, pb.operation.unwrap_or_default());
    let stands = match pb.state() {
        pb::OperationState::Stuck => state(Mood::Bad, "stuck"),
        pb::OperationState::Undoing => state(Mood::Doubtful, "undoing"),
        _ => state(Mood::Busy, "running"),
    };
    let kind = match pb.kind() {
        pb::OperationKind::Add => "add",
        pb::OperationKind::Remove => "remove",
        pb::OperationKind::Migrate => "migrate",
        pb::OperationKind::Start => "start",
        pb::OperationKind::Stop => "stop",
        pb::OperationKind::Restart => "restart",
        pb::OperationKind::Swap => "swap",
        pb::OperationKind::Drain => "drain",
        pb::OperationKind::Return => "return",
        pb::OperationKind::Lost => "lost",
        pb::OperationKind::Recover => "recover",
        pb::OperationKind::Unspecified => "change",
    };
    let trouble = [pb.error, pb.hint].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    let about_server = if pb.source.is_empty() { &pb.target } else { &pb.source };
    Operation {
        kind,
        subject: if pb.tenant.is_empty() { about_server.clone() } else { pb.tenant },
        state: stands,
        trouble,
        begun: at!(pb.created),
        transfer: progress.map(transfer),
        id: pb.id,
        source: pb.source,
        target: pb.target,
        step: pb.step,
        by: pb.requested_by,
    }
}

fn transfer(pb: pb::TransferProgress) -> Transfer {
    let doing = match pb.phase() {
        pb::TransferPhase::Preparing => "comparing",
        pb::TransferPhase::Syncing => "bringing to disk",
        pb::TransferPhase::Receiving | pb::TransferPhase::Unspecified => "sending",
    };
    let phase = if pb.round == 0 { format!("{doing}, last pass") } else { format!("{doing}, round {}", pb.round) };
    Transfer { phase, bytes: pb.bytes, total: pb.total_bytes, rate: pb.bytes_per_second }
}

fn warning(pb: pb::Warning) -> Warning {
    Warning { since: at!(pb.since), id: pb.id, message: pb.message }
}

fn zone(pb: pb::DnsGlance) -> (String, bool) {
    if !pb.problem.is_empty() {
        return (format!("{}: {}", pb.zone, pb.problem), false);
    }
    let way = match pb.on_their_way {
        0 => String::new(),
        count => format!("; {count} on the way to name servers"),
    };
    let message = if pb.message.is_empty() { "not looked at yet" } else { &pb.message };
    (format!("{}: {message}{way}", pb.zone), true)
}

fn certificate(pb: pb::CertificateGlance) -> (String, bool) {
    let until = at!(pb.not_after).map_or("none yet".to_owned(), |until| format!("until {}", until.date()));
    let names = pb.names.join(", ");
    if pb.problem.is_empty() {
        (format!("{names}: {until}"), true)
    } else {
        (format!("{names}: {until}; {}", pb.problem), false)
    }
}
