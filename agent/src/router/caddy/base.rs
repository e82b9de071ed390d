//! What Caddy starts with: ports, TLS, and all of its routes. Pure.
//!
//! Whom a request is for is told by files (`files.rs`), which outlive Caddy: it serves tenants from its first moment, and the
//! agent, which looks after the same routes, has nothing to change.

use std::iter;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    CaddyOptions, CertificateSource,
    files::Files,
    routes::{self, Style},
};
use crate::{
    certificate,
    edge::{Edge, Https, Mode},
    router::{HOP_HEADER, INSIDE_HEADER},
};

/// Path of the tenants' certificate on the server itself.
const CERTIFICATE_PATH: &str = "/feather-certificate";
/// Whom Caddy claims to be when it asks itself.
const CERTIFICATE_USER: &str = "caddy";

/// Name of the HTTP server that gets the routes.
pub(super) const SERVER: &str = "feather";

/// The whole configuration, for a Caddy that knows `stream_close_delay` (2.7).
pub fn base(edge: &Edge, options: &CaddyOptions) -> Value {
    let files = Files::of(options);
    let style = Style::of(options, &files, true);
    let routes = [routes::ours(&style), routes::admin(&style), catch_all()];
    let apps = match &edge.mode {
        Mode::Http => json!({ "http": { "servers": { SERVER: http_server(routes) } } }),
        Mode::Https(https) => {
            let certificate = options.certificate.as_ref();
            let own = certificate.map(|source| certificate_routes(source, &options.domain_suffix)).unwrap_or_default();
            let server = https_server(own, routes);
            json!({ "http": { "servers": { SERVER: server } }, "tls": tls(https, certificate) })
        }
    };
    json!({
        "admin": { "listen": options.admin.listen(), "config": { "persist": false } },
        "logging": { "logs": { "default": {
            "level": "WARN",
            "writer": { "output": "stdout" },
            "encoder": { "format": "json" },
        } } },
        "apps": apps,
    })
}

/// Full duplex: an answer may begin before its request has ended (decision 77).
fn http_server(routes: [Value; 3]) -> Value {
    json!({
        "listen": [":80"],
        "protocols": ["h1", "h2c"],
        "enable_full_duplex": true,
        "automatic_https": { "disable": true },
        "routes": routes,
    })
}

/// One server for both ports, so that there is one list of routes. Caddy speaks no TLS on its HTTP port.
fn https_server(own: Vec<Value>, routes: [Value; 3]) -> Value {
    let routes: Vec<_> = own.into_iter().chain(iter::once(to_https())).chain(routes).collect();
    json!({
        "listen": [":80", ":443"],
        "listen_protocols": [["h1"], ["h1", "h2"]],
        "enable_full_duplex": true,
        // Names come and go with tenants; the agent is asked about each instead.
        "automatic_https": { "disable": true },
        "tls_connection_policies": [{}],
        "routes": routes,
    })
}

/// Everything on port 80 is sent to port 443, but for what must work without a certificate: an authority's challenge for a
/// tenant that is forwarded, what another server forwards while it has not heard yet that this one speaks TLS (whoever sends the
/// mark himself has only his own request without TLS), and this server's own requests.
fn to_https() -> Value {
    let inside = json!({
        "remote_ip": { "ranges": ["127.0.0.0/8", "::1/128"] },
        "header": { INSIDE_HEADER: ["*"] },
    });
    json!({
        "@id": "feather_https",
        "match": [{
            "protocol": "http",
            "not": [{ "path": ["/.well-known/acme-challenge/*"] }, inside, { "header": { HOP_HEADER: ["*"] } }],
        }],
        "handle": [{
            "handler": "static_response",
            "status_code": 308,
            "headers": { "Location": ["https://{http.request.host}{http.request.uri}"] },
        }],
        "terminal": true,
    })
}

fn catch_all() -> Value {
    json!({
        "@id": "feather_catch_all",
        "handle": [
            { "handler": "headers", "response": { "delete": ["Server"] } },
            {
                "handler": "static_response",
                "status_code": 404,
                "headers": { "Content-Type": ["text/plain; charset=utf-8"] },
                "body": "no such tenant here\n",
            },
        ],
    })
}

/// Gives the file with the tenants' certificate to Caddy itself: at each handshake for a name under the suffix it asks here, so that
/// another file is served from the next handshake on, no configuration is changed for it, and the agent need not be there.
/// Nobody else can ask: only this machine reaches it, by its address instead of a name, with the secret. The second route says
/// that there is none, and Caddy goes on to what it would do without.
fn certificate_routes(source: &CertificateSource, domain_suffix: &str) -> Vec<Value> {
    let credentials = STANDARD.encode(format!("{CERTIFICATE_USER}:{}", source.secret));
    let asked = json!({
        "protocol": "http",
        "host": ["127.0.0.1"],
        "path": [CERTIFICATE_PATH],
        "remote_ip": { "ranges": ["127.0.0.0/8"] },
        "header": { "Authorization": [format!("Basic {credentials}")] },
    });
    let mut there = asked.clone();
    let pattern = format!("(?i)^([^.]+\\.)?{}$", domain_suffix.replace('.', "\\."));
    there["vars_regexp"] = json!({ "{http.request.uri.query.server_name}": { "pattern": pattern } });
    there["file"] = json!({ "root": source.folder, "try_files": [format!("/{}", certificate::FILE)] });
    vec![
        json!({
            "@id": "feather_certificate",
            "match": [there],
            "handle": [
                { "handler": "rewrite", "uri": format!("/{}", certificate::FILE) },
                { "handler": "file_server", "root": source.folder },
            ],
            "terminal": true,
        }),
        json!({
            "@id": "feather_no_certificate",
            "match": [asked],
            "handle": [{ "handler": "static_response", "status_code": 204 }],
            "terminal": true,
        }),
    ]
}

/// The fleet's certificate for the tenants' names, once the controller has handed it down. Without it, and for other names: a
/// certificate for each name that the agent knows, got when it is first asked for. Certificates in files go before both: the
/// agent lists them under `certificates`, and Caddy looks there first.
fn tls(https: &Https, certificate: Option<&CertificateSource>) -> Value {
    let mut policy = json!({ "on_demand": true, "issuers": [issuer(https)] });
    if let Some(source) = certificate {
        // In this form the password is left out of what Caddy says about a request that failed.
        let url = format!("http://{CERTIFICATE_USER}:{}@127.0.0.1{CERTIFICATE_PATH}", source.secret);
        policy["get_certificate"] = json!([{ "via": "http", "url": url }]);
    }
    let permission = json!({ "module": "http", "endpoint": format!("http://{}/ask", https.ask) });
    json!({ "automation": { "on_demand": { "permission": permission }, "policies": [policy] } })
}

/// Caddy's usual authority unless told otherwise. Only challenges on port 80, which one server forwards to the other: one on port
/// 443 ends at the server that the name leads to, and a failed validation counts against the limits of the authority.
fn issuer(https: &Https) -> Value {
    let mut issuer = json!({ "module": "acme", "challenges": { "tls-alpn": { "disabled": true } } });
    if let Some(email) = &https.email {
        issuer["email"] = json!(email);
    }
    if let Some(ca) = &https.ca {
        issuer["ca"] = json!(ca);
    }
    if let Some(root) = &https.ca_root {
        issuer["trusted_roots_pem_files"] = json!([root]);
    }
    issuer
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use serde_json::Value;

    use super::{super::routes, CaddyOptions, CertificateSource, Files, Style};
    use crate::edge::{Domain, Edge, Https, Mode};

    fn base(edge: &Edge) -> Value {
        super::base(edge, &options())
    }

    fn options() -> CaddyOptions {
        let certificate = CertificateSource { folder: "/state/certificate".into(), secret: "s3cret".into() };
        CaddyOptions { certificate: Some(certificate), ..CaddyOptions::new("users.example.com", Path::new("/state")) }
    }

    fn https() -> Https {
        Https {
            domain: Domain::parse("example.com").unwrap(),
            email: None,
            ca: None,
            ca_root: None,
            ask: "127.0.0.1:9098".parse().unwrap(),
        }
    }

    fn tls(https: Https) -> serde_json::Value {
        base(&Edge { mode: Mode::Https(https), problems: Vec::new() })["apps"]["tls"]["automation"].clone()
    }

    #[test]
    fn without_a_domain_only_port_80_is_opened_and_nothing_is_redirected() {
        let apps = base(&Edge::http())["apps"].clone();
        assert_eq!(apps["http"]["servers"]["feather"]["listen"], serde_json::json!([":80"]));
        assert!(!apps["http"]["servers"]["feather"]["routes"].to_string().contains("https://"));
        assert!(apps["tls"].is_null());
    }

    #[test]
    fn caddy_listens_where_the_agent_asks() {
        let fallback: Value =
            serde_json::from_str(include_str!("../../../../birth/rootfs/etc/caddy/feather.json")).unwrap();
        assert_eq!(base(&Edge::http())["admin"], fallback["admin"]);
        let server = |config: &Value| {
            let mut server = config["apps"]["http"]["servers"]["feather"].clone();
            server["routes"].take();
            server
        };
        assert_eq!(server(&base(&Edge::http())), server(&fallback));
        let options = CaddyOptions { admin: "http://127.0.0.1:2021".parse().unwrap(), ..options() };
        assert_eq!(super::base(&Edge::http(), &options)["admin"]["listen"], "127.0.0.1:2021");
    }

    #[test]
    fn what_caddy_starts_with_is_what_the_agent_would_make_of_it() {
        let options = options();
        let files = Files::of(&options);
        let style = Style::of(&options, &files, true);
        for edge in [Edge::http(), Edge { mode: Mode::Https(https()), problems: Vec::new() }] {
            let config = base(&edge);
            let list = config["apps"]["http"]["servers"]["feather"]["routes"].as_array().unwrap();
            let want = BTreeMap::from([("alice".parse().unwrap(), crate::router::Route::Serve { port: 9001 })]);
            assert_eq!(routes::plan(list, &want, &style).list, *list);
            for port in [None, Some(8080), Some(8081)] {
                assert_eq!(routes::plan_admin(list, port, &style).list, *list);
            }
        }
    }

    #[test]
    fn what_another_server_forwards_is_served_and_not_sent_back_to_its_visitor() {
        let apps = base(&Edge { mode: Mode::Https(https()), problems: Vec::new() })["apps"].clone();
        let routes = apps["http"]["servers"]["feather"]["routes"].as_array().unwrap();
        let to_https = routes.iter().find(|route| route["@id"] == "feather_https").unwrap();
        let exempt = to_https["match"][0]["not"].clone();
        let forwarded = serde_json::json!({ "header": { crate::router::HOP_HEADER: ["*"] } });
        assert!(exempt.as_array().unwrap().contains(&forwarded), "{exempt}");
    }

    #[test]
    fn the_tenants_certificate_is_given_to_nobody_who_does_not_know_the_secret() {
        let apps = base(&Edge { mode: Mode::Https(https()), problems: Vec::new() })["apps"].clone();
        let routes = &apps["http"]["servers"]["feather"]["routes"];
        for (at, id) in [(0, "feather_certificate"), (1, "feather_no_certificate")] {
            let matcher = &routes[at]["match"][0];
            assert_eq!(routes[at]["@id"], id);
            assert_eq!(matcher["header"]["Authorization"][0], "Basic Y2FkZHk6czNjcmV0");
            assert_eq!(matcher["remote_ip"]["ranges"], serde_json::json!(["127.0.0.0/8"]));
            assert_eq!(matcher["host"], serde_json::json!(["127.0.0.1"]));
        }
        let pattern = &routes[0]["match"][0]["vars_regexp"]["{http.request.uri.query.server_name}"]["pattern"];
        assert_eq!(pattern, r"(?i)^([^.]+\.)?users\.example\.com$");
        let via = &apps["tls"]["automation"]["policies"][0]["get_certificate"][0];
        assert_eq!(via["url"], "http://caddy:s3cret@127.0.0.1/feather-certificate");
        assert!(!format!("{:?}", options()).contains("s3cret"));
        // Without TLS there is nothing to give, and without a secret nobody to ask.
        assert!(!base(&Edge::http()).to_string().contains("s3cret"));
        let bare = CaddyOptions::new("users.example.com", Path::new("/state"));
        let without = super::base(&Edge { mode: Mode::Https(https()), problems: Vec::new() }, &bare).to_string();
        assert!(!without.contains("get_certificate") && !without.contains("feather_certificate"));
    }

    #[test]
    fn no_certificate_is_got_without_asking_the_agent() {
        let automation = tls(https());
        assert_eq!(automation["on_demand"]["permission"]["endpoint"], "http://127.0.0.1:9098/ask");
        assert_eq!(automation["policies"].as_array().unwrap().len(), 1);
        let issuer = &automation["policies"][0]["issuers"][0];
        assert!(automation["policies"][0]["on_demand"] == true && issuer["ca"].is_null(), "the usual public authority");
        assert_eq!(issuer["challenges"]["tls-alpn"]["disabled"], true, "nobody forwards such a challenge");
    }

    #[test]
    fn an_authority_of_ones_own_is_the_only_one_asked() {
        let own = Https {
            email: Some("ops@example.com".into()),
            ca: Some("https://ca.example/dir".into()),
            ca_root: Some("/etc/root.pem".into()),
            ..https()
        };
        let issuers = tls(own)["policies"][0]["issuers"].clone();
        assert_eq!(issuers.as_array().unwrap().len(), 1);
        assert_eq!(issuers[0]["ca"], "https://ca.example/dir");
        assert_eq!(issuers[0]["email"], "ops@example.com");
        assert_eq!(issuers[0]["trusted_roots_pem_files"][0], "/etc/root.pem");
    }
}
