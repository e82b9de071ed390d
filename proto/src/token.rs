//! The form that tokens have when people copy them: a word that says what they are for, and JSON that needs no quoting.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, reason};

/// A token is some hundred characters; more is not one of ours.
const LENGTH_MAX: usize = 4096;

/// Writes one.
pub(crate) fn write<T: Serialize>(
    formatter: &mut std::fmt::Formatter<'_>,
    prefix: &str,
    token: &T,
) -> std::fmt::Result {
    let json = serde_json::to_vec(token).map_err(|_| std::fmt::Error)?;
    write!(formatter, "{prefix}{}", URL_SAFE_NO_PAD.encode(json))
}

/// Reads one; spaces around it do not matter. `command` is what printed it.
pub(crate) fn read<T: DeserializeOwned>(text: &str, what: &str, prefix: &str, command: &str) -> Result<T, Error> {
    let encoded = text.trim().strip_prefix(prefix).filter(|encoded| encoded.len() <= LENGTH_MAX);
    let json = encoded.and_then(|encoded| URL_SAFE_NO_PAD.decode(encoded).ok());
    json.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(|| {
        Error::invalid(
            reason::JOIN_TOKEN,
            format!(
                "this is not a whole {what} token; it begins with {prefix:?}: copy all of what `{command}` printed"
            ),
        )
    })
}
