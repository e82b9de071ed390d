//! A server's new name: one transaction over everything that goes on naming it.
//!
//! What has ended keeps the name of its time: operations, events, the audit log, where a backup was taken.

use feather_proto::{
    error::{Error, reason},
    ids::{ServerName, TenantName},
};
use sqlx::{AnyConnection, any::AnyRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, column, corrupt,
    events::record,
    from_ms,
    members::{members_changed, require_member, server, set_in, setting_in},
    operations::operation,
    parse,
    tenants::tenant,
    to_ms,
};
use crate::{
    dns::{self, FORMER_INGRESS, INGRESS},
    events,
    placement::Bounds,
    rename::{self, Asked, Change, Facts, Renaming},
    store::events::NewEvent,
    warnings::conditions::is_about_servers,
};

fn renaming(row: &AnyRow) -> Result<Renaming> {
    Ok(Renaming {
        old: parse(&column::<String>(row, "former")?)?,
        new: parse(&column::<String>(row, "present")?)?,
        at: from_ms(column(row, "at_ms")?)?,
    })
}

pub(super) async fn renamings_in(connection: &mut AnyConnection) -> Result<Vec<Renaming>> {
    let rows = sqlx::query("SELECT * FROM renamings ORDER BY sequence").fetch_all(connection).await?;
    rows.iter().map(renaming).collect()
}

/// The same as [`require_member`], for a plan: one whose server has got another name since is to be made anew.
pub(super) async fn require_as_planned(connection: &mut AnyConnection, name: &ServerName) -> Result<()> {
    let Err(missing) = require_member(&mut *connection, name).await else { return Ok(()) };
    let Some((called, _)) = rename::called_since(name, &renamings_in(connection).await?) else { return Err(missing) };
    let message = format!("{name} is called {called} now; look again and repeat the command");
    Err(Error::stale(reason::WORLD_CHANGED, message).with("server", &called).into())
}

/// Everything that a plan is made of.
async fn facts(
    connection: &mut AnyConnection,
    from: &ServerName,
    to: &ServerName,
    now: OffsetDateTime,
) -> Result<Facts> {
    let members = sqlx::query("SELECT * FROM servers").fetch_all(&mut *connection).await?;
    let tenants = sqlx::query("SELECT * FROM tenants").fetch_all(&mut *connection).await?;
    let running = sqlx::query("SELECT * FROM operations WHERE ended_ms IS NULL ORDER BY created_ms, id")
        .fetch_all(&mut *connection)
        .await?;
    // A token that was used may be used again until it expires.
    let invited = sqlx::query("SELECT MAX(expires_ms) AS until FROM join_tokens WHERE server = $1 AND expires_ms > $2")
        .bind(to.as_str())
        .bind(to_ms(now))
        .fetch_one(&mut *connection)
        .await?;
    let away = sqlx::query("SELECT tenant FROM sent_away WHERE home = $1 ORDER BY tenant")
        .bind(from.as_str())
        .fetch_all(&mut *connection)
        .await?;
    Ok(Facts {
        members: members.iter().map(server).collect::<Result<_>>()?,
        tenants: tenants.iter().map(tenant).collect::<Result<_>>()?,
        running: running.iter().map(operation).collect::<Result<_>>()?,
        invited_until: column::<Option<i64>>(&invited, "until")?.map(from_ms).transpose()?,
        ingress: setting_in(connection, INGRESS).await?,
        former_ingresses: dns::listed(&setting_in(connection, FORMER_INGRESS).await?.unwrap_or_default())?,
        sent_away: away.iter().map(|row| parse(&column::<String>(row, "tenant")?)).collect::<Result<_>>()?,
        renamings: renamings_in(connection).await?,
        done: None,
    })
}

/// Which of all renamings a request has made: they are counted from 1.
async fn done_by(connection: &mut AnyConnection, request: Option<Uuid>) -> Result<Option<usize>> {
    let Some(request) = request else { return Ok(None) };
    let row = sqlx::query("SELECT sequence FROM renamings WHERE request_id = $1")
        .bind(request.to_string())
        .fetch_optional(connection)
        .await?;
    row.map(|row| usize::try_from(column::<i64>(&row, "sequence")? - 1).map_err(corrupt)).transpose()
}

impl Store {
    /// What was renamed, in the order in which it was.
    pub async fn renamings(&self) -> Result<Vec<Renaming>> {
        let mut connection = self.pool.acquire().await?;
        renamings_in(&mut connection).await
    }

    /// What would change with a server's new name. Changes nothing.
    ///
    /// # Errors
    /// As for [`rename::plan`].
    pub async fn plan_rename(&self, from: &ServerName, to: &ServerName, now: OffsetDateTime) -> Result<Change> {
        let mut transaction = self.look().await?;
        Ok(rename::plan(from, to, &facts(&mut transaction, from, to, now).await?)?)
    }

    /// Gives a server another name. The look at what stands in the way is in the same transaction. Again changes nothing, and the same request
    /// never does anything again.
    ///
    /// # Errors
    /// As for [`rename::plan`].
    pub async fn rename_server(
        &self,
        from: &ServerName,
        to: &ServerName,
        asked: Asked<'_>,
        now: OffsetDateTime,
    ) -> Result<Change> {
        let mut transaction = self.begin().await?;
        let done = done_by(&mut transaction, asked.request).await?;
        let facts = Facts { done, ..facts(&mut transaction, from, to, now).await? };
        let change = rename::plan(from, to, &facts)?;
        if change.already {
            return Ok(change);
        }
        sqlx::query("UPDATE servers SET name = $2, version = $3 WHERE name = $1")
            .bind(from.as_str())
            .bind(to.as_str())
            .bind(change.version)
            .execute(&mut *transaction)
            .await?;
        members_changed(&mut transaction).await?;
        tenants_in(&mut transaction, from, to, &facts).await?;
        names_in(&mut transaction, from, to).await?;
        if facts.ingress.as_deref() == Some(from.as_str()) {
            set_in(&mut transaction, INGRESS, to.as_str()).await?;
        }
        // One that is gone may have had the new name.
        let mut former = facts.former_ingresses.clone();
        former.remove(to);
        if former.remove(from) {
            former.insert(to.clone());
        }
        set_in(&mut transaction, FORMER_INGRESS, &dns::list(&former)).await?;
        warnings_in(&mut transaction, from, to).await?;
        sqlx::query(
            "INSERT INTO renamings (sequence, former, present, at_ms, request_id) \
             VALUES ((SELECT COALESCE(MAX(sequence), 0) + 1 FROM renamings), $1, $2, $3, $4)",
        )
        .bind(from.as_str())
        .bind(to.as_str())
        .bind(to_ms(now))
        .bind(asked.request.map(|request| request.to_string()))
        .execute(&mut *transaction)
        .await?;
        let message = format!("{from} is called {to} now; its certificate goes on saying {}", change.identity);
        let event =
            NewEvent { who: Some(asked.by.to_owned()), ..events::of_server(to, "server-renamed", message, now) };
        let told = record(&mut transaction, &event).await?;
        self.commit(transaction, "rename server").await?;
        self.told(told);
        Ok(change)
    }
}

/// Rows of tenants: plans that were made on the old name are refused.
async fn tenants_in(connection: &mut AnyConnection, from: &ServerName, to: &ServerName, facts: &Facts) -> Result<()> {
    // Who once left a server that is gone, and had the new name, did not leave this one.
    sqlx::query(
        "UPDATE tenants SET server = CASE WHEN server = $1 THEN $2 ELSE server END, \
         previous_server = CASE WHEN previous_server = $1 THEN $2 WHEN previous_server = $2 THEN NULL ELSE previous_server END, \
         version = version + 1, changed = (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants) \
         WHERE server = $1 OR previous_server = $1 OR previous_server = $2",
    )
    .bind(from.as_str())
    .bind(to.as_str())
    .execute(&mut *connection)
    .await?;
    for row in facts.tenants.iter().filter(|row| row.bounds.pin.as_ref() == Some(from)) {
        let bounds = Bounds { pin: Some(to.clone()), ..row.bounds.clone() };
        sqlx::query(
            "UPDATE tenants SET bounds = $2, version = version + 1, \
             changed = (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants) WHERE name = $1",
        )
        .bind(TenantName::as_str(&row.name))
        .bind(serde_json::to_string(&bounds).map_err(corrupt)?)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Columns that hold nothing but the name. What a server that is gone left under the new one goes first.
async fn names_in(connection: &mut AnyConnection, from: &ServerName, to: &ServerName) -> Result<()> {
    const STATEMENTS: [(&str, &str); 2] = [
        ("DELETE FROM sent_away WHERE home = $1", "UPDATE sent_away SET home = $2 WHERE home = $1"),
        ("DELETE FROM event_sources WHERE server = $1", "UPDATE event_sources SET server = $2 WHERE server = $1"),
    ];
    for (clear, set) in STATEMENTS {
        sqlx::query(clear).bind(to.as_str()).execute(&mut *connection).await?;
        sqlx::query(set).bind(from.as_str()).bind(to.as_str()).execute(&mut *connection).await?;
    }
    // Whoever was invited by the old name, also to take this server's place, would join as somebody else.
    sqlx::query("DELETE FROM join_tokens WHERE server = $1").bind(from.as_str()).execute(connection).await?;
    Ok(())
}

/// What needs a person goes on needing one, since then and with what was noted of it.
async fn warnings_in(connection: &mut AnyConnection, from: &ServerName, to: &ServerName) -> Result<()> {
    let rows = sqlx::query("SELECT id, kind, subject, scope FROM warnings").fetch_all(&mut *connection).await?;
    for row in &rows {
        let text = |name| column::<String>(row, name);
        let (id, subject, scope) = (text("id")?, text("subject")?, text("scope")?);
        let about_servers = is_about_servers(&text("kind")?);
        let Some((new_id, subject, scope)) = rename::warning((&id, &subject, &scope), about_servers, from, to) else {
            continue;
        };
        if new_id != id {
            sqlx::query("DELETE FROM warnings WHERE id = $1").bind(new_id.clone()).execute(&mut *connection).await?;
        }
        sqlx::query("UPDATE warnings SET id = $2, subject = $3, scope = $4 WHERE id = $1")
            .bind(id)
            .bind(new_id)
            .bind(subject)
            .bind(scope)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
