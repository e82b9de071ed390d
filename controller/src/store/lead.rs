//! Which controller leads: a lease on the turns, with a number that every later write of its holder is checked against.
//!
//! Times are the database's own, so that clocks of controllers need not agree.

use std::time::Duration;

use feather_proto::epoch::Epoch;

use super::{Result, Store, column};

/// What came of standing for the lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stood {
    /// It leads, under this number.
    Leads(i64),
    /// Somebody else does.
    Follows {
        /// Where that one is reached.
        leader: String,
        /// Until its lease ends, if it is not renewed.
        left: Duration,
    },
}

impl Store {
    /// The lead that this handle and its clones write under, for calls that say so.
    pub fn epoch(&self) -> Epoch {
        self.epoch.clone()
    }

    /// Does this store take several controllers, of which one leads?
    pub fn is_shared(&self) -> bool {
        !self.embedded
    }

    /// Milliseconds since 1970, by the database's clock. The one expression that the two databases do not share.
    fn clock(&self) -> &'static str {
        match self.embedded {
            true => "CAST((julianday('now') - 2440587.5) * 86400000 AS BIGINT)",
            false => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// The number of the next lead.
    fn next(&self) -> String {
        let clock = self.clock();
        format!("CASE WHEN {clock} / 1000 > epoch THEN {clock} / 1000 ELSE epoch + 1 END")
    }

    /// Takes the lead of a store that is this process's alone; whoever had it before has it no more. Returns its number.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn lead_alone(&self) -> Result<i64> {
        let sql = format!(
            "UPDATE turns SET taken = taken + 1, epoch = {}, holder = '', address = '', expires_ms = 0 WHERE name = 'write' RETURNING epoch",
            self.next()
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&self.pool).await?;
        let epoch = column(&row, "epoch")?;
        self.epoch.set(epoch);
        Ok(epoch)
    }

    /// Takes the lead if nobody has it: from then on this handle and its clones write under the new number, and only as long as it is the
    /// newest. A holder that did not hear of its success finds it by standing again, under a higher number.
    ///
    /// `holder` names one process and is never used by another one. Numbers are seconds since 1970 by the database's clock, unless that
    /// would not be more than the last one: so the lead of a store that was brought back from a backup is above all that agents met before
    /// they lost it, too.
    pub async fn stand(&self, holder: &str, address: &str, life: Duration) -> Result<Stood> {
        let life_ms = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
        let (clock, next) = (self.clock(), self.next());
        let sql = format!(
            "UPDATE turns SET taken = taken + 1, epoch = {next}, holder = $1, address = $2, expires_ms = {clock} + $3 \
             WHERE name = 'write' AND (holder = $1 OR expires_ms <= {clock}) RETURNING epoch"
        );
        let won = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(holder.to_owned())
            .bind(address.to_owned())
            .bind(life_ms)
            .fetch_optional(&self.pool)
            .await?;
        if let Some(row) = won {
            let epoch = column(&row, "epoch")?;
            self.epoch.set(epoch);
            return Ok(Stood::Leads(epoch));
        }
        let sql = format!("SELECT address, expires_ms - {clock} AS left_ms FROM turns WHERE name = 'write'");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&self.pool).await?;
        let left = u64::try_from(column::<i64>(&row, "left_ms")?).unwrap_or_default();
        Ok(Stood::Follows { leader: column(&row, "address")?, left: Duration::from_millis(left) })
    }

    /// Makes the lead last `life` from now; false when somebody else has it, or it was given back. Idempotent.
    pub async fn go_on_leading(&self, epoch: i64, life: Duration) -> Result<bool> {
        let sql = format!(
            "UPDATE turns SET taken = taken + 1, expires_ms = {} + $2 WHERE name = 'write' AND epoch = $1 AND expires_ms <> 0",
            self.clock()
        );
        let renewed = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(epoch)
            .bind(i64::try_from(life.as_millis()).unwrap_or(i64::MAX))
            .execute(&self.pool)
            .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Gives the lead back, so that the next one need not wait. One that is held no more is left alone.
    pub async fn stop_leading(&self, epoch: i64) -> Result<()> {
        sqlx::query("UPDATE turns SET taken = taken + 1, expires_ms = 0 WHERE name = 'write' AND epoch = $1")
            .bind(epoch)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
