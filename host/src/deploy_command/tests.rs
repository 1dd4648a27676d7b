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
    journal::{Current, Journal},
    operate::{retry, rollback},
    testing::{Signer, World, digest, image_of, repository, settings, tag},
    trust::Release,
};

mod damaged;
mod lost;
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
    let digest = place.world.release(&place.key, "v0.2.0");
    place.world.state().sick.insert(image_of(digest));
    let status = place.ask("v0.2.0", digest).await;
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::RolledBack, "unhealthy"));
    assert!(status.reason.as_str().contains("web"), "{}", status.reason);
    assert_eq!(place.world.running(), Some(image_of(crate::testing::digest("v0.1.0"))));
    assert_eq!(place.history().trust.mark().unwrap().tag, tag("v0.1.0"));
}

#[tokio::test]
async fn a_rejected_image_is_refused_with_the_first_reason_until_the_operator_insists() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let digest = place.world.release(&place.key, "v0.2.0");
    place.world.state().sick.insert(image_of(digest));
    let first = place.ask("v0.2.0", digest).await;
    assert_eq!(first.outcome, Outcome::RolledBack);

    // It would get well now, and is not even tried.
    place.world.state().sick.clear();
    let again = place.ask("v0.2.0", digest).await;
    assert_eq!((again.outcome, again.kind.as_str()), (Outcome::Refused, "rejected"));
    assert!(again.reason.as_str().contains("it does not get healthy"), "{}", again.reason);
    assert_eq!(place.world.running(), place.history().running().map(|proven| proven.image.clone()));

    let mut desk = Desk::open(&place.settings.app, place.state(), &place.world).unwrap();
    let retried = retry::run(&mut desk, &place.settings, &tag("v0.2.0")).await;
    assert_eq!(retried.outcome, Outcome::Deployed, "{}", retried.reason);
    assert_eq!(place.ask("v0.2.0", digest).await.outcome, Outcome::Unchanged);
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
        let (history, requests) = (History::open(&place.state()).unwrap(), Requests::open(place.state()).unwrap());
        let seen = crate::operate::status::look(&place.world, &place.settings, &history, &requests).await.unwrap();
        assert!(seen.render(false).contains("warning  cannot open the hand-off directory"), "{}", seen.render(false));
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

#[tokio::test]
async fn the_operator_goes_back_offline_and_the_newer_version_is_held() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    place.world.state().registry_down = true;
    let status = place.go_back(None).await.unwrap();
    assert_eq!((status.outcome, status.tag), (Outcome::Deployed, Some(tag("v0.1.0"))));
    assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))));
    assert!(place.go_back(None).await.is_err(), "the way back never leads forward");
    assert_eq!(place.go_back(Some("v9.9.9")).await.unwrap().kind.as_str(), "registry-error");
    place.world.state().registry_down = false;
    assert_eq!(place.ask("v0.2.0", digest("v0.2.0")).await.kind.as_str(), "held");
    place.deploy("v0.3.0").await;
}

#[tokio::test]
async fn one_shot_units_are_not_run_on_the_way_back() {
    let mut place = Place::new();
    place.settings.before = vec!["migrate".parse().unwrap()];
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    let migrated = || place.world.state().names["localhost/app:migrate"].clone();
    assert_eq!(migrated(), image_of(digest("v0.2.0")));
    assert_eq!(place.go_back(None).await.unwrap().outcome, Outcome::Deployed);
    assert_eq!(migrated(), image_of(digest("v0.2.0")));
    place.deploy("v0.3.0").await;
    let request = Request { rollback: true, ..place.request("v0.2.0", digest("v0.2.0")) };
    assert_eq!(place.ask_signed(&request, &place.key).await.outcome, Outcome::Deployed);
    assert_eq!(migrated(), image_of(digest("v0.3.0")));
}

#[tokio::test]
async fn a_key_that_is_no_longer_trusted_vouches_for_nothing_that_was_proven() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    place.settings = settings(&Signer::new(), &place.settings.handoff);
    assert_eq!(place.go_back(None).await.unwrap().kind.as_str(), "foreign-signature");
}

#[tokio::test]
async fn what_was_signed_again_with_a_new_key_can_be_gone_back_to() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    place.deploy("v0.2.0").await;
    let (new, stranger) = (Signer::new(), Signer::new());
    place.settings = settings(&new, &place.settings.handoff);
    place.world.release(&stranger, "v0.1.0");
    assert_eq!(place.go_back(None).await.unwrap().kind.as_str(), "foreign-signature");
    place.world.release(&new, "v0.1.0");
    place.world.state().registry_down = true;
    assert_eq!(place.go_back(None).await.unwrap().kind.as_str(), "foreign-signature", "the reason, not the outage");
    place.world.state().registry_down = false;
    place.settings.verify.floor = Some(tag("v0.2.0"));
    assert_eq!(place.go_back(None).await.unwrap().kind.as_str(), "below-floor");
    place.settings.verify.floor = None;
    assert_eq!(place.go_back(None).await.unwrap().outcome, Outcome::Deployed);
    assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))));
    // That signature is the one that is kept from now on: it is gone back to once more, offline.
    place.key = new;
    place.deploy("v0.3.0").await;
    place.world.state().registry_down = true;
    assert_eq!(place.go_back(Some("v0.1.0")).await.unwrap().outcome, Outcome::Deployed);
}

#[tokio::test]
async fn with_nothing_behind_it_there_is_no_way_back() {
    let place = Place::new();
    let nothing = place.go_back(None).await.unwrap_err();
    assert!(nothing.hint().unwrap().contains("`tagship-host rollback app --list`"), "{:?}", nothing.hint());
}

#[tokio::test]
async fn what_ran_before_tagship_came_is_put_back_unverified() {
    let place = Place::new();
    let incumbent = image_of(digest("by hand"));
    for name in ["web", "worker"] {
        let mut state = place.world.state();
        state.names.insert(format!("localhost/app:{name}"), incumbent.clone());
        state.runs.insert(name.parse().unwrap(), (incumbent.clone(), 1));
    }
    let sick = place.world.release(&place.key, "v0.0.9");
    place.world.state().sick.insert(image_of(sick));
    let status = place.ask("v0.0.9", sick).await;
    assert_eq!((status.outcome, place.world.running()), (Outcome::RolledBack, Some(incumbent.clone())));
    assert!(status.reason.as_str().contains("was never proven here"), "{}", status.reason);
    place.deploy("v0.1.0").await;
    let sick = place.world.release(&place.key, "v0.2.0");
    place.world.state().sick.insert(image_of(sick));
    let status = place.ask("v0.2.0", sick).await;
    assert!(!status.reason.as_str().contains("never proven"), "{}", status.reason);
    assert_eq!(place.go_back(None).await.unwrap().outcome, Outcome::Deployed);
    assert_eq!(place.world.running(), Some(incumbent));
    assert!(place.history().trust.running().is_none());
    assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(), "held");
}

/// Leaves everything as a run that was killed while it replaced the second service.
fn kill_in_the_middle(place: &Place, request: &Request, phase: Phase) {
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
async fn begin(place: &Place, request: &Request) {
    use crate::inbox::{Entry, EntryForm, Ledger, Stage};

    let text = String::from_utf8(request.encode()).unwrap();
    let form = EntryForm::Full { text };
    let handoff = Some(place.settings.handoff.clone());
    let entry = Entry { id: request.id, claimed: Timestamp::now(), form, stage: Stage::Begun, handoff };
    Requests::open(place.state()).unwrap().put(&entry).unwrap();
}

/// A request whose deploy was proven, and whose verdict was kept, before the run was killed: nobody was told.
async fn decided_and_untold(place: &Place) -> Request {
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
    let sick = place.world.release(&place.key, "v1.2.0");
    place.world.state().sick.insert(image_of(sick));
    assert_eq!(place.ask("v1.2.0", sick).await.outcome, Outcome::RolledBack);
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
