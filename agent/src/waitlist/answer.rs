//! What the waitlist says over HTTP: who asks, what was sent, which answer fits. Pure.

use std::{net::IpAddr, str::FromStr, time::Duration};

use bytes::Bytes;
use feather_proto::email::EmailAddress;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

pub(super) const METHODS: &str = "GET, POST, OPTIONS";
/// How long a browser may remember what a preflight said.
const PREFLIGHT_AGE: &str = "86400";

/// Whose pages a browser lets read the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Everybody's.
    Any,
    /// Only these, each as a browser spells it: `https://example.org`.
    Only(Vec<String>),
}

impl FromStr for Origins {
    type Err = String;

    /// `*`, or origins with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let origins: Vec<String> = text.split(',').map(|one| one.trim().to_ascii_lowercase()).collect();
        for origin in &origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let plain =
                |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            if !host.is_some_and(plain) {
                return Err(format!(
                    "{origin:?} is not an origin: write `*`, or for example https://example.org,https://www.example.org"
                ));
            }
        }
        Ok(Self::Only(origins))
    }
}

impl Origins {
    /// What browsers are told, given the origin that one of them sent.
    fn allow(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        match self {
            Origins::Any => drop(headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))),
            Origins::Only(known) => {
                headers.insert(header::VARY, HeaderValue::from_static("Origin"));
                let is_known = |origin: &&HeaderValue| {
                    origin.to_str().is_ok_and(|text| known.iter().any(|one| one.eq_ignore_ascii_case(text)))
                };
                if let Some(origin) = origin.filter(is_known) {
                    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                }
            }
        }
    }
}

/// Every answer there is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To a GET: somebody is here.
    Here,
    /// To a preflight.
    Preflight,
    /// The address is on the list, now or already.
    Accepted,
    /// What was sent is no address; why.
    NotAnAddress(String),
    WrongMethod,
    TooLong,
    TooSlow,
    TooOften(Duration),
    /// Ours to mend: full, or no disk.
    Closed,
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Answer::Here | Answer::Accepted => StatusCode::OK,
            Answer::Preflight => StatusCode::NO_CONTENT,
            Answer::NotAnAddress(_) => StatusCode::BAD_REQUEST,
            Answer::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Answer::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Answer::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Answer::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Answer::Closed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error(&self) -> Option<&str> {
        Some(match self {
            Answer::Here | Answer::Preflight | Answer::Accepted => return None,
            Answer::NotAnAddress(why) => why,
            Answer::WrongMethod => "send a form with the field email by POST",
            Answer::TooLong => "that is too long for an e-mail address",
            Answer::TooSlow => "the form did not arrive in time; send it again",
            Answer::TooOften(_) => "too many sign-ups from this place; try again later",
            Answer::Closed => "the waitlist cannot take addresses now; try again later",
        })
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            // A second that has begun counts whole: whoever comes back then is let in.
            Answer::TooOften(wait) => Some(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)),
            Answer::Closed => Some(60),
            _ => None,
        }
    }

    pub(super) fn response(&self, origins: &Origins, origin: Option<&HeaderValue>) -> Response<Full<Bytes>> {
        let (body, kind) = match self.error() {
            Some(error) => {
                // Spelled out, so that `ok` comes first as it always did.
                let error = serde_json::Value::from(error);
                (format!(r#"{{"ok":false,"error":{error}}}"#), "application/json")
            }
            None if *self == Answer::Accepted => (r#"{"ok":true}"#.to_owned(), "application/json"),
            None if *self == Answer::Here => ("waitlist ok".to_owned(), "text/plain; charset=utf-8"),
            None => (String::new(), ""),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        origins.allow(headers, origin);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self {
            Answer::WrongMethod => drop(headers.insert(header::ALLOW, HeaderValue::from_static(METHODS))),
            Answer::Preflight => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"));
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
            }
            _ => {}
        }
        response
    }
}

/// Who is at the other end. Only a proxy on this machine is believed, and of what it says only the last: what stands before
/// that was written by somebody further away.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    if !peer.to_canonical().is_loopback() {
        return peer;
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
    let last = forwarded.and_then(|value| value.to_str().ok()).and_then(|value| value.rsplit(',').next());
    last.and_then(|last| last.trim().parse().ok()).unwrap_or(peer)
}

/// The address in a form.
pub(super) fn address(form: &[u8]) -> Result<EmailAddress, Answer> {
    let field = form_urlencoded::parse(form).find(|(name, _)| name == "email");
    let Some((_, text)) = field else {
        let why = "there is no field email; send a form, for example email=ada%40example.org";
        return Err(Answer::NotAnAddress(why.to_owned()));
    };
    text.parse().map_err(|error: feather_proto::error::Error| Answer::NotAnAddress(error.message))
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use http::{HeaderMap, HeaderValue};

    use super::{Answer, Origins, address, client};

    #[test]
    fn forms_are_read_as_browsers_and_curl_write_them() {
        for form in ["email=ada%40example.org", "email=ada@example.org&x=1", "x=&email=+ada%40EXAMPLE.org%0A"] {
            assert_eq!(address(form.as_bytes()).unwrap().as_str(), "ada@example.org");
        }
        for form in
            ["", "email", "email=", "e-mail=ada@example.org", "{\"email\":\"ada@example.org\"}", "email=%ff%fe@x.org"]
        {
            assert!(matches!(address(form.as_bytes()), Err(Answer::NotAnAddress(_))), "{form:?} was accepted");
        }
    }

    #[test]
    fn only_a_proxy_on_this_machine_is_believed_and_only_its_own_word() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let forwarded = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            headers
        };
        let cases: &[(&str, &[&'static str], &str)] = &[
            ("127.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["198.51.100.1", "2001:db8::7"], "2001:db8::7"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["nonsense"], "127.0.0.1"),
            ("192.0.2.4", &["203.0.113.9"], "192.0.2.4"),
        ];
        for (peer, values, wanted) in cases {
            assert_eq!(client(ip(peer), &forwarded(values)), ip(wanted), "{peer} {values:?}");
        }
    }

    #[test]
    fn origins_are_answered_as_browsers_want_it() {
        let some: Origins = "https://example.org, https://www.Example.org".parse().unwrap();
        let allowed = |origins: &Origins, origin: Option<&'static str>| {
            let origin = origin.map(HeaderValue::from_static);
            let response = Answer::Accepted.response(origins, origin.as_ref());
            let value = response.headers().get("access-control-allow-origin");
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(allowed(&Origins::Any, None).as_deref(), Some("*"));
        assert_eq!(allowed(&some, Some("https://www.example.org")).as_deref(), Some("https://www.example.org"));
        assert_eq!(allowed(&some, Some("https://example.net")), None);
        assert_eq!(allowed(&some, None), None);
        for bad in ["", "example.org", "https://", "https://example.org/", "https://a b", "*,https://example.org"] {
            assert!(bad.parse::<Origins>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn whoever_waits_as_told_is_let_in() {
        let after = |wait| Answer::TooOften(wait).retry_after();
        assert_eq!(after(Duration::from_millis(1)), Some(1));
        assert_eq!(after(Duration::from_millis(6000)), Some(6));
        assert_eq!(after(Duration::from_millis(6001)), Some(7));
    }
}
