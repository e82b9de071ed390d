//! What operators say of a server: whether it takes new tenants, and its labels. Pure.
//!
//! Knows nothing of what the server reports. The store keeps it with a version, so that of two changes at the same moment one
//! is refused.

use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
    labels::{Label, LabelName, Labels},
};

use crate::world::World;

/// What is kept of a server beside its membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// It takes no new tenants.
    pub cordoned: bool,
    /// What it is, for placement.
    pub labels: Labels,
    /// Counts changes.
    pub version: i64,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { cordoned: false, labels: Labels::default(), version: 1 }
    }
}

/// A change of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Takes new tenants, or not.
    Cordon(bool),
    /// Labels that are set, and names of those that go.
    Labels {
        /// Set, whatever they were.
        set: Labels,
        /// Gone, if they were there.
        remove: Vec<LabelName>,
    },
}

/// What it is after a change; the same when the change says nothing new.
///
/// # Errors
/// A label is both set and removed, or there would be too many.
pub fn edited(now: &Upkeep, edit: &Edit) -> Result<Upkeep, Error> {
    let mut new = now.clone();
    match edit {
        Edit::Cordon(cordoned) => new.cordoned = *cordoned,
        Edit::Labels { set, remove } => {
            if let Some(both) = remove.iter().find(|name| set.0.contains_key(*name)) {
                return Err(Error::invalid(
                    reason::INVALID_FIELD,
                    format!("the label {both} is to be both set and removed; say one of the two"),
                ));
            }
            new.labels.0.retain(|name, _| !remove.contains(name) && !set.0.contains_key(name));
            let kept = new.labels.0.into_iter().map(|(name, value)| Label { name, value });
            new.labels = Labels::new(kept)?.and(set)?;
        }
    }
    if new != *now {
        new.version += 1;
    }
    Ok(new)
}

/// Changes it in the store, unless it is so already or this is a dry run. Returns what it is, or would be, and whether that is new.
///
/// # Errors
/// No such server, a bad edit, or somebody else changed it at the same moment.
pub async fn edit(world: &World, server: &ServerName, edit: &Edit, dry_run: bool) -> Result<(Upkeep, bool), Error> {
    let now = world.store.member(server).await?.upkeep;
    let new = edited(&now, edit)?;
    let changed = new != now;
    if changed && !dry_run {
        world.store.set_upkeep(server, now.version, &new).await?;
        world.ring_desired();
    }
    Ok((new, changed))
}

#[cfg(test)]
mod tests {
    use feather_proto::labels::Labels;

    use super::{Edit, Upkeep, edited};

    fn labels(text: &str) -> Labels {
        Labels::new(text.split_whitespace().map(|one| one.parse().unwrap())).unwrap()
    }

    #[test]
    fn a_change_counts_and_what_is_so_already_is_none() {
        let cordoned = edited(&Upkeep::default(), &Edit::Cordon(true)).unwrap();
        assert_eq!((cordoned.cordoned, cordoned.version), (true, 2));
        assert_eq!(edited(&cordoned, &Edit::Cordon(true)).unwrap(), cordoned);
        let again = edited(&cordoned, &Edit::Cordon(false)).unwrap();
        assert_eq!((again.cordoned, again.version), (false, 3));
    }

    #[test]
    fn labels_are_set_anew_and_removed_by_name() {
        let now = Upkeep { labels: labels("region=eu rack=7"), ..Upkeep::default() };
        let edit = |set: &str, remove: &[&str]| {
            let remove = remove.iter().map(|name| name.parse().unwrap()).collect();
            edited(&now, &Edit::Labels { set: labels(set), remove })
        };
        assert_eq!(edit("region=us disk=ssd", &["rack"]).unwrap().labels, labels("disk=ssd region=us"));
        assert_eq!(edit("region=eu", &["absent"]).unwrap(), now);
        assert!(edit("rack=8", &["rack"]).unwrap_err().message.contains("both set and removed"));
        let many: Vec<_> = (0..31).map(|number| format!("n{number}=v")).collect();
        assert!(edit(&many.join(" "), &[]).is_err(), "33 labels");
    }
}
