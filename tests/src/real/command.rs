//! Programs, started with the fleet's settings in their environment, and bounded in time.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// No program of a test takes this long.
const BOUND: Duration = Duration::from_secs(150);

/// How a program ended, and what it said.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output of a program that must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    fn of(output: &std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Where programs are, and their environment.
#[derive(Clone)]
pub(super) struct Commands {
    root: PathBuf,
    environment: BTreeMap<String, OsString>,
}

impl Commands {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), environment: BTreeMap::new() }
    }

    pub(super) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.environment.insert(name.to_owned(), value.as_ref().to_owned());
    }

    fn command(&self, program: &Path, arguments: &[&str], input: Option<&Path>) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        if let Some(path) = input {
            command.stdin(std::fs::File::open(path).expect("the input is there"));
        }
        // Somebody else's fleet may be named in the environment of the tests.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FEATHER")) {
            command.env_remove(name);
        }
        command.envs(&self.environment).current_dir(&self.root);
        command
    }

    pub(super) async fn run(&self, program: &Path, arguments: &[&str], input: Option<&Path>) -> Ran {
        let mut command = tokio::process::Command::from(self.command(program, arguments, input));
        let output = tokio::time::timeout(BOUND, command.kill_on_drop(true).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{} {arguments:?} took over {BOUND:?}", program.display()));
        Ran::of(&output.unwrap_or_else(|error| panic!("{} {arguments:?}: {error}", program.display())))
    }

    pub(super) async fn script(&self, name: &str, arguments: &[&str], input: Option<&Path>) -> Ran {
        self.run(&self.root.join("scripts").join(name), arguments, input).await
    }

    /// For the time when nothing may be awaited any more.
    pub(super) fn script_blocking(&self, name: &str, arguments: &[&str]) -> Ran {
        let program = self.root.join("scripts").join(name);
        match self.command(&program, arguments, None).output() {
            Ok(output) => Ran::of(&output),
            Err(error) => Ran { code: -1, stdout: String::new(), stderr: error.to_string() },
        }
    }
}
