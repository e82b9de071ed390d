//! The list of revoked certificates that the controller handed down, over restarts of the agent.
//!
//! Owns one file in the state directory. Decides nothing: which certificates are on the list is the controller's, and it is looked
//! at where connections are made.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use feather_proto::{
    error::{Error, reason},
    model::invalid_field,
    tls::{Revocation, Revocations, Revoked},
};

/// Lines of a list, at most: more than a fleet removes in its life, and less than fits no message.
pub(crate) const LINES_MAX: usize = 100_000;

/// Puts the list from an earlier run in force. A file that cannot be read leaves none: the controller hands it down again.
pub(crate) fn restore(revoked: &Revoked, file: &Path) {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return tracing::warn!(%error, "the list of revoked certificates cannot be read"),
    };
    match serde_json::from_slice::<Vec<Revocation>>(&text) {
        Ok(lines) => revoked.replace(lines.into_iter().collect()),
        Err(error) => tracing::warn!(%error, "the list of revoked certificates is damaged"),
    }
}

/// Puts a list in force in the place of the one before: first on disk, then for connections. Returns its digest.
pub(crate) fn replace(revoked: &Revoked, file: &Path, lines: Vec<Revocation>) -> Result<String, Error> {
    if lines.len() > LINES_MAX {
        return Err(invalid_field("revocations", "at most 100000 lines"));
    }
    let list: Revocations = lines.into_iter().collect();
    let text = serde_json::to_vec(&list.lines()).map_err(|error| Error::bug(error.to_string()))?;
    write(file, &text).map_err(|error| {
        Error::unavailable(reason::STORAGE, format!("the list of revoked certificates cannot be written ({error})"))
    })?;
    let digest = list.digest();
    tracing::info!(lines = list.0.len(), "another list of revoked certificates is in force");
    revoked.replace(list);
    Ok(digest)
}

/// The old file or the new one.
fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut handle = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    handle.write_all(content)?;
    handle.sync_all()?;
    fs::rename(&new, file)?;
    file.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use feather_proto::tls::{Principal, Revocation, Revoked};

    use super::{replace, restore};

    #[test]
    fn a_list_outlives_the_process_and_the_next_one_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("revoked.json");
        let line = |name: &str| Revocation { principal: Principal::agent(name), valid_from_last: 7 };
        let first = Revoked::default();
        restore(&first, &file);
        assert_eq!(first.list().digest(), "");
        let digest = replace(&first, &file, vec![line("nyc"), line("fra")]).unwrap();
        let second = Revoked::default();
        restore(&second, &file);
        assert_eq!(second.list().digest(), digest);
        replace(&second, &file, vec![line("nyc")]).unwrap();
        restore(&first, &file);
        assert!(first.list().refuses(&Principal::agent("nyc"), Some(7)));
        assert!(!first.list().refuses(&Principal::agent("fra"), Some(7)));
        std::fs::write(&file, "garbage").unwrap();
        restore(&first, &file);
        assert!(first.list().refuses(&Principal::agent("nyc"), Some(7)), "what is in force stays so");
        let nowhere = folder.path().join("missing/revoked.json");
        assert!(replace(&first, &nowhere, vec![line("fra")]).is_err());
        assert!(!first.list().refuses(&Principal::agent("fra"), Some(7)), "what is not on disk is not in force");
    }
}
