//! The client against a scripted other end: paused time, no sockets.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Credentials, Dynadot, DynadotOptions, Exchange, Failed, PRODUCTION, Provider, ProviderError, Reply, SetupError,
    Zone, ZoneRecord, reading,
};

const KEY: &str = "the-key-of-the-account";
const SECRET: &str = "the-secret-of-the-account";

/// Answers as it was told, in order, and keeps what was sent.
#[derive(Default)]
struct Script {
    replies: Mutex<VecDeque<Result<Reply, Failed>>>,
    sent: Mutex<Vec<(Instant, Request<Bytes>)>>,
    /// Each reply takes so long.
    takes: Duration,
}

#[async_trait]
impl Exchange for Script {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Reply, Failed> {
        self.sent.lock().unwrap().push((Instant::now(), request));
        tokio::time::sleep(self.takes).await;
        self.replies.lock().unwrap().pop_front().expect("nobody asks more often than was planned")
    }
}

fn reply(status: u16, body: impl Into<Bytes>) -> Result<Reply, Failed> {
    Ok(Reply { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: body.into() })
}

fn answer(body: &Value) -> Result<Reply, Failed> {
    reply(200, body.to_string())
}

fn done() -> Result<Reply, Failed> {
    answer(&json!({"code": 200, "message": "Success"}))
}

fn options() -> DynadotOptions {
    DynadotOptions::new("example.com", Credentials::new(KEY, SECRET).unwrap())
}

fn client(replies: impl IntoIterator<Item = Result<Reply, Failed>>) -> (Arc<Script>, Dynadot) {
    let script = Arc::new(Script { replies: Mutex::new(replies.into_iter().collect()), ..Script::default() });
    (script.clone(), Dynadot::with_exchange(options(), script).unwrap())
}

fn record(host: &str, value: &str) -> ZoneRecord {
    ZoneRecord { host: host.into(), kind: "a".into(), value: value.into(), extra: String::new() }
}

#[tokio::test(start_paused = true)]
async fn requests_are_signed_and_only_replace_is_without_the_flag() {
    let counts = json!({"main_record_removed_count": 0, "sub_record_removed_count": 1});
    let zone = json!({"code": 200, "data": {"glue_info": {"glue_type": "DNS", "ttl": "300"}}});
    let removed = json!({"code": 200, "data": counts});
    let (script, client) = client([answer(&zone), done(), answer(&removed), done()]);
    let records = [record("*.users", "192.0.2.1")];
    assert_eq!(client.read().await.unwrap(), Zone { ttl: 300, records: vec![] });
    client.append(&records, 300).await.unwrap();
    assert_eq!(client.remove(&records).await.unwrap().sub, 1);
    client.replace(&Zone { ttl: 300, records: records.into() }).await.unwrap();

    let sent = script.sent.lock().unwrap();
    let seen: Vec<_> = sent
        .iter()
        .map(|(_, request)| {
            assert_eq!(request.uri(), "https://api.dynadot.com/restful/v2/domains/example.com/records");
            assert_eq!(request.headers()["authorization"], format!("Bearer {KEY}"));
            assert!(request.headers()["x-signature"].is_sensitive());
            assert!(!request.headers().contains_key("x-request-id"));
            assert_eq!(request.headers().contains_key("content-type"), !request.body().is_empty());
            let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
            (request.method().as_str(), body["add_dns_to_current_setting"].as_bool())
        })
        .collect();
    assert_eq!(seen, [("GET", None), ("POST", Some(true)), ("DELETE", None), ("POST", Some(false))]);
    // One a second, and a tenth for the way.
    let times: Vec<_> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(times.iter().all(|gap| *gap == Duration::from_millis(1100)), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_not_sent() {
    let (script, client) = client([]);
    let bad = [record("WWW", "192.0.2.1")];
    let whole = Zone { ttl: 300, records: vec![] };
    for refused in [
        client.append(&bad, 300).await.unwrap_err(),
        client.remove(&[]).await.unwrap_err(),
        client.replace(&whole).await.unwrap_err(),
    ] {
        assert!(matches!(&refused, ProviderError::Refused(why) if why.contains("not sent")), "{refused:?}");
    }
    assert!(script.sent.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_unknown_for_a_change_and_later_for_a_read() {
    let lost = || Err(Failed::Lost("connection reset".into()));
    let (_, one) = client([lost()]);
    assert!(matches!(one.read().await, Err(ProviderError::Later { .. })));
    let records = [record("www", "192.0.2.1")];
    for reply in [lost(), reply(200, "<html>"), reply(503, ""), done(), answer(&json!({"code": 200, "data": {}}))] {
        let is_done = reply == done();
        let (_, one) = client([reply.clone(), reply]);
        let outcome = if is_done { one.remove(&records).await.map(drop) } else { one.append(&records, 300).await };
        let fine = outcome.is_ok();
        assert!(fine || matches!(outcome, Err(ProviderError::Unknown(_))), "{outcome:?}");
        assert!(!(fine && is_done), "a removal without counts is not done");
    }
    // Without a connection nothing has happened.
    let (_, one) = client([Err(Failed::NotSent("refused".into()))]);
    assert!(matches!(one.append(&records, 300).await, Err(ProviderError::Later { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_busy_provider_is_left_alone_longer_each_time() {
    let slow = || {
        reply(
            429,
            r#"{"code":429,"message":"Too many requests","error":{"description":"Rate limit exceeded. Please try again after 60 seconds."}}"#,
        )
    };
    let full = reply(429, r#"{"code":429,"error":{"description":"The Dns Settings reached the upper limit."}}"#);
    let (script, client) = client([slow(), slow(), full]);
    let records = [record("www", "192.0.2.1")];
    for bounds in [60..=72, 120..=144] {
        let Err(ProviderError::Later { pause, .. }) = client.append(&records, 300).await else { panic!("not later") };
        assert!(bounds.contains(&pause.as_secs()), "{pause:?}");
        let sent = script.sent.lock().unwrap().len();
        // Reading is no way around the pause.
        assert!(matches!(client.read().await, Err(ProviderError::Later { pause: rest, .. }) if rest == pause));
        assert_eq!(script.sent.lock().unwrap().len(), sent);
        tokio::time::advance(pause).await;
    }
    assert!(matches!(client.append(&records, 300).await, Err(ProviderError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_begun_is_ended_without_its_caller() {
    let replies = Mutex::new([done(), done()].into());
    let script = Arc::new(Script { replies, takes: Duration::from_secs(5), ..Script::default() });
    let client = Dynadot::with_exchange(options(), script.clone()).unwrap();
    let records = [record("www", "192.0.2.1")];
    let began = Instant::now();
    tokio::time::timeout(Duration::from_secs(1), client.append(&records, 300)).await.unwrap_err();
    client.append(&records, 300).await.unwrap();
    let starts: Vec<_> = script.sent.lock().unwrap().iter().map(|(at, _)| *at - began).collect();
    assert_eq!(starts, [Duration::ZERO, Duration::from_millis(6100)]);
}

#[test]
fn addresses_and_zones_are_checked_before_a_key_is_sent_anywhere() {
    let make = |zone: &str, url: &str| {
        let options = DynadotOptions { zone: zone.into(), url: url.into(), ..options() };
        Dynadot::with_exchange(options, Arc::new(Script::default()))
    };
    for url in [PRODUCTION, super::SANDBOX, "https://api.dynadot.com/", "http://127.0.0.1:8080", "http://localhost:1"] {
        assert!(make("example.com", url).is_ok(), "{url}");
    }
    for url in ["http://api.dynadot.com", "api.dynadot.com", "https://api.dynadot.com/restful", "https://a:b@x.org", ""]
    {
        let error = make("example.com", url).unwrap_err();
        assert!(matches!(&error, SetupError::Url(_)) && !error.to_string().contains("a:b"), "{error}");
    }
    for zone in ["Example.com", "example.com.", "example", "ex ample.com", "", "../accounts/info", "-a.com"] {
        assert!(matches!(make(zone, PRODUCTION), Err(SetupError::Zone(_))), "{zone}");
    }
}

/// Everything that a caller could log, of calls that fail in every way while the other end repeats what it was sent.
#[tokio::test(start_paused = true)]
async fn no_text_ever_holds_key_or_secret() {
    let echo = format!("no: Bearer {KEY} and {SECRET}");
    let replies = [
        reply(401, json!({"code": 401, "message": echo}).to_string()),
        reply(200, json!({"code": 400, "error": {"description": echo}}).to_string()),
        reply(200, json!({"code": 200, "data": {"glue_info": {"glue_type": echo}}}).to_string()),
        reply(200, json!({"code": 200, "data": {"glue_info": {"glue_type": "dns", "ttl": echo}}}).to_string()),
        reply(200, json!({"code": echo}).to_string()),
        reply(200, echo.clone()),
        reply(503, json!({"code": 503, "message": echo}).to_string()),
        Err(Failed::Lost(echo.clone())),
        Err(Failed::NotSent(echo.clone())),
    ];
    let mut shown = format!("{:?}", options());
    for one in replies {
        let (_, client) = client([one]);
        let error = client.read().await.unwrap_err();
        shown += &format!("{client:?} {error:?} {error}\n");
    }
    assert!(!shown.contains(KEY) && !shown.contains(SECRET), "{shown}");
    assert!(shown.contains("[hidden]"), "{shown}");
}

fn any_record() -> impl Strategy<Value = ZoneRecord> {
    let host = prop_oneof![Just(String::new()), "[a-z0-9]{1,8}(\\.[a-z]{1,5}){0,2}", Just("*.users".to_owned())];
    let extra = prop_oneof![Just(String::new()), "[ -~]{1,8}"];
    (host, "[a-z]{1,7}", "\\PC{1,40}", extra).prop_map(|(host, kind, value, extra)| ZoneRecord {
        host,
        kind,
        value,
        extra,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_sent_is_what_would_be_read(mut records in prop::collection::vec(any_record(), 0..40), ttl in 1u32..100_000) {
        records.sort();
        let zone = Zone { ttl, records };
        let sent: Value = serde_json::from_slice(&super::request::replace(&zone)).unwrap();
        let mut glue = json!({"glue_type": "DNS", "ttl": sent["ttl"].to_string()});
        for list in ["dns_main_list", "dns_sub_list"] {
            if let Some(items) = sent.get(list) {
                glue[list] = items.clone();
            }
        }
        prop_assert_eq!(reading::zone(Some(json!({"glue_info": glue}))).unwrap(), zone);
    }

    #[test]
    fn no_reply_is_understood_by_accident(body in prop::collection::vec(any::<u8>(), 0..200)) {
        // Random bytes are no success: neither a zone nor a change that was made.
        let verdict = super::verdict::judge(super::Call::Change, StatusCode::OK, &body);
        prop_assert!(matches!(verdict, super::Verdict::Lost(_)), "{:?}", verdict);
    }
}
