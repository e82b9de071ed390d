//! The login token: what a person's machine needs to find the controller, to know that it is the right one, and to get a certificate.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{error::Error, token};

const PREFIX: &str = "feather-login-";

/// A parsed token. `Display` writes the secret, `Debug` does not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginToken {
    /// `host:port` of the controller.
    pub controller: String,
    /// SHA-256 of the fleet's CA certificate (DER), lower-case hexadecimal.
    pub ca_fingerprint: String,
    /// Name that the certificate will have.
    pub name: String,
    /// Proves that an admin added this name; good for one key, until it expires.
    pub secret: String,
}

impl fmt::Debug for LoginToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LoginToken")
            .field("controller", &self.controller)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for LoginToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        token::write(formatter, PREFIX, self)
    }
}

impl FromStr for LoginToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        token::read(text, "login", PREFIX, "featherctl user add")
    }
}

#[cfg(test)]
mod tests {
    use super::LoginToken;

    #[test]
    fn a_token_survives_copying_and_hides_its_secret_from_debug() {
        let token = LoginToken {
            controller: "192.0.2.9:7400".into(),
            ca_fingerprint: "ab".repeat(32),
            name: "ada".into(),
            secret: "hush".into(),
        };
        let text = format!("  {token}\n");
        assert_eq!(text.parse::<LoginToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("hush"));
        for bad in ["", "feather-login-", &text.trim()[..40], "feather-login-!!!!", "feather-join-e30"] {
            assert!(bad.parse::<LoginToken>().is_err(), "{bad:?} was accepted");
        }
    }
}
