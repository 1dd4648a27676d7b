//! Runs that were killed, and what the next one makes of what they left: the deploy, its answer, its directory.

use tagship_core::failpoint;

use super::*;

/// Leaves everything as a run that was killed while it replaced the second service.
pub(super) fn kill_in_the_middle(place: &Place, request: &Request, phase: Phase) {
    let old = image_of(digest("v0.1.0"));
    let new = image_of(request.digest);
    let recorded = |name: &str| Recorded {
        name: name.parse().unwrap(),
        role: Role::Service,
        local: crate::deploy::LocalName { repository: "localhost/app".parse().unwrap(), tag: tag(name) },
        was: Was::Running,
        enablement: "generated".into(),
        container: None,
        image: Some(old.clone()),
        own_healthcheck: true,
        revoked: false,
    };
    let entry = InFlight {
        goal: RecordedGoal::Deploy { repository: repository(), digest: request.digest, tag: request.tag.clone() },
        services: vec![recorded("web"), recorded("worker")],
        groups: vec![vec![0], vec![1]],
        phase,
        image: Some(new.clone()),
    };
    let mut journal = Journal::open(place.state()).unwrap();
    let current = Current {
        request: Some(request.id),
        postponed: false,
        asked: request.tag.clone(),
        release: None,
        started: Timestamp::now(),
        entry: None,
        verdict: None,
    };
    journal.begin(current).unwrap();
    journal.save(&entry).unwrap();
    let mut state = place.world.state();
    for name in ["web", "worker"] {
        state.names.insert(format!("localhost/app:{name}"), new.clone());
    }
    state.runs.insert("web".parse().unwrap(), (new, 99));
}

/// Lets the inbox take up a request and mark it as begun, as a run does before it is killed.
pub(super) async fn begin(place: &Place, request: &Request) {
    use crate::inbox::{Entry, EntryForm, Ledger, Stage};

    let text = String::from_utf8(request.encode()).unwrap();
    let form = EntryForm::Full { text };
    let handoff = Some(place.settings.handoff.clone());
    let entry = Entry { id: request.id, claimed: Timestamp::now(), form, stage: Stage::Begun, handoff };
    Requests::open(place.state()).unwrap().put(&entry).unwrap();
}

/// A request whose deploy was proven, and whose verdict was kept, before the run was killed: nobody was told.
pub(super) async fn decided_and_untold(place: &Place) -> Request {
    let request = place.request("v0.2.0", digest("v0.2.0"));
    begin(place, &request).await;
    kill_in_the_middle(place, &request, Phase::Proven);
    let verdict = Status { tag: Some(request.tag.clone()), ..Status::new(Outcome::Deployed, "deployed", "it runs") };
    Journal::open(place.state()).unwrap().ended(&verdict).unwrap();
    request
}

#[tokio::test]
async fn a_killed_run_is_ended_by_the_next_and_answered() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
    begin(&place, &request).await;
    kill_in_the_middle(&place, &request, Phase::Replacing(1));
    place.run().await.unwrap();
    let status = place.answer(request.id);
    assert_eq!(status.outcome, Outcome::Interrupted, "{}", status.reason);
    assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))));
    assert!(Journal::open(place.state()).unwrap().current().is_none());
    // Once answered, never again.
    fs::remove_file(place.path(&request.id.status_name())).unwrap();
    place.run().await.unwrap();
    assert!(!place.path(&request.id.status_name()).exists());
}

#[tokio::test]
async fn a_request_is_answered_where_it_was_made_whatever_is_configured_by_then() {
    let broken = || Err(ConfigError::MissingKey { path: "app.yaml".into(), key: "services" });
    for (case, is_broken, is_there) in [("moved", false, true), ("broken", true, true), ("no default", true, false)] {
        let place = Place::new();
        let request = place.request("v0.1.0", digest("v0.1.0"));
        begin(&place, &request).await;
        let other = place.temp.path().join("other");
        if is_there {
            fs::create_dir(&other).unwrap();
        }
        let moved = || Ok(Settings { handoff: other.clone(), ..place.settings.clone() });
        let load: &dyn Fn() -> Result<Settings, ConfigError> = if is_broken { &broken } else { &moved };
        let configuration = Configuration { load, fallback: other.clone() };
        run(&place.world, &place.settings.app, &configuration, place.state()).await.unwrap();
        assert_eq!(place.answer(request.id).outcome, Outcome::Interrupted, "{case}");
        assert!(place.path(&request.id.log_name()).exists(), "{case}");
        assert!(!other.join(request.id.status_name()).exists(), "{case}");
    }
}

#[tokio::test]
async fn a_request_whose_directory_is_away_stays_open() {
    let place = Place::new();
    let request = place.request("v0.1.0", digest("v0.1.0"));
    begin(&place, &request).await;
    let (away, other) = (place.temp.path().join("away"), place.temp.path().join("other"));
    fs::rename(&place.settings.handoff, &away).unwrap();
    let moved = || Ok(Settings { handoff: other.clone(), ..place.settings.clone() });
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    // Nobody waits for it: it is no file that cannot be written for a moment.
    place.run_with(&moved).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    fs::rename(&away, &place.settings.handoff).unwrap();
    place.run_with(&moved).await.unwrap();
    assert_eq!(place.answer(request.id).outcome, Outcome::Interrupted);
}

#[tokio::test]
async fn a_request_whose_directory_is_gone_for_good_is_closed_after_a_day() {
    for (hours, open) in [(23, true), (25, false)] {
        let place = Place::new();
        let request = place.request("v0.1.0", digest("v0.1.0"));
        begin(&place, &request).await;
        fs::rename(&place.settings.handoff, place.temp.path().join("away")).unwrap();
        let mut requests = Requests::open(place.state()).unwrap().open_entries().unwrap();
        requests[0].claimed = Timestamp::now() - SignedDuration::from_hours(hours);
        Requests::open(place.state()).unwrap().put(&requests[0]).unwrap();
        let moved = || Ok(Settings { handoff: place.temp.path().join("other"), ..place.settings.clone() });
        place.run_with(&moved).await.unwrap();
        assert_eq!(Requests::open(place.state()).unwrap().open_entries().unwrap().is_empty(), !open);
    }
}

/// Killed between the answer and the note of it, with another file in wait that names the same request.
#[tokio::test]
async fn a_bad_request_that_was_answered_keeps_its_answer() {
    let place = Place::new();
    let id = RequestId::generate();
    place.put(id, b"v0.1.0\nRequest: nobody\n");
    place.run().await.unwrap();
    let first = fs::read(place.path(&id.status_name())).unwrap();
    fs::remove_dir_all(place.temp.path().join("state")).unwrap();
    place.put(id, b"no tag\n");
    place.run().await.unwrap();
    assert_eq!(fs::read(place.path(&id.status_name())).unwrap(), first);
    // What somebody planted there is no answer.
    fs::write(place.path(&id.status_name()), "ok v0.1.0\n").unwrap();
    fs::remove_dir_all(place.temp.path().join("state")).unwrap();
    place.put(id, b"no tag\n");
    place.run().await.unwrap();
    assert_ne!(place.answer(id).outcome, Outcome::Deployed);
}

/// As it is told, and could not be noted, of a request that was refused before it began.
#[tokio::test]
async fn what_was_refused_is_not_deployed_by_the_next_run() {
    use crate::inbox::{Entry, EntryForm, Ledger, Stage};

    let place = Place::new();
    let request = place.request("v0.1.0", place.world.release(&place.key, "v0.1.0"));
    let form = EntryForm::Full { text: String::from_utf8(request.encode()).unwrap() };
    let handoff = Some(place.settings.handoff.clone());
    let entry = Entry { id: request.id, claimed: Timestamp::now(), form, stage: Stage::Waiting, handoff };
    Requests::open(place.state()).unwrap().put(&entry).unwrap();
    let told = Status::new(Outcome::Refused, "state-io", "cannot write requests.json");
    let told = Status { request: Some(request.id), tag: Some(request.tag.clone()), ..told }.encode();
    fs::write(place.path(&request.id.status_name()), &told).unwrap();
    place.run().await.unwrap();
    assert_eq!(fs::read(place.path(&request.id.status_name())).unwrap(), told);
    assert_eq!(place.world.running(), None);
    assert_eq!(Requests::open(place.state()).unwrap().open_entries().unwrap(), []);
}

/// The state was full: the answer went out, and nothing of it could be noted.
#[tokio::test]
async fn an_answer_that_is_there_is_not_written_over() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
    begin(&place, &request).await;
    kill_in_the_middle(&place, &request, Phase::Replacing(0));
    let told = Status::new(Outcome::RolledBack, "unhealthy", "web is not healthy");
    let told = Status { request: Some(request.id), tag: Some(request.tag.clone()), ..told }.encode();
    fs::write(place.path(&request.id.status_name()), &told).unwrap();
    place.run().await.unwrap();
    assert_eq!(fs::read(place.path(&request.id.status_name())).unwrap(), told);
    assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))), "it is ended all the same");
    assert!(Journal::open(place.state()).unwrap().current().is_none());
    assert_eq!(Requests::open(place.state()).unwrap().open_entries().unwrap(), []);
    let last = place.world.state().verdicts.last().cloned().unwrap();
    assert_eq!((last.by, last.status.request), (By::Companion, None));
}

#[tokio::test]
async fn a_verdict_that_nobody_was_told_is_told() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = decided_and_untold(&place).await;
    let restarts = place.world.state().restarts;
    place.run().await.unwrap();
    assert_eq!((place.answer(request.id).outcome, place.world.state().restarts), (Outcome::Deployed, restarts));
    assert!(Journal::open(place.state()).unwrap().current().is_none());
}

#[tokio::test]
async fn what_cannot_be_ended_now_is_ended_later_and_nothing_new_begins_before() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
    begin(&place, &request).await;
    kill_in_the_middle(&place, &request, Phase::Replacing(0));
    place.world.state().engine_down = true;
    let next = place.ask("v0.2.0", digest("v0.2.0")).await;
    assert_eq!((next.outcome, next.kind.as_str()), (Outcome::Refused, "engine-missing"));
    assert_eq!(place.answer(request.id).outcome, Outcome::Interrupted);
    assert!(Journal::open(place.state()).unwrap().current().is_some_and(|current| current.verdict.is_none()));
    place.world.state().engine_down = false;
    place.run().await.unwrap();
    assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))));
    assert!(Journal::open(place.state()).unwrap().current().is_none());
    let told = place.world.state().verdicts.last().cloned().unwrap();
    assert_eq!(
        (told.by, told.status.request),
        (By::Companion, None),
        "the request has its verdict, and it was its only one"
    );
}

/// It was killed when its way was being made, behind a deploy of nobody's that cannot be ended now either.
#[tokio::test]
async fn who_waited_for_anothers_recovery_is_told_of_nothing_that_is_ended_later() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let [left, waited] = ["v0.2.0", "v0.3.0"].map(|name| place.request(name, place.world.release(&place.key, name)));
    kill_in_the_middle(&place, &left, Phase::Replacing(0));
    begin(&place, &waited).await;
    place.world.state().engine_down = true;
    place.run().await.unwrap();
    let status = place.answer(waited.id);
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Interrupted, "interrupted"));
    assert!(status.reason.as_str().contains("before anything was touched"), "{}", status.reason);
    assert!(Journal::open(place.state()).unwrap().current().is_some_and(|current| current.postponed));
}

/// Its verdict is in the journal, and there is no configuration to end anything with.
#[tokio::test]
async fn a_verdict_that_nobody_was_told_is_told_with_a_broken_configuration() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = decided_and_untold(&place).await;
    let verdicts = place.world.state().verdicts.len();
    let broken = || Err(ConfigError::MissingKey { path: "app.yaml".into(), key: "services" });
    place.run_with(&broken).await.unwrap();
    assert_eq!(place.answer(request.id).outcome, Outcome::Deployed);
    place.run().await.unwrap();
    let told: Vec<_> = place.world.state().verdicts.iter().skip(verdicts).map(|told| told.status.outcome).collect();
    assert_eq!(told, [Outcome::Deployed], "once");
}

/// The path unit sees no file any more, and the timer comes in a minute: the run that claimed it has to answer.
#[tokio::test]
async fn what_comes_when_all_is_told_is_answered_by_the_same_run() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let [sick, late] = ["v0.2.0", "v0.3.0"].map(|name| place.request(name, place.world.release(&place.key, name)));
    place.world.state().sick.insert(image_of(sick.digest));
    // What failed leaves nothing to tidy up: the journal, once its answer is there, is the last that is written.
    let (answer, path, mut bytes) =
        (place.path(&sick.id.status_name()), place.path(&late.id.request_name()), late.encode());
    failpoint::watch(move |at| {
        if at == "writes journal.json" && answer.exists() && !bytes.is_empty() {
            fs::write(&path, std::mem::take(&mut bytes)).unwrap();
        }
    });
    assert_eq!(place.ask_for(&sick).await.outcome, Outcome::RolledBack);
    failpoint::unwatch();
    assert_eq!(place.answer(late.id).outcome, Outcome::Deployed);
}

#[tokio::test]
async fn what_cannot_even_be_looked_at_is_ended_later() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
    begin(&place, &request).await;
    kill_in_the_middle(&place, &request, Phase::Replacing(0));
    place.world.state().engine_silent = true;
    place.run().await.unwrap();
    let status = place.answer(request.id);
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Interrupted, "silent"));
    let refused = place.go_back(Some("v0.1.0")).await.unwrap();
    assert_eq!((refused.outcome, refused.kind.as_str()), (Outcome::Refused, "silent"), "nothing new begins before");
    place.world.state().engine_silent = false;
    // Nothing waits any more: the timer's next run ends it.
    place.run().await.unwrap();
    assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))));
    assert!(Journal::open(place.state()).unwrap().current().is_none());
}

#[tokio::test]
async fn a_proof_is_of_the_image_that_was_pulled_whatever_runs_by_now() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
    begin(&place, &request).await;
    kill_in_the_middle(&place, &request, Phase::Proven);
    let evidence = place.history().running().unwrap().evidence.clone();
    let release =
        Release { tag: request.tag.clone(), digest: request.digest, created: None, commit: None, signed: true };
    let mut journal = Journal::open(place.state()).unwrap();
    let current = Current { release: Some((release, evidence)), ..journal.current().cloned().unwrap() };
    journal.begin(current).unwrap();
    let foreign = image_of(digest("foreign"));
    place.world.state().runs.insert("web".parse().unwrap(), (foreign, 100));
    place.run().await.unwrap();
    assert_eq!(place.answer(request.id).outcome, Outcome::Deployed);
    assert_eq!(place.history().running().unwrap().image, image_of(request.digest));
}

#[tokio::test]
async fn nobody_waits_for_the_removal_of_old_images() {
    let place = Place::new();
    place.deploy("v1.0.0").await;
    place.deploy("v1.1.0").await;
    // What failed, or was there already, leaves nothing to remove.
    assert_eq!(place.ask_sick("v1.2.0").await.outcome, Outcome::RolledBack);
    let images = ["v1.0.0", "v1.1.0"].map(|name| image_of(digest(name)));
    assert_eq!(place.world.state().tidied, images.into_iter().zip(1..).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_error_of_one_request_leaves_nothing_undone() {
    let place = Place::new();
    place.deploy("v1.0.0").await;
    let digest = place.world.release(&place.key, "v1.1.0");
    // Nothing can be put where a directory with something in it is.
    let requests = place.temp.path().join("state/requests.json");
    place.world.state().in_settle = Some(Box::new(move || {
        fs::remove_file(&requests).unwrap();
        fs::create_dir_all(requests.join("full")).unwrap();
    }));
    let request = place.request("v1.1.0", digest);
    place.put(request.id, &request.encode());
    assert_eq!(place.run().await.unwrap_err().kind(), "state-io");
    assert_eq!(place.answer(request.id).outcome, Outcome::Deployed);
    assert!(Journal::open(place.state()).unwrap().current().is_none(), "everybody has been told");
    assert_eq!(place.world.state().tidied.len(), 2);
}

#[tokio::test]
async fn told_to_stop_it_begins_nothing_and_answers_everybody() {
    let place = Place::new();
    place.deploy("v1.0.0").await;
    let digest = place.world.release(&place.key, "v1.1.0");
    place.world.stop.ask();
    let status = place.ask("v1.1.0", digest).await;
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Interrupted, "interrupted"));
    assert!(status.reason.as_str().contains("before anything was touched"), "{}", status.reason);
    assert_eq!(place.world.running(), Some(image_of(crate::testing::digest("v1.0.0"))));
}

#[tokio::test]
async fn a_run_that_was_killed_before_any_effect_says_so() {
    let place = Place::new();
    let request = place.request("v0.2.0", digest("v0.2.0"));
    begin(&place, &request).await;
    place.run().await.unwrap();
    assert_eq!(place.answer(request.id).outcome, Outcome::Interrupted);
    assert_eq!(place.world.running(), None);
}
