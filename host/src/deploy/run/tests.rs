//! Effects against a host in memory: what is done, in which order, and what everybody is told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use tagship_core::{
    explain::Explain,
    reference::Digest,
    signature::{AnnotationRule, Expectation, Formats, Policy, Rekor, verify},
};

use super::*;
use crate::{
    config::{Missing, ServiceName},
    deploy::{ContainerFacts, ContainerId, HealthState, Leave, Left, LocalName, Pulled, Room, UnitFacts, Wanted, Was},
    testing::{Signer, digest, image_of, repository, settings, world::Silent},
};

/// The engine cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("the engine is away")]
struct Away;

impl Explain for Away {
    fn kind(&self) -> &'static str {
        crate::engine::UNREACHABLE
    }
}

/// A host in memory.
#[derive(Default)]
struct Host {
    state: Mutex<State>,
    stop: Stop,
}

#[derive(Default)]
struct State {
    /// What each local name stands for.
    names: BTreeMap<String, ImageId>,
    /// What each service runs, and its container's number.
    runs: BTreeMap<String, (ImageId, u64)>,
    containers: u64,
    /// Images that never become healthy; with `None` for the answer they leave everybody waiting.
    sick: BTreeSet<ImageId>,
    silent: BTreeSet<ImageId>,
    /// Images no longer in the store.
    lost: BTreeSet<ImageId>,
    healthcheck: bool,
    /// What the store has room for, and how many bytes an image takes; nobody knows the latter if none.
    free: u64,
    size: Option<u64>,
    /// The layers in the store.
    layers: BTreeSet<Digest>,
    /// How often the engine still cannot be reached when a name is to move.
    away: u32,
    /// Nobody answers any question.
    deaf: bool,
    /// What was done.
    log: Vec<String>,
    /// What was told.
    told: Vec<String>,
    /// The phases written, and when writing fails.
    saved: Vec<Phase>,
    entry: Option<InFlight>,
    unwritable: Option<usize>,
}

impl Host {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn log(&self, what: String) {
        self.state().log.push(what);
    }

    /// The services run this image.
    fn runs(&self, image: &ImageId) {
        let mut state = self.state();
        for service in ["web", "worker"] {
            state.names.insert(format!("localhost/app:{service}"), image.clone());
            state.containers += 1;
            let number = state.containers;
            state.runs.insert(service.into(), (image.clone(), number));
        }
    }

    fn now(&self) -> Vec<ImageId> {
        self.state().runs.values().map(|(image, _)| image.clone()).collect()
    }
}

impl Units for Host {
    type Error = Silent;

    async fn inspect(&self, service: &ServiceName) -> Result<UnitFacts, Silent> {
        if self.state().deaf {
            std::future::pending::<()>().await;
        }
        let active = if self.state().runs.contains_key(service.as_str()) { "active" } else { "inactive" };
        Ok(UnitFacts {
            load: "loaded".into(),
            active: active.into(),
            command: vec![format!("localhost/app:{service}")],
            ..UnitFacts::default()
        })
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), Silent> {
        self.log(format!("restart {service}"));
        let mut state = self.state();
        let image = state.names[&format!("localhost/app:{service}")].clone();
        state.containers += 1;
        let number = state.containers;
        state.runs.insert(service.to_string(), (image, number));
        Ok(())
    }

    async fn stop(&self, service: &ServiceName) -> Result<(), Silent> {
        self.log(format!("stop {service}"));
        self.state().runs.remove(service.as_str());
        Ok(())
    }

    async fn tail(&self, service: &ServiceName, _: Option<SystemTime>) -> Vec<String> {
        vec![format!("{service} says boom")]
    }
}

impl Store for Host {
    type Error = Away;

    async fn rooms(&self) -> Result<Vec<Room>, Away> {
        Ok(vec![Room { directory: "/store".into(), device: 1, free: self.state().free }])
    }

    async fn layers(&self) -> Result<BTreeSet<Digest>, Away> {
        self.log("list layers".into());
        Ok(self.state().layers.clone())
    }

    async fn pull(&self, verified: &Verified, progress: &(dyn Fn(&str) + Sync)) -> Result<Pulled, Away> {
        self.log("pull".into());
        progress("fetched 1234");
        Ok(Pulled::new(verified, image_of(verified.digest()), self.state().healthcheck))
    }

    async fn resolve(&self, name: &LocalName) -> Result<Option<ImageId>, Away> {
        Ok(self.state().names.get(&name.to_string()).cloned())
    }

    async fn has(&self, image: &ImageId) -> Result<bool, Away> {
        Ok(!self.state().lost.contains(image))
    }

    async fn digests(&self, _: &ImageId, _: &tagship_core::reference::Repository) -> Result<Vec<Digest>, Away> {
        Ok(Vec::new())
    }

    async fn keep(&self, image: &ImageId) -> Result<(), Away> {
        self.log(format!("keep {}", image.short()));
        Ok(())
    }

    async fn place(&self, leave: Leave<'_>, name: &LocalName) -> Result<(), Away> {
        self.log(format!("place {}", name.tag));
        if leave.image() == &image_of(digest("old")) && self.state().away > 0 {
            self.state().away -= 1;
            return Err(Away);
        }
        self.state().names.insert(name.to_string(), leave.image().clone());
        Ok(())
    }

    async fn forget(&self, name: &LocalName) -> Result<(), Away> {
        self.state().names.remove(&name.to_string());
        Ok(())
    }
}

impl Containers for Host {
    type Error = Silent;

    async fn find(&self, service: &ServiceName) -> Result<Option<ContainerFacts>, Silent> {
        Ok(self.state().runs.get(service.as_str()).map(|(image, number)| ContainerFacts {
            id: container(*number),
            image: image.clone(),
            running: true,
            restarts: 0,
            health: HealthState::Healthy,
        }))
    }

    async fn prove(&self, want: Wanted<'_>) -> Result<Proof, Failure> {
        self.log(format!("prove {}", want.service));
        let (image, number) = self.state().runs[want.service.as_str()].clone();
        assert_eq!(&image, want.image);
        assert_ne!(Some(&container(number)), want.not);
        if self.state().silent.contains(&image) {
            std::future::pending::<()>().await;
        }
        if self.state().sick.contains(&image) {
            return Err(Failure::new("unhealthy", "it is sick").at(want.service));
        }
        Ok(Proof { service: want.service.clone(), container: container(number), image, restarts: 0, checked: true })
    }

    async fn hold(&self, proofs: &[Proof], _: Duration) -> Result<(), Failure> {
        self.log(format!("hold {}", proofs.len()));
        Ok(())
    }
}

impl Report for Host {
    fn tell(&self, news: News<'_>) {
        let service = news.service.map_or("-", ServiceName::as_str);
        self.state().told.push(format!("{} {service} {} {}", news.phase.as_str(), news.event, news.text));
    }
}

/// The journal is part of the host, but borrowed apart from it.
struct Disk<'h>(&'h Host);

impl Journal for Disk<'_> {
    fn save(&mut self, entry: &InFlight) -> Result<(), Box<dyn Explain + Send + Sync>> {
        let mut state = self.0.state();
        if state.unwritable == Some(state.saved.len()) {
            return Err(Box::new(crate::state_dir::StateError::NoHome));
        }
        state.saved.push(entry.phase.clone());
        state.entry = Some(entry.clone());
        Ok(())
    }
}

fn container(number: u64) -> ContainerId {
    format!("{number:064x}").try_into().unwrap()
}

fn candidate(key: &Signer, digest: Digest) -> Candidate {
    let policy = Policy {
        keys: vec![key.public.clone()],
        formats: Formats::BOTH,
        rekor: Rekor::Off,
        log_keys: vec![],
        annotations: AnnotationRule::Off,
    };
    let expected = Expectation { repository: repository(), digest, tag: None };
    let verified = verify::verify(&expected, &[key.layer(digest, &[])], &policy).unwrap();
    Candidate { verified, tag: "v2".parse().unwrap() }
}

fn ground<'a>(host: &'a Host, settings: &'a Settings) -> Ground<'a, Host, Host, Host> {
    static NOTHING: BTreeSet<ImageId> = BTreeSet::new();
    Ground { settings, units: host, store: host, containers: host, revoked: &NOTHING, report: host, stop: &host.stop }
}

struct Scene {
    host: Host,
    settings: Settings,
    key: Signer,
    old: ImageId,
    new: ImageId,
}

impl Scene {
    /// Two services run the old image.
    fn new() -> Self {
        let (key, host) = (Signer::new(), Host::default());
        let settings = settings(&key, std::path::Path::new("/handoff"));
        let (old, new) = (image_of(digest("old")), image_of(digest("new")));
        host.runs(&old);
        Self { host, settings, key, old, new }
    }

    async fn deploy(&self) -> Ended {
        let candidate = candidate(&self.key, digest("new"));
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, digest("layer"));
        let contents = self.host.state().size.map(|size| Contents::new(&[size], config.as_bytes()).unwrap());
        let contents = std::future::ready(contents);
        deploy(&ground(&self.host, &self.settings), &mut Disk(&self.host), candidate, contents).await
    }
}

#[tokio::test]
async fn a_good_deploy() {
    let scene = Scene::new();
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.image.as_ref()), (Verdict::Deployed, Some(&scene.new)));
    assert_eq!(scene.host.now(), [scene.new.clone(), scene.new.clone()]);
    let state = scene.host.state();
    let kept = format!("keep {}", scene.old.short());
    let expected = [
        "pull",
        &kept,
        "place web",
        "restart web",
        "prove web",
        "place worker",
        "restart worker",
        "prove worker",
        "hold 2",
    ];
    assert_eq!(state.log, expected);
    assert_eq!(state.saved, [Phase::Pulling, Phase::Replacing(0), Phase::Replacing(1), Phase::Proven]);
    assert!(state.told.contains(&"pull - progress fetched 1234".to_owned()));
    assert!(ended.services.iter().all(|service| service.state == Left::Deployed && service.image == ended.image));
}

#[tokio::test]
async fn a_sick_image_is_rolled_back_with_its_last_words() {
    let scene = Scene::new();
    scene.host.state().sick.insert(scene.new.clone());
    let ended = scene.deploy().await;
    assert_eq!(ended.verdict, Verdict::RolledBack);
    assert_eq!(scene.host.now(), [scene.old.clone(), scene.old.clone()]);
    let cause = ended.cause.unwrap();
    assert_eq!((cause.kind.as_str(), cause.tail.as_slice()), ("unhealthy", &["web says boom".to_owned()][..]));
    assert_eq!(ended.services.iter().map(|s| s.state).collect::<Vec<_>>(), [Left::Restored, Left::Untouched]);
    assert!(scene.host.state().told.contains(&"health web output web says boom".to_owned()));
}

#[tokio::test]
async fn a_missing_way_back_is_refused_before_any_effect() {
    let scene = Scene::new();
    scene.host.state().lost.insert(scene.old.clone());
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::Refused, "previous-image-missing"));
    assert!(scene.host.state().log.is_empty() && scene.host.state().saved.is_empty());
}

#[tokio::test]
async fn an_image_without_room_is_refused_before_any_effect() {
    let mut scene = Scene::new();
    scene.settings.reserve_space = 50;
    scene.host.state().size = Some(60);
    scene.host.state().free = 109;
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::Refused, "no-space"));
    assert_eq!(scene.host.state().log, ["list layers"]);
    assert!(scene.host.state().saved.is_empty());
    // With what is in the store already there is room, and with a byte more nobody asks for that.
    scene.host.state().layers.insert(digest("layer"));
    assert_eq!(scene.deploy().await.verdict, Verdict::Deployed);
    let scene = Scene::new();
    scene.host.state().size = Some(60);
    scene.host.state().free = 60;
    assert_eq!(scene.deploy().await.verdict, Verdict::Deployed);
    assert!(!scene.host.state().log.contains(&"list layers".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_way_back_waits_for_the_engine() {
    let scene = Scene::new();
    scene.host.state().sick.insert(scene.new.clone());
    scene.host.state().away = 3;
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.broken), (Verdict::RolledBack, vec![]));
    assert_eq!(scene.host.now(), [scene.old.clone(), scene.old.clone()]);
    let told = scene.host.state().told.clone();
    assert_eq!(told.iter().filter(|line| line.starts_with("rollback web failed the engine is away")).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stays_away_is_waited_for_until_the_budget_is_spent() {
    let scene = Scene::new();
    scene.host.state().sick.insert(scene.new.clone());
    scene.host.state().away = u32::MAX;
    let begun = Instant::now();
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.broken[0].kind.as_str()), (Verdict::Failed, "budget"));
    assert_eq!(begun.elapsed(), scene.settings.budget);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_not_looked_at_for_long() {
    let scene = Scene::new();
    scene.host.state().deaf = true;
    let begun = Instant::now();
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::Failed, "host-silent"));
    assert_eq!(begun.elapsed(), LOOK);
    assert!(scene.host.state().log.is_empty() && scene.host.state().saved.is_empty());
}

#[tokio::test]
async fn a_missing_healthcheck_is_found_before_any_restart() {
    let mut scene = Scene::new();
    scene.settings.health.missing = Missing::Refuse;
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::Failed, "no-healthcheck"));
    assert!(!scene.host.state().log.iter().any(|what| what.starts_with("place") || what.starts_with("restart")));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_begun() {
    let scene = Scene::new();
    scene.host.state().unwritable = Some(0);
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::Failed, "state-place"));
    assert_eq!(scene.host.state().log, Vec::<String>::new());
}

#[tokio::test]
async fn an_end_that_cannot_be_recorded_goes_back() {
    let scene = Scene::new();
    scene.host.state().unwritable = Some(3);
    assert_eq!(scene.deploy().await.verdict, Verdict::RolledBack);
    assert_eq!(scene.host.now(), [scene.old.clone(), scene.old.clone()]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_image_spends_two_thirds_of_the_budget() {
    let scene = Scene::new();
    scene.host.state().silent.insert(scene.new.clone());
    let begun = Instant::now();
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::RolledBack, "budget"));
    assert_eq!(begun.elapsed().as_secs(), scene.settings.budget.as_secs() * 2 / 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_way_back_ends_with_the_budget_and_is_loud() {
    let scene = Scene::new();
    scene.host.state().sick.insert(scene.new.clone());
    scene.host.state().silent.insert(scene.old.clone());
    let begun = Instant::now();
    let ended = scene.deploy().await;
    assert_eq!((ended.verdict, ended.broken[0].kind.as_str()), (Verdict::Failed, "budget"));
    assert_eq!(begun.elapsed().as_secs(), scene.settings.budget.as_secs());
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_it_puts_everything_back_at_once() {
    let scene = Scene::new();
    scene.host.state().silent.insert(scene.new.clone());
    let begun = Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        scene.host.stop.ask();
    };
    let (ended, ()) = tokio::join!(scene.deploy(), stop);
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::Interrupted, "interrupted"));
    assert_eq!(scene.host.now(), [scene.old.clone(), scene.old.clone()]);
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn what_a_deploy_recorded_can_be_put_back_and_again() {
    let scene = Scene::new();
    assert_eq!(scene.deploy().await.verdict, Verdict::Deployed);
    let first = scene.host.state().entry.clone().unwrap();
    let ended = put_back(&ground(&scene.host, &scene.settings), &mut Disk(&scene.host), &first).await;
    assert_eq!(ended.verdict, Verdict::Deployed);
    assert_eq!(scene.host.now(), [scene.old.clone(), scene.old.clone()]);
    let second = scene.host.state().entry.clone().unwrap();
    assert_eq!(second.services[0].image.as_ref(), Some(&scene.new));
}

#[tokio::test]
async fn told_to_stop_before_anything_began_it_does_nothing() {
    let scene = Scene::new();
    scene.deploy().await;
    let first = scene.host.state().entry.clone().unwrap();
    scene.host.stop.ask();
    scene.host.state().log.clear();
    scene.host.state().saved.clear();
    let ended = put_back(&ground(&scene.host, &scene.settings), &mut Disk(&scene.host), &first).await;
    let left: Vec<Left> = ended.services.iter().map(|service| service.state).collect();
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::Interrupted, "interrupted"));
    assert_eq!(left, [Left::Untouched, Left::Untouched]);
    assert_eq!(scene.deploy().await.verdict, Verdict::Interrupted);
    let state = scene.host.state();
    assert!(state.log.is_empty() && state.saved.is_empty(), "{:?} {:?}", state.log, state.saved);
}

#[tokio::test]
async fn what_was_never_recorded_cannot_be_put_back() {
    let scene = Scene::new();
    scene.deploy().await;
    let mut entry = scene.host.state().entry.clone().unwrap();
    entry.services.pop();
    scene.host.state().log.clear();
    let ended = put_back(&ground(&scene.host, &scene.settings), &mut Disk(&scene.host), &entry).await;
    assert_eq!((ended.verdict, ended.cause.unwrap().kind.as_str()), (Verdict::Refused, "nothing-recorded"));
    assert_eq!(scene.host.state().log, Vec::<String>::new());
}

#[tokio::test]
async fn a_crash_in_the_middle_is_ended_from_the_record() {
    let scene = Scene::new();
    scene.deploy().await;
    let mut entry = scene.host.state().entry.clone().unwrap();
    // As if it had been killed while the second group was being replaced.
    entry.phase = Phase::Replacing(1);
    let ended = recover(&ground(&scene.host, &scene.settings), &mut Disk(&scene.host), entry).await.unwrap();
    assert_eq!(ended.verdict, Verdict::Interrupted);
    assert_eq!(scene.host.now(), [scene.old.clone(), scene.old.clone()]);
}

#[tokio::test]
async fn a_first_deploy_starts_what_never_ran() {
    let scene = Scene::new();
    (scene.host.state().runs, scene.host.state().names) = Default::default();
    let ended = scene.deploy().await;
    assert_eq!(ended.verdict, Verdict::Deployed);
    assert_eq!(scene.host.state().entry.as_ref().unwrap().services[0].was, Was::Absent);
    assert_eq!(scene.host.now(), [scene.new.clone(), scene.new.clone()]);
}

#[tokio::test]
async fn what_was_stopped_gets_the_new_image_and_stays_stopped() {
    let scene = Scene::new();
    scene.host.state().runs.remove("worker");
    let ended = scene.deploy().await;
    assert_eq!(ended.services.iter().map(|s| s.state).collect::<Vec<_>>(), [Left::Deployed, Left::Placed]);
    assert_eq!(scene.host.state().names["localhost/app:worker"], scene.new);
    assert!(!scene.host.state().runs.contains_key("worker"));
}
