//! Names and numbers that identify things: newtypes that parse, display and cannot hold a bad value.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, reason};

/// Longest tenant name in bytes.
pub const TENANT_NAME_MAX: usize = 20;
/// Longest server name in bytes; it becomes a DNS label of a certificate.
pub const SERVER_NAME_MAX: usize = 32;

/// Names that mean something else under the suffix, or would look as if they did.
const RESERVED_TENANTS: &[&str] =
    &["admin", "api", "www", "root", "feather", "controller", "agent", "localhost", "wildcard", "users"];

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

pub(crate) use text_newtype;

text_newtype! {
    /// A tenant: `^[a-z][a-z0-9-]{0,19}$`, not ending in `-`, because it becomes a DNS label.
    TenantName
}

text_newtype! {
    /// A server: `^[a-z][a-z0-9-]{0,31}$`, not ending in `-`.
    ServerName
}

text_newtype! {
    /// An operation: `op-` and a UUID.
    OperationId
}

fn is_label(text: &str, longest: usize) -> bool {
    let bytes = text.as_bytes();
    (1..=longest).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes.last() != Some(&b'-')
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

impl FromStr for TenantName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if !is_label(text, TENANT_NAME_MAX) {
            return Err(Error::invalid(
                reason::INVALID_NAME,
                format!(
                    "{text:?} is not a tenant name: use 1 to {TENANT_NAME_MAX} of a-z, 0-9 and '-', beginning with a letter and not \
                     ending in '-'"
                ),
            ));
        }
        if RESERVED_TENANTS.contains(&text) {
            return Err(Error::invalid(
                reason::RESERVED_NAME,
                format!("the name {text:?} is reserved; choose another, for example {text:?} with a digit behind it"),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TenantName {
    /// Name of the tenant's container and volume in Podman.
    pub fn container(&self) -> String {
        format!("feather-user-{}", self.0)
    }

    /// The tenant of a container or volume name, if it is one of ours.
    pub fn from_container(name: &str) -> Option<Self> {
        name.trim_start_matches('/').strip_prefix("feather-user-")?.parse().ok()
    }

    /// Host name under a suffix.
    pub fn host(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.0)
    }
}

/// A domain under which tenants are served, as everything compares it: lower case, without a dot at the end.
///
/// # Errors
/// It is no domain name.
pub fn domain_suffix(text: &str) -> Result<String, Error> {
    let suffix = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if suffix.len() <= 253 && suffix.split('.').all(is_label) {
        return Ok(suffix);
    }
    Err(Error::invalid(
        reason::INVALID_FIELD,
        format!(
            "{text:?} is no domain: write labels of letters, digits and hyphens with dots between them, as users.example.com"
        ),
    ))
}

impl FromStr for ServerName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_label(text, SERVER_NAME_MAX) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(
            reason::INVALID_NAME,
            format!(
                "{text:?} is not a server name: use 1 to {SERVER_NAME_MAX} of a-z, 0-9 and '-', beginning with a letter and not ending \
                 in '-'"
            ),
        ))
    }
}

impl FromStr for OperationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix("op-").map(uuid::Uuid::parse_str) {
            Some(Ok(id)) => Ok(Self::from_uuid(id)),
            _ => Err(Error::invalid(
                reason::INVALID_ID,
                format!("{text:?} is not an operation id; `featherctl operation list` shows them"),
            )),
        }
    }
}

impl OperationId {
    /// The id made of a UUID.
    pub fn from_uuid(id: uuid::Uuid) -> Self {
        Self(format!("op-{}", id.as_hyphenated()))
    }
}

/// Fencing number of a tenant's placement. Issued only by a transaction of the controller's store, or by an agent that has
/// no controller; 0 means *none yet*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The next higher one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::{OperationId, ServerName, TenantName, domain_suffix};
    use crate::error::reason;

    #[test]
    fn tenant_names_follow_the_pattern() {
        for good in ["a", "alice", "a-b", "a1", "abcdefghijklmnopqrst"] {
            assert_eq!(good.parse::<TenantName>().unwrap().as_str(), good);
        }
        for bad in
            ["", "-a", "a-", "1a", "Alice", "a_b", "a.b", "abcdefghijklmnopqrstu", "é", "a b", "../x", "admin", "www"]
        {
            assert!(bad.parse::<TenantName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_suffix_is_what_everything_else_compares() {
        for good in ["users.example.com", "Users.Example.COM", "users.example.com."] {
            assert_eq!(domain_suffix(good).unwrap(), "users.example.com");
        }
        assert_eq!(domain_suffix("localhost").unwrap(), "localhost");
        for bad in ["", ".", "users..com", "users.example.com..", "a b", "$(reboot).com", &"a".repeat(64)] {
            assert!(domain_suffix(bad).unwrap_err().is(reason::INVALID_FIELD), "{bad:?} was accepted");
        }
    }

    #[test]
    fn server_names_and_operation_ids_parse() {
        assert!("nyc".parse::<ServerName>().is_ok());
        assert!("NYC".parse::<ServerName>().is_err());
        let id = OperationId::from_uuid(uuid::Uuid::from_u128(7));
        assert_eq!(id.as_str().parse::<OperationId>().unwrap(), id);
        assert!("op-7".parse::<OperationId>().is_err());
    }

    #[test]
    fn containers_map_to_tenants() {
        let alice: TenantName = "alice".parse().unwrap();
        assert_eq!(TenantName::from_container("/feather-user-alice"), Some(alice.clone()));
        assert_eq!(TenantName::from_container("feather-work-blue"), None);
        assert_eq!(alice.host("users.example.com"), "alice.users.example.com");
    }
}
