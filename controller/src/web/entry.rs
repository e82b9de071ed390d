//! What a request for the page brings along: a token in a form, a session in a cookie, a wish in its address. Pure.
//!
//! Tokens come in the body of a request and never in an address, which proxies and browsers write down.

use axum::http::{HeaderMap, header};

const PREFIX: &str = "feather-web-";
const COOKIE: &str = "feather_session";
/// Hexadecimal digits of a secret.
const SECRET_DIGITS: usize = 64;
/// Longest text that is looked for.
const SOUGHT_MAX: usize = 64;

/// A token as it is printed and pasted.
pub fn token(secret: &str) -> String {
    format!("{PREFIX}{secret}")
}

/// The form of a secret; what it is worth only the store knows.
fn is_secret(text: &str) -> bool {
    text.len() == SECRET_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The secret of the token in the form of a login; none when there is none of that form.
pub(super) fn token_in(form: &[u8]) -> Option<String> {
    let (_, typed) = form_urlencoded::parse(form).find(|(name, _)| name == "token")?;
    typed.trim().strip_prefix(PREFIX).filter(|secret| is_secret(secret)).map(ToOwned::to_owned)
}

/// The secret of the session that a browser says it has.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, secret)| *name == COOKIE && is_secret(secret)).map(|(_, secret)| secret)
}

/// The cookie for a session; an empty secret takes it away. Scripts do not see it, and no other site's page sends it along.
pub(super) fn cookie(secret: &str, life: time::Duration, private: bool) -> String {
    let secure = if private { "; Secure" } else { "" };
    format!("{COOKIE}={secret}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", life.whole_seconds().max(0))
}

/// The browser speaks HTTPS with a proxy in front of this controller. Whoever says so without one harms only itself.
pub(super) fn is_private(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https")
}

/// A page of another site sent the form. Browsers say where a request comes from; what is no browser does not.
pub(super) fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

/// What somebody wishes to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Part of the name of a tenant or a server; empty for all.
    pub(super) sought: String,
    /// Tenants behind this name.
    pub(super) after: String,
    /// All servers, however many there are.
    pub(super) all: bool,
}

impl Asked {
    /// From the part of an address behind its question mark.
    pub(super) fn read(query: &str) -> Self {
        let mut asked = Self::default();
        let short = |text: &str| text.trim().chars().take(SOUGHT_MAX).collect();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "q" => asked.sought = short(&value),
                "after" => asked.after = short(&value),
                "all" => asked.all = true,
                _ => {}
            }
        }
        asked
    }

    /// The same as an address.
    pub(super) fn address(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.sought.is_empty() {
            query.append_pair("q", &self.sought);
        }
        if !self.after.is_empty() {
            query.append_pair("after", &self.after);
        }
        if self.all {
            query.append_pair("all", "1");
        }
        format!("/?{}", query.finish())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::{Asked, cookie, is_from_elsewhere, is_private, session, token, token_in};

    fn with(name: &'static str, value: &str) -> HeaderMap {
        [(header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn only_a_whole_token_in_the_body_is_one() {
        let secret = "0123456789abcdef".repeat(4);
        let form = format!("token=+{}%0A&x=1", token(&secret));
        assert_eq!(token_in(form.as_bytes()).as_deref(), Some(secret.as_str()));
        for bad in
            ["", "token=", "token=feather-web-", &format!("token={secret}"), &format!("token={}g", token(&secret[1..]))]
        {
            assert_eq!(token_in(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(token_in(&[0xff, b'=', 0xfe]), None);
    }

    #[test]
    fn a_session_is_read_among_other_cookies_and_kept_from_scripts_and_other_sites() {
        let secret = "ab".repeat(32);
        let written = cookie(&secret, time::Duration::hours(1), false);
        assert_eq!(written, format!("feather_session={secret}; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict"));
        assert!(cookie(&secret, time::Duration::hours(1), true).ends_with("; Secure"));
        assert!(cookie("", time::Duration::hours(-1), false).contains("Max-Age=0"));
        let sent = format!("a=b; feather_session={secret};c");
        assert_eq!(session(&with("cookie", &sent)), Some(secret.as_str()));
        for bad in ["", "feather_session=", "feather_session=' OR 1=1", &format!("other={secret}")] {
            assert_eq!(session(&with("cookie", bad)), None, "{bad}");
        }
    }

    #[test]
    fn what_browsers_and_proxies_say_is_heard() {
        assert!(is_private(&with("x-forwarded-proto", "https")) && !is_private(&HeaderMap::new()));
        assert!(is_from_elsewhere(&with("sec-fetch-site", "cross-site")));
        assert!(is_from_elsewhere(&with("sec-fetch-site", "same-site")));
        assert!(!is_from_elsewhere(&with("sec-fetch-site", "same-origin")) && !is_from_elsewhere(&HeaderMap::new()));
    }

    #[test]
    fn wishes_are_read_as_they_are_written_and_never_long() {
        let asked = Asked { sought: "a&b=<c>".into(), after: "zoe".into(), all: true };
        assert_eq!(Asked::read(asked.address().trim_start_matches("/?")), asked);
        assert_eq!(Asked::read(""), Asked::default());
        assert_eq!(Asked::read(&format!("q={}", "x".repeat(5000))).sought.len(), 64);
    }
}
