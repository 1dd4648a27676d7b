//! Requests in, answers out, over a host and a registry in memory.

use std::{fs, path::PathBuf};

use jiff::SignedDuration;
use tagship_core::{
    handoff::{
        fields::BootId,
        host::HostFile,
        names::RequestId,
        request::Request,
        status::{FirstLine, Outcome, Status},
    },
    reference::Digest,
};

use super::*;
use crate::{
    config::{Downgrade, RequestPolicy},
    deploy::{InFlight, Journal as _, Phase, Recorded, RecordedGoal, Role, Was},
    history::{By, History},
    inbox::InboxError,
    journal::{Current, Journal},
    operate::{self, retry, rollback},
    testing::{Signer, World, digest, image_of, repository, settings, tag},
    trust::Release,
};

mod damaged;
mod killed;
mod lost;
mod operator;
mod revoked;

/// A host, its directories, and whoever asks.
struct Place {
    temp: tempfile::TempDir,
    key: Signer,
    world: World,
    settings: Settings,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let key = Signer::new();
        let settings = settings(&key, &temp.path().join("d"));
        fs::create_dir(temp.path().join("d")).unwrap();
        Self { temp, key, world: World::default(), settings }
    }

    fn state(&self) -> StateDir {
        StateDir::at(self.temp.path().join("state")).unwrap()
    }

    fn history(&self) -> History {
        History::open(&self.state()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.handoff.join(name)
    }

    fn request(&self, tag: &str, digest: Digest) -> Request {
        Request {
            tag: tag.parse().unwrap(),
            id: RequestId::generate(),
            image: repository(),
            digest,
            commit: None,
            run: None,
            not_after: Timestamp::now() + Duration::from_secs(60),
            boot: BootId::current().unwrap(),
            rollback: false,
        }
    }

    async fn run(&self) -> Result<(), CommandError> {
        self.run_with(&|| Ok(self.settings.clone())).await
    }

    async fn run_with(&self, load: &dyn Fn() -> Result<Settings, ConfigError>) -> Result<(), CommandError> {
        let configuration = Configuration { load, fallback: self.settings.handoff.clone() };
        run(&self.world, &self.settings.app, &configuration, self.state()).await
    }

    /// Asks for an image under a tag, and returns the answer.
    async fn ask(&self, tag: &str, digest: Digest) -> Status {
        self.ask_for(&self.request(tag, digest)).await
    }

    async fn ask_for(&self, request: &Request) -> Status {
        self.put(request.id, &request.encode());
        self.run().await.unwrap();
        self.answer(request.id)
    }

    async fn ask_signed(&self, request: &Request, by: &Signer) -> Status {
        let bytes = request.encode_signed(|message| Ok::<_, ()>(by.sign(message))).unwrap();
        self.put(request.id, &bytes);
        self.run().await.unwrap();
        self.answer(request.id)
    }

    fn put(&self, id: RequestId, bytes: &[u8]) {
        fs::write(self.path(&id.request_name()), bytes).unwrap();
    }

    fn answer(&self, id: RequestId) -> Status {
        Status::parse(&fs::read(self.path(&id.status_name())).unwrap()).unwrap()
    }

    /// Releases and deploys, which must work.
    async fn deploy(&self, name: &str) {
        let digest = self.world.release(&self.key, name);
        let status = self.ask(name, digest).await;
        assert_eq!(status.outcome, Outcome::Deployed, "{name}: {}", status.reason);
        assert_eq!(self.world.running(), Some(image_of(digest)));
    }

    /// Releases an image that never gets healthy, asks for it, and returns the answer.
    async fn ask_sick(&self, name: &str) -> Status {
        let digest = self.world.release(&self.key, name);
        self.world.state().sick.insert(image_of(digest));
        self.ask(name, digest).await
    }

    /// What `status` shows.
    async fn overview(&self) -> String {
        let (history, requests) = (self.history(), Requests::open(self.state()).unwrap());
        let at_work = (self.state().is_locked().unwrap(), &Journal::open(self.state()));
        operate::status::look(&self.world, &self.settings, &history, &requests, at_work).await.unwrap().render(false)
    }

    async fn go_back(&self, to: Option<&str>) -> Result<Status, rollback::NothingEarlier> {
        let mut desk = Desk::open(&self.settings.app, self.state(), &self.world).unwrap();
        let status = rollback::run(&mut desk, &self.settings, to.map(tag).as_ref()).await;
        desk.close();
        status
    }
}

#[tokio::test]
async fn a_signed_image_is_deployed_and_everybody_is_told() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let digest = place.world.release(&place.key, "v0.2.0");
    let status = place.ask("v0.2.0", digest).await;
    assert_eq!(status.previous_digest, Some(crate::testing::digest("v0.1.0")));
    assert_eq!(status.services.len(), 2);
    assert_eq!(place.history().trust.mark().unwrap().tag, tag("v0.2.0"));
    let host = HostFile::parse(&fs::read(place.path("deploy-host")).unwrap()).unwrap();
    assert_eq!(host.running.unwrap().digest, digest);
    assert!(Journal::open(place.state()).unwrap().current().is_none());
    let told: Vec<String> = place.world.state().verdicts.iter().map(|told| told.status.outcome.to_string()).collect();
    assert_eq!(told, ["deployed", "deployed"]);
}

#[tokio::test]
async fn what_was_proven_and_could_not_be_written_is_written_by_the_next_run() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let digest = place.world.release(&place.key, "v0.2.0");
    // Nothing can be put where a directory with something in it is.
    let (trust, saved) = (place.temp.path().join("state/trust.json"), place.temp.path().join("saved"));
    let (there, aside) = (trust.clone(), saved.clone());
    place.world.state().in_settle = Some(Box::new(move || {
        fs::rename(&there, aside).unwrap();
        fs::create_dir_all(there.join("full")).unwrap();
    }));
    let request = place.request("v0.2.0", digest);
    let status = place.ask_for(&request).await;
    assert_eq!(status.outcome, Outcome::Deployed);
    let answer = fs::read(place.path(&request.id.status_name())).unwrap();
    fs::remove_dir_all(&trust).unwrap();
    fs::rename(saved, &trust).unwrap();
    assert_eq!(place.history().trust.mark().unwrap().tag, tag("v0.1.0"));
    place.run().await.unwrap();
    assert_eq!(place.history().trust.mark().unwrap().tag, tag("v0.2.0"));
    assert_eq!(place.history().running().unwrap().release.digest, digest);
    // Nobody is answered twice, and nothing is left over.
    assert_eq!(fs::read(place.path(&request.id.status_name())).unwrap(), answer);
    assert!(Journal::open(place.state()).unwrap().current().is_none());
    assert_eq!(place.world.state().restarts, 4);
}

#[tokio::test]
async fn an_image_that_there_is_no_room_for_is_refused() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    place.settings.reserve_space = 1;
    place.world.state().free = 10;
    place.world.state().size = 10;
    let digest = place.world.release(&place.key, "v0.2.0");
    let status = place.ask("v0.2.0", digest).await;
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "no-space"));
    assert_eq!(place.world.running(), Some(image_of(crate::testing::digest("v0.1.0"))));
    // No image is rejected for that.
    place.world.state().free = 11;
    assert_eq!(place.ask("v0.2.0", digest).await.outcome, Outcome::Deployed);
}

#[tokio::test]
async fn what_runs_already_is_not_touched() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let restarts = place.world.state().restarts;
    let status = place.ask("v0.1.0", digest("v0.1.0")).await;
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Unchanged, "unchanged"));
    assert_eq!(status.reason.as_str(), "v0.1.0 runs already, healthy");
    assert_eq!(place.world.state().restarts, restarts);
    place.world.state().unchecked.insert("worker".parse().unwrap());
    let status = place.ask("v0.1.0", digest("v0.1.0")).await;
    assert_eq!(status.reason.as_str(), "v0.1.0 runs already; worker has no healthcheck");
}

/// What runs is right, and its next start would not be: the same version puts that right, asked for or gone back to.
#[tokio::test]
async fn a_name_that_somebody_moved_is_put_right_by_the_version_that_runs() {
    for (moved, by_hand) in [(Some("v0.0.1"), false), (None, false), (Some("v0.0.1"), true), (None, true)] {
        let place = Place::new();
        place.deploy("v0.1.0").await;
        let right = image_of(digest("v0.1.0"));
        let name = "localhost/app:worker".to_owned();
        assert_eq!(place.world.state().names.remove(&name), Some(right.clone()));
        if let Some(other) = moved {
            place.world.state().names.insert(name.clone(), image_of(digest(other)));
        }
        let seen = place.overview().await;
        let words = if moved.is_some() { "which its next start would run" } else { "so it would not start again" };
        assert!(seen.contains(words) && seen.contains("`tagship-host rollback app v0.1.0`"), "{seen}");
        let status = match by_hand {
            false => place.ask("v0.1.0", digest("v0.1.0")).await,
            true => place.go_back(Some("v0.1.0")).await.unwrap(),
        };
        assert_eq!(status.outcome, Outcome::Deployed, "{}", status.reason);
        assert_eq!(place.world.state().names.get(&name), Some(&right));
        assert!(!place.overview().await.contains("warning"));
    }
}

/// An operator's deploy is in the journal alone.
#[tokio::test]
async fn status_warns_of_nothing_in_the_middle_of_a_deploy() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
    killed::kill_in_the_middle(&place, &request, Phase::Replacing(0));
    let seen = place.overview().await;
    assert!(seen.contains("waits    an interrupted deploy, for the companion's next run to end it"), "{seen}");
    assert!(!seen.contains("warning"), "{seen}");
    let _companion = place.state().lock().unwrap();
    let seen = place.overview().await;
    assert!(seen.contains("waits    a deploy is under way"), "{seen}");
}

#[tokio::test]
async fn status_says_that_nothing_runs_where_that_is_known() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    place.world.state().engine_silent = true;
    assert!(!place.overview().await.contains("no service runs"));
    place.world.state().engine_silent = false;
    ["web", "worker"].iter().for_each(|service| place.rests(service, "v0.1.0"));
    let seen = place.overview().await;
    assert!(seen.contains("warning  no service runs"), "{seen}");
}

#[tokio::test]
async fn status_says_that_nothing_can_be_deployed() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    fs::write(place.state().file("journal.json"), "").unwrap();
    let seen = place.overview().await;
    assert!(seen.contains("warning  nothing can be deployed: ") && seen.contains("journal.json"), "{seen}");
}

#[tokio::test]
async fn status_names_what_runs_in_place_of_what_was_proven() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    assert!(!place.overview().await.contains("warning"));
    place.runs("worker", "v0.1.0");
    let seen = place.overview().await;
    assert!(seen.contains("another image than that of v0.2.0, which was proven last, runs in worker"), "{seen}");
}

#[tokio::test]
async fn a_service_without_a_healthcheck_is_not_called_healthy() {
    let place = Place::new();
    place.world.state().unchecked.insert("worker".parse().unwrap());
    let digest = place.world.release(&place.key, "v0.1.0");
    let status = place.ask("v0.1.0", digest).await;
    assert_eq!(status.outcome, Outcome::Deployed);
    assert!(status.reason.as_str().starts_with("v0.1.0 runs; "), "{}", status.reason);
    assert!(status.reason.as_str().contains("worker has no healthcheck"), "{}", status.reason);
}

#[tokio::test]
async fn what_does_not_count_is_refused_by_name_and_nothing_is_touched() {
    let place = Place::new();
    place.deploy("v0.2.0").await;
    let restarts = place.world.state().restarts;
    let stranger = Signer::new();
    place.world.release(&place.key, "v0.1.0");
    place.world.release(&stranger, "v0.3.0");
    let bare = digest("bare");
    place.world.state().tags.insert(tag("v0.4.0"), bare);
    let unnamed = digest("unnamed");
    let layer = place.key.layer(unnamed, &[]);
    place.world.state().signatures.insert(unnamed, vec![layer]);
    place.world.state().tags.insert(tag("v0.5.0"), unnamed);
    let lifted = digest("lifted");
    let layer = place.key.layer(digest("v0.2.0"), &[("tag", "v0.6.0")]);
    place.world.state().signatures.insert(lifted, vec![layer]);
    for (asked, digest, kind) in [
        ("v0.1.0", digest("v0.1.0"), "downgrade"),
        ("v0.3.0", digest("v0.3.0"), "foreign-signature"),
        ("v0.4.0", bare, "no-signature"),
        ("v0.5.0", unnamed, "annotations-missing"),
        ("v0.6.0", lifted, "other-digest"),
        ("v9.9.9", digest("v0.2.0"), "tag-mismatch"),
    ] {
        let status = place.ask(asked, digest).await;
        assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, kind), "{asked}: {}", status.reason);
    }
    let mut other = place.request("v0.2.0", digest("v0.2.0"));
    other.image = "git.example.org/chris/other".parse().unwrap();
    assert_eq!(place.ask_for(&other).await.kind.as_str(), "another-image");
    place.world.state().registry_down = true;
    assert_eq!(place.ask("v0.7.0", digest("v0.7.0")).await.kind.as_str(), "registry-error");
    place.world.state().registry_down = false;
    place.world.state().engine_down = true;
    let digest = place.world.release(&place.key, "v0.8.0");
    assert_eq!(place.ask("v0.8.0", digest).await.kind.as_str(), "engine-missing");

    assert_eq!(place.world.state().restarts, restarts);
    assert_eq!(place.history().trust.mark().unwrap().tag, tag("v0.2.0"));
}

#[tokio::test]
async fn without_a_signed_tag_only_the_registrys_word_names_an_image() {
    let place = Place::new();
    let unnamed = digest("unnamed");
    let layer = place.key.layer(unnamed, &[]);
    place.world.state().signatures.insert(unnamed, vec![layer]);
    assert_eq!(place.ask("v0.1.0", unnamed).await.kind.as_str(), "tag-elsewhere");
    place.world.state().tags.insert(tag("v0.1.0"), digest("another"));
    assert_eq!(place.ask("v0.1.0", unnamed).await.kind.as_str(), "tag-elsewhere");
    place.world.state().tags.insert(tag("v0.1.0"), unnamed);
    assert_eq!(place.ask("v0.1.0", unnamed).await.outcome, Outcome::Deployed);
}

#[tokio::test]
async fn the_floor_binds_the_operator_too() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    place.settings.verify.floor = Some(tag("v0.2.0"));
    assert_eq!(place.go_back(None).await.unwrap().kind.as_str(), "below-floor");
    assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(), "below-floor");
}

#[tokio::test]
async fn a_sick_image_is_rolled_back_and_raises_no_mark() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let status = place.ask_sick("v0.2.0").await;
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::RolledBack, "unhealthy"));
    assert!(status.reason.as_str().contains("web"), "{}", status.reason);
    assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))));
    assert_eq!(place.history().trust.mark().unwrap().tag, tag("v0.1.0"));
}

#[tokio::test]
async fn a_rejected_image_is_refused_with_the_first_reason_until_the_operator_insists() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let first = place.ask_sick("v0.2.0").await;
    assert_eq!(first.outcome, Outcome::RolledBack);

    // It would get well now, and is not even tried.
    place.world.state().sick.clear();
    let again = place.ask("v0.2.0", digest("v0.2.0")).await;
    assert_eq!((again.outcome, again.kind.as_str()), (Outcome::Refused, "rejected"));
    assert!(again.reason.as_str().contains("it does not get healthy"), "{}", again.reason);
    assert_eq!(place.world.running(), place.history().running().map(|proven| proven.image.clone()));

    let mut desk = Desk::open(&place.settings.app, place.state(), &place.world).unwrap();
    let retried = retry::run(&mut desk, &place.settings, &tag("v0.2.0")).await;
    assert_eq!(retried.outcome, Outcome::Deployed, "{}", retried.reason);
    assert_eq!(place.ask("v0.2.0", digest("v0.2.0")).await.outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn an_image_is_not_blamed_where_a_service_was_unwell_before() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let running = place.world.running().unwrap();
    let digest = place.world.release(&place.key, "v0.2.0");
    // The database is dead: neither the new image nor the old one gets well.
    place.world.state().sick.extend([running, image_of(digest)]);
    for _ in 0..2 {
        let status = place.ask("v0.2.0", digest).await;
        assert_ne!(status.kind.as_str(), "rejected", "{}", status.reason);
        assert!(!status.outcome.is_ok());
    }
}

#[tokio::test]
async fn the_plain_form_deploys_what_the_tag_names() {
    let place = Place::new();
    let digest = place.world.release(&place.key, "v0.1.0");
    place.world.state().tags.insert(tag("stable"), digest);
    for (asked, first, runs) in
        [("v0.1.0\n", "ok v0.1.0", true), ("stable", "ok stable", true), ("v9.9.9\n", "fail v9.9.9", true)]
    {
        fs::write(place.path("deploy-trigger"), asked).unwrap();
        place.run().await.unwrap();
        let answer = fs::read(place.path("deploy-status")).unwrap();
        assert!(answer.starts_with(first.as_bytes()), "{asked}: {}", String::from_utf8_lossy(&answer));
        assert!(FirstLine::parse(&answer).is_ok());
        assert_eq!(place.world.running().is_some(), runs);
    }
}

#[tokio::test]
async fn a_file_in_the_hand_offs_place_is_named_and_left() {
    let mut place = Place::new();
    let file = place.temp.path().join("file");
    fs::write(&file, "somebody's").unwrap();
    for handoff in [file.clone(), file.join("below")] {
        place.settings.handoff = handoff;
        let error = place.run().await.unwrap_err();
        assert_eq!(error.kind(), "handoff-create");
        assert!(error.hint().unwrap().contains("is no directory"), "{:?}", error.hint());
        let seen = place.overview().await;
        assert!(seen.contains("warning  cannot open the hand-off directory"), "{seen}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"somebody's");
}

#[tokio::test]
async fn a_broken_configuration_is_an_answer_and_works_once_mended() {
    let place = Place::new();
    let digest = place.world.release(&place.key, "v0.1.0");
    let broken = || Err(ConfigError::MissingKey { path: "app.yaml".into(), key: "services" });
    assert!(matches!(place.run_with(&broken).await, Err(CommandError::Config(_))), "nobody to answer");
    let request = place.request("v0.1.0", digest);
    place.put(request.id, &request.encode());
    place.run_with(&broken).await.unwrap();
    let status = place.answer(request.id);
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "config-invalid"));
    assert!(status.reason.as_str().contains("`services` is missing; hint:"), "{}", status.reason);

    // Whose requests are accepted was not known when it was claimed.
    let request = place.request("v0.1.0", digest);
    place.put(request.id, &request.encode());
    let first = std::cell::Cell::new(true);
    let mended_meanwhile = || if first.take() { broken() } else { Ok(place.settings.clone()) };
    place.run_with(&mended_meanwhile).await.unwrap();
    assert_eq!(place.answer(request.id).kind.as_str(), "config-invalid");
    place.deploy("v0.1.0").await;
}

#[tokio::test]
async fn what_is_missing_is_seen_before_anybody_asks() {
    let place = Place::new();
    let desk = Desk::open(&place.settings.app, place.state(), &place.world).unwrap();
    assert_eq!(desk.obstacles(&place.settings).await, [""; 0]);
    place.world.state().unknown.insert("worker".parse().unwrap());
    let obstacles = desk.obstacles(&place.settings).await;
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    assert!(obstacles[0].starts_with("systemd knows no worker.service; hint: "), "{obstacles:?}");
    place.world.state().engine_down = true;
    assert_eq!(desk.obstacles(&place.settings).await, ["no engine answers"]);
}

#[tokio::test]
async fn a_hand_off_directory_that_cannot_be_written_is_an_error() {
    let mut place = Place::new();
    // Nobody can create a file there, not even root.
    place.settings.handoff = "/proc/self".into();
    let error = place.run().await.unwrap_err();
    assert!(matches!(error, CommandError::Inbox(InboxError::Dir(_))), "{error}");
    assert!(error.to_string().contains("deploy-host"), "{error}");
}

#[tokio::test]
async fn requests_that_must_be_signed_are() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    let back = |place: &Place| Request { rollback: true, ..place.request("v0.1.0", digest("v0.1.0")) };
    assert_eq!(place.ask_for(&back(&place)).await.kind.as_str(), "request-unsigned");
    assert_eq!(place.ask_signed(&back(&place), &Signer::new()).await.kind.as_str(), "request-signature");
    assert_eq!(place.ask_signed(&back(&place), &place.key).await.outcome, Outcome::Deployed);
    assert_eq!(place.ask("v0.2.0", digest("v0.2.0")).await.kind.as_str(), "held");

    place.settings.verify.requests = RequestPolicy::Signed;
    let digest = place.world.release(&place.key, "v0.3.0");
    assert_eq!(place.ask("v0.3.0", digest).await.kind.as_str(), "request-unsigned");
    let request = place.request("v0.3.0", digest);
    assert_eq!(place.ask_signed(&request, &place.key).await.outcome, Outcome::Deployed);
}

/// Whoever can write in the hand-off directory keeps a copy, and pushes its identifier out of those that were seen.
#[tokio::test]
async fn a_signed_rollback_is_used_once_however_many_requests_come_after_it() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    let request = Request { rollback: true, ..place.request("v0.1.0", digest("v0.1.0")) };
    assert_eq!(place.ask_signed(&request, &place.key).await.outcome, Outcome::Deployed);
    place.deploy("v0.3.0").await;
    fs::remove_file(place.temp.path().join("state/seen")).unwrap();
    fs::remove_file(place.path(&request.id.status_name())).unwrap();
    let bytes = request.encode_signed(|message| Ok::<_, ()>(place.key.sign(message))).unwrap();
    place.put(request.id, &bytes);
    place.run().await.unwrap();
    assert!(!place.path(&request.id.request_name()).exists() && !place.path(&request.id.status_name()).exists());
    assert_eq!(place.world.running(), Some(image_of(digest("v0.3.0"))));
    // One whose signature does not count takes no room.
    let foreign = Request { id: RequestId::generate(), ..request };
    assert_eq!(place.ask_signed(&foreign, &Signer::new()).await.kind.as_str(), "request-signature");
    let spent = fs::read_to_string(place.temp.path().join("state/spent")).unwrap();
    assert!(!spent.contains(&foreign.id.to_string()), "{spent}");
}

#[tokio::test]
async fn the_moving_tag_permits_going_back_only_while_it_names_the_digest() {
    let mut place = Place::new();
    place.settings.verify.downgrade = Downgrade::MovingTag;
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    let old = digest("v0.1.0");
    place.world.state().tags.insert(tag("stable"), digest("v0.2.0"));
    assert_eq!(place.ask("v0.1.0", old).await.kind.as_str(), "downgrade");
    place.world.state().tags.insert(tag("stable"), old);
    assert_eq!(place.ask("v0.1.0", old).await.outcome, Outcome::Deployed);
}
