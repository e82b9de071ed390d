use std::collections::BTreeMap;

use feather_proto::{adoption::Action, ids::Generation, model::ContainerState};

use super::{Judged, OldFile, Survey, Verdict, Wish, plan};
use crate::{
    ledger::{Desired, Record, Residence},
    router::Route,
    runtime::{Container, Home, Inspected, Network},
};

const WORK: &str = "sha256:work";

fn published(port: u16) -> Network {
    Network::Published { port, loopback: true }
}

/// As the old script makes it.
fn container(name: &str, state: ContainerState, network: Network) -> Inspected {
    Inspected {
        container: Container {
            name: format!("feather-user-{name}"),
            id: format!("id-of-{name}"),
            state,
            image_digest: WORK.into(),
            host_port: None,
            labels: BTreeMap::new(),
        },
        image: "localhost/feather-work:latest".into(),
        created: time::OffsetDateTime::UNIX_EPOCH,
        home: Some(Home::Volume(format!("feather-user-{name}"))),
        other_mounts: vec![],
        network,
        environment: [("FEATHER_PASSWORD", "x7k9m2"), ("OPENAI_API_KEY", "k")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    }
}

fn survey(file: &str, containers: Vec<Inspected>) -> Survey {
    let name = |one: &Inspected| one.container.name.trim_start_matches("feather-user-").to_owned();
    Survey {
        file: OldFile::parse(file.as_bytes()),
        volumes: containers.iter().map(name).collect(),
        containers: containers.into_iter().map(|one| (name(&one), one)).collect(),
        routes: BTreeMap::new(),
        records: vec![],
        damaged: [].into(),
        ports: 9001..=9003,
        answering: (9001..=9999).collect(),
        work_image: ("localhost/feather-work:latest".into(), Some(WORK.into())),
        passed_variables: ["OPENAI_API_KEY".to_owned()].into(),
        now: time::OffsetDateTime::UNIX_EPOCH,
        wish: Wish::default(),
    }
}

fn only(survey: &Survey) -> Judged {
    let mut all = plan(survey);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Port, password, is it running; or why not.
fn fits(judged: &Judged) -> Result<(u16, &str, bool), &str> {
    match &judged.verdict {
        Verdict::Adopt(candidate) => Ok((candidate.port, candidate.password.expose(), candidate.running.is_some())),
        Verdict::Misfit(why) => Err(why),
        Verdict::Known | Verdict::Keep => panic!("{judged:?}"),
    }
}

use ContainerState::{Exited, Running};

#[test]
fn what_the_old_script_made_fits_without_a_remark() {
    let mut survey =
        survey(r#"{"alice":{"port":9001,"password":"x7k9m2"}}"#, vec![container("alice", Running, published(9001))]);
    survey.routes.insert("alice".parse().unwrap(), Route::Serve { port: 9001 });
    let alice = only(&survey);
    assert_eq!(fits(&alice), Ok((9001, "x7k9m2", true)));
    assert_eq!(alice.notes, Vec::<String>::new());
    let finding = survey.finding(&alice);
    assert!(finding.listed && finding.container && finding.running && finding.volume && finding.routed);
    assert_eq!((finding.action, finding.port), (Action::Adopt, Some(9001)));
}

#[test]
fn what_runs_counts_more_than_what_the_file_says() {
    let file = r#"{"alice":{"port":9002,"password":"other1"}}"#;
    let mut survey = survey(file, vec![container("alice", Running, published(9001))]);
    survey.routes.insert("alice".parse().unwrap(), Route::Serve { port: 9003 });
    let alice = only(&survey);
    assert_eq!(fits(&alice), Ok((9001, "x7k9m2", true)));
    let notes = alice.notes.join("; ");
    for words in ["another password", "another port; 9001", "put right: 9001"] {
        assert!(notes.contains(words), "{notes}");
    }
    assert!(!notes.contains("other1") && !notes.contains("x7k9m2"));
}

#[test]
fn a_container_on_the_hosts_network_is_where_it_answers() {
    let host = |variables: &[(&str, &str)]| {
        let mut one = container("alice", Running, Network::Host);
        one.environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        one
    };
    let answering = |file: &str, variables: &[(&str, &str)], routed: Option<u16>, ports: &[u16]| {
        let mut survey = survey(file, vec![host(variables)]);
        survey.routes.extend(routed.map(|port| ("alice".parse().unwrap(), Route::Serve { port })));
        survey.answering = ports.iter().copied().collect();
        fits(&only(&survey)).map(|(port, _, _)| port).map_err(str::to_owned)
    };
    assert_eq!(answering("{}", &[("PORT", "9002")], None, &[9002]), Ok(9002));
    assert_eq!(answering(r#"{"alice":{"port":9003}}"#, &[], None, &[9003]), Ok(9003));
    assert_eq!(answering(r#"{"alice":{"port":9003}}"#, &[("PORT", "9002")], None, &[9002, 9003]), Ok(9002));
    assert_eq!(answering("{}", &[], Some(9001), &[9001]), Ok(9001));
    assert!(answering("{}", &[("PORT", "9002")], None, &[]).unwrap_err().contains("answers no health check"));
    assert!(answering("{}", &[], None, &[9001]).is_err());
}

#[test]
fn stopped_ones_stay_stopped_and_get_a_port_that_nobody_has() {
    let alice = container("alice", Running, published(9001));
    let bob = container("bob", Exited, published(9001));
    let carol = container("carol", Exited, Network::Host);
    let survey = survey(r#"{"carol":{"port":9002}}"#, vec![bob, alice, carol]);
    let all = plan(&survey);
    let ports: Vec<_> = all.iter().map(|judged| fits(judged).unwrap()).collect();
    assert_eq!(ports, [(9001, "x7k9m2", true), (9002, "x7k9m2", false), (9003, "x7k9m2", false)]);
    assert!(all[1].notes[0].contains("port 9001 belongs to alice; it gets 9002"), "{:?}", all[1].notes);
    assert!(all[1].notes[1].contains("featherctl tenant start bob"), "{:?}", all[1].notes);
}

#[test]
fn a_full_range_or_a_taken_port_is_a_misfit() {
    let mut full = survey(
        "{}",
        vec![
            container("alice", Running, published(9001)),
            container("bob", Running, published(9002)),
            container("carol", Running, published(9003)),
            container("dave", Exited, published(9001)),
        ],
    );
    assert!(fits(&plan(&full)[3]).unwrap_err().contains("widen --ports"));
    full.containers.remove("dave");
    full.volumes.remove("dave");
    full.containers.get_mut("bob").unwrap().network = published(9001);
    assert!(fits(&plan(&full)[1]).unwrap_err().contains("port 9001 belongs to alice"));
    let mut record = Record::floor("zoe".parse().unwrap(), Generation(1));
    record.incoming = Some(crate::ledger::Incoming {
        generation: Generation(1),
        port: 9003,
        image_digest: String::new(),
        stage: feather_proto::model::IncomingStage::Reserved,
        spec: None,
    });
    full.records.push(record);
    assert!(fits(&plan(&full)[2]).unwrap_err().contains("port 9003 belongs to zoe"));
}

#[test]
fn a_port_outside_of_the_range_and_another_image_are_kept_with_a_remark() {
    let mut one = container("alice", Running, Network::Published { port: 9500, loopback: false });
    one.container.image_digest = "sha256:old".into();
    one.image = "localhost/older:1".into();
    one.environment.insert("LANG".into(), "C".into());
    one.container.labels.insert("feather.generation".into(), "7".into());
    let alice = only(&survey("{}", vec![one]));
    assert_eq!(fits(&alice).unwrap().0, 9500);
    let notes = alice.notes.join("; ");
    for words in ["localhost/older:1", "LANG", "open to the network", "not one of 9001-9003"] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    let Verdict::Adopt(candidate) = alice.verdict else { panic!() };
    assert_eq!((candidate.image_digest.as_str(), candidate.seen), ("sha256:old", Generation(7)));
}

#[test]
fn whatever_would_lose_data_or_keep_the_user_out_is_a_misfit_that_says_what_to_do() {
    let change = |change: &dyn Fn(&mut Inspected)| {
        let mut one = container("alice", Running, published(9001));
        change(&mut one);
        survey("{}", vec![one])
    };
    type Change<'a> = &'a dyn Fn(&mut Inspected);
    let table: [(Change<'_>, &str); 8] = [
        (&|one| one.home = Some(Home::Directory("/srv/alice".into())), "podman volume import feather-user-alice -"),
        (&|one| one.home = Some(Home::Volume("old".into())), "podman volume export old"),
        (&|one| one.home = None, "nothing is mounted at /home/user"),
        (&|one| one.other_mounts.push("/music".into()), "/music"),
        (&|one| drop(one.environment.remove("FEATHER_PASSWORD")), "no password for it"),
        (&|one| drop(one.environment.insert("FEATHER_PASSWORD".into(), "a b".into())), "not printable ASCII"),
        (&|one| one.network = Network::Closed, "not published"),
        (&|one| one.container.labels.clear(), ""),
    ];
    for (wrong, words) in table {
        let survey = change(wrong);
        let alice = only(&survey);
        if words.is_empty() {
            assert!(fits(&alice).is_ok());
            continue;
        }
        assert!(fits(&alice).unwrap_err().contains(words), "{words}: {alice:?}");
        let finding = survey.finding(&alice);
        assert_eq!(finding.action, Action::Misfit);
        assert!(!finding.why.unwrap().contains("x7k9m2"));
    }
    for (name, words) in [("Bob_1", "not a tenant name"), ("admin", "reserved")] {
        let all = survey("{}", vec![container(name, Running, published(9001))]);
        assert!(fits(&only(&all)).unwrap_err().contains(words));
    }
    let mut gone = survey("{}", vec![container("alice", Running, published(9001))]);
    gone.volumes.clear();
    assert!(fits(&only(&gone)).unwrap_err().contains("is gone"));
    let mut damaged = survey("{}", vec![container("alice", Running, published(9001))]);
    damaged.damaged.insert("alice.json".into());
    assert!(fits(&only(&damaged)).unwrap_err().contains("damaged"));
}

#[test]
fn a_listed_name_without_a_container_is_a_stopped_tenant_if_its_data_is_here() {
    let listed = r#"{"alice":{"port":9002,"password":"x7k9m2"}}"#;
    let with = |file: &str, volume: bool, image: Option<&str>| {
        let mut survey = survey(file, vec![]);
        survey.volumes.extend(volume.then(|| "alice".to_owned()));
        survey.work_image.1 = image.map(str::to_owned);
        only(&survey)
    };
    assert_eq!(fits(&with(listed, true, Some(WORK))), Ok((9002, "x7k9m2", false)));
    assert!(fits(&with(listed, false, Some(WORK))).unwrap_err().contains("neither a container nor a volume"));
    assert!(fits(&with(listed, true, None)).unwrap_err().contains("load it"));
    assert!(fits(&with(r#"{"alice":9002}"#, true, Some(WORK))).unwrap_err().contains("no password"));
    assert_eq!(with("{}", true, Some(WORK)).verdict, Verdict::Keep);
}

#[test]
fn what_the_ledger_holds_is_known_and_never_overruled() {
    let mut survey = survey(r#"{"alice":9001}"#, vec![container("alice", Running, published(9001))]);
    let mut record = Record::floor("alice".parse().unwrap(), Generation(5));
    record.residence = Residence::Active { desired: Desired::Run, provisioning: None };
    survey.records.push(record.clone());
    assert_eq!(only(&survey).verdict, Verdict::Known);
    for residence in [Residence::Absent, Residence::Departed { forward_to: None }] {
        survey.records = vec![Record { residence, ..record.clone() }];
        assert!(fits(&only(&survey)).unwrap_err().contains("removed or has moved away"));
    }
    // Nobody lists it and it has no container: it is nobody's news.
    survey.containers.clear();
    survey.file = OldFile::default();
    assert_eq!(plan(&survey), vec![]);
}
