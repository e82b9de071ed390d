//! The join token: what a new server needs to find its controller, to know that it is the right one, and to be let in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{error::Error, ids::ServerName, token};

const PREFIX: &str = "feather-join-";

/// A parsed token. `Display` writes the secret, `Debug` does not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// `host:port` of the controller; of several, with commas between them.
    pub controller: String,
    /// SHA-256 of the fleet's CA certificate (DER), lower-case hexadecimal.
    pub ca_fingerprint: String,
    /// Name that the server will have.
    pub server: ServerName,
    /// Proves that an admin invited it; good for one key, until it expires.
    pub secret: String,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JoinToken")
            .field("controller", &self.controller)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        token::write(formatter, PREFIX, self)
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        token::read(text, "join", PREFIX, "featherctl server invite")
    }
}

#[cfg(test)]
mod tests {
    use super::JoinToken;

    #[test]
    fn a_token_survives_copying_and_hides_its_secret_from_debug() {
        let token = JoinToken {
            controller: "192.0.2.9:7400".into(),
            ca_fingerprint: "ab".repeat(32),
            server: "nyc".parse().unwrap(),
            secret: "hush".into(),
        };
        let text = format!("  {token}\n");
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("hush"));
        for bad in ["", "feather-join-", &text.trim()[..40], "feather-join-!!!!"] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad:?} was accepted");
        }
    }
}
