//! Which versions of the protocol a process speaks, and what two processes that meet have in common.
//!
//! Every call says in its head what the caller speaks, every answer what the answering side speaks: `feather-protocol: 1-2`, no call
//! more than before. The newest version that both speak is used. Where there is none, the answering side refuses before anything is
//! done ([`Negotiation`]), and the calling side takes no answer ([`Heard`]). Who says nothing is of the release before there was a
//! header: version 1. What each version brought is in `docs/versions.md`.

use std::{fmt, str::FromStr, sync::LazyLock};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, reason},
    model::invalid_field,
};

mod call;
mod serve;

pub use call::Heard;
pub use serve::Negotiation;

/// Name of the header, of calls and of answers.
pub const HEADER: &str = "feather-protocol";

/// The newest version that this release speaks.
pub const CURRENT: u32 = 2;
/// The oldest one: that of the release before, so that a fleet is upgraded one process at a time.
pub const OLDEST: u32 = CURRENT - 1;

/// What this release speaks.
pub const OURS: Range = Range { oldest: OLDEST, newest: CURRENT };
/// The call by which a server asks whether it is still a member. It is answered whatever anybody speaks, and its messages never change: a
/// server that was off for years must hear that its tenants live elsewhere by now.
const STANDING: &str = "/feather.controller.v1.EnrollmentService/GetStanding";

/// Calls that are not negotiated: health and reflection are asked by tools that have no part in the protocol.
fn is_free(path: &str) -> bool {
    !path.starts_with("/feather.") || path == STANDING
}

/// What a program's `--version` says behind its name: the release, which all of them have in common, and what it speaks.
pub fn told() -> &'static str {
    static TOLD: LazyLock<String> = LazyLock::new(|| format!("{} (protocol {OURS})", env!("CARGO_PKG_VERSION")));
    &TOLD
}

/// What a process speaks that says nothing of it.
pub const SILENT: Range = Range { oldest: 1, newest: 1 };

/// Versions that a process speaks: all from the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    oldest: u32,
    newest: u32,
}

impl Range {
    /// All from the oldest to the newest; `None` unless they are in order and above zero.
    pub fn new(oldest: u32, newest: u32) -> Option<Self> {
        (1 <= oldest && oldest <= newest).then_some(Self { oldest, newest })
    }

    /// The oldest version.
    pub fn oldest(self) -> u32 {
        self.oldest
    }

    /// The newest version.
    pub fn newest(self) -> u32 {
        self.newest
    }

    /// The version that is used between the two; `None` when they have none in common.
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    /// How it is to the other one, by the newest version of each.
    pub fn age(self, other: Self) -> Age {
        match self.newest.cmp(&other.newest) {
            std::cmp::Ordering::Less => Age::Older,
            std::cmp::Ordering::Equal => Age::Same,
            std::cmp::Ordering::Greater => Age::Newer,
        }
    }
}

/// How one process is to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It lacks a version that the other one speaks.
    Older,
    /// Neither.
    Same,
    /// The other one lacks a version.
    Newer,
}

/// `2`, or `1-2`.
impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(formatter, "{}", self.newest),
            false => write!(formatter, "{}-{}", self.oldest, self.newest),
        }
    }
}

impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (oldest, newest) = text.split_once('-').unwrap_or((text, text));
        // Only digits: a sign would pass as a number.
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let range = number(oldest).zip(number(newest)).and_then(|(oldest, newest)| Self::new(oldest, newest));
        range.ok_or_else(|| invalid_field(HEADER, "one version of the protocol or two, like 1-2"))
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for Range {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

/// What the head of a call or of an answer says; nothing, where it has no such header.
///
/// # Errors
/// What is there names no versions.
pub fn said(headers: &http::HeaderMap) -> Result<Option<Range>, Error> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    value.to_str().unwrap_or_default().parse().map(Some)
}

/// One of two processes, as people call it, and what it speaks.
#[derive(Debug, Clone, Copy)]
struct Party<'a> {
    name: &'a str,
    speaks: Range,
}

/// Lets two processes speak that have a version in common. Otherwise the older one is to be upgraded, and both are named.
fn agree(one: Party<'_>, other: Party<'_>) -> Result<u32, Error> {
    if let Some(common) = one.speaks.common(other.speaks) {
        return Ok(common);
    }
    let older = if one.speaks.newest < other.speaks.newest { one.name } else { other.name };
    let message = format!(
        "{} speaks protocol {} and {} speaks {}: they have no version in common; upgrade {older}, which is the older",
        one.name, one.speaks, other.name, other.speaks
    );
    let refused = Error::refused(reason::PROTOCOL, message);
    Err(refused.with("upgrade", older).with("protocol", one.speaks).with("peer_protocol", other.speaks))
}

#[cfg(test)]
mod tests {
    use super::{Age, CURRENT, HEADER, OLDEST, OURS, Party, Range, SILENT, agree, said};
    use crate::error::{Code, reason};

    fn range(oldest: u32, newest: u32) -> Range {
        Range::new(oldest, newest).unwrap()
    }

    #[test]
    fn the_newest_version_that_both_speak_is_used() {
        let cases = [
            (range(1, 2), range(1, 2), Some(2)),
            (range(1, 2), range(2, 3), Some(2)),
            (range(1, 2), range(1, 1), Some(1)),
            (range(1, 5), range(2, 3), Some(3)),
            (range(1, 1), range(2, 3), None),
            (range(3, 4), range(1, 2), None),
        ];
        for (one, other, common) in cases {
            assert_eq!(one.common(other), common, "{one} and {other}");
            assert_eq!(other.common(one), common, "it does not matter who asks");
        }
        assert_eq!((range(1, 1).age(range(1, 2)), range(2, 3).age(range(1, 2))), (Age::Older, Age::Newer));
        assert_eq!(range(2, 2).age(range(1, 2)), Age::Same);
    }

    #[test]
    fn a_release_speaks_with_the_one_before_and_with_the_one_behind() {
        assert_eq!(CURRENT - OLDEST, 1);
        assert!(OURS.common(range(OLDEST, OLDEST)).is_some() && OURS.common(range(CURRENT, CURRENT + 1)).is_some());
        // The day when this fails, whoever says nothing is refused: calls to it as well, which it would carry out before it is known.
        assert_eq!(OURS.common(SILENT), Some(1));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        for (text, read) in [("2", range(2, 2)), ("1-2", range(1, 2)), ("7-12", range(7, 12))] {
            assert_eq!(text.parse(), Ok(read));
            assert_eq!(read.to_string(), text);
        }
        for text in ["", "0", "0-1", "2-1", "-", "1-", "-1", "+1", "1-2-3", "one", "1 - 2", "99999999999"] {
            let headers = http::HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())]);
            assert_eq!(said(&headers).unwrap_err().code, Code::Invalid, "{text:?}");
        }
        assert_eq!(said(&http::HeaderMap::new()), Ok(None));
    }

    #[test]
    fn a_refusal_names_both_and_the_older_one_is_to_be_upgraded() {
        let (old, new) =
            (Party { name: "agent/nyc", speaks: SILENT }, Party { name: "controller", speaks: range(2, 3) });
        for error in [agree(old, new).unwrap_err(), agree(new, old).unwrap_err()] {
            assert_eq!((error.code, error.reason.as_str()), (Code::Refused, reason::PROTOCOL));
            for part in ["agent/nyc speaks", "controller speaks", "2-3", "upgrade agent/nyc"] {
                assert!(error.message.contains(part), "{error}");
            }
        }
        assert_eq!(agree(old, Party { speaks: OURS, ..new }), Ok(1));
    }
}
