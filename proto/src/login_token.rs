//! The login token: what a person's machine needs to find the controller, to know that it is the right one, and to get a certificate.

use std::{fmt, str::FromStr};

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::error::{Error, reason};

const PREFIX: &str = "feather-login-";
/// A token is some hundred characters; more is not one of ours.
const LENGTH_MAX: usize = 4096;

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
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(formatter, "{PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for LoginToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::invalid(
                reason::JOIN_TOKEN,
                format!(
                    "this is not a whole login token; it begins with {PREFIX:?}: copy all of what `featherctl user add` printed"
                ),
            )
        };
        let text = text.trim();
        if text.len() > LENGTH_MAX {
            return Err(bad());
        }
        let encoded = text.strip_prefix(PREFIX).ok_or_else(bad)?;
        let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).map_err(|_| bad())?;
        serde_json::from_slice(&json).map_err(|_| bad())
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
