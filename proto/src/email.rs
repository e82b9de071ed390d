//! E-mail addresses as the waitlist takes them: checked for what a mail server would accept, and never printed by accident.
//!
//! Owns the syntax and what makes two spellings one address. Does not know whether anybody reads mail there.

use std::{fmt, str::FromStr};

use crate::error::{Error, reason};

/// Longest address in bytes: what fits into the path of a mail.
pub const EMAIL_MAX: usize = 254;
/// Longest part before the `@`.
const LOCAL_MAX: usize = 64;
/// Longest label of a domain.
const LABEL_MAX: usize = 63;

/// An e-mail address: surrounding space is gone, the domain is in lower case.
///
/// Allowed are an unquoted local part of letters, digits and the usual punctuation, beginning with a letter, a digit or `_`
/// (so that no spreadsheet takes an address for a formula, and no command line for an option), and a domain of at least two
/// labels. Domains in other scripts come in their `xn--` form. Addresses are personal data, so this has neither `Display` nor a
/// `Debug` that shows it: whoever prints one has to say so.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `@`.
    pub fn local(&self) -> &str {
        self.0.rsplit_once('@').map_or(self.0.as_str(), |(local, _)| local)
    }

    /// Equal for all spellings of one address: no mail server in use tells upper and lower case apart.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EmailAddress(..)")
    }
}

impl FromStr for EmailAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() > EMAIL_MAX {
            return Err(refused(&format!("it is longer than {EMAIL_MAX} characters")));
        }
        let Some((local, domain)) = text.rsplit_once('@') else { return Err(refused("it has no @")) };
        check_local(local).map_err(refused)?;
        check_domain(domain).map_err(refused)?;
        Ok(Self(format!("{local}@{}", domain.to_ascii_lowercase())))
    }
}

/// Says what is wrong without repeating the address.
fn refused(problem: &str) -> Error {
    Error::invalid(
        reason::INVALID_EMAIL,
        format!("this is not an e-mail address ({problem}); write it like ada@example.org"),
    )
}

fn check_local(local: &str) -> Result<(), &'static str> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(letter);
    if local.is_empty() || local.len() > LOCAL_MAX {
        return Err("before the @ stand 1 to 64 characters");
    }
    if !local.chars().all(allowed) {
        return Err("before the @ stands a character that is not allowed there");
    }
    if !local.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') {
        return Err("it must begin with a letter or a digit");
    }
    if local.ends_with('.') || local.contains("..") {
        return Err("a dot is in the wrong place");
    }
    Ok(())
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    if !domain.is_ascii() {
        return Err("write the domain in its xn-- form");
    }
    let labels: Vec<_> = domain.split('.').collect();
    let is_label = |label: &&str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if labels.len() < 2 || !labels.iter().all(is_label) {
        return Err("behind the @ stands no domain");
    }
    if labels.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("behind the @ stands a number instead of a domain");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::EmailAddress;

    #[test]
    fn addresses_are_trimmed_and_their_domain_is_lowered() {
        for (text, wanted) in [
            ("ada@example.org", "ada@example.org"),
            ("  Ada.Lovelace+feather@Example.ORG\n", "Ada.Lovelace+feather@example.org"),
            ("_x@a.b-c.de", "_x@a.b-c.de"),
            ("1@xn--bcher-kva.example", "1@xn--bcher-kva.example"),
        ] {
            let address: EmailAddress = text.parse().unwrap();
            assert_eq!(address.as_str(), wanted);
        }
        let spelled: EmailAddress = "Ada@Example.org".parse().unwrap();
        assert_eq!((spelled.key().as_str(), spelled.local()), ("ada@example.org", "Ada"));
    }

    #[test]
    fn what_no_mail_server_would_take_is_refused_without_being_repeated() {
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long_label = format!("a@{}.org", "b".repeat(64));
        let long = format!("a@{}org", "b23456789.".repeat(26));
        for bad in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@example",
            "ada@example.",
            "ada@.org",
            "a b@example.org",
            "ada@exa mple.org",
            ".a@example.org",
            "a.@example.org",
            "a..b@example.org",
            "ada@-x.org",
            "ada@x-.org",
            "ada@127.0.0.1",
            "ada@b\u{fc}cher.de",
            "\u{fc}@example.org",
            "\"a b\"@example.org",
            "a@b@example.org",
            "=1+1@example.org",
            "+a@example.org",
            "-a@example.org",
            "a\0@example.org",
            "a\n@example.org",
            "a,b@example.org",
            &long_local,
            &long_label,
            &long,
        ] {
            assert_eq!(bad.parse::<EmailAddress>().unwrap_err().reason, "INVALID_EMAIL", "{bad:?}");
        }
        let error = "somebody@nowhere".parse::<EmailAddress>().unwrap_err();
        assert!(!error.message.contains("somebody") && !error.message.contains("nowhere"), "{error}");
    }

    #[test]
    fn an_address_does_not_print() {
        let address: EmailAddress = "ada@example.org".parse().unwrap();
        assert_eq!(format!("{address:?}"), "EmailAddress(..)");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_short_plain_and_stays_what_it_is(text in "[ -~\u{e0}-\u{ff}]{0,12}@?[a-zA-Z0-9.-]{0,12}") {
            if let Ok(address) = text.parse::<EmailAddress>() {
                prop_assert!(address.as_str().len() <= super::EMAIL_MAX);
                prop_assert!(address.as_str().bytes().all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'"'));
                prop_assert_eq!(&address.as_str().parse::<EmailAddress>().unwrap(), &address);
                prop_assert_eq!(address.key().parse::<EmailAddress>().unwrap().key(), address.key());
            }
        }
    }
}
