//! The old script's file, read leniently: its form was never fixed.
//!
//! Owns what a tenant, a port and a password may be called in it. Entries that make no sense are told, never guessed at. It
//! holds passwords: nothing here shows content.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

/// No file of the script was ever near this.
pub(crate) const SIZE_MAX: u64 = 1 << 20;

const NAMES: [&str; 4] = ["name", "username", "user", "tenant"];
const PASSWORDS: [&str; 2] = ["password", "pass"];

/// What the file says of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) port: Option<u16>,
    pub(crate) password: Option<Secret>,
}

/// A password as it was written, whatever it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OldFile {
    pub(crate) entries: BTreeMap<String, Entry>,
    /// What is odd about an entry that can be used all the same.
    pub(crate) remarks: BTreeMap<String, Vec<String>>,
    /// What cannot be used at all, in sentences.
    pub(crate) problems: Vec<String>,
}

impl OldFile {
    /// A file that cannot be read at all.
    pub(crate) fn unreadable(problem: String) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }

    /// A map from names to ports or objects, or a list of objects; either may be inside of `tenants` or `users`.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut file = Self::default();
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return file;
        }
        match serde_json::from_slice(bytes) {
            Ok(value) => file.take(unwrapped(value)),
            Err(error) => file.problems.push(format!(
                "the old file is not JSON at line {}, column {}; what it lists is not known, only what runs",
                error.line(),
                error.column()
            )),
        }
        file
    }

    fn take(&mut self, value: Value) {
        match value {
            Value::Object(map) => map.into_iter().for_each(|(name, value)| self.entry(name, &value)),
            Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| self.listed(index + 1, value)),
            _ => self.problems.push("the old file is neither a map of tenants nor a list of them".into()),
        }
    }

    fn listed(&mut self, number: usize, value: &Value) {
        let name = match value {
            Value::String(name) => Some(name.as_str()),
            Value::Object(fields) => NAMES.iter().find_map(|name| fields.get(*name)?.as_str()),
            _ => None,
        };
        match name {
            Some(name) if self.entries.contains_key(name) => {
                self.problems
                    .push(format!("entry {number} of the old file lists {name} once more; the first one counts"));
            }
            Some(name) => self.entry(name.to_owned(), value),
            None => self.problems.push(format!("entry {number} of the old file has no name")),
        }
    }

    fn entry(&mut self, name: String, value: &Value) {
        let mut remarks = Vec::new();
        let entry = match value {
            Value::Object(fields) => Entry {
                port: fields.get("port").and_then(|port| number(port, &mut remarks)),
                password: password(fields, &mut remarks),
            },
            Value::Number(_) => Entry { port: number(value, &mut remarks), password: None },
            Value::String(_) | Value::Null => Entry::default(),
            _ => {
                self.problems.push(format!("the entry of {name} in the old file is no object"));
                return;
            }
        };
        if !remarks.is_empty() {
            self.remarks.insert(name.clone(), remarks);
        }
        self.entries.insert(name, entry);
    }
}

fn unwrapped(value: Value) -> Value {
    match value {
        Value::Object(mut map) if map.len() <= 2 => {
            let inner = ["tenants", "users"].iter().find(|name| map.get(**name).is_some_and(holds_tenants));
            match inner {
                Some(name) => map.remove(*name).unwrap_or_default(),
                None => Value::Object(map),
            }
        }
        other => other,
    }
}

/// A tenant may be called `users`: then there is a port, not another level of tenants.
fn holds_tenants(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(fields) => fields.values().all(Value::is_object),
        _ => false,
    }
}

fn number(value: &Value, remarks: &mut Vec<String>) -> Option<u16> {
    let port = match value {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let port = port.filter(|port| *port > 0);
    if port.is_none() {
        remarks.push("what the old file has as its port is none".into());
    }
    port
}

fn password(fields: &Map<String, Value>, remarks: &mut Vec<String>) -> Option<Secret> {
    let value = PASSWORDS.iter().find_map(|name| fields.get(*name))?;
    let text = match value {
        Value::String(text) => text.clone(),
        // Six digits, written without quotes.
        Value::Number(number) if number.is_u64() => number.to_string(),
        _ => String::new(),
    };
    if text.is_empty() {
        remarks.push("what the old file has as its password is none".into());
        return None;
    }
    Some(Secret(text))
}

#[cfg(test)]
mod tests {
    use super::{Entry, OldFile, Secret};

    fn entry(port: Option<u16>, password: Option<&str>) -> Entry {
        Entry { port, password: password.map(|text| Secret(text.to_owned())) }
    }

    #[test]
    fn every_form_that_the_file_ever_had_is_read() {
        let alice = [("alice".to_owned(), entry(Some(9001), Some("x7k9m2")))].into();
        for text in [
            r#"{"alice":{"port":9001,"password":"x7k9m2"}}"#,
            r#"{"alice":{"port":"9001","password":"x7k9m2","created":"2026-01-01","extra":{"a":[1]}}}"#,
            r#"[{"name":"alice","port":9001,"password":"x7k9m2"}]"#,
            r#"[{"username":"alice","port":9001,"pass":"x7k9m2"}]"#,
            r#"{"tenants":{"alice":{"port":9001,"password":"x7k9m2"}}}"#,
            r#"{"version":1,"tenants":[{"user":"alice","port":9001,"password":"x7k9m2"}]}"#,
        ] {
            let file = OldFile::parse(text.as_bytes());
            assert_eq!((&file.entries, &file.problems), (&alice, &vec![]), "{text}");
        }
        let file = OldFile::parse(br#"{"users":{"port":9001,"password":"x"}, "bob": 9002, "carol": null}"#);
        let wanted =
            [("bob", entry(Some(9002), None)), ("carol", entry(None, None)), ("users", entry(Some(9001), Some("x")))];
        assert_eq!(file.entries, wanted.map(|(name, entry)| (name.to_owned(), entry)).into());
        for empty in ["", "  \n", "{}", "[]", r#"{"tenants":{}}"#] {
            assert_eq!(OldFile::parse(empty.as_bytes()), OldFile::default(), "{empty:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_without_its_content() {
        let file = OldFile::parse(
            br#"[{"name":"alice","port":70000,"password":""},{"port":1},7,{"name":"alice","password":"s3cret"},{"name":"bob","password":123456}]"#,
        );
        assert_eq!(file.problems.len(), 3, "{:?}", file.problems);
        assert_eq!(file.remarks["alice"].len(), 2);
        assert_eq!(file.entries["alice"], entry(None, None));
        assert_eq!(file.entries["bob"], entry(None, Some("123456")));
        assert!(!format!("{file:?}").contains("123456") && !format!("{file:?}").contains("s3cret"));
        for (bad, word) in
            [("{\"alice\": {\"password\": \"s3cret\"", "line 1"), ("7", "neither"), ("{\"a\": [1]}", "no object")]
        {
            let file = OldFile::parse(bad.as_bytes());
            assert!(file.problems[0].contains(word) && !file.problems[0].contains("s3cret"), "{:?}", file.problems);
            assert!(file.entries.is_empty());
        }
    }
}
