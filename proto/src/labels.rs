//! Labels of servers: their syntax, and which of them a tenant wants.
//!
//! A label is two words, `region=eu`. A server has at most one value for a name, and at most 32 labels.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, reason},
    ids::text_newtype,
    pb::types::v1 as pb,
};

/// Longest name of a label in bytes.
pub const LABEL_NAME_MAX: usize = 32;
/// Longest value of a label in bytes.
pub const LABEL_VALUE_MAX: usize = 64;
/// Most labels of one server, or in one wish.
pub const LABELS_MAX: usize = 32;

text_newtype! {
    /// Name of a label: 1 to 32 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter and ending in a letter or digit.
    LabelName
}

text_newtype! {
    /// Value of a label: 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`, beginning and ending in a letter or digit.
    LabelValue
}

fn is_inner(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

impl FromStr for LabelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let good = (1..=LABEL_NAME_MAX).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes.iter().all(|byte| is_inner(*byte) && !byte.is_ascii_uppercase());
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(
            reason::INVALID_NAME,
            format!(
                "{text:?} is not the name of a label: use 1 to {LABEL_NAME_MAX} of a-z, 0-9, '.', '_' and '-', beginning with a letter \
                 and ending in a letter or digit"
            ),
        ))
    }
}

impl FromStr for LabelValue {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let good = (1..=LABEL_VALUE_MAX).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes.iter().all(|byte| is_inner(*byte));
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(
            reason::INVALID_NAME,
            format!(
                "{text:?} is not the value of a label: use 1 to {LABEL_VALUE_MAX} of A-Z, a-z, 0-9, '.', '_' and '-', beginning and \
                 ending in a letter or digit"
            ),
        ))
    }
}

/// One label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Left of the `=`.
    pub name: LabelName,
    /// Right of it.
    pub value: LabelValue,
}

impl FromStr for Label {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Error::invalid(reason::INVALID_NAME, format!("{text:?} is not a label: write NAME=VALUE, as region=eu"))
        })?;
        Ok(Self { name: name.parse()?, value: value.parse()? })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.name, self.value)
    }
}

/// Labels, each name once; in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<LabelName, LabelValue>);

impl Labels {
    /// From these.
    ///
    /// # Errors
    /// A name comes twice with different values, or there are more than [`LABELS_MAX`].
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Result<Self, Error> {
        let mut all = Self::default();
        for label in labels {
            all.insert(label)?;
        }
        Ok(all)
    }

    /// From the wire.
    ///
    /// # Errors
    /// As [`Labels::new`], or one that is no label.
    pub fn decode(labels: Vec<pb::Label>) -> Result<Self, Error> {
        let labels: Result<Vec<_>, Error> =
            labels.into_iter().map(|one| Ok(Label { name: one.name.parse()?, value: one.value.parse()? })).collect();
        Self::new(labels?)
    }

    /// For the wire.
    pub fn encode(&self) -> Vec<pb::Label> {
        self.0.iter().map(|(name, value)| pb::Label { name: name.to_string(), value: value.to_string() }).collect()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, label: Label) -> Result<(), Error> {
        if let Some(present) = self.0.get(&label.name).filter(|present| **present != label.value) {
            return Err(Error::invalid(
                reason::INVALID_FIELD,
                format!("{0}={present} and {label} cannot both hold; leave one of them out", label.name),
            ));
        }
        self.0.insert(label.name, label.value);
        if self.0.len() > LABELS_MAX {
            return Err(Error::invalid(
                reason::INVALID_FIELD,
                format!("more than {LABELS_MAX} labels; leave some out"),
            ));
        }
        Ok(())
    }

    /// Both together.
    ///
    /// # Errors
    /// They contradict each other, or are too many.
    pub fn and(&self, other: &Self) -> Result<Self, Error> {
        let mut all = self.clone();
        for (name, value) in &other.0 {
            all.insert(Label { name: name.clone(), value: value.clone() })?;
        }
        Ok(all)
    }

    /// What of these a server with such labels lacks, in sentences without an end mark: `region is us, not eu`.
    pub fn lacking(&self, present: &Self) -> Vec<String> {
        let lacks = |(name, value): (&LabelName, &LabelValue)| match present.0.get(name) {
            Some(there) if there == value => None,
            Some(there) => Some(format!("{name} is {there}, not {value}")),
            None => Some(format!("it has no label {name}={value}")),
        };
        self.0.iter().filter_map(lacks).collect()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        formatter.pad(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::{LABELS_MAX, Label, LabelName, LabelValue, Labels};

    fn labels(text: &str) -> Labels {
        Labels::new(text.split_whitespace().map(|one| one.parse().unwrap())).unwrap()
    }

    #[test]
    fn labels_parse_or_say_what_they_should_be() {
        for good in ["region=eu", "a=1", "rack.row-7_b=EU-west.1_a", &format!("{}={}", "n".repeat(32), "v".repeat(64))]
        {
            let label: Label = good.parse().unwrap();
            assert_eq!(label.to_string(), good);
        }
        for bad in
            ["region", "=eu", "region=", "Region=eu", "1=eu", "region-=eu", "region=-eu", "region=e u", "a=b=c", "ä=b"]
        {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
        assert!("n".repeat(33).parse::<LabelName>().is_err());
        assert!("v".repeat(65).parse::<LabelValue>().is_err());
    }

    #[test]
    fn a_name_has_one_value_and_there_are_not_too_many() {
        let twice = |text: &str| Labels::new(text.split_whitespace().map(|one| one.parse().unwrap()));
        assert_eq!(twice("region=eu region=eu").unwrap(), labels("region=eu"));
        assert!(twice("region=eu region=us").unwrap_err().message.contains("cannot both hold"));
        assert!(labels("region=eu").and(&labels("region=us")).is_err());
        assert_eq!(labels("region=eu").and(&labels("disk=ssd")).unwrap().to_string(), "disk=ssd, region=eu");
        let many = (0..=LABELS_MAX).map(|number| format!("n{number}=v").parse().unwrap());
        assert!(Labels::new(many).is_err());
    }

    #[test]
    fn all_that_is_wanted_must_be_there_with_that_value() {
        let wanted = labels("region=eu disk=ssd");
        assert_eq!(wanted.lacking(&labels("region=eu disk=ssd rack=7")), Vec::<String>::new());
        assert_eq!(wanted.lacking(&labels("region=us")), ["it has no label disk=ssd", "region is us, not eu"]);
        assert_eq!(Labels::default().lacking(&Labels::default()), Vec::<String>::new());
    }

    #[test]
    fn labels_survive_the_wire_and_the_store() {
        let all = labels("region=eu disk=ssd");
        assert_eq!(Labels::decode(all.encode()).unwrap(), all);
        assert_eq!(serde_json::from_str::<Labels>(&serde_json::to_string(&all).unwrap()).unwrap(), all);
        assert!(serde_json::from_str::<Labels>(r#"{"Region":"eu"}"#).is_err());
    }
}
