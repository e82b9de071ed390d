//! Tokens and sessions of the web page: hashes of secrets, found by their first half and compared as a whole in a time that tells
//! nothing.

use feather_proto::tls::{Principal, Role};
use sqlx::any::AnyRow;
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;

use super::{Result, Store, column, from_ms, to_ms};
use crate::ca::PERSON_LIFE;

/// Tokens that one name has at most; beyond that the oldest go.
const TOKENS_MAX: i64 = 16;
/// Browsers that are logged in by one token at most; beyond that the oldest are logged out.
const SESSIONS_MAX: i64 = 16;
/// Hexadecimal digits of a hash that it is found by.
const ID_DIGITS: usize = 32;

/// Somebody who looks at the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// Name of a person.
    pub name: String,
    /// When its token ends, and all that was begun with it.
    pub expires: OffsetDateTime,
}

/// A token that is to be kept.
#[derive(Debug, Clone)]
pub struct NewWebToken<'a> {
    /// SHA-256 of its secret, hexadecimal.
    pub secret_sha256: &'a str,
    /// Whose it is.
    pub name: &'a str,
    /// Who made it: role and name.
    pub by: &'a str,
    /// When it ends.
    pub expires: OffsetDateTime,
}

fn id(secret_sha256: &str) -> String {
    secret_sha256.chars().take(ID_DIGITS).collect()
}

/// The row's secret is this one.
fn fits(row: &AnyRow, secret_sha256: &str) -> Result<bool> {
    let kept: String = column(row, "secret_sha256")?;
    Ok(kept.as_bytes().ct_eq(secret_sha256.as_bytes()).into())
}

fn viewer(row: &AnyRow) -> Result<Viewer> {
    Ok(Viewer { name: column(row, "name")?, expires: from_ms(column(row, "expires_ms")?)? })
}

/// Nothing that this name was given for the page is good any more; part of a larger change.
pub(super) async fn end_in(connection: &mut sqlx::AnyConnection, name: &str) -> Result<()> {
    for text in [
        "DELETE FROM web_sessions WHERE token IN (SELECT id FROM web_tokens WHERE name = $1)",
        "DELETE FROM web_tokens WHERE name = $1",
    ] {
        sqlx::query(text).bind(name.to_owned()).execute(&mut *connection).await?;
    }
    Ok(())
}

/// What has ended goes.
async fn sweep(connection: &mut sqlx::AnyConnection, now: OffsetDateTime) -> Result<()> {
    sqlx::query("DELETE FROM web_tokens WHERE expires_ms <= $1").bind(to_ms(now)).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM web_sessions WHERE token NOT IN (SELECT id FROM web_tokens)").execute(connection).await?;
    Ok(())
}

impl Store {
    /// Keeps a token. Somebody of whom nothing is known yet is noted as a viewer, so that it is listed and can be revoked.
    pub async fn add_web_token(&self, new: &NewWebToken<'_>, now: OffsetDateTime) -> Result<()> {
        let mut transaction = self.begin().await?;
        let known = sqlx::query("SELECT principal FROM users WHERE name = $1")
            .bind(new.name.to_owned())
            .fetch_optional(&mut *transaction)
            .await?;
        if known.is_none() {
            let principal = Principal { role: Role::Viewer, name: new.name.to_owned() };
            sqlx::query(
                "INSERT INTO users (principal, name, role, added_ms, added_by, life_s) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(principal.uri())
            .bind(new.name.to_owned())
            .bind(principal.role.to_string())
            .bind(to_ms(now))
            .bind(new.by.to_owned())
            .bind(PERSON_LIFE.whole_seconds())
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::query(
            "INSERT INTO web_tokens (id, secret_sha256, name, made_by, made_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id(new.secret_sha256))
        .bind(new.secret_sha256.to_owned())
        .bind(new.name.to_owned())
        .bind(new.by.to_owned())
        .bind(to_ms(now))
        .bind(to_ms(new.expires))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "DELETE FROM web_tokens WHERE name = $1 AND id NOT IN \
             (SELECT id FROM web_tokens WHERE name = $1 ORDER BY made_ms DESC, id LIMIT $2)",
        )
        .bind(new.name.to_owned())
        .bind(TOKENS_MAX)
        .execute(&mut *transaction)
        .await?;
        sweep(&mut transaction, now).await?;
        self.commit(transaction, "web token").await
    }

    /// Begins a session of whoever has a good token; none without one. Both are named by the hashes of their secrets.
    pub async fn begin_web_session(
        &self,
        token_sha256: &str,
        session_sha256: &str,
        now: OffsetDateTime,
    ) -> Result<Option<Viewer>> {
        let mut transaction = self.begin().await?;
        sweep(&mut transaction, now).await?;
        let row = sqlx::query("SELECT * FROM web_tokens WHERE id = $1")
            .bind(id(token_sha256))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(None) };
        if !fits(&row, token_sha256)? {
            return Ok(None);
        }
        sqlx::query("INSERT INTO web_sessions (id, secret_sha256, token, began_ms) VALUES ($1, $2, $3, $4)")
            .bind(id(session_sha256))
            .bind(session_sha256.to_owned())
            .bind(id(token_sha256))
            .bind(to_ms(now))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "DELETE FROM web_sessions WHERE token = $1 AND id NOT IN \
             (SELECT id FROM web_sessions WHERE token = $1 ORDER BY began_ms DESC, id LIMIT $2)",
        )
        .bind(id(token_sha256))
        .bind(SESSIONS_MAX)
        .execute(&mut *transaction)
        .await?;
        self.commit(transaction, "web session").await?;
        viewer(&row).map(Some)
    }

    /// Whose session this is, if it is one that has not ended.
    pub async fn web_session(&self, session_sha256: &str, now: OffsetDateTime) -> Result<Option<Viewer>> {
        let row = sqlx::query(
            "SELECT web_sessions.secret_sha256, web_tokens.name, web_tokens.expires_ms FROM web_sessions \
             INNER JOIN web_tokens ON web_tokens.id = web_sessions.token \
             WHERE web_sessions.id = $1 AND web_tokens.expires_ms > $2",
        )
        .bind(id(session_sha256))
        .bind(to_ms(now))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if fits(&row, session_sha256)? { viewer(&row).map(Some) } else { Ok(None) }
    }

    /// Ends one session. Idempotent.
    pub async fn end_web_session(&self, session_sha256: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM web_sessions WHERE id = $1 AND secret_sha256 = $2")
            .bind(id(session_sha256))
            .bind(session_sha256.to_owned())
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "end web session").await
    }

    /// Who may look at the page at this moment; a name once for each of its tokens.
    pub async fn web_viewers(&self, now: OffsetDateTime) -> Result<Vec<Viewer>> {
        let rows =
            sqlx::query("SELECT name, expires_ms FROM web_tokens WHERE expires_ms > $1 ORDER BY name, expires_ms")
                .bind(to_ms(now))
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(viewer).collect()
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::tls::{Principal, Role, sha256_hex};
    use time::{Duration, OffsetDateTime};

    use super::{NewWebToken, SESSIONS_MAX, Viewer};
    use crate::store::{
        PEOPLE, Store,
        tests::{On, Place, on_both},
    };

    on_both!(
        a_session_lasts_as_long_as_its_token_and_no_secret_is_kept,
        whoever_is_revoked_or_logs_out_has_no_session_any_more,
        sessions_and_tokens_are_bounded_and_the_newest_stay,
    );

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn hash(secret: &str) -> String {
        sha256_hex(secret.as_bytes())
    }

    async fn with_token(place: &Place, name: &str) -> Store {
        let store = Store::open(&place.url).await.unwrap();
        let token = hash("token");
        let new = NewWebToken { secret_sha256: &token, name, by: "admin/ada", expires: NOW + Duration::hours(1) };
        store.add_web_token(&new, NOW).await.unwrap();
        store
    }

    async fn a_session_lasts_as_long_as_its_token_and_no_secret_is_kept(on: On) {
        let place = on.place().await;
        let store = with_token(&place, "carol").await;
        assert_eq!(store.begin_web_session(&hash("guess"), &hash("s"), NOW).await.unwrap(), None);
        // The half that it is found by is not enough.
        let half = format!("{}{}", &hash("token")[..32], "0".repeat(32));
        assert_eq!(store.begin_web_session(&half, &hash("s"), NOW).await.unwrap(), None);
        let carol = Some(Viewer { name: "carol".into(), expires: NOW + Duration::hours(1) });
        assert_eq!(store.begin_web_session(&hash("token"), &hash("s"), NOW).await.unwrap(), carol);
        let last = NOW + Duration::minutes(59);
        assert_eq!(store.web_session(&hash("s"), last).await.unwrap(), carol);
        assert_eq!(store.web_session(&half, last).await.unwrap(), None);
        for end in [NOW + Duration::hours(1), NOW + Duration::days(1)] {
            assert_eq!(store.web_session(&hash("s"), end).await.unwrap(), None);
            assert_eq!(store.begin_web_session(&hash("token"), &hash("t"), end).await.unwrap(), None);
        }
        // It was listed, as somebody who only looks.
        let listed = store.users().await.unwrap();
        assert_eq!(listed[0].principal, Principal { role: Role::Viewer, name: "carol".into() });
    }

    async fn whoever_is_revoked_or_logs_out_has_no_session_any_more(on: On) {
        let place = on.place().await;
        let store = with_token(&place, "carol").await;
        for session in ["one", "two"] {
            store.begin_web_session(&hash("token"), &hash(session), NOW).await.unwrap().unwrap();
        }
        store.end_web_session(&hash("one")).await.unwrap();
        assert_eq!(store.web_session(&hash("one"), NOW).await.unwrap(), None);
        assert!(store.web_session(&hash("two"), NOW).await.unwrap().is_some(), "the other browser stays");
        // A server of the same name is another matter.
        store.revoke(&[Principal::agent("carol")], "admin/ada", NOW).await.unwrap();
        assert!(store.web_session(&hash("two"), NOW).await.unwrap().is_some());
        let carol = PEOPLE.map(|role| Principal { role, name: "carol".into() });
        store.revoke(&carol, "admin/ada", NOW).await.unwrap();
        assert_eq!(store.web_session(&hash("two"), NOW).await.unwrap(), None);
        assert_eq!(store.begin_web_session(&hash("token"), &hash("three"), NOW).await.unwrap(), None);
        assert_eq!(store.web_viewers(NOW).await.unwrap(), []);
    }

    async fn sessions_and_tokens_are_bounded_and_the_newest_stay(on: On) {
        let place = on.place().await;
        let store = with_token(&place, "carol").await;
        for number in 0..=SESSIONS_MAX {
            let at = NOW + Duration::seconds(number);
            store.begin_web_session(&hash("token"), &hash(&format!("s{number}")), at).await.unwrap().unwrap();
        }
        assert_eq!(store.web_session(&hash("s0"), NOW).await.unwrap(), None);
        assert!(store.web_session(&hash("s1"), NOW).await.unwrap().is_some());
        for number in 1..=20 {
            let (secret, at) = (hash(&format!("t{number}")), NOW + Duration::seconds(number));
            let new = NewWebToken { secret_sha256: &secret, name: "carol", by: "x", expires: at + Duration::days(1) };
            store.add_web_token(&new, at).await.unwrap();
        }
        assert_eq!(store.web_viewers(NOW).await.unwrap().len(), 16);
        assert_eq!(store.web_session(&hash("s1"), NOW).await.unwrap(), None, "its token has given way");
    }
}
