//! The closed set of error codes, and the only conversion to and from `tonic::Status`.
//!
//! An error on the wire is a status code, a sentence for a person that says what to do next, and `google.rpc.ErrorInfo` with
//! a stable reason word for programs. [`Code::retryable`] is the only judge of what may be tried again.

use std::{collections::BTreeMap, collections::HashMap, fmt};

use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of every `ErrorInfo`.
pub const DOMAIN: &str = "feather";

/// Stable reason words. Programs match on these, never on text.
pub mod reason {
    /// A tenant or server name does not follow the pattern.
    pub const INVALID_NAME: &str = "INVALID_NAME";
    /// A tenant name that means something else.
    pub const RESERVED_NAME: &str = "RESERVED_NAME";
    /// An operation or request id does not parse.
    pub const INVALID_ID: &str = "INVALID_ID";
    /// Not an e-mail address.
    pub const INVALID_EMAIL: &str = "INVALID_EMAIL";
    /// A field is missing or out of range.
    pub const INVALID_FIELD: &str = "INVALID_FIELD";
    /// A request id was used before with other arguments.
    pub const REQUEST_ID_REUSED: &str = "REQUEST_ID_REUSED";
    /// The tenant exists.
    pub const TENANT_EXISTS: &str = "TENANT_EXISTS";
    /// No such tenant.
    pub const TENANT_NOT_FOUND: &str = "TENANT_NOT_FOUND";
    /// The server exists.
    pub const SERVER_EXISTS: &str = "SERVER_EXISTS";
    /// No such server.
    pub const SERVER_NOT_FOUND: &str = "SERVER_NOT_FOUND";
    /// No such operation.
    pub const OPERATION_NOT_FOUND: &str = "OPERATION_NOT_FOUND";
    /// The address is on no waitlist.
    pub const NOT_ON_WAITLIST: &str = "NOT_ON_WAITLIST";
    /// The address was invited before.
    pub const ALREADY_INVITED: &str = "ALREADY_INVITED";
    /// No such volume.
    pub const VOLUME_NOT_FOUND: &str = "VOLUME_NOT_FOUND";
    /// Another operation holds the tenant.
    pub const OPERATION_RUNNING: &str = "OPERATION_RUNNING";
    /// Past the point of no return, or ended.
    pub const NOT_CANCELLABLE: &str = "NOT_CANCELLABLE";
    /// A person or a shutdown asked for the end.
    pub const CANCELLED: &str = "CANCELLED";
    /// The plan was made on a world that has changed since.
    pub const WORLD_CHANGED: &str = "WORLD_CHANGED";
    /// The generation is lower than one seen before.
    pub const STALE_GENERATION: &str = "STALE_GENERATION";
    /// The tenant is in a state that does not allow this.
    pub const WRONG_STATE: &str = "WRONG_STATE";
    /// No server has room.
    pub const NO_ROOM: &str = "NO_ROOM";
    /// More at once than one caller may have, or longer than a message may be.
    pub const LIMIT: &str = "LIMIT";
    /// A tenant uses more now than it was to have.
    pub const LIMIT_BELOW_USE: &str = "LIMIT_BELOW_USE";
    /// Of several tenants, some were not moved.
    pub const NOT_ALL_MOVED: &str = "NOT_ALL_MOVED";
    /// No free port on the server.
    pub const NO_PORT: &str = "NO_PORT";
    /// Not enough disk.
    pub const NO_DISK: &str = "NO_DISK";
    /// The image is not in the server's storage.
    pub const IMAGE_MISSING: &str = "IMAGE_MISSING";
    /// The image was built for another kind of machine.
    pub const WRONG_ARCHITECTURE: &str = "WRONG_ARCHITECTURE";
    /// What arrived is another image than the one that was sent for.
    pub const IMAGE_DIFFERS: &str = "IMAGE_DIFFERS";
    /// The container never answered its health check.
    pub const NEVER_HEALTHY: &str = "NEVER_HEALTHY";
    /// Data is expected on this server and is not there.
    pub const DATA_MISSING: &str = "DATA_MISSING";
    /// The volume is marked incomplete.
    pub const VOLUME_INCOMPLETE: &str = "VOLUME_INCOMPLETE";
    /// Both ends of a transfer disagree about the data.
    pub const DATA_DIFFERS: &str = "DATA_DIFFERS";
    /// No such backup.
    pub const BACKUP_NOT_FOUND: &str = "BACKUP_NOT_FOUND";
    /// A backup is not what was written.
    pub const BACKUP_DAMAGED: &str = "BACKUP_DAMAGED";
    /// A place for backups cannot be used, or does not answer.
    pub const REPOSITORY: &str = "REPOSITORY";
    /// An archive or volume stream is hostile, corrupt or cut off.
    pub const BAD_STREAM: &str = "BAD_STREAM";
    /// The server's agent cannot be reached.
    pub const SERVER_UNREACHABLE: &str = "SERVER_UNREACHABLE";
    /// An agent does not reach another agent.
    pub const PEER_UNREACHABLE: &str = "PEER_UNREACHABLE";
    /// The controller cannot be reached.
    pub const CONTROLLER_UNREACHABLE: &str = "CONTROLLER_UNREACHABLE";
    /// Podman does not answer or refused.
    pub const RUNTIME: &str = "RUNTIME";
    /// Caddy does not answer or refused.
    pub const ROUTER: &str = "ROUTER";
    /// The ledger or store cannot be written.
    pub const STORAGE: &str = "STORAGE";
    /// DNS provider does not answer or refused.
    pub const DNS: &str = "DNS";
    /// This controller obtains no certificates.
    pub const NO_CERTIFICATES: &str = "NO_CERTIFICATES";
    /// DNS is not written by this controller.
    pub const DNS_OFF: &str = "DNS_OFF";
    /// The zone does not confirm what the store says is ours.
    pub const DNS_UNPROVEN: &str = "DNS_UNPROVEN";
    /// The zone has far fewer records of others than before.
    pub const DNS_SHRUNK: &str = "DNS_SHRUNK";
    /// More names would change at once than may.
    pub const DNS_CAP: &str = "DNS_CAP";
    /// Another controller may change the zone now.
    pub const DNS_LEASE: &str = "DNS_LEASE";
    /// Another controller leads the fleet.
    pub const NOT_LEADER: &str = "NOT_LEADER";
    /// Events that were asked for are not kept any more, or there never were any.
    pub const EVENTS_GONE: &str = "EVENTS_GONE";
    /// No such warning holds.
    pub const WARNING_NOT_FOUND: &str = "WARNING_NOT_FOUND";
    /// No such record or snapshot in the zone.
    pub const DNS_NOT_FOUND: &str = "DNS_NOT_FOUND";
    /// No client certificate, or not one of this fleet.
    pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
    /// The certificate's role does not allow this.
    pub const ROLE: &str = "ROLE";
    /// What cannot be taken back was not confirmed by its name.
    pub const NOT_CONFIRMED: &str = "NOT_CONFIRMED";
    /// The certificate was revoked.
    pub const REVOKED: &str = "REVOKED";
    /// A person of that name has a certificate.
    pub const USER_EXISTS: &str = "USER_EXISTS";
    /// No person of that name has or had a certificate.
    pub const USER_NOT_FOUND: &str = "USER_NOT_FOUND";
    /// Without that certificate nobody could change the fleet any more.
    pub const LAST_ADMIN: &str = "LAST_ADMIN";
    /// Join token unknown, used or expired.
    pub const JOIN_TOKEN: &str = "JOIN_TOKEN";
    /// Transfer ticket missing, wrong, expired or for something else.
    pub const TICKET: &str = "TICKET";
    /// Two processes have no version of the protocol in common, or one of them does not know a call yet.
    pub const PROTOCOL: &str = "PROTOCOL";
    /// Something that must not happen; the log has the details.
    pub const INTERNAL: &str = "INTERNAL";
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The caller's input is wrong: `INVALID_ARGUMENT`.
    Invalid,
    /// `NOT_FOUND`.
    NotFound,
    /// `ALREADY_EXISTS`.
    Exists,
    /// The state of the world does not allow it: `FAILED_PRECONDITION`.
    Refused,
    /// A newer decision exists: `ABORTED`.
    Stale,
    /// Out of room: `RESOURCE_EXHAUSTED`.
    Full,
    /// Could not be reached; the outcome is unknown: `UNAVAILABLE`.
    Unavailable,
    /// Took too long; the outcome is unknown: `DEADLINE_EXCEEDED`.
    Timeout,
    /// No proof of identity: `UNAUTHENTICATED`.
    Unauthenticated,
    /// Not allowed: `PERMISSION_DENIED`.
    Denied,
    /// Ended because somebody asked for it: `CANCELLED`.
    Cancelled,
    /// A bug: `INTERNAL`.
    Bug,
}

const CODES: &[(Code, tonic::Code)] = &[
    (Code::Invalid, tonic::Code::InvalidArgument),
    (Code::NotFound, tonic::Code::NotFound),
    (Code::Exists, tonic::Code::AlreadyExists),
    (Code::Refused, tonic::Code::FailedPrecondition),
    (Code::Stale, tonic::Code::Aborted),
    (Code::Full, tonic::Code::ResourceExhausted),
    (Code::Unavailable, tonic::Code::Unavailable),
    (Code::Timeout, tonic::Code::DeadlineExceeded),
    (Code::Unauthenticated, tonic::Code::Unauthenticated),
    (Code::Denied, tonic::Code::PermissionDenied),
    (Code::Cancelled, tonic::Code::Cancelled),
    (Code::Bug, tonic::Code::Internal),
];

impl Code {
    /// May an idempotent call be repeated? True means that its outcome is unknown.
    pub fn retryable(self) -> bool {
        matches!(self, Code::Unavailable | Code::Timeout)
    }

    fn to_grpc(self) -> tonic::Code {
        CODES.iter().find(|(code, _)| *code == self).map_or(tonic::Code::Internal, |(_, grpc)| *grpc)
    }

    fn from_grpc(grpc: tonic::Code) -> Self {
        CODES.iter().find(|(_, known)| *known == grpc).map_or(Code::Bug, |(code, _)| *code)
    }
}

/// An error that may cross the wire. Everything in it may be shown to the caller: no secret belongs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What kind of failure it is.
    pub code: Code,
    /// Stable reason word, one of [`reason`].
    pub reason: String,
    /// A sentence: what is wrong and what to do next.
    pub message: String,
    /// Facts for programs, for example `tenant` or `operation`.
    pub metadata: BTreeMap<String, String>,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $code:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])*
            pub fn $name(reason: &str, message: impl Into<String>) -> Self {
                Self::new(Code::$code, reason, message)
            })*
        }
    };
}

constructors! {
    /// The caller's input is wrong.
    invalid => Invalid,
    /// There is no such thing.
    not_found => NotFound,
    /// It exists already.
    exists => Exists,
    /// The state of the world does not allow it.
    refused => Refused,
    /// A newer decision exists.
    stale => Stale,
    /// Out of room.
    full => Full,
    /// Could not be reached.
    unavailable => Unavailable,
    /// Took too long.
    timeout => Timeout,
    /// No proof of identity.
    unauthenticated => Unauthenticated,
    /// Not allowed.
    denied => Denied,
}

impl Error {
    /// An error of any code.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.to_owned(), message: message.into(), metadata: BTreeMap::new() }
    }

    /// Something that must not happen. The detail is for the log, which is written where this is made into a status.
    pub fn bug(detail: impl Into<String>) -> Self {
        Self::new(Code::Bug, reason::INTERNAL, detail)
    }

    /// The same error with one more fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// The same error with a sentence in front of its own.
    #[must_use]
    pub fn context(mut self, attempt: impl fmt::Display) -> Self {
        self.message = format!("{attempt}: {}", self.message);
        self
    }

    /// Does it carry this reason word?
    pub fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let message = if error.code == Code::Bug {
            tracing::error!(detail = %error.message, "internal error");
            "internal error; the log of the answering process has the details".to_owned()
        } else {
            error.message
        };
        let metadata: HashMap<String, String> = error.metadata.into_iter().collect();
        let details = ErrorDetails::with_error_info(error.reason, DOMAIN, metadata);
        Status::with_error_details(error.code.to_grpc(), message, details)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        let message = status.message().to_owned();
        match status.get_details_error_info().filter(|info| info.domain == DOMAIN) {
            Some(info) => Error {
                code: Code::from_grpc(status.code()),
                reason: info.reason,
                message,
                metadata: info.metadata.into_iter().collect(),
            },
            None => from_foreign(status.code(), message),
        }
    }
}

/// A status that no process of ours made: the transport, or a proxy. A broken connection in the middle of a call arrives as
/// UNKNOWN or INTERNAL from the HTTP/2 layer, and means the same as UNAVAILABLE: nobody knows what happened.
fn from_foreign(code: tonic::Code, message: String) -> Error {
    match code {
        tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Unavailable | tonic::Code::Cancelled => {
            Error::unavailable(reason::SERVER_UNREACHABLE, format!("the connection broke: {message}"))
        }
        tonic::Code::DeadlineExceeded => Error::timeout(reason::SERVER_UNREACHABLE, message),
        // Only the transport says so, of a message beyond its limit.
        tonic::Code::OutOfRange => {
            Error::invalid(reason::BAD_STREAM, format!("the other side sent more at once than is taken: {message}"))
        }
        tonic::Code::Unimplemented => Error::refused(
            reason::WRONG_STATE,
            "the other side does not know this call; bring agent, controller and featherctl to the same version",
        ),
        other => Error::new(Code::from_grpc(other), reason::INTERNAL, message),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::{CODES, Code, Error, reason};

    #[test]
    fn every_code_survives_the_round_trip() {
        for (code, _) in CODES {
            let error = Error::new(*code, reason::WRONG_STATE, "a sentence").with("tenant", "alice");
            let back = Error::from(Status::from(error.clone()));
            assert_eq!(back.code, error.code);
            assert_eq!(back.reason, error.reason);
            assert_eq!(back.metadata, error.metadata);
            assert_eq!(back.message == error.message, *code != Code::Bug);
        }
    }

    #[test]
    fn internal_details_stay_at_home() {
        let status = Status::from(Error::bug("table tenants is on fire"));
        assert!(!status.message().contains("fire"));
    }

    #[test]
    fn a_broken_transport_is_unknown_not_failed() {
        assert!(Error::from(Status::unknown("transport error")).code.retryable());
        assert!(Error::from(Status::internal("h2 protocol error")).code.retryable());
        assert!(!Error::from(Status::unimplemented("x")).code.retryable());
    }
}
