//! Routes of tenants as Caddy's JSON, both ways. Pure.
//!
//! Ours are the top-level routes whose `@id` begins with `tenant-`; there is one for each tenant, and what it needs more is
//! nested in it. All others are somebody else's and are kept as they are.

use std::{collections::BTreeMap, path::Path};

use feather_proto::ids::TenantName;
use serde_json::{Value, json};

use crate::router::{HOP_HEADER, INSIDE_HEADER, PROBE_HEADER, Route};

const ID_PREFIX: &str = "tenant-";
/// How Caddy writes the address of a socket, before its path.
const UNIX_PREFIX: &str = "unix/";

/// How long open streams outlive a change of routes that does not concern them. Longer than anybody keeps one open: a change
/// for one tenant must never disturb another's.
const STREAM_CLOSE_DELAY: &str = "720h";

/// What all routes of a server have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style<'a> {
    /// Tenants are `{name}.{domain_suffix}`.
    pub(super) domain_suffix: &'a str,
    /// Marks forwarded requests.
    pub(super) server_name: &'a str,
    /// Does this Caddy know `stream_close_delay`?
    pub(super) stream_close_delay: bool,
}

/// The whole list: everybody else's routes untouched and in order, ours sorted by name before the first route that matches
/// everything, because what comes after it is never reached.
pub(super) fn desired_routes(current: &[Value], want: &BTreeMap<TenantName, Route>, style: &Style<'_>) -> Vec<Value> {
    let mut list: Vec<Value> = current.iter().filter(|route| !is_ours(route)).cloned().collect();
    let before = list.iter().position(matches_everything).unwrap_or(list.len());
    list.splice(before..before, want.iter().map(|(tenant, route)| build(tenant, route, style)));
    list
}

fn is_ours(route: &Value) -> bool {
    route["@id"].as_str().is_some_and(|id| id.starts_with(ID_PREFIX))
}

fn matches_everything(route: &Value) -> bool {
    match &route["match"] {
        Value::Null => true,
        Value::Array(sets) => sets.is_empty(),
        _ => false,
    }
}

fn build(tenant: &TenantName, route: &Route, style: &Style<'_>) -> Value {
    let host = tenant.host(style.domain_suffix);
    let (matcher, handle) = match route {
        // The header stands beside the host name: whoever has no token goes on to the routes of others, as if there were none.
        Route::Probe { port, token, otherwise: None } => {
            (json!({ "host": [host], "header": { PROBE_HEADER: [token] } }), json!([probed(*port, style)]))
        }
        other => (json!({ "host": [host] }), handlers(other, style)),
    };
    json!({ "@id": format!("{ID_PREFIX}{tenant}"), "match": [matcher], "handle": handle, "terminal": true })
}

fn handlers(route: &Route, style: &Style<'_>) -> Value {
    match route {
        Route::Serve { port } => json!([proxy(&loopback(*port), style)]),
        Route::Unavailable => json!([answer(503, "this tenant is not running at the moment\n", Some("2"))]),
        Route::Hold { gate, port } => {
            // Opens to nobody. Caddy counts what is under way to an upstream only while its configuration names it.
            let never = json!([{ "not": [{}] }]);
            let counted = json!({ "match": never, "handle": [proxy(&loopback(*port), style)], "terminal": true });
            json!([{ "handler": "subroute", "routes": [counted, { "handle": [gated(gate, style)] }] }])
        }
        Route::Forward { to } => {
            let mut onward = proxy(to, style);
            onward["headers"] = json!({ "request": { "set": { HOP_HEADER: [style.server_name] } } });
            // Anyone can send the mark; all they get is this answer to their own request.
            let looped = json!([answer(508, "two servers forward this tenant to each other\n", None)]);
            let marked = json!({ "match": [{ "header": { HOP_HEADER: ["*"] } }], "handle": looped, "terminal": true });
            json!([{ "handler": "subroute", "routes": [marked, { "handle": [onward] }] }])
        }
        Route::Probe { port, token, otherwise } => {
            let matcher = json!([{ "header": { PROBE_HEADER: [token] } }]);
            let opened = json!({ "match": matcher, "handle": [probed(*port, style)], "terminal": true });
            let rest = otherwise.as_deref().map(|route| json!({ "handle": handlers(route, style) }));
            let routes: Vec<_> = [Some(opened), rest].into_iter().flatten().collect();
            json!([{ "handler": "subroute", "routes": routes }])
        }
    }
}

pub(super) fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn proxy(upstream: &str, style: &Style<'_>) -> Value {
    let mut proxy = json!({
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": upstream }],
        "flush_interval": -1,
    });
    if style.stream_close_delay {
        proxy["stream_close_delay"] = json!(STREAM_CLOSE_DELAY);
    }
    proxy
}

/// The tenant must not see the token.
fn probed(port: u16, style: &Style<'_>) -> Value {
    let mut proxy = proxy(&loopback(port), style);
    proxy["headers"] = json!({ "request": { "delete": [PROBE_HEADER, INSIDE_HEADER] } });
    proxy
}

/// Marked like a forward, because that is where most of it will go.
fn gated(gate: &Path, style: &Style<'_>) -> Value {
    let mut proxy = proxy(&format!("{UNIX_PREFIX}{}", gate.display()), style);
    proxy["headers"] = json!({ "request": { "set": { HOP_HEADER: [style.server_name] } } });
    // An agent that is being restarted opens the gate again in a moment.
    proxy["load_balancing"] = json!({ "try_duration": "20s", "try_interval": "100ms" });
    proxy
}

fn answer(status: u16, body: &str, retry_after: Option<&str>) -> Value {
    let mut headers = json!({ "Content-Type": ["text/plain; charset=utf-8"], "Cache-Control": ["no-store"] });
    if let Some(seconds) = retry_after {
        headers["Retry-After"] = json!([seconds]);
    }
    json!({ "handler": "static_response", "status_code": status, "headers": headers, "body": body })
}

/// One of ours, read back; `None` for everybody else's, and for one of ours that somebody has made into something else.
pub(super) fn parse(route: &Value) -> Option<(TenantName, Route)> {
    let tenant = route["@id"].as_str()?.strip_prefix(ID_PREFIX)?.parse().ok()?;
    let handle = &route["handle"];
    let parsed = match route["match"][0]["header"][PROBE_HEADER][0].as_str() {
        Some(token) => {
            let port = port_of(&handle[0]["upstreams"][0]["dial"])?;
            Route::Probe { port, token: token.to_owned(), otherwise: None }
        }
        None => parse_handlers(handle)?,
    };
    Some((tenant, parsed))
}

fn parse_handlers(handle: &Value) -> Option<Route> {
    let handler = &handle[0];
    match handler["handler"].as_str()? {
        "reverse_proxy" => Some(Route::Serve { port: port_of(&handler["upstreams"][0]["dial"])? }),
        "static_response" if handler["status_code"] == 503 => Some(Route::Unavailable),
        "subroute" => {
            let [first, second] = [&handler["routes"][0], &handler["routes"][1]];
            let header = &first["match"][0]["header"];
            if let Some(token) = header[PROBE_HEADER][0].as_str() {
                let port = port_of(&first["handle"][0]["upstreams"][0]["dial"])?;
                let otherwise = parse_handlers(&second["handle"]).map(Box::new);
                return Some(Route::Probe { port, token: token.to_owned(), otherwise });
            }
            if first["match"][0]["not"].is_array() {
                let gate = second["handle"][0]["upstreams"][0]["dial"].as_str()?.strip_prefix(UNIX_PREFIX)?.into();
                return Some(Route::Hold { gate, port: port_of(&first["handle"][0]["upstreams"][0]["dial"])? });
            }
            header[HOP_HEADER][0].as_str()?;
            Some(Route::Forward { to: second["handle"][0]["upstreams"][0]["dial"].as_str()?.to_owned() })
        }
        _ => None,
    }
}

fn port_of(dial: &Value) -> Option<u16> {
    let (host, port) = dial.as_str()?.rsplit_once(':')?;
    // Routes that were written by hand say `localhost`.
    matches!(host, "127.0.0.1" | "localhost").then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use feather_proto::ids::TenantName;
    use serde_json::{Value, json};

    use super::{Style, desired_routes, parse};
    use crate::router::Route;

    const STYLE: Style<'_> = Style { domain_suffix: "users.example.com", server_name: "nyc", stream_close_delay: true };

    fn every_kind() -> BTreeMap<TenantName, Route> {
        let serve = Route::Serve { port: 9001 };
        let forward = Route::Forward { to: "192.0.2.7:80".to_owned() };
        let probe = |otherwise: Option<&Route>| Route::Probe {
            port: 9002,
            token: "secret".to_owned(),
            otherwise: otherwise.cloned().map(Box::new),
        };
        let kinds = [
            serve.clone(),
            Route::Unavailable,
            forward.clone(),
            Route::Hold { gate: "/run/feather/gates/t3".into(), port: 9003 },
            probe(None),
            probe(Some(&forward)),
            probe(Some(&Route::Unavailable)),
        ];
        kinds.into_iter().enumerate().map(|(index, route)| (format!("t{index}").parse().unwrap(), route)).collect()
    }

    fn ids(list: &[Value]) -> Vec<&str> {
        list.iter().map(|route| route["@id"].as_str().unwrap_or("-")).collect()
    }

    #[test]
    fn every_kind_is_read_back_as_it_was_written() {
        for stream_close_delay in [false, true] {
            let style = Style { stream_close_delay, ..STYLE };
            let list = desired_routes(&[], &every_kind(), &style);
            let parsed: BTreeMap<_, _> = list.iter().filter_map(parse).collect();
            assert_eq!(parsed, every_kind());
            assert_eq!(desired_routes(&list, &every_kind(), &style), list);
        }
    }

    #[test]
    fn routes_of_others_stay_as_they_are_and_ours_come_before_the_catch_all() {
        let first = json!({ "@id": "feather_admin", "match": [{ "host": ["admin"] }], "handle": [{ "weight": 1.5 }] });
        let stale = json!({ "@id": "tenant-gone", "match": [{ "host": ["gone"] }] });
        let catch_all = json!({ "handle": [] });
        let last = json!({ "@id": "unreachable", "match": [] });
        let current = [first.clone(), stale, catch_all.clone(), last.clone()];
        let want: BTreeMap<TenantName, Route> =
            ["bob", "alice"].map(|name| (name.parse().unwrap(), Route::Unavailable)).into();
        let list = desired_routes(&current, &want, &STYLE);
        assert_eq!(ids(&list), ["feather_admin", "tenant-alice", "tenant-bob", "-", "unreachable"]);
        assert_eq!((&list[0], &list[3], &list[4]), (&first, &catch_all, &last));
        assert_eq!(desired_routes(&list, &BTreeMap::new(), &STYLE), [first, catch_all, last]);
    }

    #[test]
    fn without_a_catch_all_ours_come_last() {
        let current = [json!({ "@id": "other", "match": [{ "path": ["/x"] }] })];
        let want = [("alice".parse().unwrap(), Route::Unavailable)].into();
        assert_eq!(ids(&desired_routes(&current, &want, &STYLE)), ["other", "tenant-alice"]);
    }

    #[test]
    fn what_tenant_sh_wrote_is_understood_and_nonsense_is_not() {
        let handwritten = json!({
            "@id": "tenant-alice",
            "match": [{ "host": ["alice.users.example.com"] }],
            "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": "localhost:9003" }], "flush_interval": -1 }],
        });
        assert_eq!(parse(&handwritten).unwrap().1, Route::Serve { port: 9003 });
        for bad in [
            json!({}),
            json!([]),
            json!({ "@id": "tenant-" }),
            json!({ "@id": "tenant-alice" }),
            json!({ "@id": "tenant-alice", "handle": [{ "handler": "subroute", "routes": [] }] }),
            json!({ "@id": "tenant-alice", "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": "x:y" }] }] }),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }
}
