//! Who is logged in: the password, and a session token derived from it. The token's secret lives in the home, so a login
//! outlives restarts and moves, and ends when the password changes. It knows nothing of routes.

use std::{fs, io, os::unix::fs::PermissionsExt};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{home::Home, journal::random_hex};

/// The cookie that carries the session token.
pub(crate) const COOKIE: &str = "feather_session";
const SECRET_FILE: &str = ".feather-session";

/// Decides who may pass. No `Debug`: it holds the password.
pub(crate) struct Sessions {
    /// Password and token; nobody may pass when there is no password.
    credentials: Option<Credentials>,
}

struct Credentials {
    password: String,
    token: String,
}

impl Sessions {
    pub(crate) fn open(home: &Home, password: Option<String>) -> io::Result<Self> {
        let Some(password) = password else { return Ok(Self { credentials: None }) };
        let path = home.path(SECRET_FILE);
        let secret = match fs::read_to_string(&path) {
            Ok(secret) => secret,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = random_hex::<32>()?;
                fs::write(&path, &secret)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                secret
            }
            Err(error) => return Err(error),
        };
        let digest = Sha256::new().chain_update(secret).chain_update([0]).chain_update(&password).finalize();
        let token = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { credentials: Some(Credentials { password, token }) })
    }

    /// The session token for the right password.
    pub(crate) fn log_in(&self, password: &str) -> Option<&str> {
        let credentials = self.credentials.as_ref()?;
        same(&credentials.password, password).then_some(credentials.token.as_str())
    }

    /// Whether a request carries the password or a session, in any of the accepted ways.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(credentials) = &self.credentials else { return false };
        let authorization = text(headers, header::AUTHORIZATION);
        if let Some(bearer) = authorization.strip_prefix("Bearer ") {
            return same(&credentials.password, bearer) || same(&credentials.token, bearer);
        }
        if let Some(basic) = authorization.strip_prefix("Basic ") {
            return basic_password(basic).is_some_and(|password| same(&credentials.password, &password));
        }
        let cookies = text(headers, header::COOKIE);
        let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| name == COOKIE && same(&credentials.token, value))
    }
}

fn same(expected: &str, given: &str) -> bool {
    expected.as_bytes().ct_eq(given.as_bytes()).into()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Basic authentication with any user name, so that `curl -u` works.
fn basic_password(encoded: &str) -> Option<String> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn password_and_session_pass_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let sessions = Sessions::open(&home, Some("x7k9m2".into())).unwrap();
        let token = sessions.log_in("x7k9m2").unwrap().to_owned();
        assert!(sessions.log_in("x7k9m3").is_none());

        let cookie = format!("theme=dark; {COOKIE}={token}");
        for (name, value, admitted) in [
            (header::AUTHORIZATION, "Bearer x7k9m2", true),
            (header::AUTHORIZATION, &*format!("Bearer {token}"), true),
            (header::AUTHORIZATION, "Basic YWxpY2U6eDdrOW0y", true), // alice:x7k9m2
            (header::COOKIE, &cookie, true),
            (header::AUTHORIZATION, "Bearer wrong", false),
            (header::AUTHORIZATION, "Basic YWxpY2U6bm8=", false),
            (header::AUTHORIZATION, "Basic ???", false),
            (header::COOKIE, "feather_session=x7k9m2", false),
            (header::ACCEPT, "*/*", false),
        ] {
            assert_eq!(sessions.admits(&headers(name, value)), admitted, "{value}");
        }
    }

    #[test]
    fn a_session_outlives_a_restart_but_not_a_new_password() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let token = |password: &str| {
            let sessions = Sessions::open(&home, Some(password.into())).unwrap();
            sessions.log_in(password).unwrap().to_owned()
        };
        assert_eq!(token("first"), token("first"));
        assert_ne!(token("first"), token("second"));
    }

    #[test]
    fn without_a_password_nobody_passes() {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(&Home::open(directory.path()).unwrap(), None).unwrap();
        assert!(sessions.log_in("").is_none());
        assert!(!sessions.admits(&headers(header::AUTHORIZATION, "Bearer ")));
    }
}
