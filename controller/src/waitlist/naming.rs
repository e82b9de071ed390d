//! What to call a tenant of whom only an address is known. Pure.

use std::collections::BTreeSet;

use feather_proto::ids::{TENANT_NAME_MAX, TenantName};

/// The name nearest to what stands before the `@` that is allowed and nobody's.
pub(super) fn derive(local: &str, taken: &BTreeSet<TenantName>) -> TenantName {
    let base = base(local);
    let mut number = 1;
    loop {
        // At most the one without a number is reserved, and no fleet has all the others.
        match numbered(&base, number).parse::<TenantName>() {
            Ok(name) if !taken.contains(&name) => return name,
            _ => number += 1,
        }
    }
}

/// Letters, digits and single dashes, beginning with a letter. What follows a `+` is the person's own business.
fn base(local: &str) -> String {
    let person = local.split('+').next().unwrap_or_default();
    let mut base = String::new();
    for letter in person.chars().map(|letter| letter.to_ascii_lowercase()) {
        match letter {
            'a'..='z' | '0'..='9' => base.push(letter),
            _ if !base.is_empty() && !base.ends_with('-') => base.push('-'),
            _ => {}
        }
    }
    let base = base.trim_end_matches('-');
    match base.chars().next() {
        None => "user".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("user-{base}"),
        Some(_) => base.to_owned(),
    }
}

/// The base alone, then with 2, 3, 4 behind it, cut so that both fit.
fn numbered(base: &str, number: usize) -> String {
    let cut = |room: usize| base.get(..room.min(base.len())).unwrap_or_default().trim_end_matches('-');
    if number == 1 {
        return cut(TENANT_NAME_MAX).to_owned();
    }
    let number = number.to_string();
    let short = cut(TENANT_NAME_MAX.saturating_sub(number.len() + 1));
    // A number behind a digit would look like another one.
    let dash = if short.ends_with(|last: char| last.is_ascii_digit()) { "-" } else { "" };
    format!("{short}{dash}{number}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use feather_proto::ids::TenantName;
    use proptest::prelude::*;

    use super::derive;

    fn taken(names: &[&str]) -> BTreeSet<TenantName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn names_look_like_their_addresses() {
        for (local, wanted) in [
            ("ada", "ada"),
            ("Ada.Lovelace", "ada-lovelace"),
            ("ada+feather", "ada"),
            ("_ada_", "ada"),
            ("a..'b", "a-b"),
            ("2pac", "user-2pac"),
            ("007", "user-007"),
            ("___", "user"),
            ("admin", "admin2"),
            ("www", "www2"),
            ("abcdefghijklmnopqrs-tuv", "abcdefghijklmnopqrs"),
            ("a-very-long-address-of-somebody", "a-very-long-address"),
        ] {
            assert_eq!(derive(local, &taken(&[])).as_str(), wanted, "{local}");
        }
    }

    #[test]
    fn names_that_are_somebodys_get_a_number() {
        assert_eq!(derive("ada", &taken(&["ada"])).as_str(), "ada2");
        assert_eq!(derive("ada", &taken(&["ada", "ada2"])).as_str(), "ada3");
        assert_eq!(derive("ada1", &taken(&["ada1"])).as_str(), "ada1-2");
        assert_eq!(
            derive("abcdefghijklmnopqrstuvw", &taken(&["abcdefghijklmnopqrst"])).as_str(),
            "abcdefghijklmnopqr2"
        );
    }

    proptest! {
        #[test]
        fn every_address_gets_a_name_that_is_allowed_and_nobodys(
            locals in proptest::collection::vec("[a-zA-Z0-9_][a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]{0,30}", 1..30),
        ) {
            let mut taken = BTreeSet::new();
            for local in locals {
                // Parsing is the proof that it is allowed and not reserved.
                let name = derive(&local, &taken);
                prop_assert!(name.as_str().parse::<TenantName>().is_ok());
                prop_assert!(taken.insert(name));
            }
        }

        #[test]
        fn however_many_have_one_name_the_next_gets_another(count in 1_usize..150, local in "[a-z0-9]{1,30}") {
            let mut taken = BTreeSet::new();
            for _ in 0..count {
                prop_assert!(taken.insert(derive(&local, &taken)));
            }
        }
    }
}
