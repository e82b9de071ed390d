//! The certificate as it is shown.

use feather_proto::pb::controller::v1 as pb;
use serde::Serialize;

use super::{Moment, moment, set};
use crate::output::{pairs, table};

#[derive(Debug, Serialize)]
pub(crate) struct ServerView {
    pub(crate) server: String,
    pub(crate) reachable: bool,
    pub(crate) fingerprint: Option<String>,
    pub(crate) not_after: Option<Moment>,
    pub(crate) current: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct CertView {
    pub(crate) directory: Option<String>,
    pub(crate) names: Vec<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) not_before: Option<Moment>,
    pub(crate) not_after: Option<Moment>,
    pub(crate) next_renewal: Option<Moment>,
    pub(crate) doing: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) last_try: Option<Moment>,
    pub(crate) failures: u32,
    pub(crate) servers: Vec<ServerView>,
    pub(crate) warnings: Vec<String>,
}

impl From<pb::GetCertStatusResponse> for CertView {
    fn from(pb: pb::GetCertStatusResponse) -> Self {
        let server = |pb: pb::ServerCertificate| ServerView {
            server: pb.server,
            reachable: pb.reachable,
            fingerprint: set(pb.fingerprint),
            not_after: moment!(pb.not_after),
            current: pb.current,
        };
        let certificate = pb.certificate.unwrap_or_default();
        Self {
            directory: set(pb.directory),
            names: pb.names,
            issuer: set(certificate.issuer),
            serial: set(certificate.serial),
            fingerprint: set(certificate.fingerprint),
            not_before: moment!(certificate.not_before),
            not_after: moment!(certificate.not_after),
            next_renewal: moment!(pb.next_renewal),
            doing: set(pb.doing),
            last_error: set(pb.last_error),
            last_try: moment!(pb.last_try),
            failures: pb.failures,
            servers: pb.servers.into_iter().map(server).collect(),
            warnings: pb.warnings,
        }
    }
}

impl CertView {
    pub(crate) fn text(&self) -> String {
        let Some(directory) = &self.directory else {
            return "this controller obtains no certificate (--acme-directory); servers with DOMAIN get their own\n"
                .into();
        };
        let time = |moment: &Option<Moment>| moment.as_ref().map(ToString::to_string).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let rows = [
            ("names", self.names.join(", ")),
            ("authority", directory.clone()),
            ("issuer", text(&self.issuer)),
            ("serial", text(&self.serial)),
            ("valid from", time(&self.not_before)),
            ("valid until", time(&self.not_after)),
            ("renewed", time(&self.next_renewal)),
            ("now", text(&self.doing)),
            ("last try", time(&self.last_try)),
            ("last error", text(&self.last_error)),
        ];
        let shown: Vec<_> = rows.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                let holds = match (&server.fingerprint, server.current) {
                    (None, _) => "none",
                    (Some(_), true) => "newest",
                    (Some(_), false) => "another",
                };
                let reached = if server.reachable { "yes" } else { "no" };
                [server.server.clone(), holds.to_owned(), time(&server.not_after), reached.to_owned()]
            })
            .collect();
        let table = table(["SERVER", "HOLDS", "UNTIL", "ANSWERS"], &servers);
        format!("{}\n{table}", pairs(&shown))
    }
}
