//! Passwords of tenants: made from the operating system's generator, never shown by `Debug`.
//!
//! Refuses to know who they belong to. The only ways out are [`Password::expose`] and the ledger's own serialisation.

use std::fmt;

use rand::{TryRng as _, rngs::SysRng};
use serde::{Deserialize, Serialize};

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Bytes from here on would make the first letters of the alphabet likelier than the last.
const REJECT_FROM: u8 = 252;
/// Fewer characters than this can be guessed over the network.
pub const LENGTH_MIN: usize = 6;
/// More than this fits on no line.
pub const LENGTH_MAX: usize = 64;

/// A password is not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gave no randomness.
    #[error("the operating system's random generator does not answer")]
    NoRandomness(#[source] rand::rngs::SysError),
    /// It cannot be put into an environment.
    #[error(
        "the password is empty, longer than {LENGTH_MAX} characters or has characters that are not printable ASCII"
    )]
    Unusable,
}

/// A tenant's password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// A new one of this many of `[a-z0-9]`.
    pub fn generate(length: usize) -> Result<Self, Error> {
        let mut text = String::with_capacity(length);
        let mut bytes = [0_u8; 64];
        while text.len() < length {
            SysRng.try_fill_bytes(&mut bytes).map_err(Error::NoRandomness)?;
            let fair = bytes.iter().filter(|byte| **byte < REJECT_FROM);
            text.extend(
                fair.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).take(length - text.len()),
            );
        }
        Ok(Self(text))
    }

    /// One that a peer sent along with a tenant.
    pub fn received(text: String) -> Result<Self, Error> {
        if text.is_empty() || text.len() > LENGTH_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Unusable);
        }
        Ok(Self(text))
    }

    /// The characters, for the container's environment and for whoever asked for the password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(..)")
    }
}

/// A secret of 32 hexadecimal characters for probe routes.
pub(crate) fn random_token() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    SysRng.try_fill_bytes(&mut bytes).map_err(Error::NoRandomness)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::{ALPHABET, Password};

    #[test]
    fn passwords_have_their_length_and_letters_and_differ() {
        for length in [6, 10, 64] {
            let password = Password::generate(length).unwrap();
            assert_eq!(password.expose().len(), length);
            assert!(password.expose().bytes().all(|byte| ALPHABET.contains(&byte)));
        }
        assert_ne!(Password::generate(20).unwrap(), Password::generate(20).unwrap());
    }

    #[test]
    fn debug_shows_nothing() {
        let password = Password::generate(10).unwrap();
        assert!(!format!("{password:?}").contains(password.expose()));
    }

    #[test]
    fn received_passwords_must_fit_into_an_environment() {
        assert!(Password::received("x7k9m2".into()).is_ok());
        for bad in [String::new(), "a b".into(), "a\nb".into(), "a\0".into(), "x".repeat(65)] {
            assert!(Password::received(bad).is_err());
        }
    }
}
