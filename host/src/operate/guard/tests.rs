//! A state directory as deploys leave it, a store in memory, and services that want to start.

use jiff::Timestamp;
use tagship_core::{
    explain::{Explain, chain},
    handoff::{
        fields::{Line, Word},
        status::{Outcome, Status},
    },
    reference::Digest,
    signature::Evidence,
};

use super::*;
use crate::{
    deploy::{Failure, Journal as _, Recorded, Was},
    history::{By, Proven, Verdict},
    journal::Current,
    state_dir::tests::fresh,
    testing::{digest, image_of, repository, tag},
    trust::Release,
};

/// The places of an app with the services `web` and `worker`, in this order, and the one-shot unit `migrate`.
struct Place {
    _temp: tempfile::TempDir,
    dir: StateDir,
    units: AppUnits,
}

fn image(name: &str) -> ImageId {
    image_of(digest(name))
}

fn names(names: &[&str]) -> Vec<ServiceName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

impl Place {
    fn new() -> Self {
        let (temp, dir) = fresh();
        let units = AppUnits {
            image: repository(),
            moving_tag: Some(tag("stable")),
            local_image: Some("localhost/app".parse().unwrap()),
            before: names(&["migrate"]),
            services: names(&["web", "worker"]),
        };
        Self { _temp: temp, dir, units }
    }

    fn after(versions: &[&str]) -> Self {
        let place = Self::new();
        versions.iter().for_each(|version| place.prove(version));
        place
    }

    fn prove(&self, version: &str) {
        let found = self.entry(RecordedGoal::PutBack, Phase::Proven, Some("incumbent"));
        let digest = digest(version);
        let key = Digest::of(b"key").hex().parse().unwrap();
        let evidence = Evidence::Layer { payload: String::new(), signature: String::new(), bundle: None, key };
        let release = Release { tag: tag(version), digest, created: None, commit: None, signed: true };
        let proven = Proven { release, image: image_of(digest), evidence, at: Timestamp::UNIX_EPOCH };
        let mut history = History::open(&self.dir).unwrap();
        let first = history.proven().is_empty();
        history.prove(&self.dir, proven, first.then_some(found)).unwrap();
    }

    fn name(&self, service: &str) -> LocalName {
        LocalName::of(
            &service.parse().unwrap(),
            self.units.local_image.as_ref(),
            (&self.units.image, self.units.moving_tag.as_ref()),
        )
        .unwrap()
    }

    fn entry(&self, goal: RecordedGoal, phase: Phase, found: Option<&str>) -> InFlight {
        let recorded = |service: &str, role| Recorded {
            name: service.parse().unwrap(),
            role,
            local: self.name(service),
            was: if found.is_some() { Was::Running } else { Was::Absent },
            enablement: "generated".into(),
            own_healthcheck: false,
            revoked: false,
            container: None,
            image: found.map(image),
        };
        let services = [("migrate", Role::OneShot), ("web", Role::Service), ("worker", Role::Service)];
        InFlight {
            goal,
            services: services.map(|(name, role)| recorded(name, role)).to_vec(),
            groups: vec![vec![1], vec![2]],
            phase,
            image: None,
        }
    }

    /// A deploy of this version is in this phase, and has found that one, or nothing.
    fn in_flight(&self, version: &str, phase: Phase, found: Option<&str>) {
        let goal = RecordedGoal::Deploy { repository: repository(), digest: digest(version), tag: tag(version) };
        let entry = InFlight { image: Some(image(version)), ..self.entry(goal, phase, found) };
        self.save(version, &entry);
    }

    fn save(&self, asked: &str, entry: &InFlight) {
        let (asked, started) = (tag(asked), Timestamp::UNIX_EPOCH);
        let current =
            Current { request: None, postponed: false, asked, release: None, started, entry: None, verdict: None };
        let mut journal = Journal::open(self.dir.clone()).unwrap();
        journal.begin(current).unwrap();
        journal.save(entry).unwrap();
    }

    async fn answered(&self, service: &str, answer: Result<Option<ImageId>, Silence>) -> Result<Pass, GuardError> {
        let (app, service) = ("app".parse().unwrap(), service.parse().unwrap());
        run((&app, &self.units), &service, &self.dir, async |_: &LocalName| answer).await
    }

    /// Whether the service may start where its name stands for this; in a word, or the kind of the refusal.
    async fn start(&self, service: &str, named: Option<&str>) -> &'static str {
        match self.answered(service, Ok(named.map(image))).await {
            Ok(Pass::Named) => "named",
            Ok(Pass::Unrecorded { first: true }) => "first",
            Ok(Pass::Unrecorded { first: false }) => "unrecorded",
            Err(error) => {
                assert!(error.hint().is_some(), "{error}");
                error.kind()
            }
        }
    }
}

fn silent() -> Silence {
    Silence::Refused { name: "localhost/app:web".into(), words: "database is locked".into() }
}

fn going_back() -> Phase {
    Phase::RollingBack { cause: Failure::new("unhealthy", "sick") }
}

#[tokio::test]
async fn what_was_proven_and_runs_may_start_and_nothing_else_may() {
    let place = Place::after(&["v0.1.0", "v0.2.0"]);
    for (service, named, expected) in [
        ("web", Some("v0.2.0"), "named"),
        ("worker", Some("v0.2.0"), "named"),
        ("migrate", Some("v0.2.0"), "named"),
        // Left there by a rollback, which runs no one-shot unit.
        ("migrate", Some("v0.1.0"), "named"),
        ("web", Some("v0.1.0"), "guard-foreign"),
        ("web", Some("incumbent"), "guard-foreign"),
        ("web", Some("a build"), "guard-foreign"),
        ("migrate", Some("incumbent"), "guard-foreign"),
        ("migrate", Some("a build"), "guard-foreign"),
        ("web", None, "guard-gone"),
        ("migrate", None, "guard-gone"),
        ("database", Some("v0.2.0"), "service-unknown"),
        ("other-app-web", Some("v0.2.0"), "service-unknown"),
    ] {
        assert_eq!(place.start(service, named).await, expected, "{service} {named:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_and_why_and_what_to_try() {
    let place = Place::after(&["v0.2.0"]);
    let proven = image("v0.2.0");
    let (named, short) = (image("a build"), proven.short());
    let error = place.answered("web", Ok(Some(named.clone()))).await.unwrap_err();
    let expected = format!(
        "web is not started: localhost/app:web stands for image {}, and should stand for v0.2.0, image {short}",
        named.short()
    );
    assert_eq!(error.to_string(), expected);
    let hint = error.hint().unwrap();
    for part in [&format!("podman tag {short} localhost/app:web"), "tagship-host rollback app v0.2.0"] {
        assert!(hint.contains(part), "{hint}");
    }
    let error = place.answered("database", Ok(Some(named))).await.unwrap_err();
    assert!(error.is_configuration() && error.hint().unwrap().contains("web, worker, migrate"));
}

#[tokio::test]
async fn before_anything_was_proven_everything_starts_and_that_is_said() {
    let place = Place::new();
    for named in [Some("incumbent"), None] {
        assert_eq!(place.start("web", named).await, "first", "{named:?}");
    }
    assert!(matches!(place.answered("web", Err(silent())).await, Ok(Pass::Unrecorded { first: true })));
    let (app, service) = ("app".parse().unwrap(), "web".parse().unwrap());
    let (urgency, text) = remark(&app, &service, &Pass::Unrecorded { first: true }, &place.dir).unwrap();
    assert!(urgency == Urgency::Notice && text.contains("nothing was proven here yet"), "{text}");
    assert_eq!(remark(&app, &service, &Pass::Named, &place.dir), None);
    // A wrong drop-in shows before the first deploy.
    assert_eq!(place.start("database", Some("incumbent")).await, "service-unknown");
}

#[tokio::test]
async fn a_deploy_under_way_may_start_what_it_has_put_in_place_and_what_it_has_found() {
    for (phase, web, worker, migrate) in [
        (Phase::Pulling, "guard-unproven", "guard-unproven", "guard-unproven"),
        (Phase::Preparing, "guard-unproven", "guard-unproven", "named"),
        (Phase::Replacing(0), "named", "guard-unproven", "named"),
        (Phase::Replacing(1), "named", "named", "named"),
        (going_back(), "guard-unproven", "guard-unproven", "guard-unproven"),
        (Phase::Proven, "named", "named", "named"),
    ] {
        let place = Place::after(&["v0.1.0"]);
        place.in_flight("v0.2.0", phase.clone(), Some("v0.1.0"));
        let _companion = place.dir.lock().unwrap();
        for (service, new) in [("web", web), ("worker", worker), ("migrate", migrate)] {
            let case = format!("{service} in {phase:?}");
            assert_eq!(place.start(service, Some("v0.2.0")).await, new, "{case}");
            assert_eq!(place.start(service, Some("v0.1.0")).await, "named", "{case}");
            for foreign in ["incumbent", "a build", "v0.3.0"] {
                assert_eq!(place.start(service, Some(foreign)).await, "guard-foreign", "{foreign}, {case}");
            }
            assert_eq!(place.start(service, None).await, "guard-gone", "{case}");
        }
    }
}

#[tokio::test]
async fn what_a_deploy_that_was_cut_off_has_put_in_place_may_not_start() {
    for (phase, new) in [
        (Phase::Preparing, "guard-unproven"),
        (Phase::Replacing(0), "guard-unproven"),
        (Phase::Replacing(1), "guard-unproven"),
        (going_back(), "guard-unproven"),
        // Only its answer was missing.
        (Phase::Proven, "named"),
    ] {
        let place = Place::after(&["v0.1.0"]);
        place.in_flight("v0.2.0", phase.clone(), Some("v0.1.0"));
        assert_eq!(place.start("web", Some("v0.2.0")).await, new, "{phase:?}");
        assert_eq!(place.start("web", Some("v0.1.0")).await, "named", "{phase:?}");
    }
}

#[tokio::test]
async fn the_first_deploy_is_watched_over_as_well() {
    for found in [None, Some("incumbent")] {
        let place = Place::new();
        place.in_flight("v0.1.0", Phase::Replacing(0), found);
        let companion = place.dir.lock().unwrap();
        assert_eq!(place.start("web", Some("v0.1.0")).await, "named");
        assert_eq!(place.start("worker", Some("v0.1.0")).await, "guard-unproven");
        assert_eq!(place.start("worker", Some("a build")).await, "guard-foreign");
        let before = if found.is_some() { "named" } else { "guard-foreign" };
        assert_eq!(place.start("worker", Some("incumbent")).await, before);
        drop(companion);
        assert_eq!(place.start("web", Some("v0.1.0")).await, "guard-unproven", "cut off");
    }
}

#[tokio::test]
async fn a_deploy_that_does_not_know_a_service_says_nothing_about_it() {
    for (proven, expected) in [(&[][..], "first"), (&["v0.1.0"][..], "guard-foreign")] {
        let mut place = Place::after(proven);
        place.in_flight("v0.2.0", Phase::Replacing(1), None);
        let _companion = place.dir.lock().unwrap();
        place.units.services.extend(names(&["new"]));
        assert_eq!(place.start("new", Some("v0.2.0")).await, expected, "{proven:?}");
    }
}

#[tokio::test]
async fn a_deploy_that_has_ended_gives_no_leave() {
    let place = Place::after(&["v0.1.0"]);
    place.in_flight("v0.2.0", Phase::Replacing(1), Some("v0.1.0"));
    let verdict = Status::new(Outcome::Failed, "unhealthy", "web is unhealthy; going back failed, too");
    Journal::open(place.dir.clone()).unwrap().ended(&verdict).unwrap();
    let _companion = place.dir.lock().unwrap();
    assert_eq!(place.start("web", Some("v0.2.0")).await, "guard-foreign");
    assert_eq!(place.start("web", Some("v0.1.0")).await, "named");
}

#[tokio::test]
async fn one_name_for_all_moves_for_all() {
    let mut place = Place::new();
    place.units.local_image = None;
    place.prove("v0.1.0");
    place.in_flight("v0.2.0", Phase::Replacing(0), Some("v0.1.0"));
    let _companion = place.dir.lock().unwrap();
    for service in ["web", "worker"] {
        assert_eq!(place.name(service).to_string(), "git.example.org/chris/app:stable");
        assert_eq!(place.start(service, Some("v0.2.0")).await, "named", "{service}");
        assert_eq!(place.start(service, Some("a pull")).await, "guard-foreign", "{service}");
    }
    place.units.moving_tag = None;
    assert_eq!(place.start("web", Some("v0.1.0")).await, "local-name");
}

#[tokio::test]
async fn what_the_operator_put_back_may_start_until_the_next_proof() {
    let place = Place::after(&["v0.1.0"]);
    // `rollback` to what ran before tagship came: while it is under way, and after.
    let entry = place.entry(RecordedGoal::PutBack, Phase::Replacing(0), Some("v0.1.0"));
    place.save("v0.1.0", &entry);
    let companion = place.dir.lock().unwrap();
    for (service, named, expected) in [
        ("web", "incumbent", "named"),
        ("worker", "incumbent", "guard-unproven"),
        ("worker", "v0.1.0", "named"),
        ("web", "a build", "guard-foreign"),
    ] {
        assert_eq!(place.start(service, Some(named)).await, expected, "{service} {named}");
    }
    drop(companion);
    Journal::open(place.dir.clone()).unwrap().finish().unwrap();
    History::open(&place.dir).unwrap().went_back(&place.dir, Some(entry)).unwrap();
    for (service, named, expected) in [
        ("web", Some("incumbent"), "named"),
        ("web", Some("v0.1.0"), "guard-foreign"),
        ("web", Some("a build"), "guard-foreign"),
        ("web", None, "guard-gone"),
        ("migrate", Some("v0.1.0"), "named"),
    ] {
        assert_eq!(place.start(service, named).await, expected, "{service} {named:?}");
    }
    place.prove("v0.2.0");
    assert_eq!(place.start("web", Some("incumbent")).await, "guard-foreign");
    assert_eq!(place.start("web", Some("v0.2.0")).await, "named");
}

#[tokio::test]
async fn a_mark_alone_says_not_what_runs() {
    let place = Place::after(&["v0.1.0"]);
    let mut history = History::open(&place.dir).unwrap();
    // As a tagship-host before this one left it.
    history.went_back(&place.dir, None).unwrap();
    history.went_back(&place.dir, None).unwrap();
    assert_eq!(place.start("web", Some("incumbent")).await, "unrecorded");
    let (app, service) = ("app".parse().unwrap(), "web".parse().unwrap());
    let told = remark(&app, &service, &Pass::Unrecorded { first: false }, &place.dir).unwrap();
    assert_eq!(told.0, Urgency::Warning);
}

#[tokio::test]
async fn damaged_state_starts_nothing() {
    for file in ["trust.json", "journal.json"] {
        for (defect, text) in [
            ("empty", ""),
            ("cut off", "{\"trust\": {"),
            ("another shape", "[]"),
            ("an unknown key", "{\"unknown\": 1}"),
            ("not UTF-8", "\u{fffd}\u{0}"),
        ] {
            let place = Place::after(&["v0.1.0"]);
            place.dir.write(file, text.as_bytes()).unwrap();
            let error = place.answered("web", Ok(Some(image("v0.1.0")))).await.unwrap_err();
            assert_eq!(error.kind(), "state-damaged", "{file}, {defect}");
            assert!(chain(&error).contains(file) && error.hint().is_some(), "{}", chain(&error));
        }
    }
    let place = Place::after(&["v0.1.0"]);
    std::fs::remove_file(place.dir.file("trust.json")).unwrap();
    std::fs::create_dir(place.dir.file("trust.json")).unwrap();
    assert_eq!(place.start("web", Some("v0.1.0")).await, "state-io");
}

#[tokio::test]
async fn an_engine_that_does_not_say_starts_nothing_that_should_be_known() {
    let place = Place::after(&["v0.1.0"]);
    let error = place.answered("web", Err(silent())).await.unwrap_err();
    assert_eq!(error.kind(), "engine-unreachable");
    assert!(chain(&error).ends_with("database is locked"), "{}", chain(&error));
    let place = Place::new();
    place.in_flight("v0.1.0", Phase::Replacing(0), None);
    assert!(place.answered("web", Err(silent())).await.is_err(), "a first deploy under way");
}

/// What runs may be what is not to run any more: to name it again would bring back what a failed deploy took away.
#[tokio::test]
async fn a_lost_name_of_what_a_deploy_left_down_is_not_to_be_mended_by_hand() {
    for (service, state, by_hand) in [
        ("web", "restored", true),
        ("web", "untouched", true),
        ("web", "broken", false),
        ("web", "stopped", false),
        ("worker", "broken", true),
    ] {
        let place = Place::after(&["v0.1.0"]);
        let [name, detail] = [service, ""].map(Line::lossy);
        let services = vec![Service { name, state: Word::lossy(state), detail }];
        let failed = Status::new(Outcome::Failed, "unhealthy", "web is not healthy");
        let status = Status { tag: Some(tag("v0.2.0")), services, ..failed };
        let verdict = Verdict { time: Timestamp::UNIX_EPOCH, by: By::Request, status };
        History::open(&place.dir).unwrap().conclude(&place.dir, verdict).unwrap();
        let hint = place.answered("web", Ok(None)).await.unwrap_err().hint().unwrap();
        assert_eq!(hint.contains("podman tag"), by_hand, "{hint}");
        assert_eq!(hint.contains("`tagship-host history app`"), !by_hand, "{hint}");
    }
}
