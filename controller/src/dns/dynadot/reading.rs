//! What a reply holds: the envelope, a whole zone, the counts of a removal. Pure, and strict: whatever is not surely
//! understood is an error, because a zone that was half understood would be half destroyed by the next write.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::super::zone::{Removed, Zone, ZoneRecord};

/// What every reply is wrapped in.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    #[serde(deserialize_with = "number")]
    pub(super) code: u32,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) data: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<Details>,
}

/// The reason of a refusal, in English.
#[derive(Debug, Deserialize)]
pub(super) struct Details {
    #[serde(default)]
    pub(super) description: Option<String>,
}

impl Envelope {
    /// The envelope, or a word about what came instead of one.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| {
            let what = match body.trim_ascii_start().first() {
                None => "an empty reply",
                Some(b'<') => "a page of HTML or XML",
                Some(b'{') => "JSON of an unknown shape",
                Some(_) => "something that is no JSON object",
            };
            // Not the error's own text when it is no JSON: that quotes nothing, but tells nothing either.
            if body.trim_ascii_start().first() == Some(&b'{') { format!("{what} ({error})") } else { what.into() }
        })
    }

    /// Everything that the provider said about its reason, in one line.
    pub(super) fn reason(&self) -> String {
        let description = self.error.as_ref().and_then(|details| details.description.as_deref());
        let texts = [self.message.as_deref(), description];
        texts.into_iter().flatten().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
    }
}

/// Members of `glue_info` that belong to other uses of a domain and hold none of its records.
const OTHER_MEMBERS: &[&str] = &[
    "nameserver_list",
    "with_ads",
    "forward_url",
    "forward_type",
    "stealth_title",
    "email_forward_type",
    "email_exchange_list",
    "email_alias_list",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    glue_info: Glue,
}

#[derive(Debug, Deserialize)]
struct Glue {
    glue_type: String,
    #[serde(default, deserialize_with = "optional_number")]
    ttl: Option<u32>,
    #[serde(default)]
    dns_main_list: Option<Vec<Item>>,
    #[serde(default)]
    dns_sub_list: Option<Vec<Item>>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// A member that we do not know might be a part of the record that a restored zone would lack.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    #[serde(default)]
    sub_host: Option<String>,
    record_type: String,
    #[serde(deserialize_with = "text")]
    record_value1: String,
    #[serde(default, deserialize_with = "optional_text")]
    record_value2: Option<String>,
}

/// The whole zone in the data of a reading's reply, or why it is none.
pub(super) fn zone(data: Option<Value>) -> Result<Zone, String> {
    let data = data.ok_or("there is no data in it")?;
    if data.get("name_server_settings").is_some() {
        return Err("it has the shape of version 1 of the API, which this client does not read".into());
    }
    let Data { glue_info: glue } = Data::deserialize(data).map_err(|error| format!("its shape is unknown: {error}"))?;
    if !glue.glue_type.eq_ignore_ascii_case("dns") {
        return Err(format!(
            "the domain is not on Dynadot's DNS but on {:?}; choose \"Dynadot DNS\" for it on Dynadot's page",
            glue.glue_type.to_ascii_lowercase()
        ));
    }
    if let Some(unknown) = glue.others.keys().find(|member| !OTHER_MEMBERS.contains(&member.as_str())) {
        return Err(format!("its shape is unknown: glue_info has a member {unknown:?}"));
    }
    let ttl = glue.ttl.filter(|ttl| *ttl > 0).ok_or("its shape is unknown: there is no ttl")?;
    let apex = glue.dns_main_list.unwrap_or_default().into_iter().map(|item| record(item, false));
    let sub = glue.dns_sub_list.unwrap_or_default().into_iter().map(|item| record(item, true));
    let mut records = apex.chain(sub).collect::<Result<Vec<_>, _>>()?;
    records.sort();
    Ok(Zone { ttl, records })
}

fn record(item: Item, below: bool) -> Result<ZoneRecord, String> {
    let host = item.sub_host.unwrap_or_default().to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    if host.is_empty() == below {
        let place = if below { "below the apex without a host" } else { "at the apex with a host" };
        return Err(format!("its shape is unknown: there is a record {place}"));
    }
    if item.record_type.is_empty() || item.record_value1.is_empty() {
        return Err(format!("its shape is unknown: a record of {host:?} has no type or no value"));
    }
    Ok(ZoneRecord {
        host: host.to_owned(),
        kind: item.record_type.to_ascii_lowercase(),
        value: item.record_value1,
        extra: item.record_value2.unwrap_or_default(),
    })
}

#[derive(Deserialize)]
struct Counts {
    #[serde(deserialize_with = "number")]
    main_record_removed_count: u32,
    #[serde(deserialize_with = "number")]
    sub_record_removed_count: u32,
}

/// The counts in the data of a removal's reply.
pub(super) fn removed(data: Option<Value>) -> Result<Removed, String> {
    let data = data.ok_or("it does not say how many records it removed")?;
    let counts = Counts::deserialize(data).map_err(|error| format!("its shape is unknown: {error}"))?;
    Ok(Removed { apex: counts.main_record_removed_count as usize, sub: counts.sub_record_removed_count as usize })
}

/// A number, or digits in quotes.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = u32;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a number, or a string of digits")
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<u32, E> {
            value.try_into().map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<u32, E> {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|_| digits).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
        }
    }
    deserializer.deserialize_any(Visitor)
}

fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    struct Number(#[serde(deserialize_with = "number")] u32);
    Ok(Option::<Number>::deserialize(deserializer)?.map(|Number(number)| number))
}

/// A string, or a number as its digits (a distance of mail hosts may come so).
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = String;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a string or a number")
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
            Ok(value.to_string())
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
            Ok(value.to_owned())
        }
    }
    deserializer.deserialize_any(Visitor)
}

fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Text(#[serde(deserialize_with = "text")] String);
    Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(text)| text))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Envelope, removed, zone};

    fn glue(glue: &Value) -> Result<super::Zone, String> {
        zone(Some(json!({ "glue_info": glue })))
    }

    #[test]
    fn a_zone_is_read_whole_and_normalised() {
        let read = glue(&json!({
            "glue_type": "DNS", "ttl": "300", "email_forward_type": "mtype_none",
            "dns_main_list": [{"record_type": "A", "record_value1": "192.0.2.1", "record_value2": ""},
                              {"record_type": "mx", "record_value1": "mx.example.net", "record_value2": 10}],
            "dns_sub_list": [{"sub_host": "WWW.", "record_type": "cname", "record_value1": "Example.COM."},
                             {"sub_host": "*.users", "record_type": "txt", "record_value1": " \"b\\y\" ", "record_value2": null}],
        }));
        let lines: Vec<_> = read.unwrap().records.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                r#"@ a "192.0.2.1""#,
                r#"@ mx "mx.example.net" "10""#,
                r#"*.users txt " \"b\\y\" ""#,
                r#"www cname "Example.COM.""#
            ]
        );
    }

    #[test]
    fn lists_that_are_left_out_are_empty_only_on_their_own_dns() {
        assert_eq!(glue(&json!({"glue_type": "dns", "ttl": 60})).unwrap().records, []);
        let parked = glue(&json!({"glue_type": "REGISTRAR_PARKING", "with_ads": "Yes"})).unwrap_err();
        assert!(parked.contains("registrar_parking") && parked.contains("Dynadot DNS"), "{parked}");
    }

    #[test]
    fn whatever_is_not_known_is_refused() {
        let item = json!({"record_type": "a", "record_value1": "192.0.2.1"});
        for unknown in [
            json!({"glue_type": "DNS"}),
            json!({"glue_type": "DNS", "ttl": ""}),
            json!({"glue_type": "DNS", "ttl": "+300"}),
            json!({"glue_type": "DNS", "ttl": "0"}),
            json!({"glue_type": "DNS", "ttl": -1}),
            json!({"glue_type": "DNS", "ttl": "300", "dns_srv_list": []}),
            json!({"glue_type": "DNS", "ttl": "300", "sub_list": [item]}),
            json!({"glue_type": "DNS", "ttl": "300", "dns_main_list": [{}]}),
            json!({"glue_type": "DNS", "ttl": "300", "dns_main_list": {"0": item}}),
            json!({"glue_type": "DNS", "ttl": "300", "dns_sub_list": [item]}),
            json!({"glue_type": "DNS", "ttl": "300", "dns_main_list": [{"record_type": "a", "value": "192.0.2.1"}]}),
            json!({"glue_type": "DNS", "ttl": "300", "dns_main_list": [{"record_type": "a", "record_value1": ""}]}),
            json!({"glue_type": "DNS", "ttl": "300", "dns_main_list": [{"record_type": "", "record_value1": "x"}]}),
            json!({"glue_type": "DNS", "ttl": "300",
                   "dns_main_list": [{"record_type": "a", "record_value1": "192.0.2.1", "ttl": 60}]}),
            json!({"glue_type": "DNS", "ttl": "300",
                   "dns_main_list": [{"record_type": "a", "record_value1": ["192.0.2.1"]}]}),
            json!({"glue_type": "DNS", "ttl": "300",
                   "dns_main_list": [{"sub_host": "www", "record_type": "a", "record_value1": "192.0.2.1"}]}),
        ] {
            let refused = glue(&unknown).unwrap_err();
            assert!(refused.contains("shape is unknown"), "{unknown}: {refused}");
        }
        let v1 = json!({"name_server_settings": {"type": "Dynadot DNS", "ttl": "300", "main_domains": []}});
        assert!(zone(Some(v1)).unwrap_err().contains("version 1"));
        assert!(zone(Some(json!({}))).unwrap_err().contains("shape is unknown"));
        assert!(zone(Some(json!([]))).unwrap_err().contains("shape is unknown"));
        assert!(zone(Some(json!({"glue_info": {"glue_type": "DNS", "ttl": 300}, "more": 1}))).is_err());
        assert!(zone(None).is_err());
    }

    #[test]
    fn envelopes_are_json_with_a_code() {
        assert_eq!(Envelope::parse(br#"{"code":"200","message":"Success"}"#).unwrap().code, 200);
        let error = br#"{"code":429,"message":"Too many requests","error":{"description":"Slower."}}"#;
        assert_eq!(Envelope::parse(error).unwrap().reason(), "Too many requests: Slower.");
        for (body, word) in [
            (&b""[..], "empty"),
            (b" <html>", "HTML"),
            (b"invalid key", "no JSON"),
            (b"[]", "no JSON"),
            (br#"{"message":"Success"}"#, "unknown shape"),
            (br#"{"code":200,"code":500}"#, "unknown shape"),
            (br#"{"code":200.5}"#, "unknown shape"),
            (br#"{"code":200"#, "unknown shape"),
        ] {
            let said = Envelope::parse(body).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_removal_says_how_many() {
        let counts = removed(Some(json!({"main_record_removed_count": 1, "sub_record_removed_count": "2"}))).unwrap();
        assert_eq!((counts.apex, counts.sub), (1, 2));
        assert!(removed(Some(json!({"main_record_removed_count": 1}))).is_err());
        assert!(removed(None).is_err());
    }
}
