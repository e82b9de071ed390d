//! A PostgreSQL for tests: made when the first test asks, thrown away when this process ends, however it ends.
//!
//! The server belongs to a shell that holds the read end of a pipe. When the last test is over, or the process was killed, the pipe
//! closes, and the shell stops the server and removes its folder.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{AnyConnection, Connection as _};

/// Nobody: a server of PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// Arguments: the folder of the programs, the cluster's own folder. Data that is thrown away needs no flushing.
const KEEPER: &str = r#"
trap 'rm -rf "$2"' EXIT
"$1/initdb" -D "$2/data" --no-sync --auth=trust --username=feather --encoding=UTF8 --locale=C >"$2/log" 2>&1 &&
"$1/pg_ctl" -D "$2/data" -w -s -l "$2/log" start </dev/null >/dev/null 2>&1 \
  -o "-c listen_addresses='' -c unix_socket_directories='$2' -c fsync=off -c max_connections=300 -c shared_buffers=16MB" ||
  { echo failed; tail -n 20 "$2/log" >&2; exit 1; }
echo ready
read -r never
"$1/pg_ctl" -D "$2/data" -m immediate -s stop
"#;

struct Cluster {
    /// Where its socket is.
    folder: PathBuf,
    databases: AtomicU32,
    /// The server lives as long as the pipe to this one.
    _keeper: Child,
}

static CLUSTER: LazyLock<Cluster> = LazyLock::new(start);

/// Where the programs are: the newest version's folder of Debian and Ubuntu.
fn programs() -> PathBuf {
    let version = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = installed.filter(|folder| folder.join("bin/initdb").exists()).max_by_key(|folder| version(folder));
    newest.expect("no PostgreSQL in /usr/lib/postgresql; scripts/setup installs it").join("bin")
}

fn start() -> Cluster {
    let folder = tempfile::Builder::new().prefix("feather-postgres-").tempdir().unwrap().keep();
    let mut keeper = Command::new("/bin/sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(programs()).arg(&folder).current_dir(&folder).env_clear();
    // A group of its own: what ends the tests from a keyboard lets the keeper do its work.
    keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        keeper.uid(NOBODY).gid(NOBODY);
    }
    let mut keeper = keeper.env("PATH", "/usr/bin:/bin").spawn().unwrap();
    let mut said = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said.trim(), "ready", "PostgreSQL does not start; see above");
    Cluster { folder, databases: AtomicU32::new(0), _keeper: keeper }
}

fn url(database: &str) -> String {
    format!("postgres:///{database}?host={}&user=feather", CLUSTER.folder.display())
}

/// The URL of an empty database of its own.
pub(super) async fn database() -> String {
    sqlx::any::install_default_drivers();
    let name = format!("test_{}", CLUSTER.databases.fetch_add(1, Ordering::Relaxed));
    let mut connection = AnyConnection::connect(&url("postgres")).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    url(&name)
}

/// The URL of a database that nobody has made.
pub(super) fn nowhere() -> String {
    url("nowhere")
}
