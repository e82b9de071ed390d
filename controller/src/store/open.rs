//! Opening a store: which database a URL means, whether it can be used, and what to do when it cannot.
//!
//! No error and no text made here holds a password.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    AnyConnection, AnyPool, Connection as _,
    any::{AnyPoolOptions, AnyRow},
    migrate::Migrator,
    postgres::PgConnectOptions,
};

use super::{Error, Result, column};

/// How long a database may take to answer the first time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks whether another controller still leads.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Connections to PostgreSQL: one writes, the others read.
const CONNECTIONS: u32 = 8;
/// The oldest PostgreSQL that is good enough, as `server_version_num` counts.
const POSTGRES_OLDEST: u32 = 130_000;
/// What a URL of PostgreSQL may say behind its `?`. Others are refused, by their names only: one of them may be a misspelt `password`.
const POSTGRES_PARAMETERS: [&str; 13] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "port",
    "dbname",
    "user",
    "password",
];
/// What a URL is to look like.
const FORMS: &str = "write sqlite:///PATH, or postgres://USER@HOST:5432/DATABASE (its password in PGPASSWORD, in a file that PGPASSFILE names, or with \
                     the whole URL in FEATHER_CONTROLLER_STORE)";

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file of SQLite.
    Embedded,
    /// A server of PostgreSQL.
    Postgres,
}

fn unusable(advice: impl Into<String>, source: Option<sqlx::Error>) -> Error {
    Error::Unusable { advice: advice.into(), source }
}

impl Kind {
    /// Reads it off a URL.
    pub(super) fn of(url: &str) -> Result<Self> {
        match url.split(':').next() {
            Some("sqlite") => Ok(Kind::Embedded),
            Some("postgres" | "postgresql") => Ok(Kind::Postgres),
            _ => Err(unusable(format!("the store's URL names no database that is known here; {FORMS}"), None)),
        }
    }
}

/// Is there a password in this URL?
pub fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || url.contains("password=")
}

/// A URL for people: without a password, whatever it looks like.
pub fn shown(url: &str) -> String {
    match Kind::of(url) {
        Ok(Kind::Embedded) => url.to_owned(),
        Ok(Kind::Postgres) => PgConnectOptions::from_str(url).map_or_else(
            |_| "postgres://...".to_owned(),
            |options| {
                let socket = options.get_socket().map(|path| path.display().to_string());
                let place = socket.unwrap_or_else(|| format!("{}:{}", options.get_host(), options.get_port()));
                let database = options.get_database().unwrap_or(options.get_username());
                format!("postgres://{}@{place}/{database}", options.get_username())
            },
        ),
        Err(_) => "that was given".to_owned(),
    }
}

fn known_parameters(url: &str) -> Result<()> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        if !POSTGRES_PARAMETERS.contains(&&*name) {
            let advice = format!(
                "the store's URL says {name:?}, which is not known; known are {}",
                POSTGRES_PARAMETERS.join(", ")
            );
            return Err(unusable(advice, None));
        }
    }
    Ok(())
}

/// What to do when PostgreSQL cannot be used.
fn advice(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(_) => format!("the store's URL is not understood; {FORMS}"),
        sqlx::Error::Io(_) => "no PostgreSQL answers at the store's address: is it running, does it listen there \
                               (listen_addresses), may this machine reach its port?"
            .into(),
        sqlx::Error::Tls(_) => {
            "PostgreSQL and this controller do not agree about TLS; look at sslmode and sslrootcert in the store's URL".into()
        }
        sqlx::Error::Database(refused) => match refused.code().as_deref() {
            Some("28P01" | "28000") => "PostgreSQL does not let this user in: check the user, its password (PGPASSWORD, PGPASSFILE) and \
                                        the server's pg_hba.conf"
                .into(),
            Some("3D000") => "PostgreSQL has no such database; make it: createdb --owner USER DATABASE".into(),
            Some("42501") => {
                "this user may not make tables in the store's database; give it to them: ALTER DATABASE name OWNER TO user".into()
            }
            Some("53300") => "PostgreSQL has no connection left; raise its max_connections, eight are needed for each controller".into(),
            _ => "PostgreSQL refused; its log says more".into(),
        },
        _ => "the store's database cannot be used".into(),
    }
}

/// Is this version of PostgreSQL one that the store runs on?
fn new_enough(version_number: &str) -> Result<()> {
    match version_number.trim().parse::<u32>() {
        Ok(number) if number >= POSTGRES_OLDEST => Ok(()),
        _ => Err(unusable(
            format!(
                "the store's PostgreSQL is too old (server_version_num {version_number}); {} or newer is needed, upgrade the server",
                POSTGRES_OLDEST / 10_000
            ),
            None,
        )),
    }
}

/// The pool of an embedded store. One connection: there is one writer anyway, and a queue in the pool is fairer than SQLite's busy handler.
pub(super) async fn embedded(url: &str) -> Result<AnyPool> {
    let url = if url.contains('?') { url.to_owned() } else { format!("{url}?mode=rwc") };
    let options = AnyPoolOptions::new().max_connections(1).after_connect(|connection, _| {
        Box::pin(async move {
            for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA busy_timeout = 5000"] {
                sqlx::query(pragma).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    let advice = "the store's file cannot be opened; does its folder exist, and may this process write there?";
    options.connect(&url).await.map_err(|error| unusable(advice, Some(error)))
}

/// The pool of a store in PostgreSQL, after a look at who answers there.
pub(super) async fn postgres(url: &str) -> Result<AnyPool> {
    known_parameters(url)?;
    // Not by the pool: it goes on trying for half a minute, and keeps the reason to itself.
    let first = tokio::time::timeout(PATIENCE, AnyConnection::connect(url)).await;
    let Ok(first) = first else {
        let advice = format!("the store's PostgreSQL did not answer within {} s", PATIENCE.as_secs());
        return Err(unusable(advice, None));
    };
    let refused = |error: sqlx::Error| unusable(advice(&error), Some(error));
    let mut first = first.map_err(refused)?;
    let row: AnyRow = sqlx::query("SELECT current_setting('server_version_num') AS version")
        .fetch_one(&mut first)
        .await
        .map_err(refused)?;
    new_enough(&column::<String>(&row, "version")?)?;
    first.close().await.map_err(refused)?;
    let options = AnyPoolOptions::new().max_connections(CONNECTIONS).after_connect(|connection, _| {
        Box::pin(async move {
            // Whatever the server's defaults are. What was acknowledged is on disk; a turn ends also when its holder's machine has gone.
            for setting in [
                "SET default_transaction_isolation = 'read committed'",
                "SET synchronous_commit = 'on'",
                "SET idle_in_transaction_session_timeout = '5s'",
                "SET lock_timeout = '10s'",
            ] {
                sqlx::query(setting).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    options.connect(url).await.map_err(refused)
}

/// Waits as long as another controller leads and the schema is older than this version's.
pub(super) async fn until_changeable(pool: &AnyPool, schema: &Migrator) {
    let mut told = false;
    while !is_current(pool, schema).await && is_led(pool).await {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                "the store has the schema of an older version, whose controller leads; waiting until it is stopped"
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn is_current(pool: &AnyPool, schema: &Migrator) -> bool {
    let done = sqlx::query("SELECT COUNT(*) AS done FROM _sqlx_migrations").fetch_one(pool).await;
    // A database that is new has no such table.
    let done = done.ok().and_then(|row| column::<i64>(&row, "done").ok());
    done.and_then(|done| usize::try_from(done).ok()).is_some_and(|done| done >= schema.iter().count())
}

/// Also without the tables that say so: then nobody does.
async fn is_led(pool: &AnyPool) -> bool {
    let left = "SELECT expires_ms - CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS left_ms FROM turns WHERE name = 'write'";
    let left = sqlx::query(left).fetch_one(pool).await.ok().and_then(|row| column::<i64>(&row, "left_ms").ok());
    left.is_some_and(|left| left > 0)
}

/// Advice for a schema that could not be made, if there is any.
pub(super) fn migration(error: sqlx::migrate::MigrateError) -> Error {
    match error {
        sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _)
            if error.as_database_error().and_then(|error| error.code()).as_deref() == Some("42501") =>
        {
            unusable(advice(&error), Some(error))
        }
        other => Error::Migrate(other),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, POSTGRES_OLDEST, has_password, known_parameters, new_enough, shown};

    #[test]
    fn no_password_of_a_url_is_ever_shown() {
        for (url, expected) in [
            ("sqlite:///var/x.db", "sqlite:///var/x.db"),
            ("postgres://me:hush@db.example.com/fleet", "postgres://me@db.example.com:5432/fleet"),
            ("postgres://me:hush@db.example.com:5433/fleet?sslmode=require", "postgres://me@db.example.com:5433/fleet"),
            ("postgres://me@db/fleet?password=h@ush", "postgres://me@db:5432/fleet"),
            ("postgres:///fleet?host=/run/pg&user=me&password=hush", "postgres://me@/run/pg/fleet"),
            ("postgres://me:hu?sh@db:x/fleet", "postgres://..."),
            ("mysql://me:hush@db/fleet", "that was given"),
        ] {
            assert_eq!(shown(url), expected);
            assert!(!shown(url).contains("hush") && !shown(url).contains("ush@"), "{url}");
        }
    }

    #[test]
    fn a_password_is_recognised_wherever_it_stands() {
        for url in ["postgres://me:hush@db/x", "postgres://me@db/x?sslmode=require&password=hush"] {
            assert!(has_password(url), "{url}");
        }
        for url in ["sqlite:///var/x.db", "postgres://db:5432/x", "postgres://me@db:5432/x", "postgres:///x?host=/run"]
        {
            assert!(!has_password(url), "{url}");
        }
    }

    #[test]
    fn what_is_no_store_and_what_no_parameter_is_said_without_its_value() {
        let error = Kind::of("mysql://me:hush@db/x").unwrap_err().to_string();
        assert!(error.contains("postgres://USER@HOST") && !error.contains("hush"), "{error}");
        let error = known_parameters("postgres://me@db/x?sslmode=require&pasword=hush").unwrap_err().to_string();
        assert!(error.contains("pasword") && !error.contains("hush"), "{error}");
        assert!(known_parameters("postgres://me@db/x?sslmode=require").is_ok());
    }

    #[test]
    fn an_old_server_is_refused_with_the_version_that_is_needed() {
        assert!(new_enough(&POSTGRES_OLDEST.to_string()).is_ok());
        assert!(new_enough("150014").is_ok());
        let error = new_enough("120022").unwrap_err().to_string();
        assert!(error.contains("13 or newer"), "{error}");
        assert!(new_enough("").is_err());
    }
}
