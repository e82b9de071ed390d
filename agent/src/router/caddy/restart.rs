//! The one process that the agent starts: a command that has a Caddy restarted which answers nobody any more.
//!
//! There is nobody to speak to over a socket then, and who keeps Caddy running is the business of whoever set up the birth:
//! they give the command. It runs without a shell.

use std::{process::Stdio, time::Duration};

use crate::router::Error;

/// The command only asks for it.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn run(command: &[String]) -> Result<(), Error> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::Unsuitable(
            "nobody said how Caddy is restarted; set FEATHER_AGENT_CADDY_RESTART to a command that does it".to_owned(),
        ));
    };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let how = match tokio::time::timeout(LIMIT, command.status()).await {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => format!("ended with {status}"),
        Ok(Err(error)) => format!("cannot be run: {error}"),
        Err(_) => format!("did not end within {} s", LIMIT.as_secs()),
    };
    Err(Error::Unsuitable(format!("`{program}` of FEATHER_AGENT_CADDY_RESTART {how}")))
}
