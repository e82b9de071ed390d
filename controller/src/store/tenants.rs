//! Tenants: where each lives, under which generation, and what its operator wants.

use std::sync::Arc;

use feather_proto::{
    error::{Error as WireError, reason},
    ids::{Generation, OperationId, ServerName, TenantName},
    limits::Limits,
};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{
    Result, Store, column, corrupt,
    events::{NewEvent, record},
    from_ms, from_word,
    members::require_member,
    parse, parse_option, to_ms, word,
};
use crate::placement::Bounds;

/// What the fleet wants of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TenantState {
    /// An add is under way; it has never been here, or was removed.
    Adding,
    /// It lives on its server.
    Active,
    /// Removed; its data is kept on its server, if it has one.
    Removed,
}

/// A tenant's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its name.
    pub name: TenantName,
    /// What the fleet wants.
    pub state: TenantState,
    /// Where its data is.
    pub server: Option<ServerName>,
    /// Where it lived before its last move.
    pub previous_server: Option<ServerName>,
    /// Of the placement in force.
    pub generation: Generation,
    /// Highest ever issued.
    pub generation_issued: Generation,
    /// False: stopped by its operator.
    pub running: bool,
    /// When it was added.
    pub created: OffsetDateTime,
    /// Counts changes; a plan made on another version is refused.
    pub version: i64,
    /// Where placement may put it.
    pub bounds: Bounds,
    /// What it may use.
    pub limits: Limits,
}

/// How a row changes at the end of a step. `None` leaves a column as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantUpdate {
    /// Whose row.
    pub tenant: TenantName,
    /// Generation of the placement from now on; a row with a higher one is not changed (the operation is stale).
    pub generation: Generation,
    /// New state.
    pub state: Option<TenantState>,
    /// New server.
    pub server: Option<ServerName>,
    /// New previous server.
    pub previous_server: Option<ServerName>,
    /// Should it run?
    pub running: Option<bool>,
    /// A drain sends it away from here, and a return shall find it.
    pub sent_away: Option<SentAway>,
    /// Its data is nowhere any more, and nobody looks for it: the server is forgotten.
    pub homeless: bool,
}

/// That a tenant left its server only because that was emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentAway {
    /// Where it lived.
    pub home: ServerName,
    /// The drain.
    pub operation: OperationId,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

impl TenantUpdate {
    /// Changes the generation only.
    pub fn generation(tenant: TenantName, generation: Generation) -> Self {
        Self {
            tenant,
            generation,
            state: None,
            server: None,
            previous_server: None,
            running: None,
            sent_away: None,
            homeless: false,
        }
    }
}

pub(super) fn tenant(row: &AnyRow) -> Result<TenantRow> {
    let generation =
        |name| -> Result<Generation> { Ok(Generation(u64::try_from(column::<i64>(row, name)?).map_err(corrupt)?)) };
    Ok(TenantRow {
        name: parse(&column::<String>(row, "name")?)?,
        state: from_word(&column::<String>(row, "state")?)?,
        server: parse_option(column(row, "server")?)?,
        previous_server: parse_option(column(row, "previous_server")?)?,
        generation: generation("generation")?,
        generation_issued: generation("generation_issued")?,
        running: column::<i64>(row, "running")? != 0,
        created: from_ms(column(row, "created_ms")?)?,
        version: column(row, "version")?,
        bounds: serde_json::from_str(&column::<String>(row, "bounds")?).map_err(corrupt)?,
        limits: serde_json::from_str(&column::<String>(row, "limits")?).map_err(corrupt)?,
    })
}

pub(super) fn generation_column(generation: Generation) -> Result<i64> {
    i64::try_from(generation.0).map_err(corrupt)
}

pub(super) async fn update(connection: &mut sqlx::AnyConnection, change: &TenantUpdate) -> Result<()> {
    let changed = sqlx::query(
        "UPDATE tenants SET generation = $2, state = COALESCE($3, state), server = CASE WHEN $7 = 1 THEN NULL ELSE COALESCE($4, server) END, \
         previous_server = COALESCE($5, previous_server), running = COALESCE($6, running), version = version + 1, \
         changed = (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants) \
         WHERE name = $1 AND generation <= $2 AND generation_issued >= $2",
    )
    .bind(change.tenant.as_str())
    .bind(generation_column(change.generation)?)
    .bind(change.state.as_ref().map(word).transpose()?)
    .bind(change.server.as_ref().map(|server| server.as_str().to_owned()))
    .bind(change.previous_server.as_ref().map(|server| server.as_str().to_owned()))
    .bind(change.running.map(i64::from))
    .bind(i64::from(change.homeless))
    .execute(&mut *connection)
    .await?;
    if changed.rows_affected() == 1 {
        return note_way(connection, change).await;
    }
    Err(WireError::stale(
        reason::STALE_GENERATION,
        format!("{} was placed anew under a higher generation than {}", change.tenant, change.generation),
    )
    .into())
}

/// Keeps who is away from home: who is sent away, who has come home, who is no more.
async fn note_way(connection: &mut sqlx::AnyConnection, change: &TenantUpdate) -> Result<()> {
    if change.state == Some(TenantState::Removed) {
        sqlx::query("DELETE FROM sent_away WHERE tenant = $1")
            .bind(change.tenant.as_str())
            .execute(&mut *connection)
            .await?;
    }
    if let Some(server) = &change.server {
        // Whoever is home again has left the places of refuge on the way for good.
        sqlx::query(
            "DELETE FROM sent_away WHERE tenant = $1 AND away_ms >= \
             (SELECT first.away_ms FROM sent_away AS first WHERE first.tenant = $1 AND first.home = $2)",
        )
        .bind(change.tenant.as_str())
        .bind(server.as_str())
        .execute(&mut *connection)
        .await?;
    }
    if let Some(away) = &change.sent_away {
        sqlx::query(
            "INSERT INTO sent_away (tenant, home, operation, away_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, home) \
             DO UPDATE SET operation = excluded.operation, away_ms = excluded.away_ms",
        )
        .bind(change.tenant.as_str())
        .bind(away.home.as_str())
        .bind(away.operation.as_str())
        .bind(away.at_ms)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// A tenant that lives on a member and is to become one of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeIn {
    /// Its name.
    pub tenant: TenantName,
    /// Where it lives.
    pub server: ServerName,
    /// Highest that its server has seen.
    pub generation: Generation,
    /// False: stopped by its operator.
    pub running: bool,
    /// When it was added there.
    pub created: OffsetDateTime,
    /// What is told of it.
    pub event: NewEvent,
}

impl Store {
    /// Gives a name to a tenant that lives on a member, if nobody has it or ever had it with a home. True when it was given now.
    /// Every later generation is higher than what the server has seen. What was said of somebody who never came to be does not bind it.
    pub async fn take_in(&self, new: &TakeIn) -> Result<bool> {
        let mut transaction = self.begin().await?;
        require_member(&mut transaction, &new.server).await?;
        let held = sqlx::query("SELECT operation FROM operation_holds WHERE subject = $1")
            .bind(new.tenant.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        if held.is_some() {
            return Ok(false);
        }
        let taken = sqlx::query(
            "INSERT INTO tenants (name, state, server, generation, generation_issued, running, created_ms, version, changed) \
             VALUES ($1, $2, $3, $4, $4, $5, $6, 1, (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants)) ON CONFLICT (name) DO UPDATE SET state = excluded.state, \
             server = excluded.server, running = excluded.running, created_ms = excluded.created_ms, limits = '{}', bounds = '{}', \
             generation = CASE WHEN tenants.generation < excluded.generation THEN excluded.generation ELSE tenants.generation END, \
             generation_issued = CASE WHEN tenants.generation_issued < excluded.generation_issued \
             THEN excluded.generation_issued ELSE tenants.generation_issued END, version = tenants.version + 1, changed = excluded.changed \
             WHERE tenants.server IS NULL AND tenants.state = $7",
        )
        .bind(new.tenant.as_str())
        .bind(word(&TenantState::Active)?)
        .bind(new.server.as_str())
        .bind(generation_column(new.generation)?)
        .bind(i64::from(new.running))
        .bind(to_ms(new.created))
        .bind(word(&TenantState::Removed)?)
        .execute(&mut *transaction)
        .await?;
        if taken.rows_affected() != 1 {
            return Ok(false);
        }
        let event = record(&mut transaction, &new.event).await?;
        self.commit(transaction, "take in").await?;
        self.told(event);
        Ok(true)
    }

    /// Writes where placement may put a tenant, if its row is still at this version.
    pub async fn set_bounds(&self, name: &TenantName, version: i64, bounds: &Bounds) -> Result<()> {
        let mut transaction = self.begin().await?;
        if let Some(pin) = &bounds.pin {
            require_member(&mut transaction, pin).await?;
        }
        let changed = sqlx::query(
            "UPDATE tenants SET bounds = $3, version = version + 1, \
             changed = (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants) WHERE name = $1 AND version = $2",
        )
        .bind(name.as_str())
        .bind(version)
        .bind(serde_json::to_string(bounds).map_err(corrupt)?)
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() != 1 {
            return Err(world_changed(name).into());
        }
        self.commit(transaction, "bounds").await
    }

    /// Writes what a tenant may use, if its row is still at this version.
    pub async fn set_limits(&self, name: &TenantName, version: i64, limits: &Limits) -> Result<()> {
        let mut transaction = self.begin().await?;
        let changed = sqlx::query(
            "UPDATE tenants SET limits = $3, version = version + 1, \
             changed = (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants) WHERE name = $1 AND version = $2",
        )
        .bind(name.as_str())
        .bind(version)
        .bind(serde_json::to_string(limits).map_err(corrupt)?)
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() != 1 {
            return Err(world_changed(name).into());
        }
        self.commit(transaction, "limits").await
    }

    /// Tenants of whose limits somebody has said something, in the order of their names, removed ones included.
    pub async fn limited_tenants(&self) -> Result<Vec<TenantRow>> {
        let rows =
            sqlx::query("SELECT * FROM tenants WHERE limits <> '{}' ORDER BY name").fetch_all(&self.pool).await?;
        rows.iter().map(tenant).collect()
    }

    /// Who was sent away from a server by a drain and has not been there since, in the order of names.
    pub async fn sent_away(&self, home: &ServerName) -> Result<Vec<TenantName>> {
        let rows = sqlx::query("SELECT tenant FROM sent_away WHERE home = $1 ORDER BY tenant")
            .bind(home.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| parse(&column::<String>(row, "tenant")?)).collect()
    }

    /// All tenants in the order of their names, removed ones included.
    pub async fn tenants(&self) -> Result<Vec<TenantRow>> {
        Ok(self.all_tenants().await?.to_vec())
    }

    /// The same without a copy. Only what has changed since the last time is read.
    pub async fn all_tenants(&self) -> Result<Arc<Vec<TenantRow>>> {
        self.mirror.tenants(&self.pool).await
    }

    /// One tenant.
    pub async fn tenant(&self, name: &TenantName) -> Result<Option<TenantRow>> {
        let row =
            sqlx::query("SELECT * FROM tenants WHERE name = $1").bind(name.as_str()).fetch_optional(&self.pool).await?;
        row.as_ref().map(tenant).transpose()
    }
}

/// The error for a plan that was made on another state of the world.
pub(crate) fn world_changed(name: &TenantName) -> WireError {
    WireError::stale(
        reason::WORLD_CHANGED,
        format!("{name} was changed by someone else meanwhile; look again and repeat the command"),
    )
    .with("tenant", name)
}

/// The error for a tenant that is not there.
pub(crate) fn tenant_not_found(name: &TenantName) -> WireError {
    WireError::not_found(
        reason::TENANT_NOT_FOUND,
        format!("there is no tenant {name}; `featherctl tenant list --all` shows them, also removed ones"),
    )
    .with("tenant", name)
}
