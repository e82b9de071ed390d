//! The old API: everything in a GET's query, and a zone that is overwritten unless a flag says otherwise.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    account::Account,
    commands::{Command, Domain},
    door::{Incoming, Outgoing},
    faults::Apply,
};

type Query = BTreeMap<String, String>;

/// Answers one request.
pub(super) fn answer(account: &Account, request: &Incoming) -> Outgoing {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if request.method != "GET" || path != "/api3.json" {
        return Outgoing { status: 405, content_type: "text/plain", body: "only GET, only JSON".into() };
    }
    let query: Query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let body = if account.knows(get("key")) {
        match get("command") {
            "get_dns" => get_dns(account, get("domain")),
            "set_dns2" => set_dns2(account, &query, get("domain")),
            "is_processing" => json!({"Response": {"ResponseCode": "0", "ResponseMsg": "no"}}),
            _ => failed("unknown command"),
        }
    } else {
        failed("invalid key")
    };
    Outgoing::json(200, &body)
}

fn failed(text: &str) -> Value {
    json!({"Response": {"ResponseCode": "-1", "Error": text}})
}

fn get_dns(account: &Account, name: &str) -> Value {
    let state = account.lock();
    let Some(domain) = state.domains.get(name) else { return failed("could not find domain in your account") };
    json!({"GetDnsResponse": {"ResponseCode": 0, "Status": "success", "GetDns": {"NameServerSettings": shown(domain)}}})
}

fn shown(domain: &Domain) -> Value {
    if domain.glue != "DNS" {
        return json!({"Type": "Dynadot Parking"});
    }
    let list = |apex: bool| {
        let records = domain.records.iter().filter(|record| record.host.is_empty() == apex);
        let items = records.map(|record| {
            let mut item = Map::new();
            if !apex {
                item.insert("Subhost".into(), json!(record.host));
            }
            item.insert("RecordType".into(), json!(record.kind.to_ascii_uppercase()));
            item.insert("Value".into(), json!(record.value));
            if !record.extra.is_empty() {
                item.insert("Value2".into(), json!(code(&record.kind, &record.extra, &[("301", "1"), ("302", "2")])));
            }
            Value::Object(item)
        });
        items.collect::<Vec<_>>()
    };
    json!({"Type": "Dynadot DNS", "MainDomains": list(true), "SubDomains": list(false), "TTL": domain.ttl.to_string()})
}

/// The second value of a forward is another word here and there.
fn code<'a>(kind: &str, extra: &'a str, words: &[(&str, &'a str)]) -> &'a str {
    let found = words.iter().find(|(from, _)| kind == "forward" && *from == extra);
    found.map_or(extra, |(_, to)| to)
}

fn set_dns2(account: &Account, query: &Query, names: &str) -> Value {
    let list = |prefix: &str, most: usize, apex: bool| {
        let items = (0..most).filter_map(|n| {
            let get = |name: &str| query.get(&format!("{name}{n}")).cloned().unwrap_or_default();
            let kind = get(&format!("{prefix}_record_type"));
            let (value, extra) = (get(&format!("{prefix}_record")), get(&format!("{prefix}_recordx")));
            let extra = code(&kind, &extra, &[("1", "301"), ("2", "302")]).to_owned();
            let mut item = json!({"record_type": kind, "record_value1": value, "record_value2": extra});
            if !apex {
                item["sub_host"] = json!(get("subdomain"));
            }
            Some(item).filter(|_| !kind.is_empty())
        });
        items.collect::<Vec<_>>()
    };
    let append = query.get("add_dns_to_current_setting").is_some_and(|flag| flag == "1");
    let body = json!({
        "dns_main_list": list("main", 20, true),
        "dns_sub_list": list("sub", 100, false),
        "ttl": query.get("ttl").and_then(|ttl| ttl.parse::<u32>().ok()),
        "add_dns_to_current_setting": append,
    });
    let mut state = account.lock();
    for name in names.split(',') {
        if !state.domains.contains_key(name) {
            return failed("could not find domain in your account");
        }
        let what = format!("set_dns2 of {name}");
        let (reply, _) = account.perform(&mut state, name, &Command::Set(body.clone()), Apply::Now, &what);
        if reply.code != 200 {
            return json!({"SetDnsResponse": {"ResponseCode": "-1", "Status": "error", "Error": reply.description}});
        }
    }
    json!({"SetDnsResponse": {"ResponseCode": 0, "Status": "success"}})
}
