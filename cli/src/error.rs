//! Every way a command can end badly: what happened, what to type next, and the exit code.
//!
//! Owns the mapping from the fleet's error codes to headings, hints and exit codes. Prints nothing.

use std::{collections::BTreeMap, error::Error as _, fmt::Display};

use feather_proto::{
    error::{Code, Error, reason},
    tls::IdentityError,
};
use serde::Serialize;

/// What a person or script should make of it; decides the exit code and the first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asked for and not done.
    Refused,
    /// The command line, or the files it names, are wrong.
    Usage,
    /// Nobody answered: whether it was done may be unknown.
    Unreachable,
    /// The person stopped watching.
    Interrupted,
    /// A fault in Feather.
    Bug,
    /// Nobody reads our output any more, which is fine.
    OutputClosed,
}

/// Why a command did not do what it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// Kebab-case word for the kind of failure, stable.
    pub(crate) code: &'static str,
    /// Stable reason word.
    pub(crate) reason: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do next. Never empty for a failure that is shown.
    pub(crate) hint: String,
    /// Facts for programs.
    pub(crate) metadata: BTreeMap<String, String>,
    /// True if the message already ends in a command to type, so that people need not read another.
    pub(crate) hint_said: bool,
    /// True if the call may be repeated with the same request id: nobody knows what became of it.
    pub(crate) retryable: bool,
    /// True if the call never left this machine, so that nothing can have come of it.
    pub(crate) never_sent: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    reason: &'a str,
    message: &'a str,
    hint: &'a str,
    exit_code: u8,
    metadata: &'a BTreeMap<String, String>,
}

impl Failure {
    fn new(kind: Kind, code: &'static str, reason: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            reason: reason.to_owned(),
            message: message.into(),
            hint: hint.into(),
            metadata: BTreeMap::new(),
            hint_said: false,
            retryable: false,
            never_sent: false,
        }
    }

    /// The command line, or a file it names, is wrong.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Kind::Usage, "usage", "USAGE", message, hint)
    }

    /// Asked for and not done.
    pub(crate) fn refused(reason: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Kind::Refused, "refused", reason, message, hint)
    }

    /// The controller gave no answer.
    pub(crate) fn unreachable(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Kind::Unreachable, "unavailable", reason::CONTROLLER_UNREACHABLE, message, hint)
    }

    /// The person pressed Ctrl-C.
    pub(crate) fn interrupted(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, "interrupted", "INTERRUPTED", message, hint)
    }

    /// A fault in Feather.
    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(
            Kind::Bug,
            "bug",
            reason::INTERNAL,
            message,
            "this is a bug in Feather: report it with the command, the output of `featherctl version` and the controller's log",
        )
    }

    /// Nobody reads our output any more.
    pub(crate) fn output_closed() -> Self {
        Self::new(Kind::OutputClosed, "output-closed", "OUTPUT_CLOSED", "the output was closed", "")
    }

    /// Reading or writing a local file went wrong.
    pub(crate) fn file(attempt: impl Display, error: &std::io::Error, hint: impl Into<String>) -> Self {
        Self::new(Kind::Refused, "file", "FILE", format!("{attempt}: {error}"), hint)
    }

    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self.hint_said = false;
        self
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Refused => 1,
            Kind::Usage => 2,
            Kind::Unreachable => 3,
            Kind::Interrupted => 130,
            Kind::Bug => 70,
            Kind::OutputClosed => 0,
        }
    }

    /// The first word of what is shown.
    pub(crate) fn heading(&self) -> &'static str {
        match self.kind {
            Kind::Refused | Kind::Usage | Kind::OutputClosed => "error",
            Kind::Unreachable => "unreachable",
            Kind::Interrupted => "interrupted",
            Kind::Bug => "bug",
        }
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let body = Body {
            code: self.code,
            reason: &self.reason,
            message: &self.message,
            hint: &self.hint,
            exit_code: self.exit_code(),
            metadata: &self.metadata,
        };
        serde_json::to_string(&Document { error: body }).unwrap_or_default()
    }
}

const CODES: &[(Code, &str, Kind)] = &[
    (Code::Invalid, "invalid", Kind::Usage),
    (Code::NotFound, "not-found", Kind::Refused),
    (Code::Exists, "exists", Kind::Refused),
    (Code::Refused, "refused", Kind::Refused),
    (Code::Stale, "stale", Kind::Refused),
    (Code::Full, "full", Kind::Refused),
    (Code::Unavailable, "unavailable", Kind::Unreachable),
    (Code::Timeout, "timeout", Kind::Unreachable),
    (Code::Unauthenticated, "unauthenticated", Kind::Refused),
    (Code::Denied, "denied", Kind::Refused),
    (Code::Cancelled, "cancelled", Kind::Refused),
    (Code::Bug, "bug", Kind::Bug),
];

/// What the controller answered.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (_, code, kind) =
            CODES.iter().find(|(code, ..)| *code == error.code).unwrap_or(&(Code::Bug, "bug", Kind::Bug));
        let hint = hint(&error);
        let retryable = error.code.retryable();
        let hint_said = error.message.contains("`featherctl ");
        Self {
            kind: *kind,
            code,
            reason: error.reason,
            message: error.message,
            hint,
            metadata: error.metadata,
            hint_said,
            retryable,
            never_sent: false,
        }
    }
}

/// The next command to type, by reason.
fn hint(error: &Error) -> String {
    let fact = |key: &str, otherwise: &str| error.metadata.get(key).cloned().unwrap_or_else(|| otherwise.to_owned());
    let tenant = fact("tenant", "NAME");
    match error.reason.as_str() {
        reason::INVALID_NAME | reason::RESERVED_NAME => "choose another name".into(),
        reason::TENANT_EXISTS => format!("`featherctl tenant show {tenant}` shows where it lives"),
        reason::LIMIT_BELOW_USE => format!("`featherctl tenant show {tenant}` shows what it may use now"),
        reason::TENANT_NOT_FOUND => "`featherctl tenant list --all` shows the tenants there are".into(),
        reason::SERVER_NOT_FOUND => match error.metadata.get("called") {
            Some(called) => format!("repeat the command with {called}"),
            None => "`featherctl server list` shows the servers there are".into(),
        },
        reason::NO_CERTIFICATES => "docs/operations.md says how, under \"The tenants' certificate\"".into(),
        reason::SERVER_EXISTS => {
            "`featherctl server list` shows it; choose another name or remove that one first".into()
        }
        reason::OPERATION_NOT_FOUND | reason::INVALID_ID => {
            "`featherctl operation list` shows the operations there are".into()
        }
        reason::INVALID_EMAIL | reason::NOT_ON_WAITLIST => "`featherctl waitlist list` shows who signed up".into(),
        reason::ALREADY_INVITED => format!("`featherctl tenant show {tenant}` shows the tenant"),
        reason::BACKUP_NOT_FOUND => format!("`featherctl volume backups {tenant}` shows those that are known of"),
        reason::BACKUP_DAMAGED => "`featherctl volume backups` shows others".into(),
        reason::REPOSITORY => "`featherctl volume backup --help` says what a repository is".into(),
        reason::VOLUME_NOT_FOUND => "`featherctl volume list` shows the volumes there are".into(),
        reason::OPERATION_RUNNING => format!(
            "`featherctl operation watch {0}` follows it, `featherctl operation cancel {0}` undoes it",
            fact("operation", "ID")
        ),
        reason::NOT_CANCELLABLE => {
            format!("`featherctl operation show {}` shows how far it is", fact("operation", "ID"))
        }
        reason::WORLD_CHANGED | reason::STALE_GENERATION => {
            "something changed meanwhile; type the command again".into()
        }
        reason::NO_ROOM | reason::NO_PORT | reason::NO_DISK => {
            "`featherctl server list` shows what is free; `featherctl server invite NAME` adds a server".into()
        }
        reason::IMAGE_MISSING => {
            "`featherctl image sync --from SERVER --to SERVER` copies it from a server that has it, `featherctl image load SERVER FILE` \
             loads it from an archive"
                .into()
        }
        reason::WRONG_ARCHITECTURE | reason::IMAGE_DIFFERS => {
            "nothing was changed; `featherctl image list` shows what each server has".into()
        }
        reason::NEVER_HEALTHY => {
            format!("find the cause in the log lines above, or with `featherctl tenant logs {tenant}`")
        }
        reason::SERVER_UNREACHABLE => {
            "`featherctl server list` shows which servers answer; check that server's agent, network and firewall"
                .into()
        }
        reason::PROTOCOL => "docs/operations.md says under \"Upgrades\" what is upgraded first".into(),
        reason::DNS_OFF => {
            "start the controller with --dns and --dns-zone (docs/operations.md says how), or point the names there by hand".into()
        }
        reason::DNS_CAP | reason::DNS_SHRUNK | reason::DNS_UNPROVEN => "`featherctl dns plan` shows what would be changed".into(),
        reason::DNS_LEASE => "`featherctl dns status` shows how things stand; then try again".into(),
        reason::EVENTS_GONE => "`featherctl events --since 0` begins with the oldest that there is".into(),
        reason::WARNING_NOT_FOUND => "`featherctl warning list --all` shows those that hold".into(),
        reason::DNS_NOT_FOUND => "`featherctl dns records` and `featherctl dns snapshots` show what there is".into(),
        reason::DNS => "`featherctl dns status` shows what the provider says, and what is still to do".into(),
        reason::UNAUTHENTICATED => ANOTHER_IDENTITY.into(),
        reason::ROLE => "use an identity with that role: --identity FILE (FEATHERCTL_IDENTITY)".into(),
        _ => hint_by_code(error.code).into(),
    }
}

pub(crate) const ANOTHER_IDENTITY: &str = "point --identity (FEATHERCTL_IDENTITY) at the identity file that \
     `feather-controller init` wrote for this fleet, on the controller's machine";

fn hint_by_code(code: Code) -> &'static str {
    match code {
        Code::Invalid => "`featherctl --help` shows what can be typed",
        Code::Unavailable | Code::Timeout => "`featherctl operation list` shows whether it began; then try again",
        Code::Bug => {
            "this is a bug in Feather: report it with the command, the output of `featherctl version` and the controller's log"
        }
        _ => "`featherctl tenant list` and `featherctl server list` show how things stand",
    }
}

/// The identity file does not serve.
impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        match &error {
            IdentityError::File { path, source } if source.kind() == std::io::ErrorKind::NotFound => Self::usage(
                format!("there is no identity file at {}", path.display()),
                "`feather-controller init` makes one on the controller's machine and prints its path; copy it here, or point \
                 --identity (FEATHERCTL_IDENTITY) at it",
            ),
            _ => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                Self::usage(format!("{error}{cause}"), ANOTHER_IDENTITY)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::error::{Code, Error, reason};

    use super::{CODES, Failure};

    #[test]
    fn every_error_of_the_fleet_ends_in_a_next_step() {
        let reasons =
            [reason::TENANT_EXISTS, reason::NO_ROOM, reason::ROLE, reason::DNS, reason::INTERNAL, "SOME_LATER_WORD"];
        for (code, ..) in CODES {
            for reason in reasons {
                let failure = Failure::from(Error::new(*code, reason, "a sentence"));
                assert!(!failure.hint.is_empty(), "{code:?} {reason}");
                assert_ne!(failure.exit_code(), 0);
            }
        }
    }

    #[test]
    fn exit_codes_tell_refusal_from_silence() {
        for (code, exit_code) in
            [(Code::Invalid, 2), (Code::NotFound, 1), (Code::Unavailable, 3), (Code::Timeout, 3), (Code::Bug, 70)]
        {
            assert_eq!(Failure::from(Error::new(code, "X", "a sentence")).exit_code(), exit_code);
        }
    }
}
