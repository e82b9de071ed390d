//! Servers, join tokens and settings.

use std::sync::Arc;

use feather_proto::{
    error::{Error as WireError, reason},
    ids::{ServerName, TenantName},
    tls::{Principal, Role},
};
use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{
    Result, Store, column, corrupt,
    events::{NewEvent, record},
    from_ms, parse,
    rename::renamings_in,
    tenants::{TenantRow, TenantState, tenant},
    to_ms,
    users::revoke_in,
};
use crate::{
    dns::{self, FORMER_INGRESS, INGRESS},
    events, rename,
    upkeep::Upkeep,
};

/// A member of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// What the fleet calls it.
    pub name: ServerName,
    /// The name in its certificate: what it was called when it joined.
    pub identity: ServerName,
    /// `host:port` of its agent.
    pub address: String,
    /// Where the world and other servers reach its Caddy.
    pub public_address: String,
    /// SHA-256 of the agent's public key.
    pub key_fingerprint: String,
    /// When it joined.
    pub joined: OffsetDateTime,
    /// What operators say of it; a rejoin leaves it as it is.
    pub upkeep: Upkeep,
}

/// A membership: whose certificate, and since when. It stays the same when the server gets another name.
pub type Membership = (ServerName, OffsetDateTime);

impl ServerRow {
    /// Who it is at the other end of a connection.
    pub fn principal(&self) -> Principal {
        Principal::agent(&self.identity)
    }

    /// By what it is known again whatever it is called.
    pub fn membership(&self) -> Membership {
        (self.identity.clone(), self.joined)
    }
}

pub(super) fn server(row: &AnyRow) -> Result<ServerRow> {
    Ok(ServerRow {
        name: parse(&column::<String>(row, "name")?)?,
        identity: parse(&column::<String>(row, "principal")?)?,
        address: column(row, "address")?,
        public_address: column(row, "public_address")?,
        key_fingerprint: column(row, "key_fingerprint")?,
        joined: from_ms(column(row, "joined_ms")?)?,
        upkeep: Upkeep {
            cordoned: column::<i64>(row, "cordoned")? != 0,
            labels: serde_json::from_str(&column::<String>(row, "labels")?).map_err(corrupt)?,
            version: column(row, "version")?,
        },
    })
}

fn token_refused() -> WireError {
    WireError::denied(
        reason::JOIN_TOKEN,
        "the join token is unknown, used or expired; ask for a new one with `featherctl server invite NAME`",
    )
}

impl Store {
    /// All members in the order of their names.
    pub async fn servers(&self) -> Result<Vec<ServerRow>> {
        Ok(self.all_servers().await?.to_vec())
    }

    /// The same without a copy. They are read only when one has changed since the last time.
    pub async fn all_servers(&self) -> Result<Arc<Vec<ServerRow>>> {
        self.mirror.servers(&self.pool).await
    }

    /// One member.
    pub async fn server(&self, name: &ServerName) -> Result<Option<ServerRow>> {
        member_in(&mut *self.pool.acquire().await?, name).await
    }

    /// One member, where it must be one.
    ///
    /// # Errors
    /// There is none of that name; what it is called now, if it had that one.
    pub async fn member(&self, name: &ServerName) -> Result<ServerRow> {
        require_member(&mut *self.pool.acquire().await?, name).await
    }

    /// The member whose certificate says this.
    pub async fn server_of(&self, principal: &Principal) -> Result<Option<ServerRow>> {
        if principal.role != Role::Agent {
            return Ok(None);
        }
        let row = sqlx::query("SELECT * FROM servers WHERE principal = $1")
            .bind(principal.name.clone())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(server).transpose()
    }

    /// Keeps the hash of a new join token; with `rejoin` its user takes the place of the member of that name.
    pub async fn add_join_token(
        &self,
        secret_sha256: &str,
        server: &ServerName,
        expires: OffsetDateTime,
        rejoin: bool,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO join_tokens (secret_sha256, server, expires_ms, rejoin) VALUES ($1, $2, $3, $4)")
            .bind(secret_sha256)
            .bind(server.as_str())
            .bind(to_ms(expires))
            .bind(i64::from(rejoin))
            .execute(&mut *transaction)
            .await?;
        self.commit(transaction, "join token").await
    }

    /// Uses a join token for a key and makes its server a member. The same token with the same key may be used again until it
    /// expires, because the first reply may have been lost.
    pub async fn join(
        &self,
        secret_sha256: &str,
        member: impl FnOnce(ServerName) -> ServerRow,
        now: OffsetDateTime,
    ) -> Result<ServerRow> {
        let mut transaction = self.begin().await?;
        let token = sqlx::query("SELECT * FROM join_tokens WHERE secret_sha256 = $1")
            .bind(secret_sha256)
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(token_refused)?;
        if column::<i64>(&token, "expires_ms")? <= to_ms(now) {
            return Err(token_refused().into());
        }
        let row = member(parse(&column::<String>(&token, "server")?)?);
        let used_by: Option<String> = column(&token, "used_by")?;
        if used_by.as_ref().is_some_and(|key| *key != row.key_fingerprint) {
            return Err(token_refused().into());
        }
        let rejoin = column::<i64>(&token, "rejoin")? != 0;
        // A member of that name with another key is replaced only if an admin said so, or after it was removed.
        let present = sqlx::query("SELECT * FROM servers WHERE name = $1")
            .bind(row.name.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        let present = present.as_ref().map(server).transpose()?;
        if let Some(present) = present {
            // One that has another name in its certificate gets a new one.
            let same = present.key_fingerprint == row.key_fingerprint && present.identity == row.identity;
            if !same && !rejoin {
                return Err(WireError::exists(
                    reason::SERVER_EXISTS,
                    format!(
                        "a server {} is a member already; let it rejoin with `featherctl server invite {0} --rejoin`, or remove it",
                        row.name
                    ),
                )
                .into());
            }
            // Certificates from before a rejoin are not renewed, so it counts from now.
            let joined_ms = to_ms(if same { present.joined } else { row.joined });
            if !same {
                revoke_in(&mut transaction, &present.principal(), row.joined).await?;
            }
            sqlx::query("UPDATE servers SET address = $2, public_address = $3, key_fingerprint = $4, joined_ms = $5, principal = $6 WHERE name = $1")
                .bind(row.name.as_str())
                .bind(&row.address)
                .bind(&row.public_address)
                .bind(&row.key_fingerprint)
                .bind(joined_ms)
                .bind(row.identity.as_str())
                .execute(&mut *transaction)
                .await?;
        } else {
            may_begin(&mut transaction, &row.name).await?;
            insert(&mut transaction, &row).await?;
        }
        sqlx::query("UPDATE join_tokens SET used_by = $2 WHERE secret_sha256 = $1")
            .bind(secret_sha256)
            .bind(&row.key_fingerprint)
            .execute(&mut *transaction)
            .await?;
        members_changed(&mut transaction).await?;
        // One token was used; whoever holds an older one, used or not, must not take this member's place.
        sqlx::query("DELETE FROM join_tokens WHERE server = $1 AND secret_sha256 <> $2")
            .bind(row.name.as_str())
            .bind(secret_sha256)
            .execute(&mut *transaction)
            .await?;
        let message = format!("{} joined, reached at {}", row.name, row.address);
        let event = record(&mut transaction, &events::of_server(&row.name, "server-joined", message, now)).await?;
        self.commit(transaction, "join").await?;
        self.told(event);
        Ok(row)
    }

    /// Does a join token take a member's place, with its tenants? False for one that begins a new membership.
    pub async fn takes_a_place(&self, secret_sha256: &str) -> Result<bool> {
        let token = sqlx::query("SELECT rejoin FROM join_tokens WHERE secret_sha256 = $1")
            .bind(secret_sha256)
            .fetch_optional(&self.pool)
            .await?;
        token.map_or(Ok(false), |token| Ok(column::<i64>(&token, "rejoin")? != 0))
    }

    /// A renewed certificate belongs to a new key.
    pub async fn set_server_key(&self, name: &ServerName, key_fingerprint: &str) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE servers SET key_fingerprint = $2 WHERE name = $1")
            .bind(name.as_str())
            .bind(key_fingerprint)
            .execute(&mut *transaction)
            .await?;
        members_changed(&mut transaction).await?;
        self.commit(transaction, "server key").await
    }

    /// Writes what operators say of a server, if it is still at this version.
    pub async fn set_upkeep(&self, name: &ServerName, version: i64, new: &Upkeep) -> Result<()> {
        let mut transaction = self.begin().await?;
        let changed =
            sqlx::query("UPDATE servers SET cordoned = $3, labels = $4, version = $5 WHERE name = $1 AND version = $2")
                .bind(name.as_str())
                .bind(version)
                .bind(i64::from(new.cordoned))
                .bind(serde_json::to_string(&new.labels).map_err(corrupt)?)
                .bind(new.version)
                .execute(&mut *transaction)
                .await?;
        if changed.rows_affected() != 1 {
            return Err(WireError::stale(
                reason::WORLD_CHANGED,
                format!("{name} was changed by someone else meanwhile; look again and repeat the command"),
            )
            .with("server", name)
            .into());
        }
        members_changed(&mut transaction).await?;
        self.commit(transaction, "upkeep").await
    }

    /// Says why a server cannot be forgotten, if it cannot.
    pub async fn check_server_removable(&self, name: &ServerName) -> Result<()> {
        let mut transaction = self.look().await?;
        removable(&mut transaction, name).await
    }

    /// Forgets a server that nothing depends on, and refuses its certificates. The check and the removal are one transaction.
    pub async fn remove_server(&self, name: &ServerName, now: OffsetDateTime) -> Result<()> {
        let mut transaction = self.begin().await?;
        removable(&mut transaction, name).await?;
        let row = require_member(&mut transaction, name).await?;
        revoke_in(&mut transaction, &row.principal(), now).await?;
        sqlx::query("DELETE FROM servers WHERE name = $1").bind(name.as_str()).execute(&mut *transaction).await?;
        members_changed(&mut transaction).await?;
        forget_in(&mut transaction, name).await?;
        let message = format!("{name} was taken out of the fleet");
        let event = record(&mut transaction, &events::of_server(name, "server-removed", message, now)).await?;
        self.commit(transaction, "remove server").await?;
        self.told(event);
        Ok(())
    }

    /// Forgets a server that is dead, with whoever lives on it, and refuses its certificates. Their rows go on naming it, which nothing
    /// else leaves behind, and their generations go up, but for those that an operation holds, which issues its own. False when it was no
    /// member any more.
    pub async fn lose_server(&self, name: &ServerName, now: OffsetDateTime) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("DELETE FROM servers WHERE name = $1 RETURNING *")
            .bind(name.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row.as_ref().map(server).transpose()? else { return Ok(false) };
        sqlx::query(
            "UPDATE tenants SET generation = generation_issued + 1, generation_issued = generation_issued + 1, version = version + 1, \
             changed = (SELECT COALESCE(MAX(changed), 0) + 1 FROM tenants) WHERE server = $1 AND name NOT IN (SELECT subject FROM operation_holds)",
        )
        .bind(name.as_str())
        .execute(&mut *transaction)
        .await?;
        members_changed(&mut transaction).await?;
        revoke_in(&mut transaction, &row.principal(), now).await?;
        forget_in(&mut transaction, name).await?;
        let message =
            format!("{name} was declared lost: it is out of the fleet, and who lived there is brought back elsewhere");
        let event = record(&mut transaction, &events::of_server(name, "server-lost", message, now)).await?;
        self.commit(transaction, "lose server").await?;
        self.told(event);
        Ok(true)
    }

    /// Whose rows name a server that is no member: it was declared lost, and they have no other home yet. In the order of names.
    pub async fn stranded(&self, name: &ServerName) -> Result<Vec<TenantName>> {
        let mut connection = self.pool.acquire().await?;
        stranded_in(&mut connection, name).await
    }

    /// A setting, if it was ever written.
    pub async fn setting(&self, name: &str) -> Result<Option<String>> {
        setting_in(&mut *self.pool.acquire().await?, name).await
    }

    /// Names without a record of their own lead to this member from now on, and led to `former` before, if that is said. `left`: nobody is
    /// led any more to those that it was before that.
    pub async fn set_ingress(&self, server: &ServerName, former: Option<&ServerName>, left: bool) -> Result<()> {
        let mut transaction = self.begin().await?;
        // Either may have got another name since somebody looked.
        require_member(&mut transaction, server).await?;
        if let Some(former) = former {
            require_member(&mut transaction, former).await?;
            let kept = setting_in(&mut transaction, FORMER_INGRESS).await?.filter(|_| !left).unwrap_or_default();
            let mut all = dns::listed(&kept)?;
            all.insert(former.clone());
            all.remove(server);
            set_in(&mut transaction, FORMER_INGRESS, &dns::list(&all)).await?;
        }
        set_in(&mut transaction, INGRESS, server.as_str()).await?;
        self.commit(transaction, "ingress").await
    }

    /// Writes a setting.
    pub async fn set_setting(&self, name: &'static str, value: &str) -> Result<()> {
        self.set_setting_telling(name, value, None).await
    }

    /// The same, and what happened with it.
    pub async fn set_setting_telling(&self, name: &'static str, value: &str, event: Option<&NewEvent>) -> Result<()> {
        let mut transaction = self.begin().await?;
        set_in(&mut transaction, name, value).await?;
        let told = match event {
            Some(event) => record(&mut transaction, event).await?,
            None => 0,
        };
        self.commit(transaction, "setting").await?;
        self.told(told);
        Ok(())
    }
}

/// A member that is none yet.
pub(super) async fn insert(connection: &mut sqlx::AnyConnection, row: &ServerRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO servers (name, address, public_address, key_fingerprint, joined_ms, principal) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(row.name.as_str())
    .bind(&row.address)
    .bind(&row.public_address)
    .bind(&row.key_fingerprint)
    .bind(to_ms(row.joined))
    .bind(row.identity.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn setting_in(connection: &mut sqlx::AnyConnection, name: &str) -> Result<Option<String>> {
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1")
        .bind(name.to_owned())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(|row| column(row, "value")).transpose()
}

pub(super) async fn set_in(connection: &mut sqlx::AnyConnection, name: &'static str, value: &str) -> Result<()> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(connection)
    .await?;
    Ok(())
}

/// The error for a server that is no member.
pub(crate) fn server_not_found(name: &ServerName) -> WireError {
    WireError::not_found(
        reason::SERVER_NOT_FOUND,
        format!("there is no server {name}; `featherctl server list` shows the members"),
    )
    .with("server", name)
}

/// What goes with a server.
async fn forget_in(connection: &mut sqlx::AnyConnection, name: &ServerName) -> Result<()> {
    // Who was taken out does not come back by a token from before.
    sqlx::query("DELETE FROM join_tokens WHERE server = $1").bind(name.as_str()).execute(&mut *connection).await?;
    // Nobody can come home there.
    sqlx::query("DELETE FROM sent_away WHERE home = $1").bind(name.as_str()).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM settings WHERE name = 'ingress' AND value = $1")
        .bind(name.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn stranded_in(connection: &mut sqlx::AnyConnection, name: &ServerName) -> Result<Vec<TenantName>> {
    let rows = sqlx::query(
        "SELECT name FROM tenants WHERE server = $1 AND NOT EXISTS (SELECT 1 FROM servers WHERE servers.name = $1) ORDER BY name",
    )
    .bind(name.as_str())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| parse(&column::<String>(row, "name")?)).collect()
}

/// Says that members were written, in the transaction that wrote them.
pub(super) async fn members_changed(connection: &mut sqlx::AnyConnection) -> Result<()> {
    sqlx::query("UPDATE revisions SET number = number + 1 WHERE name = 'servers'").execute(connection).await?;
    Ok(())
}

/// Another machine must not be taken for one that is lost, neither by its tenants' rows nor by operations that go on about it; nor for one
/// that has another name now, and this one in its certificate.
async fn may_begin(connection: &mut sqlx::AnyConnection, name: &ServerName) -> Result<()> {
    let renamed = sqlx::query("SELECT * FROM servers WHERE principal = $1")
        .bind(name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(renamed) = renamed.as_ref().map(server).transpose()? {
        return Err(crate::rename::in_a_certificate(name, &renamed.name).into());
    }
    let stranded = stranded_in(&mut *connection, name).await?;
    if !stranded.is_empty() {
        return Err(crate::intent::still_named(name, &stranded).into());
    }
    no_operation(connection, name).await
}

pub(super) async fn require_member(connection: &mut sqlx::AnyConnection, name: &ServerName) -> Result<ServerRow> {
    if let Some(row) = member_in(&mut *connection, name).await? {
        return Ok(row);
    }
    let members = sqlx::query("SELECT * FROM servers").fetch_all(&mut *connection).await?;
    let members: Vec<_> = members.iter().map(server).collect::<Result<_>>()?;
    Err(rename::not_found(name, &members, &renamings_in(connection).await?).into())
}

async fn member_in(connection: &mut sqlx::AnyConnection, name: &ServerName) -> Result<Option<ServerRow>> {
    let row =
        sqlx::query("SELECT * FROM servers WHERE name = $1").bind(name.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(server).transpose()
}

async fn removable(connection: &mut sqlx::AnyConnection, name: &ServerName) -> Result<()> {
    require_member(&mut *connection, name).await?;
    let tenants = sqlx::query("SELECT * FROM tenants WHERE server = $1 ORDER BY name")
        .bind(name.as_str())
        .fetch_all(&mut *connection)
        .await?;
    let tenants: Vec<_> = tenants.iter().map(tenant).collect::<Result<_>>()?;
    if let Some(message) = still_held(name, &tenants) {
        return Err(WireError::refused(reason::WRONG_STATE, message).into());
    }
    no_operation(connection, name).await
}

/// Whose data would go with a server, and how it gets away; a drain moves nobody who is removed.
fn still_held(server: &ServerName, tenants: &[TenantRow]) -> Option<String> {
    let (removed, living): (Vec<_>, Vec<_>) = tenants.iter().partition(|row| row.state == TenantState::Removed);
    let names = |rows: &[&TenantRow]| rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut said = Vec::new();
    if !living.is_empty() {
        said.push(format!(
            "{server} holds the data of {}; move all of it away first with `featherctl server drain {server}`",
            names(&living)
        ));
    }
    if let Some(first) = removed.first() {
        said.push(format!(
            "{server} keeps data of removed tenants: {}; add each again (`featherctl tenant add {}`), so that a drain moves it too",
            names(&removed),
            first.name
        ));
    }
    (!said.is_empty()).then(|| said.join(". "))
}

async fn no_operation(connection: &mut sqlx::AnyConnection, name: &ServerName) -> Result<()> {
    let running = sqlx::query("SELECT id FROM operations WHERE ended_ms IS NULL AND (source = $1 OR target = $1)")
        .bind(name.as_str())
        .fetch_optional(connection)
        .await?;
    let Some(running) = running else { return Ok(()) };
    let id: String = column(&running, "id")?;
    let message = format!("an operation runs on {name}; wait for it with `featherctl operation watch {id}`");
    Err(WireError::refused(reason::OPERATION_RUNNING, message).with("operation", id).into())
}

#[cfg(test)]
mod tests {
    use feather_proto::ids::Generation;
    use time::OffsetDateTime;

    use super::still_held;
    use crate::store::{TenantRow, TenantState};

    fn row(name: &str, state: TenantState) -> TenantRow {
        TenantRow {
            name: name.parse().unwrap(),
            state,
            server: Some("nyc".parse().unwrap()),
            previous_server: None,
            generation: Generation(1),
            generation_issued: Generation(2),
            running: true,
            created: OffsetDateTime::UNIX_EPOCH,
            version: 1,
            bounds: Default::default(),
            limits: Default::default(),
        }
    }

    #[test]
    fn who_stands_in_the_way_is_moved_by_a_drain_or_comes_back_first() {
        let nyc = "nyc".parse().unwrap();
        let said = |rows: &[TenantRow]| still_held(&nyc, rows).unwrap_or_default();
        let (alice, bob) = (row("alice", TenantState::Active), row("bob", TenantState::Active));
        let zoe = row("zoe", TenantState::Removed);
        assert_eq!(said(&[]), "");
        let drain = "nyc holds the data of alice, bob; move all of it away first with `featherctl server drain nyc`";
        assert_eq!(said(&[alice.clone(), bob.clone()]), drain);
        let again = "nyc keeps data of removed tenants: zoe; add each again (`featherctl tenant add zoe`), so that a drain moves it too";
        assert_eq!(said(std::slice::from_ref(&zoe)), again);
        assert_eq!(said(&[alice, bob, zoe]), format!("{drain}. {again}"));
    }
}
