//! What nobody is sure of about the provider: one switch each. Whoever relies on it must work under both settings.

/// One setting of every switch; all off is what is thought to be likeliest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switches {
    /// An append without `ttl` sets the zone's TTL to the default instead of keeping it.
    pub append_resets_ttl: bool,
    /// A replacement without `ttl` keeps the zone's TTL instead of setting it to the default.
    pub replace_keeps_ttl: bool,
    /// Records with a type in capitals are left out, and the reply is success.
    pub upper_case_ignored: bool,
    /// Records with a type in capitals are refused.
    pub upper_case_refused: bool,
    /// A request with nothing in it is success.
    pub nothing_is_success: bool,
    /// An exact duplicate is left out of an append instead of being stored twice.
    pub duplicates_ignored: bool,
    /// A removal that matches nothing is refused instead of counting 0.
    pub absent_removal_refused: bool,
    /// A removal without a value takes all records of the type at the host instead of none.
    pub typed_removal_takes_all: bool,
    /// Of equal records a removal takes one instead of all.
    pub removal_takes_one: bool,
    /// A removal needs no signature.
    pub removal_unsigned: bool,
    /// Changes are refused while there is no record at the apex.
    pub apex_required: bool,
    /// The limits count only one request's records, not the zone's.
    pub limits_per_request: bool,
    /// Reads give records in any order.
    pub shuffled: bool,
    /// HTTP says 200 whatever the code in the body is.
    pub always_200: bool,
    /// The code in the body is a string.
    pub code_is_string: bool,
    /// Reads give the TTL as a number.
    pub ttl_is_number: bool,
    /// Reads give types in capitals.
    pub types_upper: bool,
    /// Reads give empty lists instead of leaving them out.
    pub empty_lists_shown: bool,
    /// Reads give an empty second value instead of leaving it out.
    pub empty_values_shown: bool,
    /// The header of the signature is known only as `X-Signature`.
    pub signature_spelled: bool,
}

type Set = fn(&mut Switches) -> &mut bool;

/// All of them by name.
const NAMES: &[(&str, Set)] = &[
    ("append_resets_ttl", |all| &mut all.append_resets_ttl),
    ("replace_keeps_ttl", |all| &mut all.replace_keeps_ttl),
    ("upper_case_ignored", |all| &mut all.upper_case_ignored),
    ("upper_case_refused", |all| &mut all.upper_case_refused),
    ("nothing_is_success", |all| &mut all.nothing_is_success),
    ("duplicates_ignored", |all| &mut all.duplicates_ignored),
    ("absent_removal_refused", |all| &mut all.absent_removal_refused),
    ("typed_removal_takes_all", |all| &mut all.typed_removal_takes_all),
    ("removal_takes_one", |all| &mut all.removal_takes_one),
    ("removal_unsigned", |all| &mut all.removal_unsigned),
    ("apex_required", |all| &mut all.apex_required),
    ("limits_per_request", |all| &mut all.limits_per_request),
    ("shuffled", |all| &mut all.shuffled),
    ("always_200", |all| &mut all.always_200),
    ("code_is_string", |all| &mut all.code_is_string),
    ("ttl_is_number", |all| &mut all.ttl_is_number),
    ("types_upper", |all| &mut all.types_upper),
    ("empty_lists_shown", |all| &mut all.empty_lists_shown),
    ("empty_values_shown", |all| &mut all.empty_values_shown),
    ("signature_spelled", |all| &mut all.signature_spelled),
];

impl Switches {
    /// Turns one on, by its name.
    ///
    /// # Errors
    /// Names all there are when there is none of this name.
    pub fn turn_on(&mut self, name: &str) -> Result<(), String> {
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, of)) => {
                *of(self) = true;
                Ok(())
            }
            None => {
                let known: Vec<_> = NAMES.iter().map(|(known, _)| *known).collect();
                Err(format!("there is no switch {name:?}; there are {}", known.join(", ")))
            }
        }
    }

    /// Settings that between them have every switch both ways: all off, each one on alone, and all on.
    pub fn settings() -> Vec<(&'static str, Self)> {
        let one = |of: Set| {
            let mut setting = Self::default();
            *of(&mut setting) = true;
            setting
        };
        let mut all = Self::default();
        NAMES.iter().for_each(|(_, of)| *of(&mut all) = true);
        let each = NAMES.iter().map(|(name, of)| (*name, one(*of)));
        [("none", Self::default())].into_iter().chain(each).chain([("all", all)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{NAMES, Switches};

    #[test]
    fn every_switch_has_its_name() {
        let shown = format!("{:?}", Switches::settings().last().unwrap().1);
        assert_eq!(shown.matches("true").count(), NAMES.len());
        assert_eq!(shown.matches("false").count(), 0);
        let mut setting = Switches::default();
        setting.turn_on("shuffled").unwrap();
        assert!(setting.shuffled);
        assert!(setting.turn_on("sorted").unwrap_err().contains("apex_required"));
    }
}
