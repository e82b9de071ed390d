//! What Caddy starts with: ports, TLS, and all of its routes. Pure.
//!
//! Whom a request is for is told by files (`files.rs`), which outlive Caddy: it serves tenants from its first moment, and the
//! agent, which looks after the same routes, has nothing to change.

use std::iter;

use serde_json::{Value, json};

use super::{
    CaddyOptions,
    files::Files,
    routes::{self, Style},
};
use crate::{
    edge::{Edge, Https, Mode},
    router::{HOP_HEADER, INSIDE_HEADER},
};

/// Name of the HTTP server that gets the routes.
pub(super) const SERVER: &str = "feather";

/// The whole configuration, for a Caddy that knows `stream_close_delay` (2.7).
pub fn base(edge: &Edge, options: &CaddyOptions) -> Value {
    let files = Files::of(options);
    let style = Style::of(options, &files, true);
    let routes = [routes::ours(&style), routes::admin(&style), catch_all()];
    let apps = match &edge.mode {
        Mode::Http => json!({ "http": { "servers": { SERVER: http_server(routes) } } }),
        Mode::Https(https) => json!({ "http": { "servers": { SERVER: https_server(routes) } }, "tls": tls(https) }),
    };
    json!({
        "admin": { "listen": "127.0.0.1:2020", "config": { "persist": false } },
        "logging": { "logs": { "default": {
            "level": "WARN",
            "writer": { "output": "stdout" },
            "encoder": { "format": "json" },
        } } },
        "apps": apps,
    })
}

fn http_server(routes: [Value; 3]) -> Value {
    json!({
        "listen": [":80"],
        "protocols": ["h1", "h2c"],
        "automatic_https": { "disable": true },
        "routes": routes,
    })
}

/// One server for both ports, so that there is one list of routes. Caddy speaks no TLS on its HTTP port.
fn https_server(routes: [Value; 3]) -> Value {
    let routes: Vec<_> = iter::once(to_https()).chain(routes).collect();
    json!({
        "listen": [":80", ":443"],
        "listen_protocols": [["h1"], ["h1", "h2"]],
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

/// A certificate for each name that the agent knows, got when it is first asked for. Certificates that are handed to this
/// server go before: the agent lists their files under `certificates`, and Caddy looks there first.
fn tls(https: &Https) -> Value {
    let policy = json!({ "on_demand": true, "issuers": [issuer(https)] });
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

    use super::{super::routes, CaddyOptions, Files, Style};
    use crate::edge::{Domain, Edge, Https, Mode};

    fn base(edge: &Edge) -> Value {
        super::base(edge, &CaddyOptions::new("users.example.com", Path::new("/state")))
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
    fn what_caddy_starts_with_is_what_the_agent_would_make_of_it() {
        let options = CaddyOptions::new("users.example.com", Path::new("/state"));
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
        let exempt = apps["http"]["servers"]["feather"]["routes"][0]["match"][0]["not"].clone();
        let forwarded = serde_json::json!({ "header": { crate::router::HOP_HEADER: ["*"] } });
        assert!(exempt.as_array().unwrap().contains(&forwarded), "{exempt}");
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
