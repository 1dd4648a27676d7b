//! What is refused, by name, and what is recorded of the rest.

use super::*;
use crate::{
    deploy::values::ContainerId,
    testing::{Signer, settings as settings_of},
};

fn settings() -> Settings {
    settings_of(&Signer::new(), std::path::Path::new("/handoff"))
}

fn id(digit: char) -> ImageId {
    digit.to_string().repeat(64).try_into().unwrap()
}

fn container(digit: char) -> ContainerFacts {
    ContainerFacts {
        id: ContainerId::try_from("c".repeat(64)).unwrap(),
        image: id(digit),
        running: true,
        restarts: 0,
        health: HealthState::Healthy,
    }
}

/// A service that runs image `a` under its own name.
fn good(settings: &Settings, name: &str) -> Facts {
    let name: ServiceName = name.parse().unwrap();
    let local = local_name(settings, &name).unwrap();
    Facts {
        unit: UnitFacts {
            load: "loaded".into(),
            active: "active".into(),
            sub: "running".into(),
            enablement: "generated".into(),
            command: ["podman", "run", "--rm", "--pull", "never", "-d", &local.to_string()].map(String::from).to_vec(),
            ..UnitFacts::default()
        },
        name,
        role: Role::Service,
        local,
        container: Some(container('a')),
        named: Some(id('a')),
    }
}

fn refused(change: impl FnOnce(&mut Facts)) -> Failure {
    let settings = settings();
    let (mut web, worker) = (good(&settings, "web"), good(&settings, "worker"));
    change(&mut web);
    record(&settings, RecordedGoal::PutBack, &[web, worker]).unwrap_err()
}

fn was(change: impl FnOnce(&mut Facts)) -> Recorded {
    let settings = settings();
    let (mut web, worker) = (good(&settings, "web"), good(&settings, "worker"));
    change(&mut web);
    record(&settings, RecordedGoal::PutBack, &[web, worker]).unwrap().services.swap_remove(0)
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    type Change = fn(&mut Facts);
    let cases: [(&str, Change); 8] = [
        ("service-pod", |web| {
            web.unit.pod = ["podman", "pod", "create", "--exit-policy=stop"].map(String::from).into()
        }),
        ("service-unknown", |web| web.unit.load = "not-found".into()),
        ("service-masked", |web| web.unit.load = "masked".into()),
        ("service-invalid", |web| web.unit.load = "bad-setting".into()),
        ("service-changed", |web| web.unit.needs_reload = true),
        ("service-image", |web| web.unit.command = vec!["podman".into(), "run".into(), "localhost/app:other".into()]),
        ("service-container", |web| web.container = None),
        ("services-coupled", |web| web.unit.coupled = vec!["worker.service".into()]),
    ];
    for (kind, change) in cases {
        let failure = refused(change);
        assert_eq!((failure.kind.as_str(), failure.service.as_ref().map(ServiceName::as_str)), (kind, Some("web")));
        assert!(failure.hint.is_some(), "{kind}");
    }
}

#[test]
fn a_pod_must_outlive_its_containers() {
    for (command, ends) in [
        ("podman pod create --exit-policy=stop --replace", true),
        ("podman pod create --exit-policy stop", true),
        ("podman pod create --exit-policy=continue --exit-policy=stop", true),
        ("podman pod create --exit-policy=stop --exit-policy=continue", false),
        ("podman pod create --exit-policy=stop --exit-policy continue", false),
        ("podman pod create", false),
        ("", false),
    ] {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        assert_eq!(ends_with_its_last(&words), ends, "{command:?}");
    }
}

#[test]
fn units_between_services_are_followed() {
    let settings = settings();
    let judged = |ties: &[(&str, &str)]| {
        let (mut web, worker) = (good(&settings, "web"), good(&settings, "worker"));
        for (unit, takes) in ties.iter().map(|(unit, takes)| ((*unit).to_owned(), (*takes).to_owned())) {
            match unit.as_str() {
                "web.service" => web.unit.coupled.push(takes),
                _ => web.unit.beyond.entry(unit).or_default().push(takes),
            }
        }
        record(&settings, RecordedGoal::PutBack, &[web, worker]).map(|_| ()).map_err(|failure| failure.reason)
    };
    let refused = |way: &str| Err(format!("a restart of web restarts or stops worker, too{way}"));
    for (ties, expected) in [
        (&[("web.service", "app.target")][..], Ok(())),
        (&[("web.service", "app.target"), ("app.target", "worker.service")], refused(", by way of app.target")),
        (
            &[("web.service", "a.target"), ("a.target", "b.target"), ("b.target", "worker.service")],
            refused(", by way of b.target"),
        ),
        // What nobody takes along does not count, and a circle ends.
        (&[("web.service", "a.target"), ("b.target", "worker.service")], Ok(())),
        (&[("web.service", "a.target"), ("a.target", "b.target"), ("b.target", "a.target")], Ok(())),
        (&[("web.service", "a.target"), ("a.target", "web.service")], Ok(())),
        (&[("web.service", "worker.service"), ("web.service", "a.target")], refused("")),
    ] {
        assert_eq!(judged(ties), expected, "{ties:?}");
    }
}

#[test]
fn units_of_one_group_may_be_coupled() {
    let mut settings = settings();
    settings.services = vec![settings.services.concat()];
    let (mut web, worker) = (good(&settings, "web"), good(&settings, "worker"));
    web.unit.coupled = vec!["worker.service".into(), "something-else.service".into()];
    let entry = record(&settings, RecordedGoal::PutBack, &[web, worker]).unwrap();
    assert_eq!(entry.groups, [[0, 1]]);
}

#[test]
fn what_a_service_did_is_recorded() {
    assert_eq!(was(|_| ()).was, Was::Running);
    let stopped = was(|web| (web.unit.active, web.container) = ("inactive".into(), None));
    assert_eq!((stopped.was, stopped.image), (Was::Stopped, Some(id('a'))));
    let first = was(|web| (web.unit.active, web.container, web.named) = ("failed".into(), None, None));
    assert_eq!((first.was, first.image), (Was::Absent, None));
    assert_eq!(was(|web| (web.unit.active, web.container) = ("failed".into(), None)).was, Was::Failing);
    assert_eq!(
        was(|web| (web.unit.active, web.unit.sub) = ("activating".into(), "auto-restart".into())).was,
        Was::Failing
    );
    assert_eq!(was(|web| web.container.as_mut().unwrap().health = HealthState::Unhealthy).was, Was::Failing);
}

#[test]
fn the_running_image_counts_not_what_the_name_stands_for_meanwhile() {
    assert_eq!(was(|web| web.named = Some(id('f'))).image, Some(id('a')));
}

#[test]
fn without_names_of_their_own_all_go_back_to_the_running_image() {
    let mut settings = settings();
    settings.local_image = None;
    let (web, mut worker) = (good(&settings, "web"), good(&settings, "worker"));
    assert_eq!(web.local.to_string(), "git.example.org/chris/app:stable");
    (worker.unit.active, worker.container, worker.named) = ("inactive".into(), None, Some(id('f')));
    let entry = record(&settings, RecordedGoal::PutBack, &[web.clone(), worker.clone()]).unwrap();
    assert_eq!(entry.services[1].image, Some(id('a')));
    worker.unit.active = "active".into();
    worker.container = Some(container('b'));
    let failure = record(&settings, RecordedGoal::PutBack, &[web, worker]).unwrap_err();
    assert_eq!(failure.kind, "services-differ");
}

#[test]
fn no_name_at_all_is_refused() {
    let mut settings = settings();
    (settings.local_image, settings.moving_tag) = (None, None);
    assert_eq!(names(&settings).unwrap_err().kind, "local-name");
}

#[test]
fn one_shots_come_first_and_belong_to_no_group() {
    let mut settings = settings();
    settings.before = vec!["migrate".parse().unwrap()];
    let names: Vec<_> = names(&settings).unwrap().into_iter().map(|(name, role, _)| (name.to_string(), role)).collect();
    let expected = [("migrate", Role::OneShot), ("web", Role::Service), ("worker", Role::Service)];
    assert_eq!(names, expected.map(|(name, role)| (name.to_owned(), role)));
    let mut migrate = good(&settings, "migrate");
    (migrate.role, migrate.unit.active, migrate.container) = (Role::OneShot, "inactive".into(), None);
    let facts = [migrate, good(&settings, "web"), good(&settings, "worker")];
    assert_eq!(record(&settings, RecordedGoal::PutBack, &facts).unwrap().groups, [[1], [2]]);
}

#[test]
fn settings_that_work_against_us_are_told() {
    let settings = settings();
    let mut web = good(&settings, "web");
    web.unit.command =
        ["podman", "run", "--pull=always", "--label", "io.containers.autoupdate=registry"].map(String::from).to_vec();
    let texts: Vec<_> = warnings(&[web]).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), 2);
    assert!(texts[0].contains("Pull=always") && texts[1].contains("AutoUpdate=registry"));
    assert_eq!(warnings(&[good(&settings, "web")]), []);
}

#[test]
fn who_is_astray_after_a_crash() {
    let settings = settings();
    let facts = [good(&settings, "web"), good(&settings, "worker")];
    let entry = record(&settings, RecordedGoal::PutBack, &facts).unwrap();
    assert_eq!(astray(&entry, &facts), BTreeSet::new());
    type Change = fn(&mut Facts);
    let cases: [(&str, Change); 5] = [
        ("another image", |web| web.container = Some(container('b'))),
        ("no container", |web| web.container = None),
        ("ended", |web| web.container.as_mut().unwrap().running = false),
        ("not active", |web| web.unit.active = "failed".into()),
        ("a job under way", |web| web.unit.job = true),
    ];
    for (what, change) in cases {
        let mut facts = facts.clone();
        change(&mut facts[0]);
        assert_eq!(astray(&entry, &facts), BTreeSet::from([0]), "{what}");
    }
    assert_eq!(astray(&entry, &facts[1..]), BTreeSet::from([0]), "unit gone");
}

#[test]
fn what_has_no_way_back_is_said_before_anything_is_done() {
    let settings = settings();
    let facts = ["web", "worker", "beat"].map(|name| good(&settings, name));
    let mut entry = record(&settings, RecordedGoal::PutBack, &facts).unwrap();
    entry.services[1].was = Was::Stopped;
    for recorded in &mut entry.services[..2] {
        recorded.revoked = true;
    }
    let [web, worker] = &no_way_back(&entry)[..] else { panic!("{:?}", no_way_back(&entry)) };
    assert!(web.1.starts_with("web runs an image whose key is revoked"), "{}", web.1);
    assert!(worker.1.starts_with("worker is stopped, and its image's key is revoked"), "{}", worker.1);
}

#[test]
fn only_what_a_deploy_never_came_to_is_spared() {
    let settings = settings();
    let entry = |revoked| {
        let mut entry = record(&settings, RecordedGoal::PutBack, &[good(&settings, "web")]).unwrap();
        entry.services[0].revoked = revoked;
        entry
    };
    let is_spared = |revoked, change: fn(&mut Facts)| {
        let mut now = good(&settings, "web");
        change(&mut now);
        !spared(&entry(revoked), &[now]).is_empty()
    };
    assert!(is_spared(true, |_| {}));
    assert!(is_spared(true, |now| now.container = None), "it has not started yet");
    assert!(!is_spared(false, |_| {}), "what may be put back is");
    assert!(!is_spared(true, |now| now.named = Some(id('b'))));
    assert!(!is_spared(true, |now| now.named = None));
    assert!(!is_spared(true, |now| now.container = Some(container('b'))));
}
