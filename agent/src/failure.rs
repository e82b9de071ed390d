//! How each seam's error becomes the one error that may cross the wire.
//!
//! Owns the choice of code and reason word. An outcome that nobody knows becomes a retryable code, never a refusal.

use feather_proto::error::{Code, Error, reason};

use crate::{ledger, password, router, runtime, volume};

/// Logs the whole chain once, where the public sentence drops it.
fn log_chain(error: &dyn std::error::Error, what: &'static str) {
    let mut source = error.source();
    let mut causes = String::new();
    while let Some(cause) = source {
        causes.push_str(if causes.is_empty() { "" } else { ": " });
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    if !causes.is_empty() {
        tracing::warn!(%error, causes, "{what}");
    }
}

impl From<runtime::Error> for Error {
    fn from(error: runtime::Error) -> Error {
        log_chain(&error, "the container engine failed");
        let sentence = error.to_string();
        match error {
            runtime::Error::Unreachable(_) => Error::unavailable(reason::RUNTIME, sentence),
            runtime::Error::ImageMissing(_) => Error::refused(reason::IMAGE_MISSING, sentence),
            runtime::Error::BadArchive(_) => Error::invalid(reason::BAD_STREAM, sentence),
            runtime::Error::ContainerMissing(_) | runtime::Error::Conflict(_) | runtime::Error::Refused { .. } => {
                Error::refused(reason::RUNTIME, sentence)
            }
        }
    }
}

impl From<router::Error> for Error {
    fn from(error: router::Error) -> Error {
        log_chain(&error, "the router failed");
        let sentence = error.to_string();
        match error {
            router::Error::Unreachable { .. } => Error::unavailable(reason::ROUTER, sentence),
            router::Error::Unsuitable(_) | router::Error::Refused(_) => Error::refused(reason::ROUTER, sentence),
        }
    }
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Error {
        log_chain(&error, "the ledger failed");
        let sentence = error.to_string();
        match error {
            ledger::Error::Damaged { .. } => Error::refused(reason::STORAGE, sentence),
            ledger::Error::Write { .. } | ledger::Error::Open { .. } => Error::unavailable(reason::STORAGE, sentence),
        }
    }
}

impl From<volume::Error> for Error {
    fn from(error: volume::Error) -> Error {
        // A stream that was fed by a call of ours carries that call's own error.
        let error = match error {
            volume::Error::Transport(cause) => match cause.downcast::<Error>() {
                Ok(ours) => return *ours,
                Err(other) => volume::Error::Transport(other),
            },
            other => other,
        };
        log_chain(&error, "a volume failed");
        let sentence = error.to_string();
        match error {
            volume::Error::NoSpace { .. } | volume::Error::TooLarge { .. } => Error::full(reason::NO_DISK, sentence),
            volume::Error::Disagree { .. } => Error::refused(reason::DATA_DIFFERS, sentence),
            volume::Error::Transport(_) | volume::Error::Truncated { .. } => {
                Error::unavailable(reason::SERVER_UNREACHABLE, sentence)
            }
            volume::Error::Cancelled => Error::new(Code::Cancelled, reason::CANCELLED, sentence),
            volume::Error::Panicked => Error::bug(sentence),
            volume::Error::Io { .. } | volume::Error::ArchiveIo { .. } | volume::Error::NotKept { .. } => {
                Error::refused(reason::STORAGE, sentence)
            }
            volume::Error::Changed { .. }
            | volume::Error::MountInside { .. }
            | volume::Error::Unsupported { .. }
            | volume::Error::NotEmpty => Error::refused(reason::WRONG_STATE, sentence),
            volume::Error::Malformed { .. }
            | volume::Error::Refused { .. }
            | volume::Error::Corrupt { .. }
            | volume::Error::Archive { .. }
            | volume::Error::ArchiveTruncated { .. } => Error::invalid(reason::BAD_STREAM, sentence),
        }
    }
}

impl From<password::Error> for Error {
    fn from(error: password::Error) -> Error {
        match error {
            password::Error::NoRandomness(_) => Error::bug(error.to_string()),
            password::Error::Unusable => Error::invalid(reason::INVALID_FIELD, error.to_string()),
        }
    }
}
