//! All tenants and all members, kept in memory between two readings.
//!
//! Whoever places somebody looks at everybody. Each row says when it was last written (`changed`), higher than all that were
//! written before, because writers take turns; so a reading asks for what is newer than the newest it knows. Nothing is taken
//! from memory without asking the database whether that is still the newest: a controller that waits reads what the leader writes.
//! Rows of tenants are never deleted. Members are few and seldom written: one number counts that, and all of them are read again.
//! Somebody who puts a row right by hand does not say that it changed, so once a minute everything is read again.

use std::{sync::Arc, time::Duration};

use sqlx::AnyPool;
use tokio::{sync::Mutex, time::Instant};

use super::{
    Result, column,
    members::{ServerRow, server},
    tenants::{TenantRow, tenant},
};

/// What nobody said to have changed is believed for so long.
const BELIEVED: Duration = Duration::from_secs(60);

/// What was read.
#[derive(Default)]
pub(super) struct Mirror {
    tenants: Mutex<Known>,
    servers: Mutex<Option<Members>>,
}

struct Members {
    /// Of the table when it was read.
    number: i64,
    read: Instant,
    rows: Arc<Vec<ServerRow>>,
}

#[derive(Default)]
struct Known {
    /// When all of it was read.
    read: Option<Instant>,
    /// `changed` of the newest row; none before the first reading.
    newest: Option<i64>,
    /// In the order of their names.
    rows: Arc<Vec<TenantRow>>,
}

impl Mirror {
    pub(super) async fn tenants(&self, pool: &AnyPool) -> Result<Arc<Vec<TenantRow>>> {
        let mut known = self.tenants.lock().await;
        let row = sqlx::query("SELECT MAX(changed) AS newest FROM tenants").fetch_one(pool).await?;
        let newest: Option<i64> = column(&row, "newest")?;
        // An earlier one: not the database that was read before, somebody put an older one in its place.
        if newest < known.newest || known.read.is_none_or(|read| read.elapsed() >= BELIEVED) {
            *known = Known { read: Some(Instant::now()), ..Known::default() };
        }
        if newest != known.newest {
            let rows = sqlx::query("SELECT * FROM tenants WHERE changed > $1")
                .bind(known.newest.unwrap_or(-1))
                .fetch_all(pool)
                .await?;
            let newer =
                rows.iter().map(|row| Ok((column(row, "changed")?, tenant(row)?))).collect::<Result<Vec<_>>>()?;
            known.take(newer);
        }
        Ok(Arc::clone(&known.rows))
    }

    pub(super) async fn servers(&self, pool: &AnyPool) -> Result<Arc<Vec<ServerRow>>> {
        let mut known = self.servers.lock().await;
        let row = sqlx::query("SELECT number FROM revisions WHERE name = 'servers'").fetch_one(pool).await?;
        let number = column(&row, "number")?;
        if let Some(known) = known.as_ref().filter(|known| known.number == number && known.read.elapsed() < BELIEVED) {
            return Ok(Arc::clone(&known.rows));
        }
        let read = Instant::now();
        let rows = sqlx::query("SELECT * FROM servers").fetch_all(pool).await?;
        let mut rows = rows.iter().map(server).collect::<Result<Vec<_>>>()?;
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        let rows = Arc::new(rows);
        // Written in between: the number is the older one, and they are read once more the next time.
        *known = Some(Members { number, read, rows: Arc::clone(&rows) });
        Ok(rows)
    }
}

impl Known {
    fn take(&mut self, newer: Vec<(i64, TenantRow)>) {
        self.newest = newer.iter().map(|(changed, _)| *changed).max().max(self.newest);
        let rows = Arc::make_mut(&mut self.rows);
        if rows.is_empty() {
            rows.extend(newer.into_iter().map(|(_, row)| row));
            // By bytes: a database may sort by a language.
            rows.sort_by(|one, other| one.name.cmp(&other.name));
            return;
        }
        for (_, row) in newer {
            match rows.binary_search_by(|one| one.name.cmp(&row.name)) {
                Ok(at) => rows[at] = row,
                Err(at) => rows.insert(at, row),
            }
        }
    }
}
