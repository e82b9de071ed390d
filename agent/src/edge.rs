//! How this server meets the public: plain HTTP, or HTTPS under a domain. Pure.
//!
//! Owns what `DOMAIN` and its companions mean and what can be wrong with them. A setting that cannot be used costs nobody the
//! service: it becomes a problem of the server, and the server goes on with what it can do without it.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use feather_proto::ids::TenantName;

/// What the operator wrote, before anybody looked at it. Empty means not set.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// `DOMAIN`.
    pub domain: String,
    /// `ACME_EMAIL`.
    pub acme_email: String,
    /// `ACME_CA`.
    pub acme_ca: String,
    /// `ACME_CA_ROOT`.
    pub acme_ca_root: String,
    /// Where the agent tells Caddy for which names it may get a certificate.
    pub ask: SocketAddr,
}

/// How this server meets the public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// With or without TLS.
    pub mode: Mode,
    /// What of the settings cannot be used, in sentences.
    pub problems: Vec<String>,
}

/// With or without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Everything on port 80.
    Http,
    /// Port 443, and port 80 leads there.
    Https(Https),
}

/// How certificates are got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    /// Host name of the admin's site.
    pub domain: Domain,
    /// Contact of the account with the certificate authority.
    pub email: Option<String>,
    /// Directory of the certificate authority; the usual public ones unless given.
    pub ca: Option<String>,
    /// Root that the directory's own certificate is checked against.
    pub ca_root: Option<PathBuf>,
    /// Where Caddy asks before it gets a certificate.
    pub ask: SocketAddr,
}

impl Edge {
    /// Without TLS, and nothing to complain about.
    pub fn http() -> Self {
        Self { mode: Mode::Http, problems: Vec::new() }
    }

    /// What the settings come to. `exists` tells whether there is such a file.
    pub fn of(settings: &EdgeSettings, exists: impl Fn(&Path) -> bool) -> Self {
        if settings.domain.trim().is_empty() {
            return Self::http();
        }
        let https = match Domain::parse(&settings.domain) {
            Ok(domain) => https(domain, settings, exists),
            Err(why) => Err(format!("DOMAIN={:?} cannot be used: {why}", shortened(&settings.domain))),
        };
        match https {
            Ok((https, problems)) => Self { mode: Mode::Https(https), problems },
            Err(why) => {
                let problem = format!("{why}. Until that is put right, this server serves plain HTTP on port 80");
                Self { mode: Mode::Http, problems: vec![problem] }
            }
        }
    }

    /// Where Caddy asks before it gets a certificate, when it gets any.
    pub fn ask(&self) -> Option<SocketAddr> {
        match &self.mode {
            Mode::Http => None,
            Mode::Https(https) => Some(https.ask),
        }
    }

    /// The admin's host name, when there is one.
    pub fn domain(&self) -> Option<&Domain> {
        match &self.mode {
            Mode::Http => None,
            Mode::Https(https) => Some(&https.domain),
        }
    }
}

/// Without a directory that was asked for there is no TLS at all: another authority must not learn the names. Without an
/// address for its mails there is.
fn https(
    domain: Domain,
    settings: &EdgeSettings,
    exists: impl Fn(&Path) -> bool,
) -> Result<(Https, Vec<String>), String> {
    let mut problems = Vec::new();
    let email = given(&settings.acme_email).filter(|email| {
        let usable = is_email(email);
        if !usable {
            let email = shortened(email);
            problems.push(format!("ACME_EMAIL={email:?} is no e-mail address; certificates are got without one"));
        }
        usable
    });
    let ca = given(&settings.acme_ca);
    if let Some(ca) = ca.as_ref().filter(|ca| !is_directory(ca)) {
        let ca = shortened(ca);
        return Err(format!("ACME_CA={ca:?} cannot be used: write the directory's URL, https://HOST/PATH"));
    }
    let ca_root = given(&settings.acme_ca_root).map(PathBuf::from);
    if let Some(root) = ca_root.as_ref().filter(|root| !root.is_absolute() || !exists(root)) {
        return Err(format!(
            "ACME_CA_ROOT={:?} cannot be used: write the path, inside the birth container, of a PEM file",
            shortened(&root.to_string_lossy())
        ));
    }
    Ok((Https { domain, email, ca, ca_root, ask: settings.ask }, problems))
}

fn given(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What is quoted in a problem.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_email(text: &str) -> bool {
    // Caddy takes braces for names of variables.
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}".contains(&byte));
    plain && text.split_once('@').is_some_and(|(local, host)| !local.is_empty() && Domain::parse(host).is_ok())
}

fn is_directory(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}\"\\".contains(&byte));
    let host = text.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    plain && host.is_some_and(|host| !host.is_empty())
}

/// A host name that a certificate can be got for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain(String);

impl Domain {
    /// Reads what an operator wrote.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.trim().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let without = |what: &str| format!("write the bare host name, without {what}, such as example.com");
        let wrong = if name.contains("://") {
            Some(without("http:// or https://"))
        } else if name.parse::<std::net::IpAddr>().is_ok() || name.starts_with('[') {
            Some("it is an IP address, and certificates are for host names".to_owned())
        } else if name.contains(':') {
            Some(without("a port"))
        } else if name.contains('/') {
            Some(without("a path"))
        } else if name.contains('*') {
            Some(format!("{}; tenants need no wildcard here", without("a wildcard")))
        } else if name.contains(|character: char| character.is_whitespace()) {
            Some(without("spaces, and only one"))
        } else if name.contains('_') {
            Some(without("an underscore"))
        } else if !name.is_ascii() {
            Some("write it in its ASCII form, xn--...".to_owned())
        } else if !name.contains('.') {
            Some("it is a single word, and certificates are for names with a dot, such as example.com".to_owned())
        } else {
            wrong_label(name)
        };
        wrong.map_or_else(|| Ok(Self(name.to_owned())), Err)
    }

    /// Is this the name that somebody asked for?
    pub fn is(&self, host: &str) -> bool {
        self.0.eq_ignore_ascii_case(host)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn wrong_label(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some("it is longer than 253 characters".to_owned());
    }
    if name.split('.').any(str::is_empty) {
        return Some("there is nothing between two of its dots, or before the first".to_owned());
    }
    let fits = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        plain && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    if let Some(label) = name.split('.').find(|label| !fits(label)) {
        return Some(format!("{label:?} in it is no part of a host name"));
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    numeric.then(|| format!("no host name ends in {last:?}"))
}

/// The tenant whose host name this is.
pub fn tenant_of(host: &str, domain_suffix: &str) -> Option<TenantName> {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(&domain_suffix.to_ascii_lowercase())?.strip_suffix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Domain, Edge, EdgeSettings, Mode, tenant_of};

    fn settings() -> EdgeSettings {
        EdgeSettings {
            domain: "example.com".into(),
            acme_email: String::new(),
            acme_ca: String::new(),
            acme_ca_root: String::new(),
            ask: "127.0.0.1:9098".parse().unwrap(),
        }
    }

    fn of(settings: &EdgeSettings) -> Edge {
        Edge::of(settings, |path| path.ends_with("there.pem"))
    }

    #[test]
    fn host_names_are_taken_as_people_write_them() {
        for good in ["example.com", " Example.COM ", "example.com.", "a-b.xn--bcher-kva.example", "1.example.com"] {
            assert!(Domain::parse(good).is_ok(), "{good:?}");
        }
        assert_eq!(Domain::parse(" Example.COM. ").unwrap().to_string(), "example.com");
    }

    #[test]
    fn each_unusable_name_is_told_why() {
        for (bad, why) in [
            ("https://example.com", "without http:// or https://"),
            ("example.com:443", "without a port"),
            ("example.com/x", "without a path"),
            ("*.example.com", "without a wildcard"),
            ("a.example.com b.example.com", "only one"),
            ("my_site.example.com", "underscore"),
            ("192.0.2.7", "IP address"),
            ("2001:db8::1", "IP address"),
            ("[2001:db8::1]:443", "IP address"),
            ("localhost", "single word"),
            ("a..example.com", "between two of its dots"),
            (".example.com", "before the first"),
            ("-a.example.com", "\"-a\""),
            ("a-.example.com", "\"a-\""),
            ("{env.HOME}.example.com", "no part of a host name"),
            ("example.123", "ends in \"123\""),
            ("bücher.example", "xn--"),
        ] {
            let told = Domain::parse(bad).unwrap_err();
            assert!(told.contains(why), "{bad:?}: {told}");
        }
        assert!(Domain::parse(&format!("{}.example", "a".repeat(64))).is_err());
        assert!(Domain::parse(&"a.".repeat(128)).is_err());
    }

    #[test]
    fn without_a_domain_there_is_nothing_to_say() {
        for domain in ["", "  "] {
            let given = EdgeSettings { domain: domain.into(), acme_email: "nonsense".into(), ..settings() };
            assert_eq!(of(&given), Edge::http());
        }
    }

    #[test]
    fn an_unusable_domain_leaves_plain_http_and_a_problem() {
        let edge = of(&EdgeSettings { domain: "https://example.com".into(), ..settings() });
        assert_eq!(edge.mode, Mode::Http);
        assert_eq!(edge.problems.len(), 1);
        assert!(edge.problems[0].starts_with("DOMAIN=\"https://example.com\" cannot be used: "), "{:?}", edge.problems);
        assert!(edge.problems[0].contains("plain HTTP on port 80"), "{:?}", edge.problems);
    }

    #[test]
    fn a_private_authority_that_cannot_be_used_is_not_replaced_by_a_public_one() {
        for given in [
            EdgeSettings { acme_ca: "http://ca.example".into(), ..settings() },
            EdgeSettings { acme_ca: "https://".into(), ..settings() },
            EdgeSettings { acme_ca: "https://{env.X}/".into(), ..settings() },
            EdgeSettings { acme_ca_root: "/not/here.pem".into(), ..settings() },
            EdgeSettings { acme_ca_root: "there.pem".into(), ..settings() },
        ] {
            let edge = of(&given);
            assert_eq!((edge.mode, edge.problems.len()), (Mode::Http, 1), "{given:?}");
        }
        let given = EdgeSettings {
            acme_ca: "https://ca.example:14000/dir".into(),
            acme_ca_root: "/is/there.pem".into(),
            ..settings()
        };
        let Mode::Https(https) = of(&given).mode else { panic!("it is usable") };
        assert_eq!(https.ca.as_deref(), Some("https://ca.example:14000/dir"));
        assert_eq!(https.ca_root, Some("/is/there.pem".into()));
    }

    #[test]
    fn certificates_are_got_without_an_address_that_is_none() {
        for (email, usable) in [
            ("ops@example.com", true),
            ("", true),
            ("ops", false),
            ("a b@example.com", false),
            ("{env.X}@example.com", false),
        ] {
            let edge = of(&EdgeSettings { acme_email: email.into(), ..settings() });
            let Mode::Https(https) = edge.mode else { panic!("{email:?} costs TLS") };
            assert_eq!(https.email.is_some(), usable && !email.is_empty());
            assert_eq!(edge.problems.is_empty(), usable, "{email:?}");
        }
    }

    #[test]
    fn tenants_are_found_by_their_host_name() {
        let suffix = "users.example.com";
        assert_eq!(tenant_of("Alice.users.EXAMPLE.com", suffix), Some("alice".parse().unwrap()));
        for stranger in
            ["users.example.com", ".users.example.com", "a.b.users.example.com", "aliceusers.example.com", ""]
        {
            assert_eq!(tenant_of(stranger, suffix), None, "{stranger:?}");
        }
    }
}
