//! Every kind of condition: what makes it, what cures it, and what nobody can tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, OperationId, ServerName},
    model::{ContainerState, Image, Residence, ServerSnapshot, TenantReport},
    version::{self, Range},
};
use time::{Duration, OffsetDateTime};

use super::{Condition, Judgement, Scope, View, judge, likeness, scarce};
use crate::{
    certificate,
    dns::{self, Pass, remarks::Remark},
    fleet::{Observed, Reachability},
    operations::{Kind as OperationKind, State, Subject},
    store::{OperationRow, ServerRow, TenantRow, TenantState, warnings::WarningRow},
    warnings::Kind,
};

const GIB: u64 = 1 << 30;

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000)
}

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

/// A world in which all is well, to be spoilt.
struct Scene {
    members: Vec<ServerRow>,
    tenants: Vec<TenantRow>,
    running: Vec<OperationRow>,
    observed: BTreeMap<ServerName, Observed>,
    zone: Option<dns::Standing>,
    certificate: Option<certificate::Standing>,
    kept: Vec<WarningRow>,
}

fn well(server: &str) -> ServerSnapshot {
    let work = Image { reference: "work".into(), digest: "sha256:1".into(), size_bytes: 1 };
    ServerSnapshot {
        version: "1.0.0".into(),
        memory_total_bytes: 4 * GIB,
        memory_free_bytes: 2 * GIB,
        disk_total_bytes: 100 * GIB,
        disk_free_bytes: 50 * GIB,
        images: vec![work],
        work_image: "work".into(),
        now: now(),
        identity_ends: Some(now() + Duration::hours(20)),
        ..ServerSnapshot::empty(name(server))
    }
}

fn report(residence: Residence, container: ContainerState) -> TenantReport {
    TenantReport {
        container,
        port: Some(9001),
        ..TenantReport::bare("alice".parse().unwrap(), Generation(1), residence)
    }
}

impl Scene {
    fn new() -> Self {
        let member = |server: &str| ServerRow {
            name: name(server),
            identity: name(server),
            address: format!("{server}:7443"),
            public_address: server.into(),
            key_fingerprint: String::new(),
            joined: OffsetDateTime::UNIX_EPOCH,
            upkeep: Default::default(),
        };
        let alice = TenantRow {
            name: "alice".parse().unwrap(),
            state: TenantState::Active,
            server: Some(name("nyc")),
            previous_server: None,
            generation: Generation(1),
            generation_issued: Generation(2),
            running: true,
            created: OffsetDateTime::UNIX_EPOCH,
            version: 1,
            bounds: Default::default(),
            limits: Default::default(),
        };
        let mut scene = Self {
            members: ["ams", "fra", "nyc"].map(member).to_vec(),
            tenants: vec![alice],
            running: Vec::new(),
            observed: BTreeMap::new(),
            zone: None,
            certificate: None,
            kept: Vec::new(),
        };
        ["ams", "fra", "nyc"].into_iter().for_each(|server| scene.sees(server, well(server)));
        scene.on("nyc").tenants = vec![report(Residence::Running, ContainerState::Running)];
        scene
    }

    fn sees(&mut self, server: &str, snapshot: ServerSnapshot) {
        let observed =
            Observed { snapshot: Some(snapshot.into()), last_seen: Some(now()), reachability: Reachability::Alive };
        self.observed.insert(name(server), observed);
    }

    fn on(&mut self, server: &str) -> &mut ServerSnapshot {
        Arc::make_mut(self.observed.get_mut(&name(server)).unwrap().snapshot.as_mut().unwrap())
    }

    fn is(&mut self, server: &str, reachability: Reachability) {
        self.observed.get_mut(&name(server)).unwrap().reachability = reachability;
    }

    fn judged(&self) -> Judgement {
        judge(&View {
            now: now(),
            version: "1.0.0",
            domain_suffix: "users.example.com",
            members: &self.members,
            tenants: &self.tenants,
            running: &self.running,
            observed: &self.observed,
            ingress: Some(&name("ams")),
            former: &BTreeSet::new(),
            zone: self.zone.as_ref(),
            certificate: self.certificate.as_ref(),
            disk_headroom_bytes: GIB,
            tenant_memory_bytes: 64 << 20,
            schedules: &[],
            backups: &[],
            kept: &self.kept,
        })
    }

    fn ids(&self) -> Vec<String> {
        self.judged().conditions.iter().map(Condition::id).collect()
    }
}

fn zone(outcome: Result<String, Error>, remarks: Vec<Remark>, late: Option<Vec<String>>) -> dns::Standing {
    let pass = Some(Pass { at: now(), outcome, remarks });
    dns::Standing { pass, late, authorities_problem: None, forwards_end: true }
}

#[test]
fn a_fleet_that_is_well_has_no_warning() {
    let mut scene = Scene::new();
    assert_eq!(scene.judged(), Judgement::default());
    scene.zone = Some(zone(Ok("as wanted".into()), vec![], Some(vec![])));
    let life = Some((now() - Duration::days(1), now() + Duration::days(89)));
    scene.certificate = Some(certificate::Standing { warning: None, life, loaded: true });
    assert_eq!(scene.judged(), Judgement::default());
}

#[test]
fn silence_is_told_and_says_nothing_about_what_was_behind_it() {
    let mut scene = Scene::new();
    scene.on("nyc").problems = vec!["Podman does not answer".into()];
    scene.is("nyc", Reachability::Silent("its stream went silent".into()));
    let judged = scene.judged();
    assert_eq!(scene.ids(), ["unreachable/nyc"]);
    assert!(judged.conditions[0].message.contains("(its stream went silent)"), "{judged:?}");
    assert!(judged.blind.contains(&Scope::Server(name("nyc"))));
    // A controller that has just started knows nothing yet.
    scene.is("nyc", Reachability::Connecting);
    let judged = scene.judged();
    assert_eq!((judged.conditions, judged.blind.len()), (vec![], 1));
}

#[test]
fn problems_are_told_one_by_one_whatever_they_count() {
    let mut scene = Scene::new();
    scene.on("nyc").problems = vec!["Caddy gave no answer for 12 s".into(), "the ledger cannot be written".into()];
    let before = scene.ids();
    assert_eq!(before.len(), 2);
    scene.on("nyc").problems[0] = "Caddy gave no answer for 40 s".into();
    assert_eq!(scene.ids(), before);
    assert_ne!(likeness("a"), likeness("b"));
    for (one, other) in [("user1 is sick", "user2 is sick"), ("on 10.0.0.1", "on 10.0.0.2"), ("a-1_b", "a-2_b")] {
        assert_ne!(likeness(one), likeness(other), "a number in a name is part of it");
    }
    assert_eq!(likeness("it failed 3 times, the last at 12."), likeness("it failed 40 times, the last at 9."));
    // Two that are alike are one, which says both.
    scene.on("nyc").problems =
        vec!["port 81 is taken".into(), "port 82 is taken".into(), "user1 hangs".into(), "user2 hangs".into()];
    let judged = scene.judged().conditions;
    assert_eq!(judged.len(), 3, "{judged:#?}");
    assert!(judged[0].message.contains("port 81") && judged[0].message.contains("port 82"), "{judged:#?}");
    // What `server show` calls a problem is one here, too.
    let mut scene = Scene::new();
    scene.on("fra").images.clear();
    assert!(scene.judged().conditions[0].message.contains("`featherctl image load fra FILE`"));
}

#[test]
fn little_room_is_told_until_there_is_clearly_more() {
    let mut scene = Scene::new();
    scene.on("nyc").disk_free_bytes = 6 * GIB;
    assert_eq!(scene.ids(), [""; 0]);
    scene.on("nyc").disk_free_bytes = 4 * GIB;
    scene.on("fra").memory_free_bytes = 60 << 20;
    assert_eq!(scene.ids(), ["memory/fra", "disk/nyc"]);
    scene.kept = vec![WarningRow {
        id: "disk/nyc".into(),
        kind: "disk".into(),
        subject: "server/nyc".into(),
        scope: "server/nyc".into(),
        message: String::new(),
        since: now(),
        raised: Some(now()),
        acknowledged: None,
    }];
    (scene.on("nyc").disk_free_bytes, scene.on("fra").memory_free_bytes) = (6 * GIB, GIB);
    assert_eq!(scene.ids(), ["disk/nyc"]);
    scene.on("nyc").disk_free_bytes = 8 * GIB;
    assert_eq!(scene.ids(), [""; 0]);
    // A size that is not known is no lack.
    assert!(!scarce(0, 0, GIB, false));
}

#[test]
fn who_speaks_another_protocol_is_told_with_who_is_to_be_upgraded() {
    let mut scene = Scene::new();
    scene.on("fra").protocol = version::SILENT;
    scene.on("nyc").protocol = Range::new(version::CURRENT, version::CURRENT + 1).unwrap();
    let conditions = scene.judged().conditions;
    let told: Vec<_> =
        conditions.iter().map(|one| (one.id(), one.message.contains("upgrade the controller"))).collect();
    assert_eq!(told, [("protocol/fra".to_owned(), false), ("protocol/nyc".to_owned(), true)]);
    assert!(conditions[0].message.contains("upgrade the agent of fra"), "{}", conditions[0].message);
}

#[test]
fn who_serves_its_tenants_under_other_names_is_told_with_both() {
    let mut scene = Scene::new();
    scene.on("ams").domain_suffix = "Users.Example.com.".into();
    scene.on("nyc").domain_suffix = "users.inceptel.ai".into();
    // Of fra nothing is known: its agent is of the release before.
    assert_eq!(scene.ids(), ["domain-suffix/nyc"]);
    let message = &scene.judged().conditions[0].message;
    for named in ["NAME.users.inceptel.ai", "NAME.users.example.com", "FEATHER_AGENT_DOMAIN_SUFFIX=users.example.com"] {
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn clocks_versions_and_certificates_of_servers_are_compared() {
    let mut scene = Scene::new();
    scene.on("nyc").now = now() - Duration::seconds(11);
    scene.on("fra").version = "0.9.0".into();
    scene.on("ams").identity_ends = Some(now() + Duration::hours(3));
    assert_eq!(scene.ids(), ["server-certificate/ams", "version/fra", "clock/nyc"]);
    assert!(scene.judged().conditions[2].message.contains("11 s behind"));
    let mut scene = Scene::new();
    scene.on("nyc").now = now() + Duration::seconds(9);
    scene.on("nyc").identity_ends = None;
    // Of two minds: the controller's version is the one.
    scene.on("fra").version = "0.9.0".into();
    scene.members.retain(|row| row.name != name("ams"));
    scene.observed.remove(&name("ams"));
    assert_eq!(scene.ids(), ["version/fra"]);
}

#[test]
fn tenants_that_are_not_as_they_should_be_are_told_unless_somebody_changes_them() {
    let mut scene = Scene::new();
    scene.on("nyc").tenants[0].watch.crash_loop = true;
    assert_eq!(scene.ids(), ["crash-loop/alice"]);
    scene.on("nyc").tenants.clear();
    assert_eq!(scene.ids(), ["broken/alice"]);
    let operation = |state| OperationRow {
        id: OperationId::from_uuid(uuid::Uuid::from_u128(1)),
        kind: OperationKind::Migrate,
        subject: Subject::Tenant("alice".parse().unwrap()),
        source: Some(name("nyc")),
        target: Some(name("fra")),
        state,
        plan: serde_json::Value::Null,
        facts: serde_json::Value::Null,
        requested_by: "admin/admin".into(),
        trace: None,
        error: Some(Error::unavailable(reason::SERVER_UNREACHABLE, "fra does not answer")),
        hint: Some("check fra".into()),
        created: now(),
        ended: None,
        parent: None,
    };
    scene.running = vec![operation(State::Running)];
    assert_eq!(scene.ids(), [""; 0]);
    scene.running = vec![operation(State::Stuck)];
    let judged = scene.judged();
    assert_eq!(scene.ids(), ["stuck/alice"]);
    for part in ["migrate of alice is stuck", "fra does not answer", "check fra", "`featherctl operation show op-"] {
        assert!(judged.conditions[0].message.contains(part), "{part}: {judged:?}");
    }
}

#[test]
fn a_forward_is_told_only_where_it_should_end() {
    let mut scene = Scene::new();
    let departed =
        TenantReport { forward_to: Some("nyc:80".into()), ..report(Residence::Departed, ContainerState::Missing) };
    scene.on("fra").tenants = vec![departed.clone()];
    scene.on("ams").tenants = vec![departed];
    // Nobody asks name servers: none ends by itself.
    assert_eq!(scene.ids(), [""; 0]);
    scene.zone = Some(zone(Ok(String::new()), vec![], Some(vec![])));
    assert_eq!(scene.ids(), ["forward/fra/alice"]);
}

#[test]
fn what_the_zone_says_is_told_and_a_provider_that_does_not_answer_cures_nothing() {
    let mut scene = Scene::new();
    let remark = Remark { kind: Kind::DnsConflict, about: "alice.example.com".into(), message: "in the way".into() };
    scene.zone = Some(zone(Ok(String::new()), vec![remark], Some(vec!["bob.example.com".into()])));
    assert_eq!(scene.ids(), ["dns-conflict/alice.example.com", "dns-name/bob.example.com"]);
    scene.zone = Some(zone(Err(Error::unavailable(reason::DNS, "no answer")), vec![], None));
    let judged = scene.judged();
    assert_eq!(scene.ids(), ["dns-provider"]);
    assert_eq!(judged.blind.into_iter().collect::<Vec<_>>(), [Scope::Zone, Scope::Authorities]);
    scene.zone = Some(zone(Err(Error::refused(reason::DNS_CAP, "40 names would change")), vec![], Some(vec![])));
    assert_eq!(scene.ids(), ["dns-refused"]);
    scene.zone.as_mut().unwrap().pass = None;
    assert_eq!(scene.judged().blind.into_iter().collect::<Vec<_>>(), [Scope::Zone, Scope::Provider]);
}

#[test]
fn the_certificate_is_told_when_it_is_not_renewed_and_before_it_ends() {
    let mut scene = Scene::new();
    let life = |left| Some((now() - Duration::days(90) + left, now() + left));
    let warning = Some("no new certificate".to_owned());
    let mut standing = certificate::Standing { warning, life: life(Duration::days(16)), loaded: true };
    scene.certificate = Some(standing.clone());
    assert_eq!(scene.ids(), ["certificate"]);
    standing.life = life(Duration::days(14));
    scene.certificate = Some(standing.clone());
    assert_eq!(scene.ids(), ["certificate", "certificate-end"]);
    standing = certificate::Standing { warning: None, life: None, loaded: false };
    scene.certificate = Some(standing);
    assert_eq!(scene.judged().blind.into_iter().collect::<Vec<_>>(), [Scope::Certificate]);
}
