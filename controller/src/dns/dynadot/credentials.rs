//! Key and secret of an account: where they come from, and that they go nowhere but into a request's headers.

use std::{fmt, os::unix::fs::PermissionsExt as _, path::Path};

use http::HeaderValue;
use ring::hmac;

use super::signature;

/// Environment variable with the API key.
pub const KEY: &str = "FEATHER_DYNADOT_KEY";
/// Environment variable with the API secret.
pub const SECRET: &str = "FEATHER_DYNADOT_SECRET";
/// Environment variable with the name of a file that holds the API key.
pub const KEY_FILE: &str = "FEATHER_DYNADOT_KEY_FILE";
/// Environment variable with the name of a file that holds the API secret.
pub const SECRET_FILE: &str = "FEATHER_DYNADOT_SECRET_FILE";

/// What a text is replaced by that held one of the two.
const HIDDEN: &str = "[hidden]";
/// Shorter ones would be found in ordinary words when texts are cleaned of them.
const LENGTH_MIN: usize = 8;

/// Why there are no credentials. Holds neither.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Not given at all.
    #[error("the Dynadot API {what} is missing; set {variable}, or {variable}_FILE to a file that holds it")]
    Missing {
        /// `key` or `secret`.
        what: &'static str,
        /// Where it is looked for.
        variable: &'static str,
    },
    /// Given twice.
    #[error("{variable} and a file are both given for the Dynadot API {what}; keep one of them")]
    Twice {
        /// `key` or `secret`.
        what: &'static str,
        /// Where it is looked for.
        variable: &'static str,
    },
    /// The file cannot be read.
    #[error("the file {path} with the Dynadot API {what} cannot be read")]
    File {
        /// `key` or `secret`.
        what: &'static str,
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Anybody on the machine may read it.
    #[error("everybody on this machine may read {path} with the Dynadot API {what}; type `chmod 600 {path}`")]
    Open {
        /// `key` or `secret`.
        what: &'static str,
        /// The file.
        path: String,
    },
    /// No key looks like this.
    #[error(
        "the Dynadot API {0} must be one line of at least 8 letters, digits or signs; copy it again from Dynadot's page"
    )]
    Malformed(&'static str),
}

/// Key and secret. Neither is ever printed.
#[derive(Clone)]
pub struct Credentials {
    key: String,
    secret: String,
    signer: hmac::Key,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(hidden)")
    }
}

impl Credentials {
    /// From the values themselves, white space at their ends removed.
    pub fn new(key: &str, secret: &str) -> Result<Self, CredentialsError> {
        let (key, secret) = (clean("key", key)?, clean("secret", secret)?);
        let signer = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Ok(Self { key, secret, signer })
    }

    /// From the environment, as `variable` shows it, or from files: those named here, else those that the environment names.
    /// Reads files; may be called again after they changed.
    pub fn load(
        variable: impl Fn(&str) -> Option<String>,
        key_file: Option<&Path>,
        secret_file: Option<&Path>,
    ) -> Result<Self, CredentialsError> {
        let one = |what, name: &'static str, file_name, file: Option<&Path>| {
            let named = file.map(Path::to_owned).or_else(|| variable(file_name).map(Into::into));
            match (variable(name), named) {
                (Some(value), None) => Ok(value),
                (None, Some(path)) => read(what, &path),
                (Some(_), Some(_)) => Err(CredentialsError::Twice { what, variable: name }),
                (None, None) => Err(CredentialsError::Missing { what, variable: name }),
            }
        };
        Self::new(&one("key", KEY, KEY_FILE, key_file)?, &one("secret", SECRET, SECRET_FILE, secret_file)?)
    }

    /// Value of the header `Authorization`, marked so that nothing prints it.
    pub(super) fn authorization(&self) -> HeaderValue {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", self.key)).expect("keys are checked to be visible ASCII");
        value.set_sensitive(true);
        value
    }

    /// Value of the header `X-Signature` of a request.
    pub(super) fn signature(&self, path_and_query: &str, body: &[u8]) -> HeaderValue {
        let signature = signature::sign(&self.signer, &self.key, path_and_query, body);
        let mut value = HeaderValue::from_str(&signature).expect("Base64 fits into a header");
        value.set_sensitive(true);
        value
    }

    /// The text without key and secret: what a server says may repeat what it was sent.
    pub(super) fn redact(&self, text: &str) -> String {
        text.replace(&self.key, HIDDEN).replace(&self.secret, HIDDEN)
    }
}

fn clean(what: &'static str, value: &str) -> Result<String, CredentialsError> {
    let value = value.trim();
    let fits = value.len() >= LENGTH_MIN && value.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(value.to_owned()) } else { Err(CredentialsError::Malformed(what)) }
}

fn read(what: &'static str, path: &Path) -> Result<String, CredentialsError> {
    let failed = |source| CredentialsError::File { what, path: path.display().to_string(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(CredentialsError::Open { what, path: path.display().to_string() });
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path};

    use super::{Credentials, CredentialsError, KEY, KEY_FILE, SECRET, SECRET_FILE};

    fn load(
        variables: &[(&str, &str)],
        key: Option<&Path>,
        secret: Option<&Path>,
    ) -> Result<Credentials, CredentialsError> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Credentials::load(|name| variables.get(name).map(ToString::to_string), key, secret)
    }

    #[test]
    fn they_come_from_the_environment_or_from_files_but_not_from_both() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "the-key-of-the-file\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let name = file.to_str().unwrap();

        let plain = load(&[(KEY, "a-key-of-ours"), (SECRET, "a-secret-of-ours")], None, None).unwrap();
        assert_eq!(plain.authorization().to_str().unwrap(), "Bearer a-key-of-ours");
        let filed = load(&[(KEY_FILE, name), (SECRET_FILE, name)], None, None).unwrap();
        assert_eq!(filed.authorization().to_str().unwrap(), "Bearer the-key-of-the-file");
        assert!(load(&[(SECRET, "a-secret-of-ours")], Some(&file), None).is_ok());

        let twice = load(&[(KEY, "a-key-of-ours"), (SECRET, "a-secret-of-ours")], Some(&file), None).unwrap_err();
        assert!(matches!(twice, CredentialsError::Twice { what: "key", .. }), "{twice}");
        let missing = load(&[(KEY, "a-key-of-ours")], None, None).unwrap_err();
        assert!(missing.to_string().contains("FEATHER_DYNADOT_SECRET_FILE"), "{missing}");
        let none = load(&[(KEY_FILE, "/nowhere"), (SECRET, "a-secret-of-ours")], None, None).unwrap_err();
        assert!(none.to_string().contains("/nowhere"), "{none}");

        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let open = load(&[(SECRET, "a-secret-of-ours")], Some(&file), None).unwrap_err();
        assert!(open.to_string().contains("chmod 600"), "{open}");
    }

    #[test]
    fn they_are_never_shown() {
        let credentials = Credentials::new("a-key-of-ours", " a-secret-of-ours\n").unwrap();
        let shown = format!("{credentials:?} {:?} {:?}", credentials.authorization(), credentials.signature("/", b""));
        assert!(!shown.contains("ours") && !shown.contains("Bearer"), "{shown}");
        assert_eq!(credentials.redact("a-key-of-ours is not a-secret-of-ours"), "[hidden] is not [hidden]");
        for (key, secret) in [("short", "a-secret-of-ours"), ("a-key-of-ours", "two\nlines of it")] {
            let refused = Credentials::new(key, secret).unwrap_err().to_string();
            assert!(!refused.contains(key) && !refused.contains("two"), "{refused}");
        }
    }
}
