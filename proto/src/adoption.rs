//! What is found on a server that was run by the old script, as strict types.
//!
//! Owns the words in which agents, the controller and featherctl tell of it. Decides nothing.

use crate::{
    error::Error,
    model::invalid_field,
    pb::types::v1::{self as pb, AdoptionAction},
};

/// What is, or was, done about something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It fits.
    Adopt,
    /// It has become a tenant by this call.
    Adopted,
    /// It is a tenant already.
    Known,
    /// Only a volume; it stays.
    Keep,
    /// It does not fit.
    Misfit,
}

const ACTIONS: [(Action, AdoptionAction); 5] = [
    (Action::Adopt, AdoptionAction::Adopt),
    (Action::Adopted, AdoptionAction::Adopted),
    (Action::Known, AdoptionAction::Known),
    (Action::Keep, AdoptionAction::Keep),
    (Action::Misfit, AdoptionAction::Misfit),
];

/// One name that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// As it was found; possibly no name that a tenant may have.
    pub name: String,
    /// It is in the old script's file.
    pub listed: bool,
    /// There is a container of this name.
    pub container: bool,
    /// That container runs.
    pub running: bool,
    /// It shares the network of the birth container.
    pub host_network: bool,
    /// There is a volume of this name.
    pub volume: bool,
    /// The reverse proxy has a route for it.
    pub routed: bool,
    /// Port that it has, or gets at its next start.
    pub port: Option<u16>,
    /// What is, or was, done.
    pub action: Action,
    /// Why it does not fit and what to do.
    pub why: Option<String>,
    /// What a person should know although it fits.
    pub notes: Vec<String>,
}

impl Finding {
    /// The same, as something that does not fit.
    #[must_use]
    pub fn misfit(self, why: String) -> Self {
        Self { action: Action::Misfit, why: Some(why), ..self }
    }
}

impl From<Finding> for pb::AdoptionFinding {
    fn from(finding: Finding) -> Self {
        let action = ACTIONS.iter().find(|(action, _)| *action == finding.action);
        Self {
            name: finding.name,
            listed: finding.listed,
            container: finding.container,
            running: finding.running,
            host_network: finding.host_network,
            volume: finding.volume,
            routed: finding.routed,
            port: finding.port.map_or(0, u32::from),
            action: action.map_or(AdoptionAction::Unspecified, |(_, pb)| *pb).into(),
            why: finding.why.unwrap_or_default(),
            notes: finding.notes,
        }
    }
}

impl TryFrom<pb::AdoptionFinding> for Finding {
    type Error = Error;

    fn try_from(pb: pb::AdoptionFinding) -> Result<Self, Error> {
        let action = ACTIONS.iter().find(|(_, known)| *known == pb.action());
        let port = u16::try_from(pb.port).map_err(|_| invalid_field("port", "a port number"))?;
        Ok(Self {
            action: action
                .map(|(action, _)| *action)
                .ok_or_else(|| invalid_field("action", "one of its named values"))?,
            name: pb.name,
            listed: pb.listed,
            container: pb.container,
            running: pb.running,
            host_network: pb.host_network,
            volume: pb.volume,
            routed: pb.routed,
            port: (port > 0).then_some(port),
            why: (!pb.why.is_empty()).then_some(pb.why),
            notes: pb.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ACTIONS, Finding};
    use crate::pb::types::v1 as pb;

    #[test]
    fn a_finding_survives_the_wire() {
        for (action, _) in ACTIONS {
            let finding = Finding {
                name: "alice".into(),
                listed: true,
                container: true,
                running: true,
                host_network: true,
                volume: true,
                routed: true,
                port: Some(9001),
                action,
                why: Some("why".into()),
                notes: vec!["note".into()],
            };
            let wire = pb::AdoptionFinding::from(finding.clone());
            assert_eq!(Finding::try_from(wire.clone()).unwrap(), finding);
            assert!(Finding::try_from(pb::AdoptionFinding { action: 0, ..wire.clone() }).is_err());
            assert!(Finding::try_from(pb::AdoptionFinding { port: 70_000, ..wire }).is_err());
        }
    }
}
