//! What is known of backups, and whose are made by themselves.
//!
//! The repository is the truth; rows here are an index of what this controller made or found there.

use std::{collections::BTreeMap, time::Duration};

use feather_proto::ids::{ServerName, TenantName};
use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{Result, Store, column, from_ms, parse, to_ms};
use crate::backups::repository::Description;

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRow {
    /// Unique in its repository.
    pub id: String,
    /// Whose.
    pub tenant: TenantName,
    /// Where it is.
    pub repository: String,
    /// Where it was read.
    pub server: ServerName,
    /// When reading began.
    pub taken: OffsetDateTime,
    /// The tenant ran meanwhile.
    pub live: bool,
    /// Of the archive.
    pub bytes: u64,
    /// Of them: not there before.
    pub new_bytes: u64,
    /// It may go from then on.
    pub keep_until: Option<OffsetDateTime>,
    /// When it was last read back and in order.
    pub verified: Option<OffsetDateTime>,
    /// What the last reading back found; empty when it was in order.
    pub damage: String,
}

impl BackupRow {
    /// Of one that lies in a repository, and of which nothing else is known.
    pub fn of(description: &Description, repository: &str) -> Result<Self, feather_proto::error::Error> {
        Ok(Self {
            id: description.id.clone(),
            tenant: description.tenant.parse()?,
            repository: repository.to_owned(),
            server: description.server.parse()?,
            taken: description.taken,
            live: description.live,
            bytes: description.bytes,
            new_bytes: description.new_bytes,
            keep_until: description.keep_until,
            verified: None,
            damage: String::new(),
        })
    }
}

/// A tenant that is backed up by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Whose volume.
    pub tenant: TenantName,
    /// Where to.
    pub repository: String,
    /// From the beginning of one to the beginning of the next.
    pub every: Duration,
    /// How long each is kept; `None`: until somebody deletes it.
    pub keep: Option<Duration>,
    /// When it was set.
    pub since: OffsetDateTime,
    /// When the last try ended.
    pub tried: Option<OffsetDateTime>,
    /// Tries in a row that failed.
    pub failures: u32,
    /// Why the last one did; empty when it did not.
    pub problem: String,
}

fn number(row: &AnyRow, name: &'static str) -> Result<u64> {
    Ok(u64::try_from(column::<i64>(row, name)?).unwrap_or(0))
}

fn moment(row: &AnyRow, name: &'static str) -> Result<Option<OffsetDateTime>> {
    column::<Option<i64>>(row, name)?.map(from_ms).transpose()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn backup(row: &AnyRow) -> Result<BackupRow> {
    Ok(BackupRow {
        id: column(row, "id")?,
        tenant: parse(&column::<String>(row, "tenant")?)?,
        repository: column(row, "repository")?,
        server: parse(&column::<String>(row, "server")?)?,
        taken: from_ms(column(row, "taken_ms")?)?,
        live: column::<i64>(row, "live")? != 0,
        bytes: number(row, "bytes")?,
        new_bytes: number(row, "new_bytes")?,
        keep_until: moment(row, "keep_until_ms")?,
        verified: moment(row, "verified_ms")?,
        damage: column(row, "damage")?,
    })
}

fn schedule(row: &AnyRow) -> Result<Schedule> {
    Ok(Schedule {
        tenant: parse(&column::<String>(row, "tenant")?)?,
        repository: column(row, "repository")?,
        every: Duration::from_secs(number(row, "every_s")?),
        keep: column::<Option<i64>>(row, "keep_s")?.map(|keep| Duration::from_secs(u64::try_from(keep).unwrap_or(0))),
        since: from_ms(column(row, "since_ms")?)?,
        tried: moment(row, "tried_ms")?,
        failures: u32::try_from(column::<i64>(row, "failures")?).unwrap_or(0),
        problem: column(row, "problem")?,
    })
}

impl Store {
    /// All that are known of, or one tenant's; the oldest first.
    pub async fn backups(&self, tenant: Option<&TenantName>) -> Result<Vec<BackupRow>> {
        let rows = sqlx::query("SELECT * FROM backups WHERE $1 = '' OR tenant = $1 ORDER BY taken_ms, id")
            .bind(tenant.map_or_else(String::new, ToString::to_string))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(backup).collect()
    }

    /// When what each tenant has in its newest verified backup was read.
    pub async fn verified_backups(&self) -> Result<BTreeMap<TenantName, OffsetDateTime>> {
        let rows = sqlx::query(
            "SELECT tenant, MAX(taken_ms) AS taken_ms FROM backups WHERE verified_ms IS NOT NULL GROUP BY tenant",
        )
        .fetch_all(&self.pool)
        .await?;
        let entry = |row: &AnyRow| Ok((parse(&column::<String>(row, "tenant")?)?, from_ms(column(row, "taken_ms")?)?));
        rows.iter().map(entry).collect()
    }

    /// Where backups are.
    pub async fn repositories(&self) -> Result<Vec<String>> {
        let rows =
            sqlx::query("SELECT DISTINCT repository FROM backups ORDER BY repository").fetch_all(&self.pool).await?;
        rows.iter().map(|row| column(row, "repository")).collect()
    }

    /// Keeps what is known of one, in the place of what was known before.
    pub async fn put_backup(&self, row: &BackupRow) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO backups (repository, id, tenant, server, taken_ms, live, bytes, new_bytes, keep_until_ms, verified_ms, damage) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (repository, id) DO UPDATE SET \
             keep_until_ms = excluded.keep_until_ms, verified_ms = excluded.verified_ms, damage = excluded.damage",
        )
        .bind(row.repository.clone())
        .bind(row.id.clone())
        .bind(row.tenant.to_string())
        .bind(row.server.to_string())
        .bind(to_ms(row.taken))
        .bind(i64::from(row.live))
        .bind(signed(row.bytes))
        .bind(signed(row.new_bytes))
        .bind(row.keep_until.map(to_ms))
        .bind(row.verified.map(to_ms))
        .bind(row.damage.clone())
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "backup").await
    }

    /// It is gone.
    pub async fn forget_backup(&self, repository: &str, id: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM backups WHERE repository = $1 AND id = $2")
            .bind(repository.to_owned())
            .bind(id.to_owned())
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "backup forgotten").await
    }

    /// All schedules, by tenant.
    pub async fn backup_schedules(&self) -> Result<Vec<Schedule>> {
        let rows = sqlx::query("SELECT * FROM backup_schedules ORDER BY tenant").fetch_all(&self.pool).await?;
        rows.iter().map(schedule).collect()
    }

    /// Sets a tenant's schedule. What was tried under the former one counts no more.
    pub async fn set_backup_schedule(&self, wanted: &Schedule) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO backup_schedules (tenant, repository, every_s, keep_s, since_ms, failures, problem) \
             VALUES ($1, $2, $3, $4, $5, 0, '') ON CONFLICT (tenant) DO UPDATE SET repository = excluded.repository, \
             every_s = excluded.every_s, keep_s = excluded.keep_s, since_ms = excluded.since_ms, tried_ms = NULL, failures = 0, \
             problem = ''",
        )
        .bind(wanted.tenant.to_string())
        .bind(wanted.repository.clone())
        .bind(signed(wanted.every.as_secs()))
        .bind(wanted.keep.map(|keep| signed(keep.as_secs())))
        .bind(to_ms(wanted.since))
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "backup schedule").await
    }

    /// Ends it; again is no error.
    pub async fn end_backup_schedule(&self, tenant: &TenantName) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM backup_schedules WHERE tenant = $1")
            .bind(tenant.to_string())
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "backup schedule ended").await
    }

    /// Notes how a try went; `problem` is empty when it went well.
    pub async fn tried_backup(&self, tenant: &TenantName, now: OffsetDateTime, problem: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "UPDATE backup_schedules SET tried_ms = $2, problem = $3, failures = CASE WHEN $3 = '' THEN 0 ELSE failures + 1 END \
             WHERE tenant = $1",
        )
        .bind(tenant.to_string())
        .bind(to_ms(now))
        .bind(problem.to_owned())
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "backup tried").await
    }
}
