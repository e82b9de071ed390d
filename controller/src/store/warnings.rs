//! Warnings: since when each holds, and who has taken note of it.

use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{Result, Store, column, events::record, from_ms, to_ms};
use crate::{events, warnings::inbox::News};

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

    /// Keeps what a look has changed. Who took note meanwhile is left as it is.
    pub async fn change_warnings(&self, news: &News, now: OffsetDateTime) -> Result<()> {
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
        let raised = news.raised.iter().map(|row| (row, "warning-raised"));
        let mut told = 0;
        for (row, kind) in raised.chain(news.cured.iter().map(|row| (row, "warning-cured"))) {
            told = record(&mut transaction, &events::of_warning(row, kind, None, now)).await?;
        }
        self.commit(transaction, "warnings").await?;
        self.told(told);
        Ok(())
    }

    /// Notes who takes note; none when no such warning is shown.
    pub async fn acknowledge_warning(
        &self,
        id: &str,
        by: &str,
        note: &str,
        now: OffsetDateTime,
    ) -> Result<Option<WarningRow>> {
        let mut transaction = self.begin().await?;
        let changed = sqlx::query(
            "UPDATE warnings SET acked_by = $2, acked_ms = $3, note = $4 WHERE id = $1 AND raised_ms IS NOT NULL RETURNING *",
        )
        .bind(id.to_owned())
        .bind(by.to_owned())
        .bind(to_ms(now))
        .bind(note.to_owned())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = changed.as_ref().map(warning).transpose()? else { return Ok(None) };
        let event = events::of_warning(&row, "warning-acknowledged", Some(by), now);
        let told = record(&mut transaction, &event).await?;
        self.commit(transaction, "warning acknowledged").await?;
        self.told(told);
        Ok(Some(row))
    }
}
