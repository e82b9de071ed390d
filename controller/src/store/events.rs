//! Events: what happened, numbered without gaps in the order in which it became visible.
//!
//! An event is written in the transaction that makes it true. Kept for [`KEPT_FOR`] and at most [`KEPT_MAX`] of them.

use std::collections::BTreeMap;

use feather_proto::{
    error::{Error as WireError, reason},
    ids::{OperationId, ServerName},
};
use sqlx::any::AnyRow;
use time::{Duration, OffsetDateTime};

use super::{Result, Store, column, corrupt, from_ms, parse, parse_option, to_ms};

/// Older ones go.
pub const KEPT_FOR: Duration = Duration::days(90);
/// Beyond so many the oldest go.
pub const KEPT_MAX: i64 = 50_000;
/// The oldest are looked for once in so many events.
const SWEEP: i64 = 64;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When, by the clock of whoever tells of it.
    pub at: OffsetDateTime,
    /// A stable word.
    pub kind: String,
    /// `alice`, `server/nyc`, `dns`, `certificate`.
    pub subject: String,
    /// The server that told of it; none for what the controller did.
    pub server: Option<ServerName>,
    /// A sentence.
    pub message: String,
    /// Which operation.
    pub operation: Option<OperationId>,
    /// Who asked for it: role and name.
    pub who: Option<String>,
}

/// The same with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// The cursor: counts up from 1.
    pub id: i64,
    /// What happened.
    pub event: NewEvent,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Behind this one.
    pub after: i64,
    /// Not from before.
    pub since: Option<OffsetDateTime>,
    /// About this tenant or server (`alice`, `nyc`, `server/nyc`, `dns`); empty for all.
    pub subject: String,
}

/// What was last seen of a server's own events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// It answered.
    pub reachable: bool,
    /// Number and time, in milliseconds since 1970, of those it told of.
    pub taken: Vec<(u64, i64)>,
}

fn event(row: &AnyRow) -> Result<EventRow> {
    let event = NewEvent {
        at: from_ms(column(row, "at_ms")?)?,
        kind: column(row, "kind")?,
        subject: column(row, "subject")?,
        server: parse_option(column(row, "server")?)?,
        message: column(row, "message")?,
        operation: parse_option(column(row, "operation")?)?,
        who: column(row, "who")?,
    };
    Ok(EventRow { id: column(row, "id")?, event })
}

/// Numbers an event and writes it. The last thing of a transaction: whoever writes another one waits for its end.
pub(super) async fn record(connection: &mut sqlx::AnyConnection, event: &NewEvent) -> Result<i64> {
    let row = sqlx::query("UPDATE event_counter SET last = last + 1 WHERE name = 'events' RETURNING last")
        .fetch_one(&mut *connection)
        .await?;
    let id: i64 = column(&row, "last")?;
    sqlx::query(
        "INSERT INTO events (id, at_ms, kind, subject, server, message, operation, who) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id)
    .bind(to_ms(event.at))
    .bind(event.kind.clone())
    .bind(event.subject.clone())
    .bind(event.server.as_ref().map(ToString::to_string))
    .bind(event.message.clone())
    .bind(event.operation.as_ref().map(ToString::to_string))
    .bind(event.who.clone())
    .execute(&mut *connection)
    .await?;
    if id % SWEEP == 0 {
        sqlx::query("DELETE FROM events WHERE id <= $1").bind(id - KEPT_MAX).execute(connection).await?;
    }
    Ok(id)
}

const MATCHES: &str = "id > $1 AND at_ms >= $2 AND ($3 = '' OR subject IN ($3, $4, $6) OR server = $3)";

impl Store {
    /// Writes an event that belongs to no other change.
    pub async fn record(&self, event: &NewEvent) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = record(&mut transaction, event).await?;
        self.commit(transaction, "event").await?;
        self.told(id);
        Ok(())
    }

    /// Wakes whoever follows.
    pub(super) fn told(&self, id: i64) {
        self.news.send_if_modified(|newest| {
            let news = id > *newest;
            *newest = id.max(*newest);
            news
        });
    }

    /// Rings when there are new events of this process; those of others are seen by looking.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<i64> {
        self.news.subscribe()
    }

    /// The oldest that match, at most `limit`.
    ///
    /// # Errors
    /// Refused ([`reason::EVENTS_GONE`]): some behind `after` are not kept any more, or there never was such a number.
    pub async fn events(&self, wanted: &Wanted, limit: i64) -> Result<Vec<EventRow>> {
        let mut transaction = self.look().await?;
        if wanted.after > 0 {
            reachable(&mut transaction, wanted.after).await?;
        }
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(format!("SELECT * FROM events WHERE {MATCHES} ORDER BY id LIMIT $5")))
                .bind(wanted.after)
                .bind(wanted.since.map_or(0, to_ms))
                .bind(wanted.subject.clone())
                .bind(format!("server/{}", wanted.subject))
                .bind(limit)
                .bind(format!("residents/{}", wanted.subject))
                .fetch_all(&mut *transaction)
                .await?;
        rows.iter().map(event).collect()
    }

    /// What `after` has to be to begin with the newest `count` that match.
    pub async fn event_before_newest(&self, wanted: &Wanted, count: i64) -> Result<i64> {
        let sql = format!("SELECT id FROM events WHERE {MATCHES} ORDER BY id DESC LIMIT $5");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(wanted.after)
            .bind(wanted.since.map_or(0, to_ms))
            .bind(wanted.subject.clone())
            .bind(format!("server/{}", wanted.subject))
            .bind(count)
            .bind(format!("residents/{}", wanted.subject))
            .fetch_all(&self.pool)
            .await?;
        let oldest = rows.last().map(|row| column::<i64>(row, "id")).transpose()?;
        Ok(oldest.map_or(wanted.after, |id| id - 1))
    }

    /// Drops events that are too old; how many.
    pub async fn sweep_events(&self, now: OffsetDateTime) -> Result<u64> {
        let mut transaction = self.begin().await?;
        let swept = sqlx::query("DELETE FROM events WHERE at_ms < $1")
            .bind(to_ms(now - KEPT_FOR))
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "events swept").await?;
        Ok(swept.rows_affected())
    }

    /// What was last seen of each server.
    pub async fn event_sources(&self) -> Result<BTreeMap<ServerName, Source>> {
        let rows = sqlx::query("SELECT * FROM event_sources").fetch_all(&self.pool).await?;
        let source = |row: &AnyRow| -> Result<(ServerName, Source)> {
            let taken = serde_json::from_str(&column::<String>(row, "taken")?).map_err(corrupt)?;
            let reachable = column::<i64>(row, "reachable")? != 0;
            Ok((parse(&column::<String>(row, "server")?)?, Source { reachable, taken }))
        };
        rows.iter().map(source).collect()
    }

    /// Takes in what a member told, if nobody has done so since `before` was read.
    pub async fn take_in_events(
        &self,
        server: &ServerName,
        before: Option<&Source>,
        now: &Source,
        events: &[NewEvent],
    ) -> Result<()> {
        let text = |source: &Source| serde_json::to_string(&source.taken).map_err(corrupt);
        let mut transaction = self.begin().await?;
        let (name, reachable) = (server.as_str().to_owned(), i64::from(now.reachable));
        let query = match before {
            None => sqlx::query(
                "INSERT INTO event_sources (server, reachable, taken) SELECT name, $2, $3 FROM servers WHERE name = $1 \
                 ON CONFLICT (server) DO NOTHING",
            )
            .bind(name)
            .bind(reachable)
            .bind(text(now)?),
            Some(before) => sqlx::query(
                "UPDATE event_sources SET reachable = $2, taken = $3 WHERE server = $1 AND reachable = $4 AND taken = $5",
            )
            .bind(name)
            .bind(reachable)
            .bind(text(now)?)
            .bind(i64::from(before.reachable))
            .bind(text(before)?),
        };
        let written = query.execute(&mut *transaction).await?;
        if written.rows_affected() != 1 {
            return Ok(());
        }
        let mut newest = 0;
        for event in events {
            newest = record(&mut transaction, event).await?;
        }
        self.commit(transaction, "events of a server").await?;
        self.told(newest);
        Ok(())
    }
}

/// Is everything behind this number still there?
async fn reachable(connection: &mut sqlx::AnyConnection, after: i64) -> Result<()> {
    let row = sqlx::query("SELECT last FROM event_counter WHERE name = 'events'").fetch_one(&mut *connection).await?;
    let last: i64 = column(&row, "last")?;
    let row = sqlx::query("SELECT id FROM events ORDER BY id LIMIT 1").fetch_optional(connection).await?;
    let oldest = row.as_ref().map(|row| column::<i64>(row, "id")).transpose()?.unwrap_or(last + 1);
    if after > last {
        let message =
            format!("there is no event {after}: the newest is {last}. The store may be an older one than you followed");
        return Err(WireError::refused(reason::EVENTS_GONE, message)
            .with("oldest", oldest)
            .with("newest", last)
            .into());
    }
    if after + 1 < oldest {
        let message = format!(
            "events up to {} are not kept any more ({} days, {KEPT_MAX} events)",
            oldest - 1,
            KEPT_FOR.whole_days()
        );
        return Err(WireError::refused(reason::EVENTS_GONE, message)
            .with("oldest", oldest)
            .with("newest", last)
            .into());
    }
    Ok(())
}
