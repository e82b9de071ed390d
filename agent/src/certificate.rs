//! The certificate of the tenants' names, handed down by the controller, where the proxy finds it.
//!
//! Owns one file with chain and key in the state directory, and the secret that the proxy shows to itself when it asks for that
//! file. The file outlives the controller's absence, the agent and a reboot. Whether a certificate takes the place of
//! another is decided in `verdict`, purely.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use feather_proto::{
    error::{Error, reason},
    model::{HeldCertificate, rfc3339},
    tls::{CertificateFacts, PublicCertificate},
};
use rand::{TryRng as _, rngs::SysRng};
use time::OffsetDateTime;

/// Name of the file with the chain and its key.
pub const FILE: &str = "served.pem";

/// What the proxy reads, and what this agent knows of it.
pub(crate) struct Certificates {
    folder: PathBuf,
    held: Mutex<Option<CertificateFacts>>,
}

/// Shall this one take the place of the one that is held? Says why not.
fn verdict(
    new: &CertificateFacts,
    held: Option<&CertificateFacts>,
    domain_suffix: &str,
    now: OffsetDateTime,
) -> Result<bool, String> {
    let wildcard = format!("*.{domain_suffix}");
    if !new.covers(&wildcard) {
        return Err(format!("the certificate is for {}, not for {wildcard}", new.names.join(", ")));
    }
    if new.not_after <= now {
        return Err(format!("the certificate ended at {}", rfc3339(new.not_after)));
    }
    // One that was held back on its way must not undo a renewal.
    let newer = held.is_some_and(|held| held.not_after > now && held.not_before > new.not_before);
    Ok(!newer && held.is_none_or(|held| held.fingerprint != new.fingerprint))
}

impl Certificates {
    /// What was handed down earlier, if it can still be read.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let held = fs::read_to_string(folder.join(FILE)).ok().and_then(|pem| {
            let bundle = PublicCertificate { chain_pem: pem.clone(), key_pem: pem };
            bundle.facts().inspect_err(|error| tracing::warn!(%error, "the tenants' certificate is damaged")).ok()
        });
        Self { folder, held: Mutex::new(held) }
    }

    /// Takes a certificate, unless the one that is held is newer. Returns which one is held now.
    pub(crate) fn take(
        &self,
        new: &PublicCertificate,
        domain_suffix: &str,
        now: OffsetDateTime,
    ) -> Result<HeldCertificate, Error> {
        let invalid = |why: String| Error::invalid(reason::INVALID_FIELD, why);
        let facts = new.facts().map_err(|error| invalid(error.to_string()))?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if verdict(&facts, held.as_ref(), domain_suffix, now).map_err(invalid)? {
            let bundle = format!("{}\n{}\n", new.chain_pem.trim_end(), new.key_pem.trim_end());
            write(&self.folder, FILE, bundle.as_bytes()).map_err(|error| {
                Error::unavailable(reason::STORAGE, format!("the certificate cannot be written ({error})"))
            })?;
            tracing::info!(not_after = %facts.not_after, "another certificate for the tenants' names is served");
            *held = Some(facts.clone());
        }
        Ok(shown(held.as_ref().unwrap_or(&facts)))
    }

    /// Which one is held.
    pub(crate) fn held(&self) -> Option<HeldCertificate> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(shown)
    }
}

fn shown(facts: &CertificateFacts) -> HeldCertificate {
    HeldCertificate { fingerprint: facts.fingerprint.clone(), not_after: facts.not_after }
}

/// The old file or the new one, for its owner only.
fn write(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = folder.join(format!("{name}.new"));
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    fs::File::open(folder)?.sync_all()
}

/// The secret that the proxy shows to itself, made when it is first asked for.
///
/// # Errors
/// When it can be neither read nor written.
pub fn secret(state_dir: &Path) -> io::Result<String> {
    const NAME: &str = "certificate.secret";
    match fs::read_to_string(state_dir.join(NAME)) {
        Ok(secret) if secret.len() >= 32 => return Ok(secret),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut bytes = [0_u8; 24];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write(state_dir, NAME, secret.as_bytes())?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use feather_proto::tls::PublicCertificate;
    use rcgen::{CertificateParams, KeyPair};
    use time::{Duration, OffsetDateTime};

    use super::{Certificates, FILE, secret};

    const SUFFIX: &str = "users.example.com";

    fn moment() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn made(names: &[&str], issued: OffsetDateTime) -> PublicCertificate {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = issued;
        params.not_after = issued + Duration::days(90);
        let key = KeyPair::generate().unwrap();
        PublicCertificate { chain_pem: params.self_signed(&key).unwrap().pem(), key_pem: key.serialize_pem() }
    }

    fn wildcard(issued: OffsetDateTime) -> PublicCertificate {
        made(&["*.users.example.com", SUFFIX], issued)
    }

    #[test]
    fn the_newest_is_kept_for_root_only_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Certificates::open(folder.path().join("certificate"));
        let held = open();
        assert_eq!(held.held(), None);
        let (first, second) = (wildcard(moment()), wildcard(moment() + Duration::days(60)));
        let one = held.take(&first, SUFFIX, moment()).unwrap();
        assert_eq!(held.take(&first, SUFFIX, moment()).unwrap(), one, "repeated");
        let two = held.take(&second, SUFFIX, moment() + Duration::days(60)).unwrap();
        assert_ne!(one, two);
        // What was held back on its way changes nothing, until the newer one has ended.
        assert_eq!(held.take(&first, SUFFIX, moment() + Duration::days(61)).unwrap(), two);

        let file = folder.path().join("certificate").join(FILE);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("BEGIN CERTIFICATE") && text.contains("BEGIN PRIVATE KEY"));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open().held(), Some(two));
        std::fs::write(&file, "damaged").unwrap();
        assert_eq!(open().held(), None);
    }

    #[test]
    fn what_cannot_be_served_is_refused_and_the_held_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let held = Certificates::open(folder.path().to_owned());
        let good = held.take(&wildcard(moment()), SUFFIX, moment()).unwrap();
        let mixed = PublicCertificate { key_pem: wildcard(moment()).key_pem, ..wildcard(moment()) };
        for (bad, now, why) in [
            (made(&["*.example.com"], moment()), moment(), "not for *.users.example.com"),
            (wildcard(moment()), moment() + Duration::days(91), "ended at"),
            (mixed, moment(), "not that of the certificate"),
        ] {
            let refused = held.take(&bad, SUFFIX, now).unwrap_err();
            assert!(refused.message.contains(why), "{refused}");
            assert!(!refused.message.contains("PRIVATE"));
        }
        assert_eq!(held.held(), Some(good));
    }

    #[test]
    fn the_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = secret(folder.path()).unwrap();
        assert_eq!((first.len(), &first), (48, &secret(folder.path()).unwrap()));
        let file = folder.path().join("certificate.secret");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
