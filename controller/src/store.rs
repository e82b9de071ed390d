//! The controller's store: desired state, in SQL that SQLite and PostgreSQL both speak.
//!
//! Kept: members and their addresses, hashes of join, login and web tokens and of sessions, who has a certificate and whose is refused, tenants with
//! placement and generation, operations with their logs, the audit log, settings, which address of the waitlist became which
//! tenant, which records of a DNS zone are ours and what it was before each change, since when something needs a person and who took
//! note of it, what happened (for 90 days), and secrets that were sealed with a key that is not here. Not kept, because it can be
//! asked again: anything
//! observed (containers, ports, free memory, volumes, who signed up). Never kept, because it must not be: passwords, API keys,
//! transfer tickets, join and login secrets, private keys as they are.
//!
//! Each method is one transaction, and those that write have one turn after the other, also those of several processes on one
//! PostgreSQL. Generations are issued here and nowhere else.

use std::{future::Future, pin::Pin, sync::Arc};

use feather_proto::{
    epoch::Epoch,
    error::{Error as WireError, reason},
};
use sqlx::{AnyPool, any::AnyRow};
use time::OffsetDateTime;
use tokio::sync::watch;

use self::{mirror::Mirror, open::Kind};

mod audit;
pub mod backups;
mod copy;
pub mod dns;
pub mod events;
mod invitations;
mod lead;
mod members;
mod mirror;
mod open;
mod operations;
mod rebuild;
mod rename;
mod sealed;
mod tenants;
#[cfg(test)]
mod tests;
mod users;
pub mod warnings;
mod web;

pub use copy::fold_log;
pub use invitations::Invitation;
pub use lead::Stood;
pub(crate) use members::server_not_found;
pub use members::{Membership, ServerRow};
pub use open::{has_password, shown};
pub use operations::{Append, Begin, Begun, End, LogRow, NewOperation, OperationRow};
pub(crate) use operations::{held, request_id_reused};
pub use rebuild::Learned;
pub use tenants::{SentAway, TakeIn, TenantRow, TenantState, TenantUpdate};
pub(crate) use tenants::{tenant_not_found, world_changed};
pub use users::{PEOPLE, UserRow};
pub use web::{NewWebToken, Viewer};

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or is gone.
    #[error("the store does not answer")]
    Database(#[from] sqlx::Error),
    /// It cannot be opened, and what to do about it.
    #[error("{advice}")]
    Unusable {
        /// A sentence or two.
        advice: String,
        /// What the database or the way to it says.
        source: Option<sqlx::Error>,
    },
    /// The schema could not be brought up to date.
    #[error("the store's schema cannot be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row that this version cannot read.
    #[error("the store holds a value that this version cannot read: {0}")]
    Corrupt(String),
    /// A precondition of the change does not hold.
    #[error(transparent)]
    Refused(#[from] WireError),
}

impl Error {
    /// The schema is one that this version does not know.
    pub fn is_of_another_version(&self) -> bool {
        use sqlx::migrate::MigrateError::{VersionMismatch, VersionMissing, VersionTooNew};
        matches!(self, Error::Migrate(VersionMissing(_) | VersionMismatch(_) | VersionTooNew(..)))
    }
}

impl From<Error> for WireError {
    fn from(error: Error) -> WireError {
        match error {
            Error::Refused(error) => error,
            other => {
                tracing::error!(error = &other as &dyn std::error::Error, "store failed");
                WireError::unavailable(
                    reason::STORAGE,
                    "the controller's store does not answer; look at its disk and its log, then try again",
                )
            }
        }
    }
}

/// Result of a store call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Called after each committed write. A test that never returns from it has a controller that died right after that write.
pub type AfterCommit = Arc<dyn Fn(&'static str) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    /// A file of SQLite.
    embedded: bool,
    after_commit: AfterCommit,
    /// The lead that this process writes under, if it has one.
    epoch: Epoch,
    /// Number of the newest event that this process wrote.
    news: watch::Sender<i64>,
    /// Tenants as last read.
    mirror: Arc<Mirror>,
}

impl Store {
    /// Opens (for SQLite: creates) the store at a URL and brings its schema up to date. While a controller leads on an older schema it waits:
    /// what that one has prepared would not hold any more.
    ///
    /// # Errors
    /// [`Error::Unusable`] says what to do about a wrong URL, a server that does not answer, is too old or lets nobody in.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_watched(url, Arc::new(|_| Box::pin(std::future::ready(())))).await
    }

    /// The same, with a hook behind each committed write.
    pub async fn open_watched(url: &str, after_commit: AfterCommit) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let kind = Kind::of(url)?;
        let pool = match kind {
            Kind::Embedded => open::embedded(url).await?,
            Kind::Postgres => open::postgres(url).await?,
        };
        let schema = sqlx::migrate!("./migrations");
        if kind == Kind::Postgres {
            open::until_changeable(&pool, &schema).await;
        }
        schema.run(&pool).await.map_err(open::migration)?;
        Ok(Self {
            pool,
            embedded: kind == Kind::Embedded,
            after_commit,
            epoch: Epoch::default(),
            news: watch::Sender::new(0),
            mirror: Arc::default(),
        })
    }

    /// Gives the lead back, if there is one, and closes all connections; later calls fail.
    pub async fn close(&self) {
        if let Some(epoch) = self.epoch.get()
            && self.stop_leading(epoch).await.is_err()
        {
            tracing::warn!("the lead was not given back; the next controller waits for its end");
        }
        self.pool.close().await;
    }

    /// Begins a transaction that writes. It has the turn from here to its end, so that nobody changes what it reads, and nobody else can
    /// begin to lead. Refused ([`reason::NOT_LEADER`]) once somebody else leads.
    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>> {
        let mut transaction = self.pool.begin().await?;
        let turn = sqlx::query("UPDATE turns SET taken = taken + 1 WHERE name = 'write' AND ($1 = 0 OR epoch = $1)")
            .bind(self.epoch.for_writes())
            .execute(&mut *transaction)
            .await?;
        if turn.rows_affected() != 1 {
            let message = "another controller leads the fleet now, this one changes nothing any more; call again";
            return Err(WireError::unavailable(reason::NOT_LEADER, message).into());
        }
        Ok(transaction)
    }

    /// Begins a transaction that only reads, all of it at one moment.
    async fn look(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>> {
        let mut transaction = self.pool.begin().await?;
        if !self.embedded {
            // SQLite's are like this always.
            sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut *transaction).await?;
        }
        Ok(transaction)
    }

    async fn commit(&self, transaction: sqlx::Transaction<'static, sqlx::Any>, what: &'static str) -> Result<()> {
        transaction.commit().await?;
        (self.after_commit)(what).await;
        Ok(())
    }
}

fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::Corrupt(what.to_string())
}

fn parse<T>(text: &str) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(corrupt)
}

fn parse_option<T>(text: Option<String>) -> Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.map(|text| parse(&text)).transpose()
}

/// Reads a word of a closed set, written by [`word`].
fn from_word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(corrupt)
}

/// The word of a unit variant, as serde names it.
fn word<T: serde::Serialize>(value: &T) -> Result<String> {
    match serde_json::to_value(value).map_err(corrupt)? {
        serde_json::Value::String(text) => Ok(text),
        other => Err(corrupt(other)),
    }
}

fn to_ms(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn from_ms(ms: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map_err(corrupt)
}

fn column<'row, T>(row: &'row AnyRow, name: &'static str) -> Result<T>
where
    T: sqlx::Decode<'row, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    use sqlx::Row as _;
    Ok(row.try_get(name)?)
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
