//! The audit log: rows are added, read, and never changed.

use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{Result, Store, column, corrupt, from_ms, is_unique_violation, to_ms};
use crate::audit::{Check, Entry, ORIGIN, Row, link};

/// Rows that are read at once.
const PAGE: i64 = 500;
/// Another controller may have taken the number of a row, but hardly so often in a row.
const TRIES: u32 = 16;

fn row(row: &AnyRow) -> Result<Row> {
    Ok(Row {
        sequence: u64::try_from(column::<i64>(row, "sequence")?).map_err(corrupt)?,
        entry: Entry {
            at: from_ms(column(row, "at_ms")?)?,
            caller: column(row, "caller")?,
            address: column(row, "address")?,
            rpc: column(row, "rpc")?,
            arguments: column(row, "arguments")?,
            code: column(row, "code")?,
            reason: column(row, "reason")?,
            operation: column(row, "operation")?,
        },
        hash: column(row, "hash")?,
    })
}

/// Adds a row behind the last one; part of a larger change.
pub(super) async fn append_in(connection: &mut sqlx::AnyConnection, entry: &Entry) -> Result<()> {
    let last =
        sqlx::query("SELECT * FROM audit ORDER BY sequence DESC LIMIT 1").fetch_optional(&mut *connection).await?;
    let last = last.as_ref().map(row).transpose()?;
    let (sequence, previous) = last.map_or((1, ORIGIN.to_owned()), |last| (last.sequence + 1, last.hash));
    sqlx::query(
        "INSERT INTO audit (sequence, at_ms, caller, address, rpc, arguments, code, reason, operation, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(i64::try_from(sequence).map_err(corrupt)?)
    .bind(to_ms(entry.at))
    .bind(entry.caller.clone())
    .bind(entry.address.clone())
    .bind(entry.rpc.clone())
    .bind(entry.arguments.clone())
    .bind(entry.code.clone())
    .bind(entry.reason.clone())
    .bind(entry.operation.clone())
    .bind(link(&previous, sequence, entry))
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Adds a row behind the last one.
    pub async fn append_audit(&self, entry: &Entry) -> Result<()> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_append_audit(entry).await {
                Err(super::Error::Database(error)) if is_unique_violation(&error) && tries < TRIES => {}
                done => return done,
            }
        }
    }

    async fn try_append_audit(&self, entry: &Entry) -> Result<()> {
        let mut transaction = self.begin().await?;
        append_in(&mut transaction, entry).await?;
        self.commit(transaction, "audit").await
    }

    /// The newest rows from a moment on, of callers with a name (empty: of all), the newest last.
    pub async fn audit(&self, since: Option<OffsetDateTime>, user: &str, limit: u32) -> Result<Vec<Row>> {
        // A name holds no slash, so what ends in a slash and it is a caller of that name. Compared by length, so that no character of it is
        // a wildcard.
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE at_ms >= $1 AND ($2 = '' OR caller IN ($3, $4, $5, $6)) ORDER BY sequence DESC LIMIT $7",
        )
        .bind(since.map_or(i64::MIN, to_ms))
        .bind(user.to_owned())
        .bind(format!("admin/{user}"))
        .bind(format!("operator/{user}"))
        .bind(format!("viewer/{user}"))
        .bind(format!("agent/{user}"))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().rev().map(row).collect()
    }

    /// Goes over all rows, looking out for a head (empty: for none).
    pub async fn check_audit(&self, expected: &str) -> Result<Check> {
        let mut check = Check::new(expected);
        let mut last = 0_i64;
        loop {
            let rows = sqlx::query("SELECT * FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                .bind(last)
                .bind(PAGE)
                .fetch_all(&self.pool)
                .await?;
            for one in &rows {
                check.next(&row(one)?);
                last = column(one, "sequence")?;
            }
            if rows.len() < usize::try_from(PAGE).unwrap_or_default() {
                return Ok(check);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use crate::{
        audit::Entry,
        store::{
            Store,
            tests::{On, Place, on_both},
        },
    };

    on_both!(
        whatever_is_done_to_rows_is_found_and_the_first_one_named,
        rows_are_listed_by_name_and_time_the_newest_last,
        rows_that_are_added_beside_each_other_make_one_chain,
    );

    fn entry(number: i64) -> Entry {
        Entry {
            at: OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(number),
            caller: if number % 2 == 0 { "operator/ada".into() } else { "admin/bob".into() },
            address: "192.0.2.1:5000".into(),
            rpc: "feather.controller.v1.TenantService/AddTenant".into(),
            arguments: format!("{{\"tenant\":\"t{number}\"}}"),
            code: "OK".into(),
            reason: String::new(),
            operation: format!("op-{number}"),
        }
    }

    async fn store(on: On) -> (Store, Place) {
        let place = on.place().await;
        (Store::open(&place.url).await.unwrap(), place)
    }

    /// Five rows, then somebody with a hand in the database.
    async fn after(on: On, sql: &[&'static str]) -> (u64, Option<u64>) {
        let (store, _place) = store(on).await;
        for number in 1..=5 {
            store.append_audit(&entry(number)).await.unwrap();
        }
        let head = store.check_audit("").await.unwrap().head;
        for statement in sql {
            sqlx::query(*statement).execute(&store.pool).await.unwrap();
        }
        let check = store.check_audit(&head).await.unwrap();
        assert_eq!(check.problem().is_some(), !sql.is_empty(), "{check:?}");
        (check.rows, check.broken.map(|(sequence, _)| sequence))
    }

    async fn whatever_is_done_to_rows_is_found_and_the_first_one_named(on: On) {
        assert_eq!(after(on, &[]).await, (5, None));
        assert_eq!(
            after(on, &["UPDATE audit SET caller = 'admin/eve' WHERE sequence = 3"]).await,
            (2, Some(3)),
            "changed"
        );
        assert_eq!(after(on, &["UPDATE audit SET at_ms = 1 WHERE sequence = 5"]).await, (4, Some(5)), "the last one");
        assert_eq!(after(on, &["DELETE FROM audit WHERE sequence = 3"]).await, (2, Some(3)), "deleted");
        assert_eq!(after(on, &["DELETE FROM audit WHERE sequence = 1"]).await, (0, Some(1)), "the first one");
        assert_eq!(
            after(on, &["DELETE FROM audit WHERE sequence > 3"]).await,
            (3, None),
            "the tail, by the head that was kept"
        );
        assert_eq!(after(on, &["DELETE FROM audit"]).await, (0, None), "all of them, likewise");
        let moved = [
            "UPDATE audit SET sequence = 99 WHERE sequence = 2",
            "UPDATE audit SET sequence = 2 WHERE sequence = 3",
            "UPDATE audit SET sequence = 3 WHERE sequence = 99",
        ];
        assert_eq!(after(on, &moved).await, (1, Some(2)), "reordered");
        let closed_up =
            ["DELETE FROM audit WHERE sequence = 3", "UPDATE audit SET sequence = sequence - 1 WHERE sequence > 3"];
        assert_eq!(after(on, &closed_up).await, (2, Some(3)), "deleted, and the gap closed");
        let added = [
            "UPDATE audit SET sequence = sequence + 100 WHERE sequence > 2",
            "UPDATE audit SET sequence = sequence - 99 WHERE sequence > 100",
            "INSERT INTO audit SELECT 3, at_ms, caller, address, rpc, arguments, code, reason, operation, hash FROM audit WHERE sequence = 2",
        ];
        assert_eq!(after(on, &added).await, (2, Some(3)), "inserted");
    }

    async fn rows_are_listed_by_name_and_time_the_newest_last(on: On) {
        let (store, _place) = store(on).await;
        for number in 1..=5 {
            store.append_audit(&entry(number)).await.unwrap();
        }
        let listed = async |since: Option<i64>, user: &str, limit: u32| {
            let since = since.map(|second| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second));
            let rows = store.audit(since, user, limit).await.unwrap();
            rows.iter().map(|row| row.sequence).collect::<Vec<_>>()
        };
        assert_eq!(listed(None, "", 3).await, [3, 4, 5]);
        assert_eq!(listed(Some(2), "ada", 10).await, [2, 4]);
        assert_eq!(listed(None, "a%", 10).await, [] as [u64; 0]);
    }

    async fn rows_that_are_added_beside_each_other_make_one_chain(on: On) {
        let place = on.place().await;
        // Two controllers.
        let (store, other) = (Store::open(&place.url).await.unwrap(), Store::open(&place.url).await.unwrap());
        let entries: Vec<_> = (1..=20).map(entry).collect();
        let adds = entries.iter().zip([&store, &other].into_iter().cycle());
        futures::future::try_join_all(adds.map(|(entry, store)| store.append_audit(entry))).await.unwrap();
        let check = store.check_audit("").await.unwrap();
        assert_eq!((check.rows, check.problem()), (20, None));
    }
}
