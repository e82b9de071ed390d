//! What a reply means for the zone. Pure.
//!
//! The provider's HTTP status does not always follow the code in its body, and the only machine-readable reason is that code: 429
//! alone has three meanings, told apart by English text. Text that is not recognised is never taken for something that goes away.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::{super::zone::ProviderError, reading::Envelope};

/// What was asked, which decides what a lost answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Changed nothing, whatever became of it.
    Read,
    /// May have changed the zone.
    Change,
}

/// What became of a call, before pauses are counted.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It was done; here is the reply's data.
    Done(Option<Value>),
    /// Nothing was done, and the provider wants to be left alone for a while.
    Busy(String),
    /// Nobody knows what was done, and the provider is not well.
    Lost(String),
    /// Nothing was done, and will not be.
    Refused(String),
}

impl Verdict {
    /// As the error it is, if it is one.
    pub(super) fn error(self, pause: Duration) -> Result<Option<Value>, ProviderError> {
        match self {
            Self::Done(data) => Ok(data),
            Self::Busy(message) => Err(ProviderError::Later { message, pause }),
            Self::Lost(message) => Err(ProviderError::Unknown(message)),
            Self::Refused(message) => Err(ProviderError::Refused(message)),
        }
    }

    /// Is the provider to be left alone for a while?
    pub(super) fn is_trouble(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Lost(_))
    }
}

/// No usable answer: a read can simply be made again, of a change nobody knows.
pub(super) fn lost(call: Call, message: String) -> Verdict {
    match call {
        Call::Read => Verdict::Busy(message),
        Call::Change => Verdict::Lost(message),
    }
}

/// Judges by the HTTP status *and* the code in the body.
pub(super) fn judge(call: Call, status: StatusCode, body: &[u8]) -> Verdict {
    let envelope = match Envelope::parse(body) {
        Ok(envelope) => envelope,
        Err(what) => return lost(call, format!("Dynadot answered HTTP {} with {what}", status.as_u16())),
    };
    let said = said(&envelope);
    match envelope.code {
        200 if status == StatusCode::OK => Verdict::Done(envelope.data),
        200..=299 => lost(
            call,
            format!("Dynadot answered HTTP {} and code {}, which do not go together", status.as_u16(), envelope.code),
        ),
        500 | 502..=504 => lost(call, said),
        429 => too_many(&envelope.reason(), said),
        400 if passes(&envelope.reason()) => Verdict::Busy(said),
        code => Verdict::Refused(format!("{said}{}", advice(code, &envelope.reason()))),
    }
}

fn said(envelope: &Envelope) -> String {
    let mut reason: String = envelope.reason().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // The text is a stranger's: some of it is enough.
    if let Some((end, _)) = reason.char_indices().nth(300) {
        reason.truncate(end);
    }
    format!("Dynadot says {}: {reason}", envelope.code)
}

/// Another command of the account is under way.
fn passes(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["another command processing", "try again later", "system busy", "system_busy"]
        .iter()
        .any(|text| reason.contains(text))
}

fn too_many(reason: &str, said: String) -> Verdict {
    let reason = reason.to_ascii_lowercase();
    let any = |texts: &[&str]| texts.iter().any(|text| reason.contains(text));
    if any(&["upper limit"]) {
        Verdict::Refused(format!("{said} (the zone is full: remove records that nobody needs, on Dynadot's page)"))
    } else if any(&["daily quota", "tomorrow"]) {
        Verdict::Refused(format!("{said} (the account's requests of today are used up)"))
    } else if any(&["rate limit", "concurrent limit", "try again after", "try again later"]) {
        Verdict::Busy(said)
    } else {
        Verdict::Refused(said)
    }
}

/// What a person can do about a refusal.
fn advice(code: u32, reason: &str) -> &'static str {
    let reason = reason.to_ascii_lowercase();
    match code {
        400 if reason.contains("x-signature") => " (check the API secret, and that it belongs to this key)",
        401 => " (check the API key; a new one is accepted about ten minutes after it was made)",
        403 if reason.contains("main dns") => {
            " (make one record at the domain itself on Dynadot's page, for instance a txt, and keep it)"
        }
        403 if reason.contains("ip address") => {
            " (add this machine's address to the API's list on Dynadot's page; it counts after about ten minutes)"
        }
        404 => {
            " (the zone must be a registered domain in this account, and production and sandbox have different ones)"
        }
        409 if reason.contains("email settings") => " (switch off the domain's email settings on Dynadot's page)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::{Call, Verdict, judge};

    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Done(_) => "done",
            Verdict::Busy(_) => "busy",
            Verdict::Lost(_) => "lost",
            Verdict::Refused(_) => "refused",
        }
    }

    fn both(status: u16, body: &[u8]) -> (&'static str, &'static str) {
        let status = StatusCode::from_u16(status).unwrap();
        (word(&judge(Call::Read, status, body)), word(&judge(Call::Change, status, body)))
    }

    fn error(code: u32, description: &str) -> Vec<u8> {
        json!({"code": code, "message": "Error", "error": {"description": description}}).to_string().into_bytes()
    }

    #[test]
    fn success_needs_both_codes() {
        assert_eq!(both(200, br#"{"code":200,"message":"Success"}"#), ("done", "done"));
        assert_eq!(both(200, br#"{"code":"200"}"#), ("done", "done"));
        assert_eq!(both(502, br#"{"code":200}"#), ("busy", "lost"));
        assert_eq!(both(201, br#"{"code":200}"#), ("busy", "lost"));
        assert_eq!(both(200, br#"{"code":202}"#), ("busy", "lost"));
        assert_eq!(both(200, &error(400, "This command requires X-Signature")), ("refused", "refused"));
    }

    #[test]
    fn what_is_no_answer_leaves_a_change_unknown() {
        for (status, body) in [
            (200, &b"<html>Maintenance</html>"[..]),
            (502, b"<html>Bad gateway</html>"),
            (200, b"problem with connection to main server"),
            (200, b""),
            (200, br#"{"code":20"#),
            (429, b"slow down"),
            (301, b""),
        ] {
            assert_eq!(both(status, body), ("busy", "lost"), "{status}");
        }
        for code in [500, 502, 503, 504] {
            let body = error(code, "Unexpected internal server error , please contact our support.");
            assert_eq!(both(200, &body), ("busy", "lost"), "{code}");
            assert_eq!(both(503, &body), ("busy", "lost"), "{code}");
        }
    }

    #[test]
    fn too_many_has_three_meanings_and_unknown_text_is_none_of_them() {
        for (description, meaning) in [
            ("Too many requests. Rate limit exceeded. Please try again after 60 seconds.", "busy"),
            ("You have reached the concurrent limit of your account.", "busy"),
            ("Cannot add DNS for example.com. The Dns Settings reached the upper limit.", "refused"),
            ("Cannot add subdomains for example.com. The Subdomain Settings reached the upper limit.", "refused"),
            ("Daily quota for the command has been reached. Please try again tomorrow.", "refused"),
            ("Something else altogether.", "refused"),
        ] {
            for status in [200, 429] {
                assert_eq!(both(status, &error(429, description)), (meaning, meaning), "{description}");
            }
        }
    }

    #[test]
    fn refusals_are_final_and_say_what_to_do() {
        for (code, description, advice) in [
            (400, "Cannot set a and cname together.", "together"),
            (400, "the X-Signature provided is not valid", "secret"),
            (401, "The provided API key is invalid, expired, or missing.", "ten minutes"),
            (403, "The domain doesn't have main dns.", "at the domain itself"),
            (403, "The request is not allowed from the current IP address. Please contact our support.", "list"),
            (404, "Can not find the example.com in the account.", "sandbox"),
            (409, "Cannot set DNS for example.com since the domain has existing Email Settings.", "switch off"),
            (409, "The example.com is disabled.", "disabled"),
            (402, "", ""),
            (501, "", ""),
            (799, "", ""),
        ] {
            let verdict = judge(Call::Change, StatusCode::OK, &error(code, description));
            let Verdict::Refused(text) = &verdict else { panic!("{code}: {verdict:?}") };
            assert!(text.contains(advice), "{text}");
        }
        assert_eq!(both(200, &error(400, "There is another command processing for example.com")), ("busy", "busy"));
    }

    #[test]
    fn a_long_text_is_cut_and_kept_in_one_line() {
        let verdict = judge(Call::Read, StatusCode::OK, &error(400, &"ü\n".repeat(5000)));
        let Verdict::Refused(text) = verdict else { panic!("{verdict:?}") };
        assert!(text.len() < 800 && !text.contains('\n'), "{text}");
    }
}
