//! People, login tokens, and the list of revoked certificates.

use feather_proto::{
    error::{Error as WireError, reason},
    tls::{Principal, Revocation, Revocations, Role},
};
use sqlx::any::AnyRow;
use time::{Duration, OffsetDateTime};

use super::{Result, Store, column, corrupt, from_ms, to_ms, web};
use crate::ca::BACKDATE;

/// A person with a role, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// Name and role.
    pub principal: Principal,
    /// When it was added, or first seen.
    pub added: OffsetDateTime,
    /// Who added it; nobody for a certificate that was made by hand.
    pub added_by: Option<String>,
    /// Life of its certificates.
    pub life: Duration,
    /// SHA-256 of the public key that logged in last.
    pub key_fingerprint: Option<String>,
    /// End of its newest certificate.
    pub valid_until: Option<OffsetDateTime>,
    /// Its last call, to a minute.
    pub seen: Option<OffsetDateTime>,
    /// When it was revoked, if it was since its last certificate.
    pub revoked: Option<OffsetDateTime>,
    /// By whom.
    pub revoked_by: Option<String>,
}

fn user(row: &AnyRow) -> Result<UserRow> {
    let time = |name: &'static str| column::<Option<i64>>(row, name)?.map(from_ms).transpose();
    Ok(UserRow {
        principal: principal(row)?,
        added: from_ms(column(row, "added_ms")?)?,
        added_by: column(row, "added_by")?,
        life: Duration::seconds(column(row, "life_s")?),
        key_fingerprint: column(row, "key_fingerprint")?,
        valid_until: time("valid_until_ms")?,
        seen: time("seen_ms")?,
        revoked: time("revoked_ms")?,
        revoked_by: column(row, "revoked_by")?,
    })
}

fn principal(row: &AnyRow) -> Result<Principal> {
    let uri: String = column(row, "principal")?;
    uri.parse().map_err(|()| corrupt(format!("the principal {uri:?}")))
}

fn token_refused() -> WireError {
    WireError::denied(
        reason::JOIN_TOKEN,
        "the login token is unknown, used or expired; ask an admin for a new one: `featherctl user add NAME --role ROLE`",
    )
}

/// From when on certificates are refused that were issued at this moment or earlier.
fn last_of(now: OffsetDateTime) -> i64 {
    (now - BACKDATE).unix_timestamp()
}

/// Refuses the certificates that a name has at this moment, also those that are valid from a later one: a clock may have been set back, and
/// a name that was let in again got one that begins behind what is refused. Part of a larger change.
pub(super) async fn revoke_in(
    connection: &mut sqlx::AnyConnection,
    principal: &Principal,
    now: OffsetDateTime,
) -> Result<()> {
    let newest = sqlx::query("SELECT valid_from_newest FROM issued WHERE principal = $1")
        .bind(principal.uri())
        .fetch_optional(&mut *connection)
        .await?;
    let newest = newest.as_ref().map(|row| column::<i64>(row, "valid_from_newest")).transpose()?;
    refuse_in(connection, principal, last_of(now).max(newest.unwrap_or(i64::MIN))).await
}

/// Refuses a name's certificates that are valid from that second or an earlier one, and never less than before; part of a larger change.
pub(super) async fn refuse_in(
    connection: &mut sqlx::AnyConnection,
    principal: &Principal,
    valid_from_last: i64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO revocations (principal, valid_from_last) VALUES ($1, $2) ON CONFLICT (principal) \
         DO UPDATE SET valid_from_last = excluded.valid_from_last WHERE revocations.valid_from_last < excluded.valid_from_last",
    )
    .bind(principal.uri())
    .bind(valid_from_last)
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes from when a certificate of this name is valid; part of a larger change.
async fn issued_in(connection: &mut sqlx::AnyConnection, principal: &Principal, valid_from: i64) -> Result<()> {
    sqlx::query(
        "INSERT INTO issued (principal, valid_from_newest) VALUES ($1, $2) ON CONFLICT (principal) \
         DO UPDATE SET valid_from_newest = excluded.valid_from_newest WHERE issued.valid_from_newest < excluded.valid_from_newest",
    )
    .bind(principal.uri())
    .bind(valid_from)
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Notes that a certificate of this name, valid from that second since 1970, is about to be handed out. Idempotent.
    pub async fn note_issued(&self, principal: &Principal, valid_from: i64) -> Result<()> {
        let mut transaction = self.begin().await?;
        issued_in(&mut transaction, principal, valid_from).await?;
        self.commit(transaction, "issued").await
    }

    /// Whose certificates are refused.
    pub async fn revocations(&self) -> Result<Revocations> {
        let rows = sqlx::query("SELECT * FROM revocations").fetch_all(&self.pool).await?;
        let line = |row: &AnyRow| {
            Ok(Revocation { principal: principal(row)?, valid_from_last: column(row, "valid_from_last")? })
        };
        rows.iter().map(line).collect()
    }

    /// Refuses all certificates that these names have now; people's rows say by whom. Idempotent.
    pub async fn revoke(&self, principals: &[Principal], by: &str, now: OffsetDateTime) -> Result<()> {
        let mut transaction = self.begin().await?;
        for principal in principals {
            revoke_in(&mut transaction, principal, now).await?;
            sqlx::query("UPDATE users SET revoked_ms = $2, revoked_by = $3, key_fingerprint = NULL WHERE principal = $1 AND revoked_ms IS NULL")
                .bind(principal.uri())
                .bind(to_ms(now))
                .bind(by.to_owned())
                .execute(&mut *transaction)
                .await?;
            // Who was revoked does not come back by a token from before.
            sqlx::query("DELETE FROM user_tokens WHERE principal = $1")
                .bind(principal.uri())
                .execute(&mut *transaction)
                .await?;
            if PEOPLE.contains(&principal.role) {
                web::end_in(&mut transaction, &principal.name).await?;
            }
        }
        self.commit(transaction, "revoke").await
    }

    /// Everybody, in order of names.
    pub async fn users(&self) -> Result<Vec<UserRow>> {
        let rows = sqlx::query("SELECT * FROM users ORDER BY name, role").fetch_all(&self.pool).await?;
        rows.iter().map(user).collect()
    }

    /// One person in one role.
    pub async fn user(&self, principal: &Principal) -> Result<Option<UserRow>> {
        let row = sqlx::query("SELECT * FROM users WHERE principal = $1")
            .bind(principal.uri())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(user).transpose()
    }

    /// Notes who may log in, and the hash of the token for it. An earlier token of that person is void.
    pub async fn add_user(
        &self,
        principal: &Principal,
        life: Duration,
        by: &str,
        token: (&str, OffsetDateTime),
        now: OffsetDateTime,
    ) -> Result<()> {
        let (secret_sha256, expires) = token;
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO users (principal, name, role, added_ms, added_by, life_s) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (principal) DO UPDATE SET added_by = excluded.added_by, life_s = excluded.life_s",
        )
        .bind(principal.uri())
        .bind(principal.name.clone())
        .bind(principal.role.to_string())
        .bind(to_ms(now))
        .bind(by.to_owned())
        .bind(life.whole_seconds())
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM user_tokens WHERE principal = $1")
            .bind(principal.uri())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO user_tokens (secret_sha256, principal, expires_ms) VALUES ($1, $2, $3)")
            .bind(secret_sha256.to_owned())
            .bind(principal.uri())
            .bind(to_ms(expires))
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "add user").await
    }

    /// Uses a login token for a key. The same token with the same key may be used again until it expires, because the first reply may
    /// have been lost. Another key than before makes the certificates of the earlier one void.
    pub async fn log_in(&self, secret_sha256: &str, key_fingerprint: &str, now: OffsetDateTime) -> Result<UserRow> {
        let mut transaction = self.begin().await?;
        let token = sqlx::query("SELECT * FROM user_tokens WHERE secret_sha256 = $1")
            .bind(secret_sha256.to_owned())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(token_refused)?;
        let used_by: Option<String> = column(&token, "used_by")?;
        if column::<i64>(&token, "expires_ms")? <= to_ms(now)
            || used_by.as_ref().is_some_and(|key| key != key_fingerprint)
        {
            return Err(token_refused().into());
        }
        let principal = principal(&token)?;
        let row = sqlx::query("SELECT * FROM users WHERE principal = $1")
            .bind(principal.uri())
            .fetch_one(&mut *transaction)
            .await?;
        let row = user(&row)?;
        let had_another = row.valid_until.is_some() && row.key_fingerprint.as_deref() != Some(key_fingerprint);
        if used_by.is_none() && had_another {
            revoke_in(&mut transaction, &principal, now).await?;
        }
        sqlx::query("UPDATE user_tokens SET used_by = $2 WHERE secret_sha256 = $1")
            .bind(secret_sha256.to_owned())
            .bind(key_fingerprint.to_owned())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "UPDATE users SET key_fingerprint = $2, valid_until_ms = $3, revoked_ms = NULL, revoked_by = NULL WHERE principal = $1",
        )
        .bind(principal.uri())
        .bind(key_fingerprint.to_owned())
        .bind(to_ms(now + row.life))
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "log in").await?;
        Ok(row)
    }

    /// Notes a call of a person whose certificate was accepted, valid from that second since 1970. A name that is in no row yet got its
    /// certificate by hand. One whose certificates were revoked meanwhile is not noted: only a newer certificate makes it somebody who is in.
    pub async fn note_seen(
        &self,
        principal: &Principal,
        valid_from: Option<i64>,
        valid_until: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Result<()> {
        // Not rung as a write: whether it is in time or not makes no difference to anybody.
        let mut transaction = self.begin().await?;
        let last = sqlx::query("SELECT valid_from_last FROM revocations WHERE principal = $1")
            .bind(principal.uri())
            .fetch_optional(&mut *transaction)
            .await?;
        let last = last.as_ref().map(|row| column::<i64>(row, "valid_from_last")).transpose()?;
        if last.is_some_and(|last| valid_from.is_none_or(|from| from <= last)) {
            return Ok(());
        }
        if let Some(valid_from) = valid_from {
            issued_in(&mut transaction, principal, valid_from).await?;
        }
        sqlx::query(
            "INSERT INTO users (principal, name, role, added_ms, life_s, valid_until_ms, seen_ms) VALUES ($1, $2, $3, $4, $5, $6, $4) \
             ON CONFLICT (principal) DO UPDATE SET seen_ms = excluded.seen_ms, revoked_ms = NULL, revoked_by = NULL, \
             valid_until_ms = CASE WHEN users.valid_until_ms > excluded.valid_until_ms THEN users.valid_until_ms \
             ELSE excluded.valid_until_ms END",
        )
        .bind(principal.uri())
        .bind(principal.name.clone())
        .bind(principal.role.to_string())
        .bind(to_ms(now))
        .bind(crate::ca::PERSON_LIFE.whole_seconds())
        .bind(valid_until.map(to_ms))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// The roles of people.
pub const PEOPLE: [Role; 3] = [Role::Admin, Role::Operator, Role::Viewer];

#[cfg(test)]
mod tests {
    use feather_proto::tls::{Principal, Role};
    use time::{Duration, OffsetDateTime};

    use crate::{ca::BACKDATE, store::Store};

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn ada() -> Principal {
        Principal { role: Role::Admin, name: "ada".into() }
    }

    async fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(&format!("sqlite://{}/test.db", folder.path().display())).await.unwrap()
    }

    #[tokio::test]
    async fn a_revocation_reaches_all_that_was_handed_out_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let refuses = async |valid_from| store.revocations().await.unwrap().refuses(&ada(), Some(valid_from));
        let (usual, later) = ((NOW - BACKDATE).unix_timestamp(), 3600);
        // Handed out by a clock that was an hour ahead, and another one behind it.
        for valid_from in [usual, later, usual] {
            store.note_issued(&ada(), valid_from).await.unwrap();
        }
        store.revoke(&[ada()], "admin/bob", NOW).await.unwrap();
        assert!(refuses(usual).await && refuses(later).await && !refuses(later + 1).await);
        // One that was made by hand is known as soon as it is seen.
        let seen = later + 5000;
        store.note_seen(&ada(), Some(seen), None, NOW).await.unwrap();
        store.revoke(&[ada()], "admin/bob", NOW).await.unwrap();
        assert!(refuses(seen).await && !refuses(seen + 1).await);
        // Of nobody in particular nothing was handed out.
        let bob = Principal { name: "bob".into(), ..ada() };
        store.revoke(std::slice::from_ref(&bob), "admin/ada", NOW).await.unwrap();
        let list = store.revocations().await.unwrap();
        assert!(list.refuses(&bob, Some(usual)) && !list.refuses(&bob, Some(usual + 1)));
    }

    #[tokio::test]
    async fn only_a_newer_certificate_makes_somebody_who_was_revoked_somebody_who_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let until = Some(NOW + Duration::days(1));
        let old = (NOW - BACKDATE).unix_timestamp();
        store.note_seen(&ada(), Some(old), until, NOW).await.unwrap();
        store.revoke(&[ada()], "admin/bob", NOW).await.unwrap();
        let revoked = async || store.user(&ada()).await.unwrap().unwrap().revoked.is_some();
        for stale in [Some(old), None] {
            // Its call had come in before.
            store.note_seen(&ada(), stale, until, NOW + Duration::seconds(1)).await.unwrap();
            assert!(revoked().await, "{stale:?}");
        }
        store.note_seen(&ada(), Some(old + 1), until, NOW + Duration::seconds(2)).await.unwrap();
        assert!(!revoked().await);
    }
}
