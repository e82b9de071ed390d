//! Several tenants: some at once, each by an operation of its own, and a table at the end.

use std::sync::{Mutex, MutexGuard, PoisonError};

use feather_proto::{ids::TenantName, pb::controller::v1 as pb};
use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::{Args, PlanView};
use crate::{
    arguments::Context,
    commands::present,
    connect::{Connection, interrupt},
    error::{Failure, Kind},
    follow::follow_quietly,
    output::table,
    units,
    view::{
        migration::MigrationView,
        operation::{OperationView, State},
    },
};

/// One tenant's move.
#[derive(Debug, Clone, Serialize)]
struct Row {
    tenant: String,
    source: Option<String>,
    target: Option<String>,
    /// None when the controller refused to begin it.
    operation: Option<String>,
    state: &'static str,
    outage_ms: Option<u64>,
    /// Why it was not moved.
    why: Option<String>,
    migration: Option<MigrationView>,
}

const WAITING: &str = "not-begun";
const ASKED: &str = "asked";
const REFUSED: &str = "refused";

impl Row {
    fn waiting(tenant: &TenantName) -> Self {
        Self {
            tenant: tenant.to_string(),
            source: None,
            target: None,
            operation: None,
            state: WAITING,
            outage_ms: None,
            why: None,
            migration: None,
        }
    }

    fn take(&mut self, operation: &OperationView) {
        self.source.clone_from(&operation.source);
        self.target.clone_from(&operation.target);
        self.operation = Some(operation.id.clone());
        self.state = operation.state.word();
        self.why.clone_from(&operation.error);
        self.migration.clone_from(&operation.migration);
        self.outage_ms = operation.migration.as_ref().map(|migration| migration.outage_ms);
        // The same as for a single one: a move is done only when both sides are known to be the same.
        if operation.state == State::Succeeded && operation.migration.as_ref().is_some_and(|one| !one.equal) {
            self.why = Some("the controller calls it done, but reports different root digests".into());
        }
    }

    fn moved(&self) -> bool {
        self.state == State::Succeeded.word() && self.why.is_none()
    }

    fn cells(&self) -> [String; 6] {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let outage = self.migration.as_ref().filter(|one| one.outage_ms > 0).map(MigrationView::outage);
        let why = self.why.as_ref().map(|why| why.lines().next().unwrap_or_default().to_owned());
        [
            self.tenant.clone(),
            text(&self.source),
            text(&self.target),
            self.state.to_owned(),
            outage.unwrap_or_default(),
            why.unwrap_or_default(),
        ]
    }
}

pub(super) async fn run(arguments: &Args, context: &Context) -> Result<(), Failure> {
    if !arguments.wait.follows() && !arguments.dry_run {
        return Err(Failure::usage(
            "--no-wait leaves nobody to begin the next move when one has ended",
            "leave --no-wait out, or move the tenants one by one",
        ));
    }
    let connection = context.connect()?;
    let tenants = chosen(arguments, &connection).await?;
    if tenants.is_empty() {
        context.output.show(&Vec::<Row>::new(), String::new)?;
        let server = arguments.all_from.as_ref().map(ToString::to_string).unwrap_or_default();
        context.output.note(&format!("no tenant lives on {server}; nothing to move"));
        return Ok(());
    }
    if arguments.dry_run {
        return dry_run(arguments, context, &connection, &tenants).await;
    }
    let moves = Moves {
        arguments,
        context,
        connection: &connection,
        rows: Mutex::new(tenants.iter().map(Row::waiting).collect()),
    };
    let all = stream::iter(tenants.iter().enumerate())
        .for_each_concurrent(usize::from(arguments.parallel), |(place, tenant)| moves.one(place, tenant));
    tokio::select! {
        () = all => moves.end(),
        () = interrupt() => Err(moves.interrupted()),
    }
}

/// Each named tenant once, or all that live on a server, in the order of their names.
async fn chosen(arguments: &Args, connection: &Connection) -> Result<Vec<TenantName>, Failure> {
    let Some(server) = &arguments.all_from else {
        let mut seen = std::collections::BTreeSet::new();
        return Ok(arguments.tenants.iter().filter(|tenant| seen.insert(*tenant)).cloned().collect());
    };
    let request = pb::GetServerRequest { server: server.to_string() };
    // An unknown name is a mistake, not an empty server.
    connection.call(connection.servers().get_server(request)).await?;
    let request = pb::ListTenantsRequest { include_removed: false, server: server.to_string() };
    let listed = connection.call(connection.tenants().list_tenants(request)).await?.tenants;
    let mut tenants = listed.into_iter().map(|tenant| tenant.name.parse()).collect::<Result<Vec<TenantName>, _>>()?;
    tenants.sort();
    Ok(tenants)
}

struct Moves<'a> {
    arguments: &'a Args,
    context: &'a Context,
    connection: &'a Connection,
    rows: Mutex<Vec<Row>>,
}

impl Moves<'_> {
    async fn one(&self, place: usize, tenant: &TenantName) {
        let moved = self.follow(place, tenant).await;
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(place) else { return };
        if let Err(failure) = moved {
            row.why = Some(failure.message);
            if row.operation.is_none() {
                row.state = if failure.kind == Kind::Unreachable { State::Unknown.word() } else { REFUSED };
            }
        }
        let took = row.migration.as_ref().map(|one| format!(", outage {}", one.outage())).unwrap_or_default();
        let why = row.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let state = if row.moved() { "moved" } else { row.state };
        self.context.output.note(&format!("  {tenant} {state}{}{why}", if row.moved() { took } else { String::new() }));
    }

    async fn follow(&self, place: usize, tenant: &TenantName) -> Result<(), Failure> {
        let (connection, request) = (self.connection, self.arguments.request(tenant));
        if let Some(row) = self.rows().get_mut(place) {
            row.state = ASKED;
        }
        let response = connection.change(async || connection.tenants().migrate_tenant(request.clone()).await).await?;
        let operation = OperationView::from(present(response.operation, "operation")?);
        let way = format!(
            "  {tenant} {} -> {}: {}",
            operation.source.as_deref().unwrap_or("?"),
            operation.target.as_deref().unwrap_or("?"),
            operation.id
        );
        self.note(place, &operation);
        match self.context.output.is_json() {
            true => self.context.output.operation(&operation.id),
            false => self.context.output.note(&way),
        }
        let outcome = follow_quietly(self.context, connection, &operation.id).await?;
        self.note(place, &outcome.operation);
        Ok(())
    }

    fn note(&self, place: usize, operation: &OperationView) {
        if let Some(row) = self.rows().get_mut(place) {
            row.take(operation);
        }
    }

    fn end(&self) -> Result<(), Failure> {
        let rows = self.rows().clone();
        let cells: Vec<_> = rows.iter().map(Row::cells).collect();
        self.context.output.show(&rows, || table(["TENANT", "FROM", "TO", "STATE", "OUTAGE", "WHY"], &cells))?;
        let failed = rows.iter().filter(|row| !row.moved()).count();
        if failed == 0 {
            return Ok(());
        }
        Err(Failure::refused(
            "NOT_ALL_MOVED",
            format!("{failed} of {} were not moved", units::counted(rows.len() as u64, "tenant")),
            "`featherctl operation list` shows the operations; once what kept them is well, type the same command again",
        ))
    }

    fn interrupted(&self) -> Failure {
        let rows = self.rows();
        let names = |pick: &dyn Fn(&&Row) -> bool| {
            rows.iter().filter(pick).map(|row| row.tenant.as_str()).collect::<Vec<_>>().join(", ")
        };
        let running: Vec<&str> =
            [State::Running, State::Undoing, State::Stuck, State::Unknown].map(State::word).to_vec();
        let goes_on = names(&|row| row.operation.is_some() && running.contains(&row.state));
        let asked = names(&|row| row.state == ASKED);
        let not_begun = names(&|row| row.state == WAITING);
        let said = |what: &str, names: &str| match names {
            "" => String::new(),
            names => format!("; {what}: {names}"),
        };
        let message = format!(
            "stopped watching{}{}{}",
            said("these moves go on", &goes_on),
            said("asked for, and perhaps begun", &asked),
            said("not begun", &not_begun)
        );
        Failure::interrupted(
            message,
            "`featherctl operation list` shows them, `featherctl operation cancel ID` undoes one",
        )
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tenant that a dry run could not place.
#[derive(Serialize)]
struct RefusedView {
    dry_run: bool,
    tenant: String,
    why: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Planned {
    Fits(Box<PlanView>),
    Refused(RefusedView),
}

/// Each with those before it reckoned in, so that room is not given away twice.
async fn dry_run(
    arguments: &Args,
    context: &Context,
    connection: &Connection,
    tenants: &[TenantName],
) -> Result<(), Failure> {
    let (mut planned_before, mut all) = (Vec::new(), Vec::new());
    for tenant in tenants {
        let request = pb::MigrateTenantRequest { planned_before: planned_before.clone(), ..arguments.request(tenant) };
        match connection.change(async || connection.tenants().migrate_tenant(request.clone()).await).await {
            Ok(response) => {
                let (target, volume_bytes) = (response.target.clone(), response.volume_bytes);
                planned_before.push(pb::PlannedMove { tenant: tenant.to_string(), target, volume_bytes });
                all.push(Planned::Fits(Box::new(PlanView::new(tenant.as_str(), response))));
            }
            Err(failure) if failure.kind == Kind::Refused => {
                all.push(Planned::Refused(RefusedView {
                    dry_run: true,
                    tenant: tenant.to_string(),
                    why: failure.message,
                }));
            }
            Err(failure) => return Err(failure),
        }
    }
    context.output.show(&all, || overview(&all))?;
    let refused = all.iter().filter(|one| matches!(one, Planned::Refused(_))).count();
    if refused == 0 {
        return Ok(());
    }
    Err(Failure::refused(
        "NOT_ALL_FIT",
        format!("{refused} of {} could not be moved", units::counted(all.len() as u64, "tenant")),
        "`featherctl server list` shows the room that there is",
    ))
}

fn overview(all: &[Planned]) -> String {
    let rows: Vec<[String; 8]> = all
        .iter()
        .map(|one| match one {
            Planned::Refused(refused) => {
                let why = refused.why.lines().next().unwrap_or_default().to_owned();
                let empty = String::new;
                [refused.tenant.clone(), empty(), empty(), empty(), empty(), empty(), empty(), why]
            }
            Planned::Fits(plan) => {
                let predicted = |words: &dyn Fn(&super::PredictionView) -> String| {
                    plan.prediction.as_ref().map(words).unwrap_or_default()
                };
                [
                    plan.tenant.clone(),
                    plan.source.clone(),
                    plan.target.clone(),
                    units::bytes(plan.volume_bytes),
                    predicted(&|one| units::bytes(one.wire_bytes)),
                    predicted(&|one| units::brief(one.duration_ms)),
                    predicted(&|one| units::brief(one.outage_ms)),
                    plan.not_predicted.clone().unwrap_or_default(),
                ]
            }
        })
        .collect();
    let mut text = table(["TENANT", "FROM", "TO", "DATA", "TO SEND", "TIME", "OUTAGE", "WHY"], &rows);
    // The last that goes to a server has all the others reckoned in.
    let mut left = std::collections::BTreeMap::new();
    for one in all {
        if let Planned::Fits(plan) = one
            && let Some(room) = &plan.target_after
        {
            left.insert(&plan.target, room);
        }
    }
    for (server, room) in left {
        text.push_str(&format!("{server} has left then: {}\n", room.told()));
    }
    text
}
