//! One question to the controller: is this server still a member by its certificate?
//!
//! Owns what counts as an answer. Whoever is not proved to be this fleet's controller gives none, and an error that is not the
//! controller's own refusal of a revoked certificate is none either.

use std::{sync::Arc, time::Duration};

use feather_proto::{
    error::{Code, Error, reason},
    pb::controller::v1::{self as pb, enrollment_service_client::EnrollmentServiceClient},
    tls::{self, Dial, Identity, IdentityError, Principal, Rotating, Trust},
};

use super::Answer;

const CALL_MAX: Duration = Duration::from_secs(5);

/// Asks by the certificate, and, where that is not let in, about it.
pub(super) async fn standing(dial: Arc<dyn Dial>, controller: &str, identity: &Identity, now_seconds: i64) -> Answer {
    let ended = identity.validity().is_ok_and(|(_, until)| until <= now_seconds);
    if !ended {
        match Rotating::new(identity.clone()) {
            Err(error) => return Answer::Nothing(error.to_string()),
            Ok(own) => match ask(dial.clone(), controller, identity, &Trust::Mutual(own)).await {
                // By the controller's clock it may have ended; a stranger is heard out.
                Answer::Nothing(_) => {}
                answer => return answer,
            },
        }
    }
    ask(dial, controller, identity, &Trust::CaOnly(identity.ca_pem.clone())).await
}

async fn ask(dial: Arc<dyn Dial>, controller: &str, identity: &Identity, trust: &Trust) -> Answer {
    match call(dial, controller, identity, trust).await {
        Ok(answer) => answer,
        Err(error) => Answer::Nothing(error.to_string()),
    }
}

async fn call(
    dial: Arc<dyn Dial>,
    controller: &str,
    identity: &Identity,
    trust: &Trust,
) -> Result<Answer, IdentityError> {
    let channel = tls::channel(dial, controller, &Principal::controller(), trust)?;
    let mut request = tonic::Request::new(pb::GetStandingRequest { certificate_pem: identity.certificate_pem.clone() });
    request.set_timeout(CALL_MAX);
    let answer = EnrollmentServiceClient::new(channel).get_standing(request).await;
    Ok(judge(answer.map(|answer| answer.into_inner().standing()).map_err(Error::from)))
}

/// What was said. Pure.
fn judge(answer: Result<pb::Standing, Error>) -> Answer {
    match answer {
        Ok(pb::Standing::Member) => Answer::Member,
        Ok(pb::Standing::Revoked) => Answer::Revoked,
        Ok(pb::Standing::Unknown | pb::Standing::Unspecified) => {
            Answer::Nothing("the controller knows nothing of this server".to_owned())
        }
        // Behind the controller's own certificate, so this is its word.
        Err(error) if error.code == Code::Denied && error.is(reason::REVOKED) => Answer::Revoked,
        Err(error) => Answer::Nothing(error.message),
    }
}

#[cfg(test)]
mod tests {
    use feather_proto::{
        error::{Error, reason},
        pb::controller::v1 as pb,
    };

    use super::{Answer, judge};

    #[test]
    fn nothing_but_a_plain_word_is_an_answer() {
        assert_eq!(judge(Ok(pb::Standing::Member)), Answer::Member);
        assert_eq!(judge(Ok(pb::Standing::Revoked)), Answer::Revoked);
        assert_eq!(judge(Err(Error::denied(reason::REVOKED, "out"))), Answer::Revoked);
        let none = |answer| matches!(judge(answer), Answer::Nothing(_));
        assert!(none(Ok(pb::Standing::Unknown)) && none(Ok(pb::Standing::Unspecified)));
        for error in [
            Error::denied(reason::ROLE, "no"),
            Error::unavailable(reason::SERVER_UNREACHABLE, "connection refused"),
            Error::unavailable(reason::REVOKED, "a proxy's word"),
            Error::bug("x"),
        ] {
            assert!(none(Err(error.clone())), "{error:?}");
        }
    }
}
