//! How each seam's error becomes the one error that may cross the wire.
//!
//! Owns the choice of code and reason word. An outcome that nobody knows becomes a retryable code, never a refusal.

use feather_proto::error::{Code, Error, reason};

use crate::{ledger, password, router, runtime, volume};

/// The causes behind a sentence, as a fact beside it: whoever handles the error logs both.
fn with_causes(error: Error, source: &dyn std::error::Error) -> Error {
    let causes: Vec<_> =
        std::iter::successors(source.source(), |cause| cause.source()).map(ToString::to_string).collect();
    if causes.is_empty() { error } else { error.with("cause", causes.join(": ")) }
}

impl From<runtime::Error> for Error {
    fn from(error: runtime::Error) -> Error {
        let sentence = error.to_string();
        let ours = match &error {
            runtime::Error::Unreachable(_) => Error::unavailable(reason::RUNTIME, sentence),
            runtime::Error::ImageMissing(_) => Error::refused(reason::IMAGE_MISSING, sentence),
            runtime::Error::NoSpace(_) => Error::full(reason::NO_DISK, sentence),
            runtime::Error::BadArchive(_) => Error::invalid(reason::BAD_STREAM, sentence),
            runtime::Error::ContainerMissing(_) | runtime::Error::Conflict(_) | runtime::Error::Refused { .. } => {
                Error::refused(reason::RUNTIME, sentence)
            }
        };
        with_causes(ours, &error)
    }
}

impl From<router::Error> for Error {
    fn from(error: router::Error) -> Error {
        let sentence = error.to_string();
        let ours = match &error {
            router::Error::Unreachable { .. } | router::Error::Files { .. } => {
                Error::unavailable(reason::ROUTER, sentence)
            }
            router::Error::Unsuitable(_) | router::Error::Refused(_) => Error::refused(reason::ROUTER, sentence),
        };
        with_causes(ours, &error)
    }
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Error {
        let sentence = error.to_string();
        let ours = match &error {
            ledger::Error::Damaged { .. } => Error::refused(reason::STORAGE, sentence),
            ledger::Error::Write { .. } | ledger::Error::Open { .. } => Error::unavailable(reason::STORAGE, sentence),
        };
        with_causes(ours, &error)
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
        let sentence = error.to_string();
        let ours = match &error {
            volume::Error::NoSpace { .. } | volume::Error::TooLarge { .. } => Error::full(reason::NO_DISK, sentence),
            volume::Error::Disagree { .. } => Error::refused(reason::DATA_DIFFERS, sentence),
            volume::Error::Transport(_) | volume::Error::Truncated { .. } => {
                Error::unavailable(reason::SERVER_UNREACHABLE, sentence)
            }
            // The next attempt begins by looking.
            volume::Error::BaseLost { .. } => Error::unavailable(reason::STORAGE, sentence),
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
        };
        with_causes(ours, &error)
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
