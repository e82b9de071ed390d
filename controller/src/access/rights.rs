//! What each call needs, in one table. Pure.
//!
//! A test holds the table to the schema: whoever adds a call to a service of the controller adds a line here.

use feather_proto::{
    error::Error,
    tls::{Principal, Role, entitled},
};

/// The least that a caller must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Least {
    /// Somebody with a token, and no certificate yet.
    Token,
    /// A server of the fleet, and nobody else.
    Agent,
    /// A person who may look.
    Viewer,
    /// A person who may change tenants.
    Operator,
    /// A person who may change the fleet.
    Admin,
}

/// What a call does to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it only looks.
    Looks,
    /// It changes something.
    Changes,
    /// It changes something, unless its field `dry_run` is set: then it looks, and this role will do.
    ChangesUnlessDry(Least),
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// `package.Service/Call`.
    pub rpc: &'static str,
    /// Who may make the call, unless it is a dry run.
    pub least: Least,
    /// What it does.
    pub effect: Effect,
}

use Effect::{Changes, ChangesUnlessDry, Looks};
use Least::{Admin, Agent, Operator, Token, Viewer};

const fn right(rpc: &'static str, least: Least, effect: Effect) -> Right {
    Right { rpc, least, effect }
}

/// All calls that the controller serves.
pub const RIGHTS: &[Right] = &[
    right("feather.controller.v1.AuditService/ListAudit", Admin, Looks),
    right("feather.controller.v1.AuditService/VerifyAudit", Admin, Looks),
    right("feather.controller.v1.BackupService/BackupVolume", Operator, Changes),
    right("feather.controller.v1.BackupService/ListBackupSchedules", Viewer, Looks),
    right("feather.controller.v1.BackupService/ListBackups", Viewer, Looks),
    right("feather.controller.v1.BackupService/RestoreVolume", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.BackupService/SetBackupSchedule", Operator, Changes),
    right("feather.controller.v1.BackupService/VerifyBackup", Operator, Looks),
    right("feather.controller.v1.CertService/GetCertStatus", Viewer, Looks),
    right("feather.controller.v1.CertService/RenewCert", Admin, Changes),
    right("feather.controller.v1.DnsService/AdoptDnsRecords", Admin, ChangesUnlessDry(Viewer)),
    right("feather.controller.v1.DnsService/ApplyDns", Admin, Changes),
    right("feather.controller.v1.DnsService/GetDnsStatus", Viewer, Looks),
    right("feather.controller.v1.DnsService/ListDnsRecords", Viewer, Looks),
    right("feather.controller.v1.DnsService/ListDnsSnapshots", Viewer, Looks),
    right("feather.controller.v1.DnsService/PlanDns", Viewer, Looks),
    right("feather.controller.v1.DnsService/RestoreDnsSnapshot", Admin, ChangesUnlessDry(Viewer)),
    right("feather.controller.v1.DnsService/SetIngress", Admin, ChangesUnlessDry(Viewer)),
    right("feather.controller.v1.EnrollmentService/CreateJoinToken", Admin, Changes),
    // For whoever has a certificate of an agent, also one that has ended.
    right("feather.controller.v1.EnrollmentService/GetStanding", Token, Looks),
    right("feather.controller.v1.EnrollmentService/Join", Token, Changes),
    right("feather.controller.v1.EnrollmentService/RenewCertificate", Agent, Changes),
    right("feather.controller.v1.EventService/WatchEvents", Viewer, Looks),
    right("feather.controller.v1.ImageService/ListImages", Viewer, Looks),
    right("feather.controller.v1.ImageService/LoadImage", Admin, Changes),
    right("feather.controller.v1.ImageService/SyncImage", Admin, Changes),
    right("feather.controller.v1.MemberService/AddMemberTenant", Agent, Changes),
    right("feather.controller.v1.MemberService/GetMemberOperation", Agent, Looks),
    right("feather.controller.v1.MemberService/RemoveMemberTenant", Agent, Changes),
    right("feather.controller.v1.MemberService/RestartMemberTenant", Agent, Changes),
    right("feather.controller.v1.MemberService/StartMemberTenant", Agent, Changes),
    right("feather.controller.v1.MemberService/StopMemberTenant", Agent, Changes),
    right("feather.controller.v1.OperationService/CancelOperation", Operator, Changes),
    right("feather.controller.v1.OperationService/GetOperation", Viewer, Looks),
    right("feather.controller.v1.OperationService/ListOperations", Viewer, Looks),
    right("feather.controller.v1.OperationService/RetryOperation", Operator, Changes),
    right("feather.controller.v1.OperationService/WatchOperation", Viewer, Looks),
    right("feather.controller.v1.ServerService/AdoptServer", Admin, ChangesUnlessDry(Viewer)),
    right("feather.controller.v1.ServerService/CordonServer", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.ServerService/DrainServer", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.ServerService/GetServer", Viewer, Looks),
    right("feather.controller.v1.ServerService/LabelServer", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.ServerService/ListServers", Viewer, Looks),
    right("feather.controller.v1.ServerService/LoseServer", Admin, ChangesUnlessDry(Viewer)),
    right("feather.controller.v1.ServerService/RemoveServer", Admin, ChangesUnlessDry(Admin)),
    right("feather.controller.v1.ServerService/RenameServer", Admin, ChangesUnlessDry(Viewer)),
    right("feather.controller.v1.ServerService/RetireServer", Admin, ChangesUnlessDry(Admin)),
    right("feather.controller.v1.ServerService/ReturnServer", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.ServerService/SwapAdmin", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.StatusService/Diagnose", Viewer, Looks),
    right("feather.controller.v1.StatusService/ExplainServer", Viewer, Looks),
    right("feather.controller.v1.StatusService/ExplainTenant", Viewer, Looks),
    right("feather.controller.v1.StatusService/GetStatus", Viewer, Looks),
    // It changes nothing, and takes everything away: it is put down.
    right("feather.controller.v1.StoreService/BackupStore", Admin, Changes),
    right("feather.controller.v1.TenantService/AddTenant", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.TenantService/GetTenant", Viewer, Looks),
    right("feather.controller.v1.TenantService/LimitTenant", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.TenantService/ListTenants", Viewer, Looks),
    right("feather.controller.v1.TenantService/MigrateTenant", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.TenantService/PlaceTenant", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.TenantService/RecoverTenant", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.TenantService/RemoveTenant", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.TenantService/ResetPassword", Operator, Changes),
    right("feather.controller.v1.TenantService/RestartTenant", Operator, Changes),
    right("feather.controller.v1.TenantService/StartTenant", Operator, Changes),
    right("feather.controller.v1.TenantService/StopTenant", Operator, Changes),
    right("feather.controller.v1.TenantService/TailLogs", Operator, Looks),
    right("feather.controller.v1.UserService/AddUser", Admin, Changes),
    // For another name it needs an admin; `users.rs` looks.
    right("feather.controller.v1.UserService/CreateWebToken", Viewer, Changes),
    right("feather.controller.v1.UserService/ListUsers", Viewer, Looks),
    right("feather.controller.v1.UserService/Login", Token, Changes),
    right("feather.controller.v1.UserService/RenewLogin", Viewer, Changes),
    right("feather.controller.v1.UserService/RevokeUser", Admin, Changes),
    right("feather.controller.v1.VolumeService/ExportVolume", Operator, Looks),
    right("feather.controller.v1.VolumeService/ImportVolume", Operator, Changes),
    right("feather.controller.v1.VolumeService/ListVolumes", Viewer, Looks),
    right("feather.controller.v1.VolumeService/VerifyVolume", Operator, Looks),
    right("feather.controller.v1.WaitlistService/Invite", Operator, ChangesUnlessDry(Operator)),
    right("feather.controller.v1.WaitlistService/ListEntries", Operator, Looks),
    right("feather.controller.v1.WaitlistService/RemoveEntry", Operator, Changes),
    right("feather.controller.v1.WarningService/AcknowledgeWarning", Operator, Changes),
    right("feather.controller.v1.WarningService/ListWarnings", Viewer, Looks),
    // Part of a move that somebody asked for in another call; the ticket is checked where it is served.
    right("feather.agent.v1.TransferService/SendVolume", Agent, Looks),
];

/// What a controller shows that waits to lead: what the store and the servers say. What else the leader alone knows (how far a zone, a
/// certificate, a transfer is) is asked of the leader.
const SHOWN_WHILE_WAITING: &[&str] = &[
    "feather.controller.v1.AuditService/ListAudit",
    "feather.controller.v1.AuditService/VerifyAudit",
    "feather.controller.v1.BackupService/ListBackupSchedules",
    "feather.controller.v1.EventService/WatchEvents",
    "feather.controller.v1.OperationService/GetOperation",
    "feather.controller.v1.OperationService/ListOperations",
    "feather.controller.v1.ServerService/GetServer",
    "feather.controller.v1.ServerService/ListServers",
    "feather.controller.v1.StatusService/ExplainServer",
    "feather.controller.v1.StatusService/ExplainTenant",
    "feather.controller.v1.StatusService/GetStatus",
    "feather.controller.v1.TenantService/GetTenant",
    "feather.controller.v1.TenantService/ListTenants",
    "feather.controller.v1.UserService/ListUsers",
    "feather.controller.v1.VolumeService/ListVolumes",
    "feather.controller.v1.WarningService/ListWarnings",
];

impl Least {
    /// Whom it lets in; nobody in particular for a call that needs no certificate.
    fn roles(self) -> &'static [Role] {
        match self {
            Token => &[],
            Agent => &[Role::Agent],
            Viewer => &[Role::Viewer, Role::Operator, Role::Admin],
            Operator => &[Role::Operator, Role::Admin],
            Admin => &[Role::Admin],
        }
    }
}

/// The line for a path of a request; none for health, reflection, and what is not served here.
pub fn of(path: &str) -> Option<&'static Right> {
    let rpc = path.strip_prefix('/')?;
    RIGHTS.iter().find(|right| right.rpc == rpc)
}

impl Right {
    /// Does a call change something?
    pub fn changes(&self, dry_run: bool) -> bool {
        match self.effect {
            Looks => false,
            Changes => true,
            ChangesUnlessDry(_) => !dry_run,
        }
    }

    /// Does a controller answer it that waits to lead?
    pub fn shown_while_waiting(&self) -> bool {
        SHOWN_WHILE_WAITING.contains(&self.rpc)
    }

    /// May this caller make the call?
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a certificate, `PERMISSION_DENIED` with one of another role.
    pub fn check(&self, caller: Option<Principal>, dry_run: bool) -> Result<(), Error> {
        let least = match self.effect {
            ChangesUnlessDry(least) if dry_run => least,
            _ => self.least,
        };
        if least == Token {
            return Ok(());
        }
        entitled(caller, least.roles()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use feather_proto::{
        describe,
        error::{Code, reason},
        tls::{Principal, Role},
    };

    use super::{Effect, Least, RIGHTS, of};

    fn person(role: Role) -> Option<Principal> {
        Some(Principal { role, name: "ada".into() })
    }

    #[test]
    fn every_call_of_the_schema_has_its_line_and_no_line_is_of_none() {
        let listed: BTreeSet<String> = RIGHTS.iter().map(|right| right.rpc.to_owned()).collect();
        assert_eq!(listed.len(), RIGHTS.len(), "a call is listed twice");
        let served: BTreeSet<String> = describe::methods()
            .into_iter()
            .map(|method| method.rpc)
            .filter(|rpc| rpc.starts_with("feather.controller."))
            .chain(["feather.agent.v1.TransferService/SendVolume".to_owned()])
            .collect();
        let missing: Vec<_> = served.difference(&listed).collect();
        assert!(
            missing.is_empty(),
            "say in RIGHTS who may make these calls, and whether they change something: {missing:?}"
        );
        let idle: Vec<_> = listed.difference(&served).collect();
        assert!(idle.is_empty(), "these calls are in no service: {idle:?}");
    }

    #[test]
    fn what_waits_to_lead_only_shows() {
        for rpc in super::SHOWN_WHILE_WAITING {
            let right = of(&format!("/{rpc}")).unwrap();
            assert!(right.effect == Effect::Looks && right.shown_while_waiting(), "{rpc}");
        }
        assert!(!of("/feather.controller.v1.TenantService/AddTenant").unwrap().shown_while_waiting());
    }

    #[test]
    fn a_dry_run_is_known_by_its_field() {
        for method in describe::methods().iter().filter(|method| method.rpc.starts_with("feather.controller.")) {
            let right = of(&format!("/{}", method.rpc)).unwrap();
            let dry = matches!(right.effect, Effect::ChangesUnlessDry(_));
            assert_eq!(method.has_dry_run, dry, "{}: its field dry_run and its line do not agree", method.rpc);
        }
    }

    #[test]
    fn roles_are_ordered_and_servers_are_apart() {
        for (least, may) in [
            (Least::Viewer, [true, true, true, false, false]),
            (Least::Operator, [false, true, true, false, false]),
            (Least::Admin, [false, false, true, false, false]),
            (Least::Agent, [false, false, false, true, false]),
            (Least::Token, [true; 5]),
        ] {
            let right = super::right("x", least, Effect::Looks);
            let roles = [Role::Viewer, Role::Operator, Role::Admin, Role::Agent, Role::Controller];
            for (role, may) in roles.into_iter().zip(may) {
                let verdict = right.check(person(role), false);
                assert_eq!(verdict.is_ok(), may, "{role} where {least:?} is needed");
                assert!(verdict.is_ok() || verdict.is_err_and(|error| error.is(reason::ROLE)));
            }
            let nobody = right.check(None, false).err().map(|error| error.code);
            assert_eq!(nobody, (least != Least::Token).then_some(Code::Unauthenticated));
        }
    }

    #[test]
    fn a_dry_run_needs_less_where_the_table_says_so() {
        let adopt = of("/feather.controller.v1.ServerService/AdoptServer").unwrap();
        assert!(adopt.check(person(Role::Viewer), true).is_ok() && !adopt.changes(true));
        assert!(adopt.check(person(Role::Operator), false).is_err() && adopt.changes(false));
        let remove = of("/feather.controller.v1.ServerService/RemoveServer").unwrap();
        assert!(remove.check(person(Role::Operator), true).is_err());
        assert!(of("/grpc.health.v1.Health/Check").is_none() && of("feather").is_none());
    }
}
