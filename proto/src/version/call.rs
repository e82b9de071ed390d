//! The calling end: says what this process speaks in every call, and remembers what the other side said.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderValue, Response};
use tonic::body::Body;

use super::{HEADER, OURS, Party, Range, SILENT, agree, is_free, said};
use crate::{
    error::{Code, Error, reason},
    tls::{Principal, refusal},
};

/// What one end of a channel says of itself, and what it heard of the other one; all clones are one.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The other end, as people call it.
    name: Arc<str>,
    /// Nothing, for an end that behaves as the release did that knew no versions.
    says: Option<Range>,
    /// Oldest and newest version of the other end; 0 as long as it did not say.
    heard: Arc<AtomicU64>,
}

impl Heard {
    /// Nothing yet, of whoever answers.
    pub(crate) fn of(who: &Principal) -> Self {
        Self { name: who.spoken().into(), says: Some(OURS), heard: Arc::default() }
    }

    /// The same for an end of another release: one that speaks this, or that does not know the header at all. It has heard nothing.
    pub(crate) fn saying(self, says: Option<Range>) -> Self {
        Self { says, heard: Arc::default(), ..self }
    }

    /// What the other end speaks; nothing, before it has answered.
    pub fn range(&self) -> Option<Range> {
        let both = self.heard.load(Ordering::SeqCst);
        let number = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        Range::new(number(both >> 32), number(both))
    }

    /// Lets a call say what this end speaks.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.says.and_then(|says| HeaderValue::from_str(&says.to_string()).ok()) {
            headers.insert(HEADER, value);
        }
    }

    /// An answer to this call, as it may be believed: whoever has no version in common with this end is not understood, and a call that
    /// the other end does not know is refused in words.
    pub(crate) fn judge(&self, path: &str, answer: Response<Body>) -> Response<Body> {
        let Some(says) = self.says.filter(|_| !is_free(path)) else { return answer };
        let code = answer.headers().get("grpc-status").map(|code| code.as_bytes().to_owned());
        let unknown_call = code.as_deref() == Some(b"12") && !answer.headers().contains_key("grpc-status-details-bin");
        // An error that says nothing teaches nothing: it may come from the transport, which knows no versions. The services of a release
        // without versions answer, or do not know the call.
        let answered = matches!(code.as_deref(), None | Some(b"0" | b"12"));
        let speaks = match said(answer.headers()) {
            Ok(Some(speaks)) => Some(speaks),
            Ok(None) => answered.then_some(SILENT),
            Err(error) => return refusal(error.context(format!("{} does not answer as it should", self.name))),
        };
        let Some(speaks) = speaks else { return answer };
        self.heard.store((u64::from(speaks.oldest) << 32) | u64::from(speaks.newest), Ordering::SeqCst);
        // What it refused itself says so better.
        let refused = code.as_deref().is_some_and(|code| code != b"0") && !unknown_call;
        if refused {
            return answer;
        }
        match agree(Party { name: &self.name, speaks }, Party { name: "this side", speaks: says }) {
            // It did not refuse the call, so it may have carried it out.
            Err(error) => refusal(Error { code: Code::Unavailable, ..error }),
            Ok(_) if unknown_call => refusal(self.unknown(path, speaks)),
            Ok(_) => answer,
        }
    }

    fn unknown(&self, path: &str, speaks: Range) -> Error {
        let call = path.rsplit_once('.').map_or(path, |(_, call)| call);
        let name = &self.name;
        let message = format!(
            "{name} speaks protocol {speaks} and cannot do {call}, so nothing was done; upgrade {name} (docs/versions.md says what each \
             version brought)"
        );
        Error::refused(reason::PROTOCOL, message).with("upgrade", name).with("peer_protocol", speaks).with("call", call)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Response};
    use tonic::{Status, body::Body};

    use super::{HEADER, Heard};
    use crate::{
        error::{Error, reason},
        tls::Principal,
        version::{Range, SILENT, STANDING},
    };

    const CALL: &str = "/feather.agent.v1.TenantService/ReclaimTenant";

    fn answer(status: Option<Status>, says: Option<&str>) -> Response<Body> {
        let mut answer = status.map_or_else(|| Response::new(Body::empty()), Status::into_http);
        if let Some(says) = says {
            answer.headers_mut().insert(HEADER, says.parse().unwrap());
        }
        answer
    }

    fn error(answer: &Response<Body>) -> Option<Error> {
        Status::from_header_map(answer.headers()).map(Error::from)
    }

    #[test]
    fn calls_say_what_this_end_speaks_and_answers_what_the_other_one_does() {
        let heard = Heard::of(&Principal::agent("nyc"));
        let mut headers = HeaderMap::new();
        heard.stamp(&mut headers);
        assert_eq!(headers[HEADER], "1-2");
        let mut silent = HeaderMap::new();
        heard.clone().saying(None).stamp(&mut silent);
        assert!(silent.is_empty());

        assert_eq!(heard.range(), None);
        // Errors of the transport say nothing of versions.
        heard.judge(CALL, answer(Some(Status::deadline_exceeded("late")), None));
        assert_eq!(heard.range(), None);
        assert!(error(&heard.judge(CALL, answer(None, Some("2-3")))).is_none());
        assert_eq!(heard.clone().range(), Range::new(2, 3));
        heard.judge(CALL, answer(Some(Status::cancelled("ended")), None));
        assert_eq!(heard.range(), Range::new(2, 3));
        // It was replaced by the release before.
        assert!(error(&heard.judge(CALL, answer(None, None))).is_none());
        assert_eq!(heard.range(), Some(SILENT));
    }

    #[test]
    fn an_answer_that_is_not_understood_is_not_taken() {
        let heard = Heard::of(&Principal::agent("nyc"));
        let refused = error(&heard.judge(CALL, answer(None, Some("3-4")))).unwrap();
        assert_eq!(
            (refused.reason.as_str(), refused.code.retryable()),
            (reason::PROTOCOL, true),
            "nobody knows what it did"
        );
        assert!(refused.message.contains("3-4") && refused.message.contains("upgrade this side"), "{refused}");
        assert!(error(&heard.judge(CALL, answer(None, Some("three")))).is_some());
        let own = error(&heard.judge(CALL, answer(Some(Error::stale("STALE", "its own word").into()), Some("3-4"))));
        assert_eq!(own.unwrap().message, "its own word");
        assert!(error(&heard.judge(STANDING, answer(None, Some("3-4")))).is_none(), "this one is the same for ever");
    }

    #[test]
    fn a_call_that_an_older_side_does_not_know_is_refused_in_words() {
        let heard = Heard::of(&Principal::agent("nyc"));
        let refused = error(&heard.judge(CALL, answer(Some(Status::unimplemented("")), None))).unwrap();
        assert_eq!((refused.reason.as_str(), refused.code.retryable()), (reason::PROTOCOL, false));
        let wanted = "the agent of nyc speaks protocol 1 and cannot do TenantService/ReclaimTenant";
        assert!(refused.message.starts_with(wanted), "{refused}");
    }
}
