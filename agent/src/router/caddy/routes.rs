//! The one route through which Caddy serves tenants, and the routes that somebody wrote by hand. Pure.
//!
//! Caddy drops requests at every change of its configuration: whatever connection was accepted and not yet read when the old
//! configuration ends is closed without an answer. So ours never changes. It says that the route of a host name is a file of
//! that name (`files.rs`); a tenant comes, goes and moves by a file being renamed, which costs nobody anything. A second one
//! does the same for the admin container, which gets what is for no tenant.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use feather_proto::{ids::TenantName, tls::Principal};
use serde_json::{Value, json};

use super::{CaddyOptions, files::Files};
use crate::router::{HOP_HEADER, HOP_MARK, HOPS_MAX, INSIDE_HEADER, PROBE_HEADER, Route};

/// `@id` of our route.
const OURS: &str = "feather_tenants";
/// `@id` of the route to the admin container.
const ADMIN: &str = "work_upstream";
/// What the old script called its routes, before the tenant's name.
const BY_HAND_PREFIX: &str = "tenant-";

/// How long open streams outlive a change of Caddy's configuration by somebody else. Longer than anybody keeps one open.
const STREAM_CLOSE_DELAY: &str = "720h";
/// How long a tenant that does not accept connections is asked again: long enough for its restart to go unnoticed.
const DIAL_AGAIN: &str = "1s";
/// The same for another server: long enough for a short cut in between, or for a reboot that has nearly ended.
const DIAL_SERVER_AGAIN: &str = "10s";
/// The same for the gate: an agent that is being restarted opens it again in a moment.
const DIAL_GATE_AGAIN: &str = "20s";
/// How often Caddy looks for a file. It lists the folder and then looks at the file that it found: one that was renamed in between
/// is not there, and would be a route that does not exist. The next look finds the new name.
const LOOKS: usize = 3;
/// How long another server may take to show who it is.
const HANDSHAKE_MAX: &str = "10s";

/// What our route is made of.
#[derive(Debug, Clone)]
pub(super) struct Style<'a> {
    /// Tenants are `{name}.{domain_suffix}`.
    pub(super) domain_suffix: &'a str,
    /// Where the files of tenants are, one folder for each host name.
    pub(super) tenants: &'a Path,
    /// Where the files of probes are, the same.
    pub(super) probes: &'a Path,
    /// Where the file of the admin container is.
    pub(super) work: &'a Path,
    /// Sockets of gates, each called as its tenant.
    pub(super) gates: &'a Path,
    /// Ports for tenants.
    pub(super) ports: &'a RangeInclusive<u16>,
    /// What other servers' certificates are checked against; none before this server has joined.
    pub(super) fleet_ca: Option<PathBuf>,
    /// Does this Caddy know `stream_close_delay`?
    pub(super) stream_close_delay: bool,
}

impl<'a> Style<'a> {
    pub(super) fn of(options: &'a CaddyOptions, files: &'a Files, stream_close_delay: bool) -> Self {
        Self {
            domain_suffix: &options.domain_suffix,
            tenants: &files.tenants,
            probes: &files.probes,
            work: &files.work,
            gates: &files.gates,
            ports: &options.ports,
            fleet_ca: options.fleet_ca.clone(),
            stream_close_delay,
        }
    }
}

/// What shall be in Caddy's list, and whom routes by hand go on serving.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Everybody else's routes untouched and in order, and ours before the first that matches everything, because what comes
    /// after it is never reached.
    pub(super) list: Vec<Value>,
    /// Tenants with a route by hand that stays.
    pub(super) by_hand: BTreeSet<TenantName>,
    /// So does that of the admin container.
    pub(super) admin_by_hand: bool,
}

/// Routes by hand stay as long as nothing has to be changed; the first change that has to be made makes all of them ours, because
/// every change of Caddy's configuration may cost somebody a request, and Caddy then cuts the WebSockets of such routes.
pub(super) fn plan(current: &[Value], want: &BTreeMap<TenantName, Route>, style: &Style<'_>) -> Plan {
    let mut kept = kept_by_hand(current, want, style);
    let all_by_hand = !kept.is_empty() && want.keys().all(|tenant| kept.contains_key(tenant));
    let with_ours = !all_by_hand || current.iter().any(is_ours);
    let mut list = list(current, &kept, with_ours, style);
    if list != current {
        kept.retain(|tenant, _| want.get(tenant) == Some(&Route::Foreign));
        list = self::list(current, &kept, true, style);
    }
    Plan { list, by_hand: kept.into_keys().collect(), admin_by_hand: false }
}

/// The list with our route to the admin container, if there shall be one, in place of all that have its name; one by hand that
/// leads to the same port will do. Without a port ours finds no file, and one by hand is left alone.
pub(super) fn plan_admin(current: &[Value], port: Option<u16>, style: &Style<'_>) -> Plan {
    let plan = |list, admin_by_hand| Plan { list, by_hand: BTreeSet::new(), admin_by_hand };
    if port.is_none() {
        return plan(current.to_vec(), false);
    }
    let reached = current.iter().find(|route| matches_everything(route) || is_our_admin(route));
    let by_hand = reached.filter(|route| names_admin(route) && !is_our_admin(route)).and_then(admin_port);
    if by_hand == port && current.iter().filter(|route| names_admin(route)).count() == 1 {
        return plan(current.to_vec(), true);
    }
    let mut list: Vec<Value> = current.iter().filter(|route| !names_admin(route)).cloned().collect();
    let before = list.iter().position(matches_everything).unwrap_or(list.len());
    list.insert(before, admin(style));
    plan(list, false)
}

/// Whoever wrote the route by hand may have given the name to a part of it; Caddy knows each name only once.
fn names_admin(part: &Value) -> bool {
    match part {
        Value::Object(fields) => fields.get("@id").is_some_and(|id| id == ADMIN) || fields.values().any(names_admin),
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

pub(super) fn is_our_admin(route: &Value) -> bool {
    route["@id"] == ADMIN && !route["match"].is_null()
}

/// The port of a route by hand to the admin container.
pub(super) fn parse_admin(list: &[Value]) -> Option<u16> {
    list.iter().find(|route| names_admin(route)).and_then(admin_port)
}

/// A file called `PORT`.
pub(super) fn admin(style: &Style<'_>) -> Value {
    let words = words(&["{feather_admin}"], "/([0-9]+)$", &["${1}"]);
    json!({
        "@id": ADMIN,
        "match": [{ "file": { "root": style.work, "try_files": vec!["/*"; LOOKS] } }],
        "handle": [words, patient("127.0.0.1:{feather_admin}", DIAL_AGAIN, style)],
        "terminal": true,
    })
}

fn list(current: &[Value], kept: &BTreeMap<TenantName, Value>, with_ours: bool, style: &Style<'_>) -> Vec<Value> {
    let stays = |route: &Value| match tenant_of(route) {
        Some(tenant) => kept.get(&tenant).is_some_and(|kept| kept == route),
        None => !is_ours(route),
    };
    let mut list: Vec<Value> = current.iter().filter(|route| stays(route)).cloned().collect();
    if with_ours {
        let last = |route: &Value| matches_everything(route) || is_our_admin(route);
        let before = list.iter().position(last).unwrap_or(list.len());
        list.insert(before, ours(style));
    }
    list
}

/// Routes of tenants that somebody else wrote and that stay: they do what they should, or nobody decided what that is.
fn kept_by_hand(
    current: &[Value],
    want: &BTreeMap<TenantName, Route>,
    style: &Style<'_>,
) -> BTreeMap<TenantName, Value> {
    let reached = current.iter().position(matches_everything).unwrap_or(current.len());
    let mut kept = BTreeMap::new();
    for (index, route) in current.iter().enumerate() {
        let Some(tenant) = tenant_of(route) else { continue };
        let Some(wanted) = want.get(&tenant) else { continue };
        if *wanted == Route::Foreign || (index < reached && serves(route, &tenant, wanted, style)) {
            kept.entry(tenant).or_insert_with(|| route.clone());
        }
    }
    kept
}

/// A route by hand that serves the tenant as ours would.
fn serves(route: &Value, tenant: &TenantName, wanted: &Route, style: &Style<'_>) -> bool {
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

/// Of a route that the old script or somebody else wrote for a tenant.
pub(super) fn tenant_of(route: &Value) -> Option<TenantName> {
    route["@id"].as_str()?.strip_prefix(BY_HAND_PREFIX)?.parse().ok()
}

pub(super) fn is_ours(route: &Value) -> bool {
    route["@id"] == OURS
}

fn matches_everything(route: &Value) -> bool {
    match &route["match"] {
        Value::Null => true,
        Value::Array(sets) => sets.is_empty(),
        _ => false,
    }
}

/// Our route. What finds no file goes on to the routes of others, as if there were none of ours.
pub(super) fn ours(style: &Style<'_>) -> Value {
    let routes = json!([in_small_letters(), probes(style), tenants(style)]);
    json!({
        "@id": OURS,
        "match": [{ "host": [format!("*.{}", style.domain_suffix)] }],
        "handle": [{ "handler": "subroute", "routes": routes }],
    })
}

/// Host names mean the same in capitals, names of folders do not. From here on the request is for the name in small letters.
fn in_small_letters() -> Value {
    let small = |capital: char| json!({ "search": capital, "replace": capital.to_ascii_lowercase() });
    let letters: Vec<Value> = ('A'..='Z').map(small).collect();
    json!({
        "match": [{ "header_regexp": { "Host": { "pattern": "[A-Z]" } } }],
        "handle": [{ "handler": "headers", "request": { "replace": { "Host": letters } } }],
    })
}

/// A file called `TOKEN@PORT` opens the port to whoever sends the token.
fn probes(style: &Style<'_>) -> Value {
    let file = format!("/{{http.request.host}}/{{http.request.header.{PROBE_HEADER}}}@*");
    let mut proxy = proxy("127.0.0.1:{feather_probe}", style);
    // The tenant must not see the token.
    proxy["headers"] = json!({ "request": { "delete": [PROBE_HEADER, INSIDE_HEADER] } });
    json!({
        "match": [{
            "header_regexp": { PROBE_HEADER: { "pattern": "^[0-9A-Za-z]+$" } },
            "file": { "root": style.probes, "try_files": vec![file; LOOKS] },
        }],
        "handle": [words(&["{feather_probe}"], "@([0-9]+)$", &["${1}"]), proxy],
        "terminal": true,
    })
}

/// The one file in the folder of a host name says what becomes of its requests.
fn tenants(style: &Style<'_>) -> Value {
    let words = words(&["{feather_kind}", "{feather_to}"], "/([a-z]+):?([^/]*)$", &["${1}", "${2}"]);
    let kind = |word: &str| json!([{ "vars": { "{feather_kind}": [word] } }]);
    let kinds = json!([
        { "match": kind("serve"), "handle": [serve(style)], "terminal": true },
        { "match": kind("hold"), "handle": [gated(style)], "terminal": true },
        { "match": kind("forward"), "handle": [forward(style)], "terminal": true },
        { "match": kind("tls"), "handle": forward_by_tls(style), "terminal": true },
        { "handle": [answer(503, "this tenant is not running at the moment\n", Some("2"))], "terminal": true },
    ]);
    json!({
        "match": [{ "file": { "root": style.tenants, "try_files": vec!["/{http.request.host}/*"; LOOKS] } }],
        "handle": [words, { "handler": "subroute", "routes": kinds }],
        "terminal": true,
    })
}

/// Takes the name of the file that was found apart.
fn words(destinations: &[&str], pattern: &str, outputs: &[&str]) -> Value {
    json!({
        "handler": "map",
        "source": "{http.matchers.file.relative}",
        "destinations": destinations,
        "mappings": [{ "input_regexp": pattern, "outputs": outputs }],
    })
}

/// Caddy counts what is under way by address, also by one that only a file names. Routes by hand say `localhost`: what came in
/// by such a one stays countable when it is gone, because a matcher that nothing matches goes on naming its address.
fn serve(style: &Style<'_>) -> Value {
    let never =
        |port| json!({ "match": [{ "not": [{}] }], "handle": [proxy(&by_hand(port), style)], "terminal": true });
    let mut routes: Vec<Value> = style.ports.clone().map(never).collect();
    routes.push(json!({ "handle": [patient("127.0.0.1:{feather_to}", DIAL_AGAIN, style)], "terminal": true }));
    json!({ "handler": "subroute", "routes": routes })
}

pub(super) fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

pub(super) fn by_hand(port: u16) -> String {
    format!("localhost:{port}")
}

/// Marked like a forward, because that is where most of it will go; and as from inside, because the gate hands it back to this
/// proxy when it goes on by TLS.
fn gated(style: &Style<'_>) -> Value {
    let label = style.domain_suffix.split('.').count();
    let socket = format!("unix/{}/{{http.request.host.labels.{label}}}", style.gates.display());
    let mut proxy = proxy(&socket, style);
    proxy["headers"] = hop();
    proxy["headers"]["request"]["set"][INSIDE_HEADER] = json!(["gate"]);
    proxy["load_balancing"] = json!({ "try_duration": DIAL_GATE_AGAIN, "try_interval": "100ms" });
    proxy
}

fn forward(style: &Style<'_>) -> Value {
    let mut onward = patient("{feather_to}", DIAL_SERVER_AGAIN, style);
    onward["headers"] = onward_headers();
    unless_looped(&onward)
}

/// The other server must show its certificate of the fleet: what is public about it, its address and its host names, may be
/// somebody else's by now.
fn forward_by_tls(style: &Style<'_>) -> Value {
    let Some(ca) = &style.fleet_ca else {
        return json!([answer(503, "this server cannot recognise the one where this tenant lives\n", Some("2"))]);
    };
    let words = words(&["{feather_server}", "{feather_address}"], "/tls:([^@/]+)@([^/]*)$", &["${1}", "${2}"]);
    let mut onward = patient("{feather_address}", DIAL_SERVER_AGAIN, style);
    onward["headers"] = onward_headers();
    // By TLS, Caddy would name the other server instead of the tenant.
    onward["headers"]["request"]["set"]["Host"] = json!(["{http.request.hostport}"]);
    onward["transport"]["versions"] = json!(["1.1"]);
    onward["transport"]["tls"] = json!({
        "server_name": Principal::agent("{feather_server}").dns_name(),
        "handshake_timeout": HANDSHAKE_MAX,
        "ca": { "provider": "file", "pem_files": [ca] },
    });
    json!([words, unless_looped(&onward)])
}

/// Anyone can send the marks; all they get is this answer to their own request.
fn unless_looped(onward: &Value) -> Value {
    let looped = json!([answer(508, "servers forward this tenant to each other in a circle\n", None)]);
    let matcher = json!({ "header_regexp": { HOP_HEADER: { "pattern": format!("(?:{HOP_MARK}[^{HOP_MARK}]*){{{HOPS_MAX}}}") } } });
    let marked = json!({ "match": [matcher], "handle": looped, "terminal": true });
    json!({ "handler": "subroute", "routes": [marked, { "handle": [onward] }] })
}

fn onward_headers() -> Value {
    let mut headers = hop();
    headers["request"]["delete"] = json!([INSIDE_HEADER]);
    headers
}

fn hop() -> Value {
    let marks = format!("{{http.request.header.{HOP_HEADER}}}{{system.hostname}}{HOP_MARK}");
    json!({ "request": { "set": { HOP_HEADER: [marks] } } })
}

/// Every request has a connection of its own to where it goes. One that is kept may be closed by the other end in the moment in
/// which it is used again, and what is not safe to repeat is then lost; and through a gate it would lead to where its tenant
/// lived one move ago.
fn proxy(upstream: &str, style: &Style<'_>) -> Value {
    let mut proxy = json!({
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": upstream }],
        "transport": { "protocol": "http", "keep_alive": { "enabled": false } },
        "flush_interval": -1,
    });
    if style.stream_close_delay {
        proxy["stream_close_delay"] = json!(STREAM_CLOSE_DELAY);
    }
    proxy
}

/// Asks again for a while who accepts no connection. Nothing is sent twice by that.
fn patient(upstream: &str, again: &str, style: &Style<'_>) -> Value {
    let mut proxy = proxy(upstream, style);
    proxy["load_balancing"] = json!({ "try_duration": again, "try_interval": "50ms" });
    proxy
}

fn answer(status: u16, body: &str, retry_after: Option<&str>) -> Value {
    let mut headers = json!({ "Content-Type": ["text/plain; charset=utf-8"], "Cache-Control": ["no-store"] });
    if let Some(seconds) = retry_after {
        headers["Retry-After"] = json!([seconds]);
    }
    json!({ "handler": "static_response", "status_code": status, "headers": headers, "body": body })
}

/// The route by hand of a tenant, read back; `None` for everybody else's.
pub(super) fn parse(route: &Value) -> Option<(TenantName, Route)> {
    let handler = &route["handle"][0];
    let port = port_of(&handler["upstreams"][0]["dial"]).filter(|_| handler["handler"] == "reverse_proxy");
    Some((tenant_of(route)?, port.map_or(Route::Foreign, |port| Route::Serve { port })))
}

fn port_of(dial: &Value) -> Option<u16> {
    let (host, port) = dial.as_str()?.rsplit_once(':')?;
    // Routes that were written by hand say `localhost`.
    matches!(host, "127.0.0.1" | "localhost").then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops::RangeInclusive, path::Path};

    use feather_proto::ids::TenantName;
    use serde_json::{Value, json};

    use super::{Style, kept_by_hand, ours, parse, parse_admin, plan, plan_admin};
    use crate::router::Route;

    const PORTS: &RangeInclusive<u16> = &(9001..=9003);

    fn style() -> Style<'static> {
        Style {
            domain_suffix: "users.example.com",
            tenants: Path::new("/state/tenants"),
            probes: Path::new("/state/probes"),
            work: Path::new("/state/work"),
            gates: Path::new("/state/gates"),
            ports: PORTS,
            fleet_ca: None,
            stream_close_delay: true,
        }
    }

    fn desired_routes(current: &[Value], want: &BTreeMap<TenantName, Route>, style: &Style<'_>) -> Vec<Value> {
        plan(current, want, style).list
    }

    fn ids(list: &[Value]) -> Vec<&str> {
        list.iter().map(|route| route["@id"].as_str().unwrap_or("-")).collect()
    }

    fn wanted<const N: usize>(routes: [(&str, Route); N]) -> BTreeMap<TenantName, Route> {
        routes.map(|(name, route)| (name.parse().unwrap(), route)).into()
    }

    fn by_hand(name: &str, dial: &str) -> Value {
        json!({
            "@id": format!("tenant-{name}"),
            "match": [{ "host": [format!("{name}.users.example.com")] }],
            "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": dial }], "flush_interval": -1 }],
        })
    }

    #[test]
    fn our_route_is_the_same_whatever_the_tenants_do() {
        let catch_all = json!({ "handle": [] });
        let first = desired_routes(std::slice::from_ref(&catch_all), &BTreeMap::new(), &style());
        assert_eq!(first, [ours(&style()), catch_all]);
        for route in [Route::Unavailable, Route::Serve { port: 9001 }, Route::Forward { to: "192.0.2.7:80".into() }] {
            assert_eq!(desired_routes(&first, &wanted([("alice", route)]), &style()), first);
        }
    }

    #[test]
    fn nothing_is_forwarded_by_tls_to_a_server_that_cannot_be_recognised() {
        let stranger = ours(&style()).to_string();
        assert!(!stranger.contains("server_name") && stranger.contains("cannot recognise"), "{stranger}");
        let joined = ours(&Style { fleet_ca: Some("/state/ca.pem".into()), ..style() }).to_string();
        assert!(joined.contains("\"server_name\":\"{feather_server}.agent.feather.internal\""), "{joined}");
        assert!(joined.contains("\"pem_files\":[\"/state/ca.pem\"]") && !joined.contains("insecure"), "{joined}");
    }

    #[test]
    fn routes_of_others_stay_as_they_are_and_ours_comes_before_the_catch_all() {
        let first = json!({ "@id": "feather_admin", "match": [{ "host": ["admin"] }], "handle": [{ "weight": 1.5 }] });
        let stale = by_hand("gone", "localhost:9009");
        let catch_all = json!({ "handle": [] });
        let last = json!({ "@id": "unreachable", "match": [] });
        let current = [first.clone(), stale, catch_all.clone(), last.clone()];
        let list = desired_routes(&current, &wanted([("bob", Route::Unavailable)]), &style());
        assert_eq!(ids(&list), ["feather_admin", "feather_tenants", "-", "unreachable"]);
        assert_eq!((&list[0], &list[2], &list[3]), (&first, &catch_all, &last));
        let without = [json!({ "@id": "other", "match": [{ "path": ["/x"] }] })];
        assert_eq!(ids(&desired_routes(&without, &BTreeMap::new(), &style())), ["other", "feather_tenants"]);
    }

    #[test]
    fn the_admin_route_comes_last_of_ours_and_one_by_hand_will_do() {
        let catch_all = json!({ "handle": [] });
        let base = std::slice::from_ref(&catch_all);
        assert_eq!(plan_admin(base, None, &style()).list, base);
        let list = plan_admin(base, Some(8080), &style()).list;
        assert_eq!(ids(&list), ["work_upstream", "-"]);
        for port in [None, Some(8081)] {
            assert_eq!(plan_admin(&list, port, &style()).list, list, "the file says which port");
        }
        // Whichever comes first, tenants stand before it.
        let both = desired_routes(&list, &BTreeMap::new(), &style());
        assert_eq!(ids(&both), ["feather_tenants", "work_upstream", "-"]);
        let other_way = plan_admin(&desired_routes(base, &BTreeMap::new(), &style()), Some(8080), &style()).list;
        assert_eq!(other_way, both);

        let upstream = json!({ "dial": "localhost:8080", "@id": "work_upstream" });
        let nested = json!({ "handle": [{ "handler": "reverse_proxy", "upstreams": [upstream] }] });
        let named = json!({ "@id": "work_upstream", "handle": [{ "handler": "reverse_proxy", "upstreams": [{ "dial": "127.0.0.1:8080" }] }] });
        for by_hand in [nested, named] {
            let current = [ours(&style()), by_hand];
            assert_eq!(parse_admin(&current), Some(8080));
            let same = plan_admin(&current, Some(8080), &style());
            assert_eq!((same.list.as_slice(), same.admin_by_hand), (current.as_slice(), true));
            assert_eq!(plan_admin(&current, None, &style()).list, current, "not ours to take away");
            let moved = plan_admin(&current, Some(8081), &style());
            assert_eq!((ids(&moved.list), moved.admin_by_hand), (vec!["feather_tenants", "work_upstream"], false));
        }
    }

    #[test]
    fn what_tenant_sh_wrote_is_understood_and_nonsense_is_not() {
        assert_eq!(parse(&by_hand("alice", "localhost:9003")).unwrap().1, Route::Serve { port: 9003 });
        for nobodys in [json!({}), json!([]), json!({ "@id": "tenant-" }), json!({ "@id": "tenant-No_Name" })] {
            assert_eq!(parse(&nobodys), None, "{nobodys}");
        }
        for strange in [
            json!({ "@id": "tenant-alice" }),
            json!({ "@id": "tenant-alice", "handle": [{ "handler": "subroute", "routes": [] }] }),
            by_hand("alice", "x:y"),
        ] {
            assert_eq!(parse(&strange).unwrap().1, Route::Foreign, "{strange}");
        }
    }

    #[test]
    fn routes_by_hand_that_do_what_they_should_are_left_alone() {
        let catch_all = json!({ "handle": [] });
        let want = wanted([("alice", Route::Serve { port: 9001 }), ("bob", Route::Serve { port: 9002 })]);
        let (alice, bob) = (by_hand("alice", "localhost:9001"), by_hand("bob", "127.0.0.1:9002"));
        let right = vec![bob.clone(), alice.clone(), catch_all.clone()];
        assert_eq!(desired_routes(&right, &want, &style()), right);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut changed = alice.clone();
            change(&mut changed);
            vec![bob.clone(), changed, catch_all.clone()]
        };
        for wrong in [
            vec![bob.clone(), catch_all.clone()],
            vec![bob.clone(), catch_all.clone(), alice.clone()],
            with(&|route| route["handle"][0]["upstreams"][0]["dial"] = json!("localhost:9009")),
            with(&|route| route["handle"][0]["upstreams"][0]["dial"] = json!("192.0.2.7:9001")),
            with(&|route| route["handle"][0]["flush_interval"] = json!(0)),
            with(&|route| route["handle"][0]["headers"] = json!({})),
            with(&|route| route["match"][0]["path"] = json!(["/x"])),
            with(&|route| route["match"][0]["host"] = json!(["alice.example.com"])),
            with(&|route| route["group"] = json!("g")),
        ] {
            assert_eq!(kept_by_hand(&wrong, &want, &style()).len(), 1, "{wrong:?}");
            assert_eq!(ids(&desired_routes(&wrong, &want, &style())), ["feather_tenants", "-"], "one change for all");
        }
        let strangers = [bob.clone(), alice.clone(), by_hand("carol", "localhost:9003"), catch_all.clone()];
        assert_eq!(ids(&desired_routes(&strangers, &want, &style())), ["feather_tenants", "-"]);
        let with_ours = [bob, alice, ours(&style()), catch_all];
        assert_eq!(plan(&with_ours, &want, &style()).by_hand.len(), 2);
    }

    #[test]
    fn what_somebody_else_wrote_for_a_tenant_stays_byte_for_byte() {
        let strange = json!({ "@id": "tenant-alice", "match": [{ "host": ["old"] }], "handle": [{ "x": 1.50 }] });
        let unnameable = by_hand("Not_A_Name", "localhost:9009");
        let current = [strange.clone(), unnameable.clone(), json!({ "handle": [] })];
        let foreign = wanted([("alice", Route::Foreign)]);
        assert_eq!(desired_routes(&current, &foreign, &style()), current);
        let more = wanted([("alice", Route::Foreign), ("bob", Route::Unavailable)]);
        let list = desired_routes(&current, &more, &style());
        assert_eq!(ids(&list), ["tenant-alice", "tenant-Not_A_Name", "feather_tenants", "-"]);
        assert_eq!((&list[0], &list[1]), (&strange, &unnameable));
    }
}
