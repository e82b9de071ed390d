//! Warnings: since when each holds, and who has taken note of it.

use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{Result, Store, column, from_ms, to_ms};
use crate::warnings::inbox::News;

/// Who has taken note of a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Role and name.
    pub by: String,
    /// When.
    pub at: OffsetDateTime,
    /// A remark, possibly empty.
    pub note: String,
}

/// A condition as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarningRow {
    /// What a person types.
    pub id: String,
    /// A stable word.
    pub kind: String,
    /// `alice`, `server/nyc`, `dns`, `certificate`.
    pub subject: String,
    /// What has to be seen before it can be called cured.
    pub scope: String,
    /// What is so and what to type next, in a sentence or two.
    pub message: String,
    /// When it was first seen.
    pub since: OffsetDateTime,
    /// When it had lasted so long that it is shown.
    pub raised: Option<OffsetDateTime>,
    /// Whether somebody has taken note of it.
    pub acknowledged: Option<Acknowledged>,
}

fn warning(row: &AnyRow) -> Result<WarningRow> {
    let moment =
        |name| -> Result<Option<OffsetDateTime>> { column::<Option<i64>>(row, name)?.map(from_ms).transpose() };
    let (by, at): (Option<String>, _) = (column(row, "acked_by")?, moment("acked_ms")?);
    let note: Option<String> = column(row, "note")?;
    Ok(WarningRow {
        id: column(row, "id")?,
        kind: column(row, "kind")?,
        subject: column(row, "subject")?,
        scope: column(row, "scope")?,
        message: column(row, "message")?,
        since: from_ms(column(row, "since_ms")?)?,
        raised: moment("raised_ms")?,
        acknowledged: by.zip(at).map(|(by, at)| Acknowledged { by, at, note: note.unwrap_or_default() }),
    })
}

impl Store {
    /// All conditions that held at the last look, the oldest first.
    pub async fn warnings(&self) -> Result<Vec<WarningRow>> {
        let rows = sqlx::query("SELECT * FROM warnings ORDER BY since_ms, id").fetch_all(&self.pool).await?;
        rows.iter().map(warning).collect()
    }

    /// One of them.
    pub async fn warning(&self, id: &str) -> Result<Option<WarningRow>> {
        let row =
            sqlx::query("SELECT * FROM warnings WHERE id = $1").bind(id.to_owned()).fetch_optional(&self.pool).await?;
        row.as_ref().map(warning).transpose()
    }

    /// Keeps what a look has changed. Who took note meanwhile is left as it is.
    pub async fn change_warnings(&self, news: &News, _now: OffsetDateTime) -> Result<()> {
        let mut transaction = self.begin().await?;
        for row in news.cured.iter().chain(&news.passed) {
            sqlx::query("DELETE FROM warnings WHERE id = $1").bind(row.id.clone()).execute(&mut *transaction).await?;
        }
        for row in &news.put {
            sqlx::query(
                "INSERT INTO warnings (id, kind, subject, scope, message, since_ms, raised_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) \
                 ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, subject = excluded.subject, scope = excluded.scope, \
                 message = excluded.message, raised_ms = excluded.raised_ms",
            )
            .bind(row.id.clone())
            .bind(row.kind.clone())
            .bind(row.subject.clone())
            .bind(row.scope.clone())
            .bind(row.message.clone())
            .bind(to_ms(row.since))
            .bind(row.raised.map(to_ms))
            .execute(&mut *transaction)
            .await?;
        }
        self.commit(transaction, "warnings").await
    }

    /// Notes who takes note; false when no such warning is shown.
    pub async fn acknowledge_warning(&self, id: &str, by: &str, note: &str, now: OffsetDateTime) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let changed = sqlx::query(
            "UPDATE warnings SET acked_by = $2, acked_ms = $3, note = $4 WHERE id = $1 AND raised_ms IS NOT NULL",
        )
        .bind(id.to_owned())
        .bind(by.to_owned())
        .bind(to_ms(now))
        .bind(note.to_owned())
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "warning acknowledged").await?;
        Ok(changed.rows_affected() == 1)
    }
}
