//! Secrets in the store, readable only with a key that is not in it.
//!
//! The key is a file in the controller's state folder, made at its first use and readable by its owner only, as the fleet's CA is.
//! Whoever has a copy of the store, a backup for instance, has none of the secrets. What is sealed under one name cannot
//! be opened under another.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::{TryRng as _, rngs::SysRng};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const KEY_LENGTH: usize = 32;

/// What can go wrong. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file cannot be used.
    #[error("cannot use the key file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{0} is no key of this controller; restore it from a backup of the state folder")]
    Key(PathBuf),
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
    /// The text was sealed with another key, under another name, or was changed.
    #[error("{0} cannot be opened with this controller's key")]
    Closed(String),
}

/// Seals and opens.
pub struct Seal {
    key: LessSafeKey,
}

impl fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seal(hidden)")
    }
}

impl Seal {
    /// With the key in this state folder, made if there is none.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, SealError> {
        let path = state_dir.join("store.key");
        let file = |source| SealError::File { path: path.clone(), source };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = vec![0; KEY_LENGTH];
                SysRng.try_fill_bytes(&mut bytes).map_err(|_| SealError::Random)?;
                create(&path, &bytes).map_err(file)?;
                bytes
            }
            Err(error) => return Err(file(error)),
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::Key(path))?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// As a text that may be kept anywhere.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SysRng.try_fill_bytes(&mut nonce).map_err(|_| SealError::Random)?;
        let mut sealed = secret.to_vec();
        let nonce_again = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_again, Aad::from(name.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Closed(name.to_owned()))?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// What was sealed under this name.
    pub fn open(&self, name: &str, text: &str) -> Result<Vec<u8>, SealError> {
        let closed = || SealError::Closed(name.to_owned());
        let bytes = STANDARD.decode(text).map_err(|_| closed())?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or_else(closed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| closed())?;
        let mut sealed = sealed.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut sealed).map_err(|_| closed())?;
        Ok(opened.to_vec())
    }
}

/// All of it or nothing, and never over another.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::hard_link(&new, path)?;
    fs::remove_file(&new)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Seal, SealError};

    #[test]
    fn what_is_sealed_is_opened_with_the_same_key_under_the_same_name() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let seal = Seal::load_or_create(folder.path()).unwrap();
        let text = seal.seal("one", b"a secret").unwrap();
        assert!(!text.contains("secret"));
        assert_ne!(text, seal.seal("one", b"a secret").unwrap(), "never the same twice");
        let again = Seal::load_or_create(folder.path()).unwrap();
        assert_eq!(again.open("one", &text).unwrap(), b"a secret");
        let mode = folder.path().join("store.key").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let stranger = Seal::load_or_create(other.path()).unwrap();
        let mut damaged = text.clone();
        damaged.replace_range(20..21, if text[20..21] == *"A" { "B" } else { "A" });
        for (seal, name, text) in [
            (&stranger, "one", &text),
            (&seal, "two", &text),
            (&seal, "one", &damaged),
            (&seal, "one", &"AA".to_owned()),
        ] {
            assert!(matches!(seal.open(name, text), Err(SealError::Closed(_))));
        }
        std::fs::write(other.path().join("store.key"), "short").unwrap();
        assert!(matches!(Seal::load_or_create(other.path()), Err(SealError::Key(_))));
    }
}
