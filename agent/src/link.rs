//! This server's certificate of the fleet, in files that the proxy can read.
//!
//! Owns one folder in the state directory. A file's name says what is in it, so another certificate is another file: whoever
//! compares names sees a renewal, and a file never changes under a proxy that reads it. Decides nothing about their use.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use feather_proto::tls::{Identity, sha256_hex};

use crate::router::Link;

/// So much of a digest names a file.
const NAME_LENGTH: usize = 16;

/// The folder of these files.
pub struct Links {
    directory: PathBuf,
}

impl Links {
    /// In this folder, which need not be there yet.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The files for the identity in this file, written if they are not there. `None` before this server has joined.
    pub fn of(&self, identity_file: &Path) -> io::Result<Option<Link>> {
        if !identity_file.exists() {
            return Ok(None);
        }
        let identity = Identity::load(identity_file).map_err(io::Error::other)?;

        let own = format!("{}\n{}", identity.certificate_pem, identity.key_pem);
        let certificate = self.ensure("own", &own)?;
        let ca = self.ensure("ca", &identity.ca_pem)?;
        Ok(Some(Link { certificate, ca }))
    }

    fn ensure(&self, kind: &str, content: &str) -> io::Result<PathBuf> {
        let digest = sha256_hex(content.as_bytes());
        let path = self.directory.join(format!("{kind}-{}.pem", &digest[..NAME_LENGTH]));
        if path.exists() {
            return Ok(path);
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let new = path.with_extension("new");
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        Ok(path)
    }

    /// Removes the files of earlier certificates. To be called when the proxy uses these.
    pub fn keep_only(&self, link: &Link) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path != link.certificate && path != link.ca {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use feather_proto::tls::Principal;

    use super::Links;
    use crate::tests::issue;

    #[test]
    fn another_certificate_is_another_file_and_the_earlier_one_goes_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.identity");
        let links = Links::new(folder.path().join("link"));
        assert_eq!(links.of(&file).unwrap(), None);

        issue(&Principal::agent("nyc")).save(&file).unwrap();
        let first = links.of(&file).unwrap().unwrap();
        assert_eq!(links.of(&file).unwrap().unwrap(), first);

        let content = std::fs::read_to_string(&first.certificate).unwrap();
        assert!(content.contains("BEGIN CERTIFICATE") && content.contains("PRIVATE KEY"));
        assert_eq!(first.certificate.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&first.ca).unwrap().contains("PRIVATE KEY"));

        issue(&Principal::agent("nyc")).save(&file).unwrap();
        let second = links.of(&file).unwrap().unwrap();
        assert_ne!(second.certificate, first.certificate);
        assert!(first.certificate.exists(), "the proxy may still use it");
        links.keep_only(&second).unwrap();
        assert!(!first.certificate.exists() && second.certificate.exists() && second.ca.exists());
    }

    #[test]
    fn a_damaged_identity_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.identity");
        std::fs::write(&file, "{").unwrap();
        assert!(Links::new(folder.path().join("link")).of(&file).is_err());
    }
}
