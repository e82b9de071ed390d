//! DNS: the ledger of each zone, who may change it, what it was before, and what is wanted for a while.
//!
//! Ledgers and snapshots are JSON that `dns` reads; here they are texts with a version.

use feather_proto::error::{Error as WireError, reason};
use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{Result, Store, column, from_ms, to_ms};

/// The right to change a zone, until it expires or somebody else takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Provider and zone.
    pub zone: String,
    /// Who.
    pub holder: String,
    /// Which of all leases ever given.
    pub epoch: i64,
    /// Until when.
    pub expires: OffsetDateTime,
}

/// A ledger as it is kept. Version 0: there is none yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerText {
    /// JSON.
    pub text: String,
    /// Counts changes.
    pub version: i64,
}

/// A zone as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Counts up within the zone.
    pub id: i64,
    /// When it was read.
    pub taken: OffsetDateTime,
    /// Before what.
    pub reason: String,
    /// JSON.
    pub content: String,
}

/// A record that is wanted for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Host of the zone.
    pub host: String,
    /// `txt`.
    pub kind: String,
    /// Its value.
    pub value: String,
    /// It goes by itself then.
    pub until: OffsetDateTime,
}

fn snapshot(row: &AnyRow) -> Result<SnapshotRow> {
    Ok(SnapshotRow {
        id: column(row, "id")?,
        taken: from_ms(column(row, "taken_ms")?)?,
        reason: column(row, "reason")?,
        content: column(row, "content")?,
    })
}

fn lost(zone: &str) -> WireError {
    WireError::stale(
        reason::DNS_LEASE,
        format!("another controller has taken over {zone}; this one changes nothing there any more"),
    )
}

async fn require(connection: &mut sqlx::AnyConnection, lease: &Lease, now: OffsetDateTime) -> Result<()> {
    let held =
        sqlx::query("SELECT epoch FROM dns_leases WHERE zone = $1 AND holder = $2 AND epoch = $3 AND expires_ms > $4")
            .bind(lease.zone.clone())
            .bind(lease.holder.clone())
            .bind(lease.epoch)
            .bind(to_ms(now))
            .fetch_optional(connection)
            .await?;
    held.map(drop).ok_or_else(|| lost(&lease.zone).into())
}

impl Store {
    /// Takes a zone that nobody holds, or goes on with one that this holder has. Refused while somebody else holds it.
    pub async fn lease_dns(
        &self,
        zone: &str,
        holder: &str,
        now: OffsetDateTime,
        life: time::Duration,
    ) -> Result<Lease> {
        let mut transaction = self.begin().await?;
        let expires = now + life;
        let present = sqlx::query("SELECT * FROM dns_leases WHERE zone = $1")
            .bind(zone.to_owned())
            .fetch_optional(&mut *transaction)
            .await?;
        let epoch = match present {
            None => 1,
            Some(row) => {
                let (by, epoch): (String, i64) = (column(&row, "holder")?, column(&row, "epoch")?);
                let until: i64 = column(&row, "expires_ms")?;
                if by != holder && until > to_ms(now) {
                    let seconds = (until - to_ms(now) + 999) / 1000;
                    let message = format!(
                        "another controller is changing {zone}, or was until a moment ago; its right to ends in {seconds} s at the latest"
                    );
                    return Err(WireError::refused(reason::DNS_LEASE, message).into());
                }
                if by == holder && until > to_ms(now) { epoch } else { epoch + 1 }
            }
        };
        sqlx::query(
            "INSERT INTO dns_leases (zone, holder, epoch, expires_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (zone) DO UPDATE SET \
             holder = excluded.holder, epoch = excluded.epoch, expires_ms = excluded.expires_ms",
        )
        .bind(zone.to_owned())
        .bind(holder.to_owned())
        .bind(epoch)
        .bind(to_ms(expires))
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "dns lease").await?;
        Ok(Lease { zone: zone.to_owned(), holder: holder.to_owned(), epoch, expires })
    }

    /// Makes a held lease last longer; [`reason::DNS_LEASE`] when it is held no more.
    pub async fn renew_dns_lease(&self, lease: &Lease, now: OffsetDateTime, life: time::Duration) -> Result<Lease> {
        let mut transaction = self.begin().await?;
        require(&mut transaction, lease, now).await?;
        let expires = now + life;
        sqlx::query("UPDATE dns_leases SET expires_ms = $2 WHERE zone = $1")
            .bind(lease.zone.clone())
            .bind(to_ms(expires))
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "dns lease").await?;
        Ok(Lease { expires, ..lease.clone() })
    }

    /// Gives a lease back. One that is held no more is left alone.
    pub async fn return_dns_lease(&self, lease: &Lease) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE dns_leases SET expires_ms = 0 WHERE zone = $1 AND holder = $2 AND epoch = $3")
            .bind(lease.zone.clone())
            .bind(lease.holder.clone())
            .bind(lease.epoch)
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "dns lease").await
    }

    /// The ledger of a zone.
    pub async fn dns_ledger(&self, zone: &str) -> Result<LedgerText> {
        let row = sqlx::query("SELECT ledger, version FROM dns_ledgers WHERE zone = $1")
            .bind(zone.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(LedgerText::default()) };
        Ok(LedgerText { text: column(&row, "ledger")?, version: column(&row, "version")? })
    }

    /// Writes a ledger, if the lease is held and nobody has written it since it was read; its new version.
    pub async fn write_dns_ledger(&self, lease: &Lease, ledger: &LedgerText, now: OffsetDateTime) -> Result<i64> {
        let mut transaction = self.begin().await?;
        require(&mut transaction, lease, now).await?;
        let written = if ledger.version == 0 {
            sqlx::query(
                "INSERT INTO dns_ledgers (zone, ledger, version) VALUES ($1, $2, 1) ON CONFLICT (zone) DO NOTHING",
            )
            .bind(lease.zone.clone())
            .bind(ledger.text.clone())
            .execute(&mut *transaction)
            .await?
        } else {
            sqlx::query("UPDATE dns_ledgers SET ledger = $2, version = version + 1 WHERE zone = $1 AND version = $3")
                .bind(lease.zone.clone())
                .bind(ledger.text.clone())
                .bind(ledger.version)
                .execute(&mut *transaction)
                .await?
        };
        if written.rows_affected() != 1 {
            return Err(lost(&lease.zone).into());
        }
        self.commit(transaction, "dns ledger").await?;
        Ok(ledger.version + 1)
    }

    /// Forgets everything about a zone that no longer exists.
    pub async fn forget_dns(&self, zone: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        for table in ["dns_ledgers", "dns_leases", "dns_snapshots", "dns_ttls"] {
            sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE zone = $1")))
                .bind(zone.to_owned())
                .execute(&mut *transaction)
                .await?;
        }
        self.commit(transaction, "dns forgotten").await
    }

    /// Keeps a zone as it was read; the oldest go beyond `keep`. Its number.
    pub async fn add_dns_snapshot(
        &self,
        zone: &str,
        taken: OffsetDateTime,
        reason: &str,
        content: &str,
        keep: i64,
    ) -> Result<i64> {
        let mut transaction = self.begin().await?;
        let newest = sqlx::query("SELECT id FROM dns_snapshots WHERE zone = $1 ORDER BY id DESC LIMIT 1")
            .bind(zone.to_owned())
            .fetch_optional(&mut *transaction)
            .await?;
        let id = newest.as_ref().map(|row| column::<i64>(row, "id")).transpose()?.unwrap_or_default() + 1;
        sqlx::query("INSERT INTO dns_snapshots (zone, id, taken_ms, reason, content) VALUES ($1, $2, $3, $4, $5)")
            .bind(zone.to_owned())
            .bind(id)
            .bind(to_ms(taken))
            .bind(reason.to_owned())
            .bind(content.to_owned())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM dns_snapshots WHERE zone = $1 AND id <= $2")
            .bind(zone.to_owned())
            .bind(id - keep)
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "dns snapshot").await?;
        Ok(id)
    }

    /// The newest snapshot of a zone.
    pub async fn newest_dns_snapshot(&self, zone: &str) -> Result<Option<SnapshotRow>> {
        let row = sqlx::query("SELECT * FROM dns_snapshots WHERE zone = $1 ORDER BY id DESC LIMIT 1")
            .bind(zone.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(snapshot).transpose()
    }

    /// Snapshots of a zone, the newest first.
    pub async fn dns_snapshots(&self, zone: &str) -> Result<Vec<SnapshotRow>> {
        let rows = sqlx::query("SELECT * FROM dns_snapshots WHERE zone = $1 ORDER BY id DESC")
            .bind(zone.to_owned())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(snapshot).collect()
    }

    /// Which TTLs a zone was seen with, as JSON; none before the first look.
    pub async fn dns_ttls(&self, zone: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT ttls FROM dns_ttls WHERE zone = $1")
            .bind(zone.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| column(&row, "ttls")).transpose()
    }

    /// Writes which TTLs a zone was seen with.
    pub async fn set_dns_ttls(&self, zone: &str, ttls: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO dns_ttls (zone, ttls) VALUES ($1, $2) ON CONFLICT (zone) DO UPDATE SET ttls = excluded.ttls",
        )
        .bind(zone.to_owned())
        .bind(ttls.to_owned())
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "dns ttls").await
    }

    /// Wants a record until a moment; wanting it again changes only the moment.
    pub async fn add_dns_wish(&self, wish: &Wish) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO dns_wishes (host, kind, value, until_ms) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (host, kind, value) DO UPDATE SET until_ms = excluded.until_ms",
        )
        .bind(wish.host.clone())
        .bind(wish.kind.clone())
        .bind(wish.value.clone())
        .bind(to_ms(wish.until))
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "dns wish").await
    }

    /// Wants a record no more.
    pub async fn remove_dns_wish(&self, host: &str, kind: &str, value: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM dns_wishes WHERE host = $1 AND kind = $2 AND value = $3")
            .bind(host.to_owned())
            .bind(kind.to_owned())
            .bind(value.to_owned())
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "dns wish").await
    }

    /// What is wanted for a while and not over yet.
    pub async fn dns_wishes(&self, now: OffsetDateTime) -> Result<Vec<Wish>> {
        let rows = sqlx::query("SELECT * FROM dns_wishes WHERE until_ms > $1 ORDER BY host, kind, value")
            .bind(to_ms(now))
            .fetch_all(&self.pool)
            .await?;
        let wish = |row: &AnyRow| -> Result<Wish> {
            Ok(Wish {
                host: column(row, "host")?,
                kind: column(row, "kind")?,
                value: column(row, "value")?,
                until: from_ms(column(row, "until_ms")?)?,
            })
        };
        rows.iter().map(wish).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{
        Store,
        tests::{On, on_both},
    };

    on_both!(the_ttls_of_a_zone_are_kept_until_it_is_forgotten);

    async fn the_ttls_of_a_zone_are_kept_until_it_is_forgotten(on: On) {
        let place = on.place().await;
        let store = Store::open(&place.url).await.unwrap();
        assert_eq!(store.dns_ttls("memory/a").await.unwrap(), None);
        for text in ["first", "second"] {
            store.set_dns_ttls("memory/a", text).await.unwrap();
        }
        store.set_dns_ttls("memory/b", "other").await.unwrap();
        assert_eq!(store.dns_ttls("memory/a").await.unwrap().as_deref(), Some("second"));
        store.forget_dns("memory/a").await.unwrap();
        assert_eq!(store.dns_ttls("memory/a").await.unwrap(), None);
        assert_eq!(store.dns_ttls("memory/b").await.unwrap().as_deref(), Some("other"));
    }
}
