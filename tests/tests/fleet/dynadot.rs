//! The client of Dynadot against the stand-in: every uncertain behaviour both ways, every error, and what is never shown.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use feather_controller::{
    dns::{
        contract,
        dynadot::{Credentials, Dynadot, DynadotOptions, Pace},
        zone::{Provider as _, ProviderError, Removed, Zone, ZoneRecord},
    },
    https::Limits,
};
use feather_tests::dynadot::{
    Answer, Apply, Config, Domain, Edit, FakeDynadot, Fault, KEY, On, Publication, SECRET, Signature, Standing,
    Switches,
};
use hickory_server::proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

fn record(host: &str, kind: &str, value: &str, extra: &str) -> ZoneRecord {
    ZoneRecord { host: host.into(), kind: kind.into(), value: value.into(), extra: extra.into() }
}

/// A domain with mail and a site, and inventions of the provider.
fn foreign() -> Zone {
    let mut records = vec![
        record("", "a", "192.0.2.80", ""),
        record("", "mx", "mail.example.net", "10"),
        record("", "txt", "v=spf1 include:mail.example.net ~all", ""),
        record("", "caa", "0 issue \"ca.example.net\"", ""),
        record("_dmarc", "txt", "v=DMARC1; p=none", ""),
        record("_sip._tcp", "srv", "10 60 5060 sip.example.net", ""),
        record("old", "forward", "https://example.net/", "301"),
        record("shop", "stealth", "https://shop.example.net/", "The shop"),
        record("www", "cname", "example.net", ""),
    ];
    records.sort();
    Zone { ttl: 300, records }
}

async fn fake(switches: Switches) -> FakeDynadot {
    FakeDynadot::start(Config { switches, ..Config::new("example.com", foreign()) }).await.unwrap()
}

fn tenant() -> [ZoneRecord; 2] {
    [record("alice.users", "a", "192.0.2.3", ""), record("_feather.users", "txt", "owner=one", "")]
}

#[tokio::test]
async fn the_contract_is_kept_under_both_settings_of_everything_uncertain() {
    for (name, switches) in Switches::settings() {
        let fake = fake(switches).await;
        contract::all(&fake.client()).await;
        assert_eq!(fake.violations(), [""; 0], "{name}");
        assert_eq!(fake.zone(), foreign(), "{name}");
        let log = fake.log();
        assert!(log.iter().all(|request| request.signature == Signature::Valid), "{name}");
        let flags = log
            .iter()
            .filter(|request| request.method == "POST")
            .map(|request| request.body["add_dns_to_current_setting"].as_bool().expect("the flag is always said"));
        // The contract replaces the zone twice, and nothing else does.
        assert_eq!(flags.filter(|append| !append).count(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_change_whose_reply_is_lost_is_unknown_whether_it_was_made_or_not() {
    let html = |apply| Fault::on(On::Change, apply, Answer::Html(200));
    let error = |apply| Fault::on(On::Change, apply, Answer::Error(503, "Unexpected internal server error".into()));
    let cut = |apply| Fault::on(On::Change, apply, Answer::Cut);
    let text = |apply| Fault::on(On::Change, apply, Answer::Text("system busy".into()));
    let slow = Fault::on(On::Change, Apply::Now, Answer::Slow(Duration::from_secs(60)));
    let cases = [
        (Fault::lost_before(), false),
        (Fault::lost_after(), true),
        (html(Apply::Never), false),
        (html(Apply::Now), true),
        (error(Apply::Never), false),
        (error(Apply::Now), true),
        (cut(Apply::Now), true),
        (text(Apply::Now), true),
        (slow, true),
    ];
    for (fault, made) in cases {
        let fake = fake(Switches::default()).await;
        let client = Dynadot::new(DynadotOptions {
            limits: Limits { total: Duration::from_millis(500), ..Limits::default() },
            ..fake.options()
        })
        .unwrap();
        fake.fail(fault.clone());
        let outcome = client.append(&tenant(), 300).await;
        assert!(matches!(outcome, Err(ProviderError::Unknown(_))), "{fault:?}: {outcome:?}");
        assert_eq!(fake.log().len(), 1, "nothing is sent twice");
        assert_eq!(fake.zone() != foreign(), made, "{fault:?}");
        assert!(fake.is_calm() && fake.violations().is_empty());
    }
}

#[tokio::test]
async fn a_read_that_brings_nothing_can_be_made_again() {
    for answer in [Answer::Lost, Answer::Cut, Answer::Html(502), Answer::Error(500, String::new())] {
        let fake = fake(Switches::default()).await;
        let client = fake.client();
        fake.fail(Fault::on(On::Read, Apply::Now, answer.clone()));
        let outcome = client.read().await;
        assert!(matches!(outcome, Err(ProviderError::Later { .. })), "{answer:?}: {outcome:?}");
        assert_eq!(client.read().await.unwrap(), foreign());
    }
}

#[tokio::test]
async fn too_many_requests_means_three_things() {
    let fake = fake(Switches::default()).await;
    let client = fake.client();
    for (fault, later) in [(Fault::busy(On::Any), true), (Fault::full(), false), (Fault::quota(On::Any), false)] {
        fake.fail(fault.clone());
        let outcome = client.append(&tenant(), 300).await;
        match outcome {
            Err(ProviderError::Later { .. }) => assert!(later, "{fault:?}"),
            Err(ProviderError::Refused(_)) => assert!(!later, "{fault:?}"),
            other => panic!("{fault:?}: {other:?}"),
        }
        assert_eq!(fake.zone(), foreign());
    }
    // And the zone is really full at some time.
    let many: Vec<_> = (0..100).map(|n| record(&format!("n{n}"), "a", "192.0.2.1", "")).collect();
    let full = client.append(&many, 300).await.unwrap_err();
    assert!(matches!(&full, ProviderError::Refused(why) if why.contains("full")), "{full}");
}

#[tokio::test]
async fn what_is_no_zone_is_never_an_empty_one() {
    let fake = fake(Switches::default()).await;
    let client = fake.client();
    fake.fail(Fault::on(On::Read, Apply::Now, Answer::Version1));
    let drift = client.read().await.unwrap_err();
    assert!(matches!(&drift, ProviderError::Refused(why) if why.contains("version 1")), "{drift}");
    for (domain, word) in [
        (Domain { glue: "REGISTRAR_PARKING".into(), ..Domain::default() }, "registrar_parking"),
        (Domain { glue: "NAME_SERVERS".into(), ..Domain::default() }, "name_servers"),
        (Domain { glue: "DNS".into(), standing: Standing::Expired, ttl: 300, ..Domain::default() }, "expired"),
    ] {
        fake.set_domain("example.com", domain);
        let refused = client.read().await.unwrap_err();
        assert!(matches!(&refused, ProviderError::Refused(why) if why.contains(word)), "{refused}");
    }
}

#[tokio::test]
async fn domains_that_refuse_say_why() {
    let fake = fake(Switches::default()).await;
    for (standing, word) in [
        (Standing::Disabled, "disabled"),
        (Standing::Locked, "UDRP"),
        (Standing::Forceout, "forceout"),
        (Standing::Email, "switch off"),
    ] {
        let domain = Domain { glue: "DNS".into(), ttl: 300, standing, ..Domain::default() };
        fake.set_domain("example.com", domain);
        let refused = fake.client().append(&tenant(), 300).await.unwrap_err();
        assert!(matches!(&refused, ProviderError::Refused(why) if why.contains(word)), "{refused}");
    }
    let elsewhere = Dynadot::new(DynadotOptions { zone: "example.net".into(), ..fake.options() }).unwrap();
    assert!(elsewhere.read().await.unwrap_err().to_string().contains("in this account"));
    let below = Dynadot::new(DynadotOptions { zone: "users.example.com".into(), ..fake.options() }).unwrap();
    assert!(below.read().await.unwrap_err().to_string().contains("Subdomains are not allowed"));

    let fake = FakeDynadot::start(Config {
        switches: Switches { apex_required: true, ..Switches::default() },
        ..Config::new("example.com", Zone { ttl: 300, records: vec![] })
    })
    .await
    .unwrap();
    let bare = fake.client().append(&tenant(), 300).await.unwrap_err();
    assert!(matches!(&bare, ProviderError::Refused(why) if why.contains("at the domain itself")), "{bare}");
}

#[tokio::test]
async fn keys_addresses_and_limits_of_the_account() {
    let config = Config::new("example.com", foreign());
    let start = |config: Config| async { FakeDynadot::start(config).await.unwrap() };
    let refused = |error: ProviderError, word: &str| {
        assert!(matches!(&error, ProviderError::Refused(why) if why.contains(word)), "{word}: {error}");
    };

    let fake = start(config.clone()).await;
    let with = |key: &str, secret: &str| {
        let credentials = Credentials::new(key, secret).unwrap();
        Dynadot::new(DynadotOptions { credentials, ..fake.options() }).unwrap()
    };
    refused(with("another-key", SECRET).read().await.unwrap_err(), "ten minutes");
    refused(with(KEY, "another-secret").read().await.unwrap_err(), "check the API secret");
    assert_eq!(fake.log().last().unwrap().signature, Signature::Invalid);

    let fresh = start(Config { warm_up: Duration::from_secs(600), ..config.clone() }).await;
    refused(fresh.client().read().await.unwrap_err(), "ten minutes");
    let allowed = vec![Ipv4Addr::new(192, 0, 2, 1).into()];
    let strict = start(Config { allowed, ..config.clone() }).await;
    refused(strict.client().read().await.unwrap_err(), "this machine's address");

    let slow = start(Config { per_minute: Some(2), ..config.clone() }).await;
    let client = slow.client();
    client.read().await.unwrap();
    client.read().await.unwrap();
    assert!(matches!(client.read().await, Err(ProviderError::Later { .. })));

    // Another tool of the account: one client waits for itself, two do not know of each other.
    let shared = start(config).await;
    shared.fail(Fault::on(On::Read, Apply::Now, Answer::Slow(Duration::from_millis(300))));
    let (one, other) = (shared.client(), shared.client());
    let (first, second) = tokio::join!(biased; one.read(), async {
        feather_tests::wait::until("the first request is there", || async {
            if shared.log().is_empty() { Err("not yet") } else { Ok(()) }
        })
        .await;
        other.read().await
    });
    assert_eq!(first.unwrap(), foreign());
    assert!(
        matches!(&second, Err(ProviderError::Later { message, .. }) if message.contains("concurrent")),
        "{second:?}"
    );
    let (one, other) = tokio::join!(one.read(), one.read());
    assert!(one.is_ok() && other.is_ok());
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_has_changed_nothing() {
    let fake = fake(Switches::default()).await;
    let options =
        DynadotOptions { pace: Pace { pause_max: Duration::from_secs(900), ..Pace::default() }, ..fake.options() };
    let client = Dynadot::new(options).unwrap();
    drop(fake);
    let outcome = client.append(&tenant(), 300).await;
    assert!(matches!(&outcome, Err(ProviderError::Later { pause, .. }) if pause.as_secs() >= 60), "{outcome:?}");
    // And is not asked again at once.
    let next = client.read().await.unwrap_err();
    assert!(next.to_string().contains("left alone"), "{next}");
}

#[tokio::test]
async fn hands_on_the_page_and_late_changes_are_seen_by_reading() {
    let fake = fake(Switches::default()).await;
    let client = fake.client();
    let hand = record("by-hand", "a", "192.0.2.99", "");
    fake.fail(Fault::edit_before_change(Edit::Add(hand.clone())));
    client.append(&tenant(), 300).await.unwrap();
    let read = client.read().await.unwrap();
    assert_eq!(read.records.len(), foreign().records.len() + 3);
    assert!(read.records.contains(&hand));

    fake.fail(Fault::on(On::Change, Apply::Late(2), Answer::True));
    assert_eq!(client.remove(&tenant()).await, Ok(Removed { apex: 0, sub: 2 }));
    assert_eq!(client.read().await.unwrap(), read, "it said so, and it is not so yet");
    assert_eq!(client.read().await.unwrap().records.len(), foreign().records.len() + 1);
    assert!(fake.violations().is_empty() && fake.disorder().is_empty());

    // A whole zone that is written late takes away what came in between, and it is nobody's request that did it.
    fake.fail(Fault::on(On::Change, Apply::LateWhole(2), Answer::True));
    client.append(&tenant()[..1], 300).await.unwrap();
    fake.edit(&Edit::Add(record("later", "a", "192.0.2.98", "")));
    fake.settle();
    assert!(!client.read().await.unwrap().records.iter().any(|record| record.host == "later"));
    assert!(fake.violations().is_empty());
    assert_eq!(fake.disorder().len(), 1);
}

#[tokio::test]
async fn the_witness_sees_what_a_careless_client_does() {
    let fake = fake(Switches::default()).await;
    let only_ours = Zone { ttl: 60, records: tenant().to_vec() };
    fake.client().replace(&only_ours).await.unwrap();
    assert_eq!(fake.destroyed(), foreign().records.len());
    assert_eq!(fake.violations().len(), foreign().records.len());
    assert_eq!(fake.ttl_changes(), [(300, 60)]);
}

/// Everything that is logged while everything goes wrong, at the lowest level, holds neither key nor secret.
#[tokio::test]
async fn no_log_line_holds_key_or_secret() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // While there is one subscriber alone, a line that a thread without one comes to first counts as one that nobody wants, for good. With
    // two all of them are asked.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let fake = fake(Switches::default()).await;
    let echo = format!("no: Bearer {KEY}, {SECRET}");
    for answer in [Answer::Text(echo.clone()), Answer::Error(400, echo.clone()), Answer::Error(503, echo), Answer::Lost]
    {
        fake.fail(Fault::on(On::Change, Apply::Never, answer));
        let error = fake.client().append(&tenant(), 300).await.unwrap_err();
        assert!(!format!("{error:?}").contains(SECRET) && !format!("{error:?}").contains(KEY));
    }
    fake.client().read().await.unwrap();
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("dynadot did not do it"), "{text}");
    for secret in [KEY, SECRET] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType, tcp: bool) -> Message {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let bytes = query.to_vec().unwrap();
    let answer = if tcp {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    } else {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&bytes, server).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = socket.recv(&mut answer).await.unwrap();
        answer.truncate(length);
        answer
    };
    Message::from_vec(&answer).unwrap()
}

fn said(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn name_servers_have_a_change_when_it_reaches_them() {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let name_servers = vec![(free, Publication::Immediate), (free, Publication::Held)];
    let fake = FakeDynadot::start(Config { name_servers, ..Config::new("example.com", foreign()) }).await.unwrap();
    let [quick, slow] = fake.name_servers() else { panic!("two were asked for") };
    fake.client().append(&[record("*.users", "a", "192.0.2.7", "")], 300).await.unwrap();
    for tcp in [false, true] {
        let quick = ask(*quick, "Bob.users.example.com.", RecordType::A, tcp).await;
        assert_eq!((said(&quick), quick.metadata.authoritative), (vec!["192.0.2.7".to_owned()], true));
        let slow = ask(*slow, "bob.users.example.com.", RecordType::A, tcp).await;
        assert_eq!((said(&slow), slow.metadata.response_code), (vec![], ResponseCode::NXDomain));
    }
    fake.release(1);
    assert_eq!(said(&ask(*slow, "bob.users.example.com.", RecordType::A, false).await), ["192.0.2.7"]);
    assert_eq!(said(&ask(*slow, "example.com.", RecordType::NS, false).await).len(), 2);
    assert_eq!(
        said(&ask(*slow, "example.com.", RecordType::TXT, true).await),
        ["v=spf1 include:mail.example.net ~all"]
    );
    let elsewhere = ask(*quick, "example.org.", RecordType::A, false).await;
    assert_eq!(elsewhere.metadata.response_code, ResponseCode::Refused);
}

/// The old API, as its users know it.
#[tokio::test]
async fn the_old_api_overwrites_unless_it_is_told_not_to() {
    let fake = fake(Switches::default()).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = async |query: &str| -> serde_json::Value {
        let reply = http.get(format!("{}/api3.json?key={KEY}&{query}", fake.url())).send().await.unwrap();
        reply.json().await.unwrap()
    };
    let read = call("command=get_dns&domain=example.com").await;
    let settings = &read["GetDnsResponse"]["GetDns"]["NameServerSettings"];
    assert_eq!(settings["Type"], "Dynadot DNS");
    assert_eq!(settings["TTL"], "300");
    let add = "command=set_dns2&domain=example.com&subdomain0=www2&sub_record_type0=a&sub_record0=192.0.2.5&ttl=300";
    call(&format!("{add}&add_dns_to_current_setting=1")).await;
    assert_eq!(fake.zone().records.len(), foreign().records.len() + 1);
    assert_eq!(fake.violations().len(), 0);
    let done = call(add).await;
    assert_eq!(done["SetDnsResponse"]["ResponseCode"], 0);
    assert_eq!(fake.zone().records.len(), 1);
    assert_eq!(fake.violations().len(), foreign().records.len());
    let wrong = http.get(format!("{}/api3.json?key=x&command=get_dns", fake.url())).send().await.unwrap();
    assert_eq!(wrong.json::<serde_json::Value>().await.unwrap()["Response"]["Error"], "invalid key");
}
