//! Keeps this server's certificate fresh.
//!
//! Owns when to ask and what to do with the answer. The running connections keep their old certificate; new handshakes use
//! the new one at once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use feather_proto::{
    error::Error as CallError,
    pb::controller::v1::{self as pb, enrollment_service_client::EnrollmentServiceClient},
    tls::{self, Dial, Identity, IdentityError, Principal, Rotating, Trust},
};
use rand::{TryRng as _, rngs::SysRng};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

const CALL_MAX: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(600);
/// The wall clock may be set meanwhile: look at it at least this often.
const NAP_LONGEST: Duration = Duration::from_secs(600);

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the controller answered with a certificate for {0}")]
    WrongName(Principal),
}

/// What renewal works on.
pub struct Renewal {
    /// The identity in use.
    pub identity: Rotating,
    /// Its file.
    pub file: PathBuf,
    /// `host:port` of the controller.
    pub controller: String,
    /// How it is reached.
    pub dial: Arc<dyn Dial>,
    /// The wall clock that certificates are valid by.
    pub clock: Arc<dyn Clock>,
}

/// A number from 0 to 1.
fn jitter() -> f64 {
    let sample = SysRng.try_next_u32().unwrap_or(u32::MAX / 2);
    f64::from(sample) / f64::from(u32::MAX)
}

/// When to renew a certificate of this validity: after about two thirds of its life, not all servers at once.
fn due((not_before, not_after): (i64, i64), jitter: f64) -> i64 {
    let life = not_after.saturating_sub(not_before).max(0);
    // At most a twentieth of the life earlier; the cast stays within the life.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    let earlier = (life as f64 / 20.0 * jitter) as i64;
    not_before + life / 3 * 2 - earlier
}

impl Renewal {
    /// Renews without end.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.keep_fresh() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn keep_fresh(&self) {
        let mut retry = RETRY_FIRST;
        let mut jitter_now = jitter();
        loop {
            let due = match self.identity.identity().validity() {
                Ok(validity) => due(validity, jitter_now),
                Err(error) => return tracing::error!(%error, "the certificate cannot be read; join this server anew"),
            };
            let wait = due.saturating_sub(self.clock.now().unix_timestamp());
            if let Ok(seconds @ 1..) = u64::try_from(wait) {
                tokio::time::sleep(Duration::from_secs(seconds).min(NAP_LONGEST)).await;
                continue;
            }
            match self.renew().await {
                Ok(()) => {
                    tracing::info!("renewed the certificate");
                    retry = RETRY_FIRST;
                    jitter_now = jitter();
                }
                Err(error) => {
                    tracing::warn!(%error, retry_seconds = retry.as_secs(), "cannot renew the certificate");
                    tokio::time::sleep(retry.mul_f64(0.5 + jitter() / 2.0)).await;
                    retry = (retry * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    async fn renew(&self) -> Result<(), Error> {
        let current = self.identity.identity();
        let principal = current.principal()?;
        let (key_pem, csr_pem) = tls::csr(&principal.name)?;
        let trust = Trust::Mutual(self.identity.clone());
        let channel = tls::channel(self.dial.clone(), &self.controller, &Principal::controller(), &trust)?;
        let mut request = tonic::Request::new(pb::RenewCertificateRequest { csr_pem });
        request.set_timeout(CALL_MAX);
        let answer = EnrollmentServiceClient::new(channel).renew_certificate(request).await;
        let answer = answer.map_err(CallError::from)?.into_inner();
        let fresh = Identity { certificate_pem: answer.certificate_pem, key_pem, ca_pem: answer.ca_pem };
        let got = fresh.principal()?;
        if got != principal {
            return Err(Error::WrongName(got));
        }
        // First proved usable, then durable, then in use: a crash leaves the old or the new one.
        Rotating::new(fresh.clone())?;
        fresh.save(&self.file)?;
        Ok(self.identity.replace(fresh)?)
    }
}

#[cfg(test)]
mod tests {
    use super::due;

    #[test]
    fn a_certificate_is_renewed_at_about_two_thirds_of_its_life() {
        assert_eq!(due((1000, 4000), 0.0), 3000);
        assert_eq!(due((1000, 4000), 1.0), 2850);
        assert_eq!(due((1000, 1000), 0.5), 1000);
    }
}
