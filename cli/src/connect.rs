//! The way to the controller: address, identity, calls with a deadline, and what a broken connection means.
//!
//! Knows nothing of what the calls say.

use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use feather_proto::{
    error::Error,
    pb::controller::v1::{
        audit_service_client::AuditServiceClient, backup_service_client::BackupServiceClient,
        cert_service_client::CertServiceClient, dns_service_client::DnsServiceClient,
        enrollment_service_client::EnrollmentServiceClient, event_service_client::EventServiceClient,
        image_service_client::ImageServiceClient, operation_service_client::OperationServiceClient,
        server_service_client::ServerServiceClient, status_service_client::StatusServiceClient,
        store_service_client::StoreServiceClient, tenant_service_client::TenantServiceClient,
        user_service_client::UserServiceClient, volume_service_client::VolumeServiceClient,
        waitlist_service_client::WaitlistServiceClient, warning_service_client::WarningServiceClient,
    },
    tls::{self, Channel, Identity, Principal, Rotating, Trust},
    version::Range,
};
use time::OffsetDateTime;
use tonic::{Response, Status};

use crate::{
    arguments::Global,
    error::{ANOTHER_IDENTITY, Failure, Kind},
    units,
};

mod verdict;

/// What HTTP/2 and proxies make of a connection that breaks: nobody knows what became of the call.
const BROKEN: &[tonic::Code] = &[
    tonic::Code::Unknown,
    tonic::Code::Internal,
    tonic::Code::Unavailable,
    tonic::Code::Cancelled,
    tonic::Code::DeadlineExceeded,
];
const DEFAULT_PORT: u16 = 7400;
/// Pauses between attempts of a change whose outcome is unknown; there is one attempt more than pauses.
const CHANGE_PAUSES_MS: &[u64] = &[100, 300, 900, 2700];

/// Reads `HOST:PORT`, or several with commas between them; ports may be left out.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let addresses: Result<Vec<_>, _> = text.split(',').map(|one| one_address(one.trim())).collect();
    addresses.map(|addresses| addresses.join(","))
}

fn one_address(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not an address: write HOST:PORT, for example 127.0.0.1:{DEFAULT_PORT}");
    if text.is_empty() || text.contains(['/', ' ']) {
        return Err(wrong());
    }
    // A bare IPv6 address has colons of its own; with a port it comes in brackets.
    let has_port = text.rfind(':').is_some_and(|place| text[..place].ends_with(']') || !text[..place].contains(':'));
    if !has_port {
        let bare_v6 = text.contains(':') && !text.starts_with('[');
        return Ok(if bare_v6 { format!("[{text}]:{DEFAULT_PORT}") } else { format!("{text}:{DEFAULT_PORT}") });
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(text.to_owned())
        }
        _ => Err(wrong()),
    }
}

/// Where the identity file is, or is to be.
pub(crate) fn identity_path(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or_else(|| {
        Failure::usage("there is no home directory to look for an identity file in", ANOTHER_IDENTITY)
    })?;
    Ok(PathBuf::from(home).join(".config/feather/admin.identity"))
}

/// A connection to the controller, opened by the first call and again after a break.
pub(crate) struct Connection {
    channel: Channel,
    identity: Rotating,
    address: String,
    timeout: Duration,
    /// Has the controller said anything yet?
    answered: AtomicBool,
}

macro_rules! clients {
    ($($name:ident: $client:ident),* $(,)?) => {
        $(pub(crate) fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone())
        })*
    };
}

impl Connection {
    clients! {
        audit: AuditServiceClient,
        backups: BackupServiceClient,
        certs: CertServiceClient,
        dns: DnsServiceClient,
        enrollment: EnrollmentServiceClient,
        events: EventServiceClient,
        images: ImageServiceClient,
        operations: OperationServiceClient,
        servers: ServerServiceClient,
        status: StatusServiceClient,
        store: StoreServiceClient,
        tenants: TenantServiceClient,
        users: UserServiceClient,
        volumes: VolumeServiceClient,
        waitlist: WaitlistServiceClient,
        warnings: WarningServiceClient,
    }

    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let path = identity_path(global.identity.as_deref())?;
        let identity = Identity::load(&path)?;
        check_validity(&identity, &path)?;
        let identity = Rotating::new(identity)?;
        let trust = Trust::Mutual(identity.clone());
        let channel = tls::channel(Arc::new(tls::Tcp), &global.controller, &Principal::controller(), &trust)?;
        let (address, timeout) = (global.controller.clone(), global.timeout);
        Ok(Self { channel, identity, address, timeout, answered: AtomicBool::new(false) })
    }

    /// From when to when the certificate that is used holds.
    pub(crate) fn certificate_life(&self) -> Option<(OffsetDateTime, OffsetDateTime)> {
        let (begins, ends) = self.identity.identity().validity().ok()?;
        let moment = |seconds| OffsetDateTime::from_unix_timestamp(seconds).ok();
        moment(begins).zip(moment(ends))
    }

    /// Which versions of the protocol the controller speaks, once it has answered.
    pub(crate) fn controller_speaks(&self) -> Option<Range> {
        self.channel.heard().range()
    }

    /// A call that answers soon.
    pub(crate) async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, self.long_call(call)).await {
            Ok(answer) => answer,
            Err(_) => {
                let mut failure = Failure::unreachable(
                    format!(
                        "the controller at {} gave no answer within {}",
                        self.address,
                        units::spelled(self.timeout)
                    ),
                    "try again, or wait longer with --timeout; `featherctl operation list` shows whether a change began",
                );
                failure.retryable = true;
                Err(failure)
            }
        }
    }

    /// A call that may take as long as it needs; a dead connection is noticed by its keep-alive.
    pub(crate) async fn long_call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let status = match call.await {
            Ok(response) => {
                self.answered.store(true, Ordering::Relaxed);
                return Ok(response.into_inner());
            }
            Err(status) => status,
        };
        let failure = self.failure(status);
        if !failure.retryable || failure.never_sent || self.answered.load(Ordering::Relaxed) {
            return Err(failure);
        }
        // The very first call broke: that may be how the controller refuses our certificate.
        match verdict::refusal(&self.address, &self.identity).await {
            Some(error) => Err(tls_failure(&error, &self.address).with("controller", &self.address)),
            None => Err(failure),
        }
    }

    /// A change with a request id: repeated with that id while its outcome is unknown, a few times.
    pub(crate) async fn change<T>(&self, call: impl AsyncFn() -> Result<Response<T>, Status>) -> Result<T, Failure> {
        let attempts = async {
            for (number, pause_ms) in CHANGE_PAUSES_MS.iter().enumerate() {
                match self.call(call()).await {
                    Err(failure) if failure.retryable => {
                        // Nothing was sent at all: there is no doubt to clear up.
                        if number == 0 && failure.never_sent {
                            return Err(failure);
                        }
                    }
                    done => return done,
                }
                tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
            }
            self.call(call()).await.map_err(|failure| match failure.kind {
                Kind::Unreachable => failure.with_hint(
                    "whether the change began is unknown: `featherctl operation list` shows it once the controller answers",
                ),
                _ => failure,
            })
        };
        tokio::select! {
            done = attempts => done,
            () = interrupt() => Err(Failure::interrupted(
                "stopped before the controller answered",
                "the change may have begun: `featherctl operation list` shows it",
            )),
        }
    }

    /// What a status means to a person.
    pub(crate) fn failure(&self, status: Status) -> Failure {
        if status.source().is_none() {
            self.answered.store(true, Ordering::Relaxed);
        }
        match status.source() {
            // Without a source it came over the wire; without details it is not the controller's own word.
            None if status.details().is_empty() && BROKEN.contains(&status.code()) => self.broken(&format!(
                "the connection to the controller at {} broke ({})",
                self.address,
                status.message()
            )),
            None => Failure::from(Error::from(status)),
            Some(source) => self.transport_failure(source),
        }
    }

    fn broken(&self, message: &str) -> Failure {
        let mut failure = Failure::unreachable(
            message,
            "check that feather-controller runs and that --controller (FEATHERCTL_CONTROLLER) is its address",
        );
        failure.retryable = true;
        failure.with("controller", &self.address)
    }

    /// The status was made on this side, so nothing of it comes from the controller: says why there is no connection.
    fn transport_failure(&self, source: &(dyn StdError + 'static)) -> Failure {
        let address = &self.address;
        let chain: Vec<&(dyn StdError + 'static)> =
            std::iter::successors(Some(source), |error: &&'_ (dyn StdError + 'static)| (*error).source()).collect();
        let never_connected = chain.iter().any(|error| error.is::<tonic::ConnectError>());
        let cause = chain.last().map(ToString::to_string).unwrap_or_default();
        let mut failure = match chain.iter().find_map(|error| tls_error(*error)) {
            Some(error) => tls_failure(error, address),
            None if never_connected => self.broken(&format!("no controller answers at {address} ({cause})")),
            None => self.broken(&format!("the connection to the controller at {address} broke ({cause})")),
        };
        failure.never_sent = never_connected;
        failure.with("controller", address)
    }
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.downcast_ref::<rustls::Error>().or_else(|| inner.and_then(|inner| inner.downcast_ref()))
}

fn tls_failure(error: &rustls::Error, address: &str) -> Failure {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Tls};
    let refused = |message: String, hint: &str| Failure::refused("IDENTITY", message, hint);
    match error {
        Tls::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => refused(
            format!("the controller at {address} belongs to another fleet than your identity file"),
            ANOTHER_IDENTITY,
        ),
        Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => refused(
            format!("the certificate of the controller at {address} has expired"),
            "check this machine's clock, then restart feather-controller, which renews it",
        ),
        Tls::InvalidCertificate(Certificate::NotValidYet | Certificate::NotValidYetContext { .. }) => refused(
            format!("the certificate of the controller at {address} is not valid yet"),
            "check the clocks of this machine and of the controller's",
        ),
        Tls::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => refused(
            format!("what answers at {address} is a member of your fleet, but not its controller"),
            "point --controller (FEATHERCTL_CONTROLLER) at the controller, usually on port 7400",
        ),
        Tls::AlertReceived(Alert::CertificateExpired) => refused(
            format!("the controller at {address} finds your certificate expired"),
            "check the clocks of both machines, or get a new identity file from whoever runs the controller",
        ),
        Tls::AlertReceived(_) => refused(
            format!("the controller at {address} does not accept your identity ({error})"),
            &format!("{ANOTHER_IDENTITY}; check that the clocks of both machines are right"),
        ),
        _ => Failure::unreachable(
            format!("what answers at {address} does not speak like a Feather controller ({error})"),
            "check --controller (FEATHERCTL_CONTROLLER): the controller usually listens on port 7400",
        ),
    }
}

/// Finds an expired certificate here, where it can be said precisely.
#[allow(clippy::disallowed_methods, reason = "one command looks at the clock once; there is nothing to wait for")]
fn check_validity(identity: &Identity, path: &Path) -> Result<(), Failure> {
    let (from, until) = identity.validity()?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let day = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map(units::rfc3339).unwrap_or_default();
    let path = path.display();
    if now > until {
        return Err(Failure::refused(
            "IDENTITY",
            format!("the certificate in {path} expired at {}", day(until)),
            "get a new identity file from whoever runs the controller, and point --identity (FEATHERCTL_IDENTITY) at it",
        ));
    }
    if now < from {
        return Err(Failure::refused(
            "IDENTITY",
            format!("the certificate in {path} is valid only from {} on", day(from)),
            "check this machine's clock",
        ));
    }
    Ok(())
}

/// Ends when the person presses Ctrl-C; never, where that cannot be noticed.
pub(crate) async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends when somebody asks this process to end, or its terminal goes; never, where that cannot be noticed.
pub(crate) async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let heard = async |kind| match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending::<()>().await,
    };
    tokio::select! {
        () = heard(SignalKind::terminate()) => {}
        () = heard(SignalKind::hangup()) => {}
        () = heard(SignalKind::interrupt()) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_get_the_usual_port() {
        let cases = [
            ("10.0.0.1:7000", "10.0.0.1:7000"),
            ("controller.example.com", "controller.example.com:7400"),
            ("[::1]:7401", "[::1]:7401"),
            ("[::1]", "[::1]:7400"),
            ("::1", "[::1]:7400"),
            ("a.example.com, b.example.com:7401,::1", "a.example.com:7400,b.example.com:7401,[::1]:7400"),
        ];
        for (text, wanted) in cases {
            assert_eq!(address(text).as_deref(), Ok(wanted));
        }
        for text in
            ["", "a,", ",a:1", "a:1,b:0", "https://controller:7400", "host:", "host:0", "host:70000", ":7400", "a b"]
        {
            assert!(address(text).is_err(), "{text:?} was accepted");
        }
    }
}
