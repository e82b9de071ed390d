//! Operations: their rows, their logs, and the hold that keeps a tenant to one at a time.

use feather_proto::{
    error::{Error as WireError, reason},
    ids::{Generation, OperationId, ServerName, TenantName},
    limits::Limits,
};
use serde_json::Value;
use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{
    Result, Store, column, corrupt,
    events::record,
    from_ms, from_word, is_unique_violation, parse, parse_option,
    rename::require_as_planned,
    tenants::{TenantState, TenantUpdate, generation_column, tenant, tenant_not_found, update, world_changed},
    to_ms, word,
};
use crate::{
    events,
    operations::{Event, Kind, State, Subject},
    placement::Bounds,
};

/// What to begin.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// Its id.
    pub id: OperationId,
    /// The operation that it is a part of; it begins only as long as that one runs.
    pub parent: Option<OperationId>,
    /// Chosen by the caller; the same one again finds the same operation.
    pub request_id: uuid::Uuid,
    /// What was asked, to be compared when the request id comes again.
    pub request: Value,
    /// What it changes.
    pub kind: Kind,
    /// What it holds.
    pub subject: Subject,
    /// From where.
    pub source: Option<ServerName>,
    /// To where.
    pub target: Option<ServerName>,
    /// Everything decided beforehand, except the generations, which the store issues.
    pub plan: Value,
    /// Who asked.
    pub requested_by: String,
    /// Version of the tenant's row that the plan was made on; `None` when there was no row.
    pub expected_version: Option<i64>,
    /// State of the tenant's row from now on, if it changes at once.
    pub tenant_state: Option<TenantState>,
    /// Where placement may put the tenant from now on, if that changes.
    pub bounds: Option<Bounds>,
    /// What the tenant may use from now on, if that changes.
    pub limits: Option<Limits>,
    /// A line for the log: why so.
    pub explanation: String,
    /// Highest generation that any server has seen of the tenant; those issued are higher.
    pub floor: Generation,
    /// The trace that it belongs to; [`feather_proto::trace::continues`] reads it.
    pub trace: Option<String>,
    /// Now.
    pub now: OffsetDateTime,
}

/// Outcome of a begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// A new one.
    New(Begun),
    /// The request id was seen before, with the same request.
    Known(OperationId),
}

/// A new operation with its generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Its id.
    pub id: OperationId,
    /// For what it is to achieve.
    pub generation: Generation,
    /// For putting the world back: higher, so that late messages of the attempt are fenced off.
    pub undo_generation: Generation,
}

/// An operation's row.
#[derive(Debug, Clone)]
pub struct OperationRow {
    /// Its id.
    pub id: OperationId,
    /// What it changes.
    pub kind: Kind,
    /// What it holds.
    pub subject: Subject,
    /// From where.
    pub source: Option<ServerName>,
    /// To where.
    pub target: Option<ServerName>,
    /// Where it stands.
    pub state: State,
    /// What was decided, with `generation` and `undo_generation`.
    pub plan: Value,
    /// What the steps found out.
    pub facts: Value,
    /// Who asked.
    pub requested_by: String,
    /// The trace that it belongs to.
    pub trace: Option<String>,
    /// Why it failed or is stuck.
    pub error: Option<WireError>,
    /// The next command to type.
    pub hint: Option<String>,
    /// When it began.
    pub created: OffsetDateTime,
    /// When it ended.
    pub ended: Option<OffsetDateTime>,
    /// The operation that it is a part of.
    pub parent: Option<OperationId>,
}

/// A line of an operation's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// From 0, without gaps.
    pub sequence: i64,
    /// When.
    pub at: OffsetDateTime,
    /// Name of the step.
    pub step: String,
    /// What happened.
    pub event: Event,
    /// A sentence, possibly empty.
    pub message: String,
}

/// What to append to a log, with everything that must become true in the same transaction.
#[derive(Debug, Clone)]
pub struct Append<'a> {
    /// Whose log.
    pub operation: &'a OperationId,
    /// Must be the next one: a second controller that drives the same operation loses here.
    pub sequence: i64,
    /// Name of the step.
    pub step: &'a str,
    /// What happened.
    pub event: Event,
    /// A sentence, possibly empty.
    pub message: &'a str,
    /// State of the operation from now on.
    pub state: State,
    /// New facts.
    pub facts: Option<Value>,
    /// Why it failed or is stuck; `None` clears it.
    pub error: Option<&'a WireError>,
    /// The next command to type; `None` clears it.
    pub hint: Option<&'a str>,
    /// Change of the tenant's row.
    pub tenant: Option<TenantUpdate>,
    /// Set at the end.
    pub end: Option<End>,
    /// Now.
    pub now: OffsetDateTime,
}

/// The end of an operation: the hold is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End;

pub(super) fn operation(row: &AnyRow) -> Result<OperationRow> {
    let json = |name| -> Result<Value> { serde_json::from_str(&column::<String>(row, name)?).map_err(corrupt) };
    let error: Option<String> = column(row, "error")?;
    let ended: Option<i64> = column(row, "ended_ms")?;
    Ok(OperationRow {
        id: parse(&column::<String>(row, "id")?)?,
        kind: from_word(&column::<String>(row, "kind")?)?,
        subject: parse(&column::<String>(row, "subject")?)?,
        source: parse_option(column(row, "source")?)?,
        target: parse_option(column(row, "target")?)?,
        state: from_word(&column::<String>(row, "state")?)?,
        plan: json("plan")?,
        facts: json("facts")?,
        requested_by: column(row, "requested_by")?,
        trace: column(row, "trace")?,
        error: error.map(|text| serde_json::from_str(&text).map_err(corrupt)).transpose()?,
        hint: column(row, "hint")?,
        created: from_ms(column(row, "created_ms")?)?,
        ended: ended.map(from_ms).transpose()?,
        parent: parse_option(column(row, "parent")?)?,
    })
}

fn log_row(row: &AnyRow) -> Result<LogRow> {
    Ok(LogRow {
        sequence: column(row, "sequence")?,
        at: from_ms(column(row, "at_ms")?)?,
        step: column(row, "step")?,
        event: from_word(&column::<String>(row, "event")?)?,
        message: column(row, "message")?,
    })
}

/// The operation that a request id began, if what was asked is the same.
async fn known(
    connection: &mut sqlx::AnyConnection,
    request_id: uuid::Uuid,
    request: &Value,
) -> Result<Option<OperationId>> {
    let row = sqlx::query("SELECT id, request FROM operations WHERE request_id = $1")
        .bind(request_id.to_string())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let asked: Value = serde_json::from_str(&column::<String>(&row, "request")?).map_err(corrupt)?;
    if asked != *request {
        return Err(request_id_reused().into());
    }
    Ok(Some(parse(&column::<String>(&row, "id")?)?))
}

/// The error for a request id that stands for something else already.
pub(crate) fn request_id_reused() -> WireError {
    WireError::invalid(
        reason::REQUEST_ID_REUSED,
        "this request id was used for another request; choose a new one for each change",
    )
}

/// Issues the two generations of an operation, higher than any that was issued or seen, making the tenant's row if there is none.
async fn issue(connection: &mut sqlx::AnyConnection, new: &NewOperation) -> Result<(Generation, Generation)> {
    // Only tenants are placed, and only placements need a fence.
    let Some(tenant_name) = new.subject.tenant() else { return Ok((Generation(0), Generation(0))) };
    let floor = generation_column(new.floor)?;
    let bounds = new.bounds.as_ref().map(serde_json::to_string).transpose().map_err(corrupt)?;
    let limits = new.limits.as_ref().map(serde_json::to_string).transpose().map_err(corrupt)?;
    let row = match new.expected_version {
        Some(version) => {
            sqlx::query(
                "UPDATE tenants SET generation_issued = CASE WHEN generation_issued < $4 THEN $4 ELSE generation_issued END + 2, state = COALESCE($3, state), \
                 bounds = COALESCE($5, bounds), limits = COALESCE($6, limits), version = version + 1, changed = (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants) WHERE name = $1 AND version = $2 RETURNING *",
            )
            .bind(tenant_name.as_str())
            .bind(version)
            .bind(new.tenant_state.as_ref().map(word).transpose()?)
            .bind(floor)
            .bind(bounds)
            .bind(limits)
            .fetch_optional(&mut *connection)
            .await?
        }
        None => {
            sqlx::query(
                "INSERT INTO tenants (name, state, generation, generation_issued, running, created_ms, version, bounds, limits, changed) \
             VALUES ($1, $2, 0, $4 + 2, 1, $3, 1, COALESCE($5, '{}'), COALESCE($6, '{}'), (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants)) ON CONFLICT (name) DO NOTHING RETURNING *",
            )
            .bind(tenant_name.as_str())
            .bind(word(&new.tenant_state.unwrap_or(TenantState::Adding))?)
            .bind(to_ms(new.now))
            .bind(floor)
            .bind(bounds)
            .bind(limits)
            .fetch_optional(&mut *connection)
            .await?
        }
    };
    let row = row.ok_or_else(|| world_changed(tenant_name))?;
    let issued = tenant(&row)?.generation_issued;
    Ok((Generation(issued.0 - 1), issued))
}

/// The error for what an operation holds.
pub(crate) fn held(subject: &Subject, operation: &OperationId) -> WireError {
    let error = WireError::refused(
        reason::OPERATION_RUNNING,
        format!(
            "{} is being changed by {operation}; follow it with `featherctl operation watch {operation}`",
            subject.spoken()
        ),
    );
    let error = error.with("operation", operation);
    match subject {
        Subject::Tenant(tenant) => error.with("tenant", tenant),
        Subject::Server(server) | Subject::Residents(server) => error.with("server", server),
    }
}

/// Somebody else took hold of it between the look and the write.
fn changed_meanwhile(subject: &Subject) -> WireError {
    match subject {
        Subject::Tenant(tenant) => world_changed(tenant),
        Subject::Server(_) | Subject::Residents(_) => {
            WireError::stale(reason::WORLD_CHANGED, format!("{} was changed meanwhile; try again", subject.spoken()))
        }
    }
}

async fn hold(connection: &mut sqlx::AnyConnection, new: &NewOperation) -> Result<()> {
    let present = sqlx::query("SELECT operation FROM operation_holds WHERE subject = $1")
        .bind(new.subject.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(present) = present {
        let running: String = column(&present, "operation")?;
        return Err(held(&new.subject, &parse(&running)?).into());
    }
    let inserted = sqlx::query("INSERT INTO operation_holds (subject, operation) VALUES ($1, $2)")
        .bind(new.subject.to_string())
        .bind(new.id.as_str())
        .execute(connection)
        .await;
    match inserted {
        Err(error) if is_unique_violation(&error) => Err(changed_meanwhile(&new.subject).into()),
        other => Ok(other.map(drop)?),
    }
}

impl Store {
    /// Begins an operation: request id, hold, generations, row and first log line in one transaction.
    pub async fn begin_operation(&self, new: &NewOperation) -> Result<Begin> {
        let mut transaction = self.begin().await?;
        if let Some(id) = known(&mut transaction, new.request_id, &new.request).await? {
            return Ok(Begin::Known(id));
        }
        if let Some(parent) = &new.parent {
            require_running(&mut transaction, parent).await?;
        }
        hold(&mut transaction, new).await?;
        // A server may have been removed since the plan was made; an operation on it could go neither on nor back.
        for server in new.source.iter().chain(&new.target) {
            require_as_planned(&mut transaction, server).await?;
        }
        let (generation, undo_generation) = issue(&mut transaction, new).await?;
        let mut plan = new.plan.clone();
        plan["generation"] = generation.0.into();
        plan["undo_generation"] = undo_generation.0.into();
        sqlx::query(
            "INSERT INTO operations (id, request_id, request, kind, subject, source, target, state, plan, facts, requested_by, \
             created_ms, parent, trace) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '{}', $10, $11, $12, $13)",
        )
        .bind(new.id.as_str())
        .bind(new.request_id.to_string())
        .bind(new.request.to_string())
        .bind(word(&new.kind)?)
        .bind(new.subject.to_string())
        .bind(new.source.as_ref().map(|server| server.as_str().to_owned()))
        .bind(new.target.as_ref().map(|server| server.as_str().to_owned()))
        .bind(word(&State::Running)?)
        .bind(plan.to_string())
        .bind(&new.requested_by)
        .bind(to_ms(new.now))
        .bind(new.parent.as_ref().map(|parent| parent.as_str().to_owned()))
        .bind(new.trace.as_deref())
        .execute(&mut *transaction)
        .await?;
        insert_log(&mut transaction, &new.id, 0, new.now, ("plan", Event::Note, &new.explanation)).await?;
        let event = record(&mut transaction, &events::begun(new)).await?;
        self.commit(transaction, "begin operation").await?;
        self.told(event);
        Ok(Begin::New(Begun { id: new.id.clone(), generation, undo_generation }))
    }

    /// The operation that a request id began, if what was asked is the same. For callers that would otherwise refuse a repeated
    /// request because its first run already changed the world.
    pub async fn known_request(&self, request_id: uuid::Uuid, request: &Value) -> Result<Option<OperationId>> {
        let mut connection = self.pool.acquire().await?;
        known(&mut connection, request_id, request).await
    }

    /// Appends one line and everything that goes with it.
    pub async fn append(&self, append: Append<'_>) -> Result<()> {
        let mut transaction = self.begin().await?;
        let line = (append.step, append.event, append.message);
        insert_log(&mut transaction, append.operation, append.sequence, append.now, line).await?;
        sqlx::query(
            "UPDATE operations SET state = $2, facts = COALESCE($3, facts), error = $4, hint = $5, ended_ms = $6 WHERE id = $1",
        )
        .bind(append.operation.as_str())
        .bind(word(&append.state)?)
        .bind(append.facts.as_ref().map(ToString::to_string))
        .bind(append.error.map(serde_json::to_string).transpose().map_err(corrupt)?)
        .bind(append.hint.map(ToOwned::to_owned))
        .bind(append.end.map(|End| to_ms(append.now)))
        .execute(&mut *transaction)
        .await?;
        if let Some(change) = &append.tenant {
            update(&mut transaction, change).await?;
        }
        if append.end.is_some() {
            sqlx::query("DELETE FROM operation_holds WHERE operation = $1")
                .bind(append.operation.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        let mut told = 0;
        if append.end.is_some() || append.event == Event::Struggling {
            let row = sqlx::query("SELECT * FROM operations WHERE id = $1")
                .bind(append.operation.as_str())
                .fetch_one(&mut *transaction)
                .await?;
            if let Some(event) = events::stands(&operation(&row)?, append.now) {
                told = record(&mut transaction, &event).await?;
            }
        }
        self.commit(transaction, append.event.name()).await?;
        self.told(told);
        Ok(())
    }

    /// One operation.
    pub async fn operation(&self, id: &OperationId) -> Result<OperationRow> {
        let row =
            sqlx::query("SELECT * FROM operations WHERE id = $1").bind(id.as_str()).fetch_optional(&self.pool).await?;
        let row = row.ok_or_else(|| {
            WireError::not_found(
                reason::OPERATION_NOT_FOUND,
                format!("there is no operation {id}; `featherctl operation list` shows the latest"),
            )
        })?;
        operation(&row)
    }

    /// An operation's log, oldest first.
    pub async fn operation_log(&self, id: &OperationId) -> Result<Vec<LogRow>> {
        let rows = sqlx::query("SELECT * FROM operation_log WHERE operation = $1 ORDER BY sequence")
            .bind(id.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(log_row).collect()
    }

    /// Operations, newest first.
    pub async fn operations(&self, of: Option<&TenantName>, limit: u32) -> Result<Vec<OperationRow>> {
        let rows = sqlx::query(
            "SELECT * FROM operations WHERE ($1 = '' OR subject = $1) ORDER BY created_ms DESC, id DESC LIMIT $2",
        )
        .bind(of.map_or("", TenantName::as_str).to_owned())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(operation).collect()
    }

    /// The operations that are parts of this one, in the order in which they began.
    pub async fn children(&self, parent: &OperationId) -> Result<Vec<OperationRow>> {
        let rows = sqlx::query("SELECT * FROM operations WHERE parent = $1 ORDER BY created_ms, id")
            .bind(parent.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(operation).collect()
    }

    /// Moves that were made, the newest first.
    pub async fn moves(&self, limit: u32) -> Result<Vec<OperationRow>> {
        let rows = sqlx::query(
            "SELECT * FROM operations WHERE kind = $1 AND state = $2 ORDER BY created_ms DESC, id DESC LIMIT $3",
        )
        .bind(word(&Kind::Migrate)?)
        .bind(word(&State::Succeeded)?)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(operation).collect()
    }

    /// Operations that have not ended, oldest first.
    pub async fn unfinished_operations(&self) -> Result<Vec<OperationRow>> {
        let rows = sqlx::query("SELECT * FROM operations WHERE ended_ms IS NULL ORDER BY created_ms, id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(operation).collect()
    }

    /// The tenant's row, or the error that says there is none.
    pub async fn require_tenant(&self, name: &TenantName) -> Result<super::TenantRow> {
        Ok(self.tenant(name).await?.ok_or_else(|| tenant_not_found(name))?)
    }
}

/// A part of an operation begins only while that one does its steps: whoever is being cancelled begins nothing any more. Written, not
/// read, so that the two cannot pass each other.
async fn require_running(connection: &mut sqlx::AnyConnection, parent: &OperationId) -> Result<()> {
    let running = sqlx::query("UPDATE operations SET state = state WHERE id = $1 AND state = $2")
        .bind(parent.as_str())
        .bind(word(&State::Running)?)
        .execute(connection)
        .await?;
    if running.rows_affected() == 1 {
        return Ok(());
    }
    Err(WireError::refused(reason::CANCELLED, format!("{parent}, which this is a part of, is not running any more"))
        .into())
}

async fn insert_log(
    connection: &mut sqlx::AnyConnection,
    id: &OperationId,
    sequence: i64,
    at: OffsetDateTime,
    (step, event, message): (&str, Event, &str),
) -> Result<()> {
    let inserted = sqlx::query(
        "INSERT INTO operation_log (operation, sequence, at_ms, step, event, message) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id.as_str())
    .bind(sequence)
    .bind(to_ms(at))
    .bind(step)
    .bind(word(&event)?)
    .bind(message)
    .execute(connection)
    .await;
    match inserted {
        Err(error) if is_unique_violation(&error) => {
            Err(WireError::stale(reason::WORLD_CHANGED, format!("{id} is driven by somebody else")).into())
        }
        other => Ok(other.map(drop)?),
    }
}
