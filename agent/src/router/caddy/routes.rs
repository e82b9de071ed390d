//! Routes of tenants as Caddy's JSON, both ways. Pure.
//!
//! Ours are the top-level routes whose `@id` is `tenant-` and the name of a tenant; there is one for each, and what it needs
//! more is nested in it. Ours is also `work_upstream`, which gives the admin container what is for no tenant. All others are
//! somebody else's and are kept as they are.

use std::{collections::BTreeMap, path::Path};

use feather_proto::ids::TenantName;
use serde_json::{Value, json};

use crate::router::{HOP_HEADER, INSIDE_HEADER, PROBE_HEADER, Route};

const ID_PREFIX: &str = "tenant-";
/// The route to the admin container.
const ADMIN_ID: &str = "work_upstream";
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
    let mut list: Vec<Value> = current.iter().filter(|route| tenant_of(route).is_none()).cloned().collect();
    let before = list.iter().position(matches_everything).unwrap_or(list.len());
    let ours = want.iter().filter_map(|(tenant, route)| match route {
        Route::Foreign => current.iter().find(|present| tenant_of(present).as_ref() == Some(tenant)).cloned(),
        route => Some(build(tenant, route, style)),
    });
    list.splice(before..before, ours);
    list
}

/// Do the routes do what they should, whoever wrote them and in whichever order? Then they are not touched: Caddy cuts the
/// WebSockets of routes without `stream_close_delay`, which is what routes written by hand are, at any change at all.
pub(super) fn suffice(current: &[Value], want: &BTreeMap<TenantName, Route>, style: &Style<'_>) -> bool {
    let reached = current.iter().position(matches_everything).unwrap_or(current.len());
    let mut present = BTreeMap::new();
    for (index, route) in current.iter().enumerate() {
        let Some(tenant) = tenant_of(route) else { continue };
        let Some(wanted) = want.get(&tenant) else { return false };
        let fine = *wanted == Route::Foreign || (index < reached && does(route, &tenant, wanted, style));
        if !fine || present.insert(tenant, ()).is_some() {
            return false;
        }
    }
    want.iter().all(|(tenant, route)| *route == Route::Foreign || present.contains_key(tenant))
}

/// Our own route, or one by hand that serves the tenant in the same way.
fn does(route: &Value, tenant: &TenantName, wanted: &Route, style: &Style<'_>) -> bool {
    if *route == build(tenant, wanted, style) {
        return true;
    }
    let Route::Serve { port } = wanted else { return false };
    let only = |value: &Value, names: &[&str]| {
        value.as_object().is_some_and(|fields| fields.keys().all(|name| names.contains(&name.as_str())))
    };
    let [handler] = route["handle"].as_array().map_or(&[][..], Vec::as_slice) else { return false };
    let [upstream] = handler["upstreams"].as_array().map_or(&[][..], Vec::as_slice) else { return false };
    only(route, &["@id", "match", "handle", "terminal"])
        && route["match"] == json!([{ "host": [tenant.host(style.domain_suffix)] }])
        && only(handler, &["handler", "upstreams", "flush_interval"])
        && handler["handler"] == "reverse_proxy"
        && handler["flush_interval"] == -1
        && only(upstream, &["dial"])
        && port_of(&upstream["dial"]) == Some(*port)
}

/// The list with the route to the admin container as it should be, everything else untouched and in order. A route by hand that
/// leads to the same port will do.
pub(super) fn desired_admin(current: &[Value], port: Option<u16>, style: &Style<'_>) -> Vec<Value> {
    let reached = current.iter().position(matches_everything);
    let serves = reached.and_then(|index| current.get(index)).filter(|route| names_admin(route)).and_then(admin_port);
    if port.is_some() && serves == port && current.iter().filter(|route| names_admin(route)).count() == 1 {
        return current.to_vec();
    }
    let goes = |route: &Value| match port {
        Some(_) => names_admin(route),
        None => admin_port(route).is_some_and(|port| is_our_admin_route(route, port)),
    };
    let mut list: Vec<Value> = current.iter().filter(|route| !goes(route)).cloned().collect();
    let before = list.iter().position(matches_everything).unwrap_or(list.len());
    list.splice(before..before, port.map(|port| admin_route(port, style)));
    list
}

/// Whoever wrote the route by hand may have given the name to a part of it; Caddy knows each name only once.
fn names_admin(part: &Value) -> bool {
    match part {
        Value::Object(fields) => fields.get("@id").is_some_and(|id| id == ADMIN_ID) || fields.values().any(names_admin),
        Value::Array(parts) => parts.iter().any(names_admin),
        _ => false,
    }
}

/// Where the first upstream of a route by hand is.
fn admin_port(part: &Value) -> Option<u16> {
    match part {
        Value::Object(fields) => {
            port_of(fields.get("dial").unwrap_or(&Value::Null)).or_else(|| fields.values().find_map(admin_port))
        }
        Value::Array(parts) => parts.iter().find_map(admin_port),
        _ => None,
    }
}

/// The port of the route that is called so.
pub(super) fn parse_admin(list: &[Value]) -> Option<u16> {
    list.iter().find(|route| names_admin(route)).and_then(admin_port)
}

fn admin_route(port: u16, style: &Style<'_>) -> Value {
    json!({ "@id": ADMIN_ID, "handle": [proxy(&loopback(port), style)], "terminal": true })
}

fn is_our_admin_route(route: &Value, port: u16) -> bool {
    [true, false].into_iter().any(|stream_close_delay| {
        *route == admin_route(port, &Style { domain_suffix: "", server_name: "", stream_close_delay })
    })
}

fn tenant_of(route: &Value) -> Option<TenantName> {
    route["@id"].as_str()?.strip_prefix(ID_PREFIX)?.parse().ok()
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
        // Kept as it is, never built.
        Route::Foreign => json!([]),
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

/// The route of a tenant, read back; `None` for everybody else's.
pub(super) fn parse(route: &Value) -> Option<(TenantName, Route)> {
    let handle = &route["handle"];
    let parsed = match route["match"][0]["header"][PROBE_HEADER][0].as_str() {
        Some(token) => port_of(&handle[0]["upstreams"][0]["dial"]).map(|port| Route::Probe {
            port,
            token: token.to_owned(),
            otherwise: None,
        }),
        None => parse_handlers(handle),
    };
    Some((tenant_of(route)?, parsed.unwrap_or(Route::Foreign)))
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

    use super::{Style, desired_admin, desired_routes, parse, parse_admin, suffice};
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
    fn the_admin_route_comes_last_of_ours_and_one_by_hand_will_do() {
        let tenant = json!({ "@id": "tenant-alice", "match": [{ "host": ["alice"] }] });
        let catch_all = json!({ "handle": [] });
        let current = [tenant.clone(), catch_all.clone()];
        let list = desired_admin(&current, Some(8080), &STYLE);
        assert_eq!((ids(&list), parse_admin(&list)), (vec!["tenant-alice", "work_upstream", "-"], Some(8080)));
        assert_eq!(desired_admin(&list, Some(8080), &STYLE), list);
        assert_eq!(parse_admin(&desired_admin(&list, Some(8081), &STYLE)), Some(8081));
        assert_eq!(desired_admin(&list, None, &STYLE), current);
        // Tenants' routes are made without regard to it, and stand before it.
        let want = [("bob".parse().unwrap(), Route::Unavailable)].into();
        assert_eq!(ids(&desired_routes(&list, &want, &STYLE)), ["tenant-bob", "work_upstream", "-"]);

        let upstream = json!({ "dial": "localhost:8080", "@id": "work_upstream" });
        let nested = json!({ "handle": [{ "handler": "reverse_proxy", "upstreams": [upstream] }] });
        let named = json!({ "@id": "work_upstream", "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": "127.0.0.1:8080" }] }] });
        for by_hand in [nested, named] {
            let current = [tenant.clone(), by_hand];
            assert_eq!(desired_admin(&current, Some(8080), &STYLE), current);
            assert_eq!(desired_admin(&current, None, &STYLE), current, "not ours to take away");
            let moved = desired_admin(&current, Some(8081), &STYLE);
            assert_eq!((ids(&moved), parse_admin(&moved)), (vec!["tenant-alice", "work_upstream"], Some(8081)));
        }
        // One that is never reached does not serve.
        let hidden = [catch_all, desired_admin(&[], Some(8080), &STYLE).remove(0)];
        assert_eq!(ids(&desired_admin(&hidden, Some(8080), &STYLE)), ["work_upstream", "-"]);
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
        for nobodys in [json!({}), json!([]), json!({ "@id": "tenant-" }), json!({ "@id": "tenant-No_Name" })] {
            assert_eq!(parse(&nobodys), None, "{nobodys}");
        }
        for strange in [
            json!({ "@id": "tenant-alice" }),
            json!({ "@id": "tenant-alice", "handle": [{ "handler": "subroute", "routes": [] }] }),
            json!({ "@id": "tenant-alice", "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": "x:y" }] }] }),
        ] {
            assert_eq!(parse(&strange).unwrap().1, Route::Foreign, "{strange}");
        }
    }

    fn by_hand(name: &str, dial: &str) -> Value {
        json!({
            "@id": format!("tenant-{name}"),
            "match": [{ "host": [format!("{name}.users.example.com")] }],
            "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": dial }], "flush_interval": -1 }],
        })
    }

    #[test]
    fn routes_by_hand_that_do_what_they_should_are_left_alone() {
        let catch_all = json!({ "handle": [] });
        let want: BTreeMap<TenantName, Route> =
            [("alice", 9001), ("bob", 9002)].map(|(name, port)| (name.parse().unwrap(), Route::Serve { port })).into();
        let (alice, bob) = (by_hand("alice", "localhost:9001"), by_hand("bob", "127.0.0.1:9002"));
        let right = [bob.clone(), alice.clone(), catch_all.clone()];
        assert!(suffice(&right, &want, &STYLE));
        assert!(suffice(&desired_routes(&right, &want, &STYLE), &want, &STYLE));
        let with = |change: &dyn Fn(&mut Value)| {
            let mut changed = alice.clone();
            change(&mut changed);
            vec![bob.clone(), changed, catch_all.clone()]
        };
        for wrong in [
            vec![bob.clone(), catch_all.clone()],
            vec![bob.clone(), catch_all.clone(), alice.clone()],
            vec![bob.clone(), alice.clone(), alice.clone(), catch_all.clone()],
            vec![bob.clone(), alice.clone(), by_hand("carol", "localhost:9003"), catch_all.clone()],
            with(&|route| route["handle"][0]["upstreams"][0]["dial"] = json!("localhost:9009")),
            with(&|route| route["handle"][0]["upstreams"][0]["dial"] = json!("192.0.2.7:9001")),
            with(&|route| route["handle"][0]["flush_interval"] = json!(0)),
            with(&|route| route["handle"][0]["headers"] = json!({})),
            with(&|route| route["match"][0]["path"] = json!(["/x"])),
            with(&|route| route["match"][0]["host"] = json!(["alice.example.com"])),
            with(&|route| route["group"] = json!("g")),
        ] {
            assert!(!suffice(&wrong, &want, &STYLE), "{wrong:?}");
        }
    }

    #[test]
    fn what_somebody_else_wrote_for_a_tenant_stays_byte_for_byte() {
        let strange = json!({ "@id": "tenant-alice", "match": [{ "host": ["old"] }], "handle": [{ "x": 1.50 }] });
        let unnameable = by_hand("Not_A_Name", "localhost:9009");
        let current = [strange.clone(), unnameable.clone(), json!({ "handle": [] })];
        let foreign: BTreeMap<TenantName, Route> =
            ["alice", "gone"].map(|name| (name.parse().unwrap(), Route::Foreign)).into();
        assert!(suffice(&current, &foreign, &STYLE));
        let mut more = foreign.clone();
        more.insert("bob".parse().unwrap(), Route::Unavailable);
        assert!(!suffice(&current, &more, &STYLE));
        let list = desired_routes(&current, &more, &STYLE);
        assert_eq!(ids(&list), ["tenant-Not_A_Name", "tenant-alice", "tenant-bob", "-"]);
        assert_eq!((&list[1], &list[0]), (&strange, &unnameable));
    }
}
