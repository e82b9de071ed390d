//! The settings, all from the environment, read once. Knows their names and defaults, not what they do.

use std::{env, path::PathBuf, time::Duration};

/// Keys that Feather hands to its tenants besides everything that starts with `FEATHER_`.
const API_KEYS: [&str; 2] = ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"];

/// What this process was told. No `Debug`: it holds the password.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) port: u16,
    pub(crate) home_dir: PathBuf,
    pub(crate) password: Option<String>,
    /// Waits this long before it listens.
    pub(crate) slow_start: Duration,
    /// Healthy answers before `/health` turns to 503; `Some(0)` is never healthy.
    pub(crate) healthy_answers: Option<u64>,
    /// Names of the variables that Feather passes to tenants; their values stay out.
    pub(crate) feather_variables: Vec<String>,
}

impl Config {
    pub(crate) fn from_environment() -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let refuses = env::var("WORK_REFUSE_HEALTH").is_ok_and(|value| value == "1");
        let mut feather_variables: Vec<String> = env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| name.starts_with("FEATHER_") || API_KEYS.contains(&name.as_str()))
            .collect();
        feather_variables.sort();
        Self {
            port: number("PORT").and_then(|port| u16::try_from(port).ok()).unwrap_or(8080),
            home_dir: env::var_os("HOME_DIR").map_or_else(|| PathBuf::from("/home/user"), PathBuf::from),
            password: env::var("FEATHER_PASSWORD").ok().filter(|password| !password.is_empty()),
            slow_start: Duration::from_millis(number("WORK_SLOW_START_MS").unwrap_or(0)),
            healthy_answers: if refuses { Some(0) } else { number("WORK_HEALTH_FAIL_AFTER") },
            feather_variables,
        }
    }
}
