//! When a certificate is obtained: at once when there is none that fits, at two thirds of its life otherwise, and after failures
//! with pauses that no authority minds. Pure.

use feather_proto::tls::CertificateFacts;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// After the first failure; doubled with each further one. Authorities allow five failed validations of a name in an hour.
const PAUSE_MIN: Duration = Duration::minutes(10);
/// At most: a certificate that is renewed at two thirds of ninety days has sixty tries left then.
const PAUSE_MAX: Duration = Duration::hours(12);
/// After the authority said that it was asked too often.
const LIMITED_MIN: Duration = Duration::hours(3);

/// What became of the last tries. Kept over restarts, so that a controller that is restarted again and again asks nobody more often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// In a row.
    pub failures: u32,
    /// When the last one ended.
    #[serde(with = "time::serde::timestamp::option")]
    pub ended: Option<OffsetDateTime>,
    /// Not before.
    #[serde(with = "time::serde::timestamp::option")]
    pub next: Option<OffsetDateTime>,
    /// Why the last one failed.
    pub error: Option<String>,
}

impl Attempts {
    /// After one more failure.
    pub fn failed(&self, error: String, limited: bool, now: OffsetDateTime) -> Self {
        let failures = self.failures.saturating_add(1);
        let pause = PAUSE_MIN * 2_i32.saturating_pow((failures - 1).min(10));
        let pause = if limited { pause.max(LIMITED_MIN) } else { pause }.min(PAUSE_MAX);
        Self { failures, ended: Some(now), next: Some(now + pause), error: Some(error) }
    }
}

/// When a certificate is renewed: at two thirds of its life, and up to a thirtieth of it later, so that fleets do not all come at once.
/// The same for the same certificate.
pub fn renewal(facts: &CertificateFacts) -> OffsetDateTime {
    let life = facts.not_after - facts.not_before;
    let digits = facts.fingerprint.get(..4).unwrap_or_default();
    let chance = f64::from(u16::from_str_radix(digits, 16).unwrap_or(0)) / f64::from(u16::MAX);
    facts.not_before + life * (2.0 / 3.0 + chance / 30.0)
}

/// When one is to be obtained next.
pub fn due(
    held: Option<&CertificateFacts>,
    names: &[String],
    attempts: &Attempts,
    now: OffsetDateTime,
) -> OffsetDateTime {
    let wanted = held.filter(|facts| names.iter().all(|name| facts.covers(name))).map_or(now, renewal);
    attempts.next.map_or(wanted, |next| wanted.max(next))
}

#[cfg(test)]
mod tests {
    use feather_proto::tls::CertificateFacts;
    use time::{Duration, OffsetDateTime};

    use super::{Attempts, due, renewal};

    fn moment() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn facts(fingerprint: &str) -> CertificateFacts {
        CertificateFacts {
            names: vec!["users.example.com".into(), "*.users.example.com".into()],
            issuer: "CN=x".into(),
            serial: "01".into(),
            not_before: moment(),
            not_after: moment() + Duration::days(90),
            fingerprint: fingerprint.into(),
        }
    }

    #[test]
    fn it_is_renewed_at_two_thirds_of_its_life_and_not_by_all_at_once() {
        let (early, late) = (renewal(&facts("0000")), renewal(&facts("ffff")));
        assert_eq!(early, moment() + Duration::days(60));
        assert_eq!(late, moment() + Duration::days(63));
        assert_eq!(renewal(&facts("8000")), renewal(&facts("8000")));
    }

    #[test]
    fn without_one_that_fits_it_is_obtained_at_once() {
        let names = ["users.example.com".to_owned(), "*.users.example.com".to_owned()];
        let none = Attempts::default();
        assert_eq!(due(None, &names, &none, moment()), moment());
        assert_eq!(due(Some(&facts("0000")), &names, &none, moment()), moment() + Duration::days(60));
        let others = ["users.example.org".to_owned()];
        assert_eq!(due(Some(&facts("0000")), &others, &none, moment()), moment());
    }

    #[test]
    fn failures_are_followed_by_longer_pauses_and_limits_by_long_ones() {
        let mut attempts = Attempts::default();
        let mut minutes = Vec::new();
        for _ in 0..9 {
            attempts = attempts.failed("no".into(), false, moment());
            minutes.push((attempts.next.unwrap() - moment()).whole_minutes());
        }
        assert_eq!(minutes, [10, 20, 40, 80, 160, 320, 640, 720, 720]);
        let limited = Attempts::default().failed("slow down".into(), true, moment());
        assert_eq!(limited.next, Some(moment() + Duration::hours(3)));
        assert_eq!(due(None, &[], &limited, moment()), moment() + Duration::hours(3));
        let text = serde_json::to_string(&attempts).unwrap();
        assert_eq!(serde_json::from_str::<Attempts>(&text).unwrap(), attempts);
    }
}
