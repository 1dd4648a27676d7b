//! `trust.json` is gone, and something runs: what it is taken for, and what is accepted then.

use super::*;
use crate::history::By;

impl Place {
    /// A host that these were deployed on, one after the other, and whose `trust.json` is gone.
    async fn lost_after(versions: &[&str]) -> Self {
        let place = Place::new();
        for version in versions {
            place.deploy(version).await;
        }
        place.lose();
        place
    }

    pub(super) fn lose(&self) {
        fs::remove_file(self.temp.path().join("state/trust.json")).unwrap();
    }

    /// A service runs an image that nobody deployed here.
    pub(super) fn runs(&self, service: &str, name: &str) {
        self.world.state().runs.insert(service.parse().unwrap(), (image_of(digest(name)), 1000));
    }

    /// A service was stopped on purpose, and its name stands for this image.
    pub(super) fn rests(&self, service: &str, name: &str) {
        let mut state = self.world.state();
        state.runs.remove(&service.parse().unwrap());
        state.names.insert(format!("localhost/app:{service}"), image_of(digest(name)));
    }

    fn mark(&self) -> Option<String> {
        self.history().trust.mark().map(|mark| mark.tag.to_string())
    }

    /// What is said of the mark in the log of a request for this version, and how that ended.
    async fn logged(&self, version: &str) -> (Vec<String>, Status) {
        let request = self.request(version, digest(version));
        let status = self.ask_for(&request).await;
        let log = fs::read_to_string(self.path(&request.id.log_name())).unwrap();
        (log.lines().filter(|line| line.contains("mark-")).map(str::to_owned).collect(), status)
    }
}

#[tokio::test]
async fn what_runs_and_verifies_is_the_mark_again_and_that_is_told() {
    let place = Place::lost_after(&["v0.1.0", "v0.2.0"]).await;
    let restarts = place.world.state().restarts;
    let (said, status) = place.logged("v0.1.0").await;
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "downgrade"), "{}", status.reason);
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("mark-taken") && said[0].contains("v0.2.0 runs, signed"), "{said:?}");
    let told = place.world.state().marks.clone();
    let digests: Vec<_> = told.iter().map(|told| (told.by, told.mark.digest, told.previous.is_some())).collect();
    assert_eq!(digests, [(By::Companion, digest("v0.2.0"), false)]);

    // It runs, so it is unchanged and not held; and it is said once.
    let (said, status) = place.logged("v0.2.0").await;
    assert_eq!((status.outcome, said.len()), (Outcome::Unchanged, 0), "{}", status.reason);
    assert_eq!(place.world.state().restarts, restarts);
    place.deploy("v0.3.0").await;
    assert_eq!(place.go_back(None).await.unwrap().outcome, Outcome::Deployed);
    assert_eq!(place.history().trust.running().unwrap().tag, tag("v0.2.0"), "it can be gone back to, verified");
}

#[tokio::test]
async fn the_operators_word_raises_no_mark_by_losing_it() {
    let place = Place::lost_after(&["v0.1.0", "v0.2.0"]).await;
    assert_eq!(place.go_back(Some("v0.1.0")).await.unwrap().outcome, Outcome::Deployed);
    assert_eq!(place.mark().as_deref(), Some("v0.2.0"));
    assert!(place.history().trust.is_held());
    place.lose();
    let mut desk = Desk::open(&place.settings.app, place.state(), &place.world).unwrap();
    let retried = retry::run(&mut desk, &place.settings, &tag("v0.2.0")).await;
    assert_eq!(retried.outcome, Outcome::Deployed, "{}", retried.reason);
    assert_eq!(place.mark().as_deref(), Some("v0.2.0"), "above v0.1.0, which ran");
}

#[tokio::test]
async fn the_mark_is_above_what_was_there_before_tagship_came_if_that_is_signed() {
    let place = Place::new();
    place.world.release(&place.key, "v0.2.0");
    place.world.release(&place.key, "v0.1.0");
    for service in ["web", "worker"] {
        place.runs(service, "v0.2.0");
    }
    assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(), "downgrade");
}

#[tokio::test]
async fn what_does_not_verify_is_said_and_taken_for_nothing() {
    type Runs = fn(&Place);
    let cases: [(&str, &str, Runs); 5] = [
        ("unsigned", "it is not signed", |place| {
            place.world.state().tags.insert(tag("v0.9.0"), digest("v0.9.0"));
        }),
        ("signed by another key", "not by a trusted key", |place| {
            place.world.release(&Signer::new(), "v0.9.0");
        }),
        ("a signature of another image", "for another image", |place| {
            let lifted = place.key.layer(digest("v0.8.0"), &[("tag", "v0.9.0")]);
            place.world.state().signatures.insert(digest("v0.9.0"), vec![lifted]);
        }),
        ("a signature for another repository", "for another repository", |place| {
            let foreign = [("tag", "v0.9.0"), ("repository", "git.example.org/chris/other")];
            let layer = place.key.layer(digest("v0.9.0"), &foreign);
            place.world.state().signatures.insert(digest("v0.9.0"), vec![layer]);
        }),
        ("a signature without a version", "names no version", |place| {
            let unnamed = place.key.layer(digest("v0.9.0"), &[]);
            place.world.state().signatures.insert(digest("v0.9.0"), vec![unnamed]);
            place.world.state().tags.insert(tag("v0.9.0"), digest("v0.9.0"));
        }),
    ];
    for (defect, words, runs) in cases {
        let place = Place::new();
        runs(&place);
        for service in ["web", "worker"] {
            place.runs(service, "v0.9.0");
        }
        place.world.release(&place.key, "v0.1.0");
        let (said, status) = place.logged("v0.1.0").await;
        assert_eq!(said.len(), 1, "{defect}");
        assert!(said[0].contains("mark-unknown") && said[0].contains(words), "{defect}: {said:?}");
        assert_eq!(status.outcome, Outcome::Deployed, "{defect}: {}", status.reason);
        assert_eq!(place.mark().as_deref(), Some("v0.1.0"), "{defect}");
        assert!(place.world.state().marks.is_empty(), "{defect}");
    }
}

#[tokio::test]
async fn what_is_not_of_the_repository_is_nobodys_version() {
    let place = Place::new();
    place.world.release(&place.key, "v0.1.0");
    place.runs("web", "built here");
    let (said, status) = place.logged("v0.1.0").await;
    assert_eq!((said.len(), status.outcome), (0, Outcome::Deployed), "{}", status.reason);
}

#[tokio::test]
async fn while_nobody_can_say_what_runs_nothing_is_judged() {
    let place = Place::lost_after(&["v0.1.0", "v0.2.0"]).await;
    for (kind, down) in [
        ("registry-error", (|place: &Place, down| place.world.state().registry_down = down) as fn(&Place, bool)),
        ("engine-missing", |place, down| place.world.state().engine_down = down),
        ("silent", |place, down| place.world.state().engine_silent = down),
    ] {
        down(&place, true);
        let status = place.ask("v0.1.0", digest("v0.1.0")).await;
        assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, kind), "{}", status.reason);
        assert!(status.reason.as_str().contains("which version runs here"), "{}", status.reason);
        down(&place, false);
    }
    // Those refusals are remembered by now; the mark is asked for all the same.
    assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(), "downgrade");
}

#[tokio::test]
async fn of_several_versions_the_highest_that_verifies_counts_and_none_of_them_runs() {
    for (web, worker, mark) in [
        ("v0.10.0", "v0.9.0", "v0.10.0"),
        ("v0.9.0", "v0.10.0", "v0.10.0"),
        ("v0.9.0", "v0.99.0", "v0.9.0"),
        ("built here", "v0.9.0", "v0.9.0"),
    ] {
        let place = Place::new();
        for version in ["v0.9.0", "v0.10.0", "v0.1.0"] {
            place.world.release(&place.key, version);
        }
        place.world.release(&Signer::new(), "v0.99.0");
        place.runs("web", web);
        place.runs("worker", worker);
        assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(), "downgrade", "{web} {worker}");
        assert_eq!(place.mark().as_deref(), Some(mark), "{web} {worker}");
        assert!(place.history().running().is_none(), "{web} {worker}");
    }
}

#[tokio::test]
async fn what_is_unwell_or_not_everywhere_raises_the_mark_and_was_not_proven() {
    for case in ["sick", "stopped with another"] {
        let place = Place::lost_after(&["v0.2.0"]).await;
        let running = place.world.running().unwrap();
        match case {
            "sick" => drop(place.world.state().sick.insert(running)),
            _ => place.rests("worker", "v0.1.0"),
        }
        place.world.release(&place.key, "v0.1.0");
        assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(), "downgrade", "{case}");
        assert!(place.history().running().is_none(), "{case}");
    }
}

#[tokio::test]
async fn a_service_that_is_stopped_and_would_run_the_same_keeps_nothing_from_being_known() {
    let place = Place::lost_after(&["v0.2.0"]).await;
    place.rests("worker", "v0.2.0");
    place.world.release(&place.key, "v0.1.0");
    assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(), "downgrade");
    assert_eq!(place.history().running().unwrap().release.tag, tag("v0.2.0"));

    let place = Place::restored().await;
    place.rests("worker", "v0.2.0");
    assert_eq!(place.ask("v0.1.5", digest("v0.1.5")).await.kind.as_str(), "downgrade");
    assert_eq!(place.mark().as_deref(), Some("v0.2.0"));
}

#[tokio::test]
async fn what_a_failed_first_deploy_leaves_running_is_no_mark() {
    let place = Place::new();
    place.world.state().tags.insert(tag("v0.1.0"), digest("v0.1.0"));
    assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.outcome, Outcome::Refused, "unsigned");
    // As if a stop had failed on the way back.
    place.world.release(&place.key, "v0.3.0");
    place.runs("web", "v0.3.0");
    place.world.release(&place.key, "v0.2.0");
    let (said, status) = place.logged("v0.2.0").await;
    assert_eq!((said.len(), status.outcome), (0, Outcome::Deployed), "{}", status.reason);
}

#[tokio::test]
async fn damaged_state_is_not_taken_for_lost() {
    let place = Place::lost_after(&["v0.2.0"]).await;
    fs::write(place.temp.path().join("state/trust.json"), "{").unwrap();
    let request = place.request("v0.2.0", digest("v0.2.0"));
    place.put(request.id, &request.encode());
    assert!(matches!(place.run().await, Err(CommandError::State(_))));
    assert!(place.world.state().marks.is_empty());
}

impl Place {
    /// A host whose state is of the first version, from a backup, while the second one runs.
    async fn restored() -> Self {
        let place = Place::new();
        place.deploy("v0.1.0").await;
        let (kept, state) = (place.temp.path().join("backup.json"), place.temp.path().join("state/trust.json"));
        fs::copy(&state, &kept).unwrap();
        place.deploy("v0.2.0").await;
        fs::copy(&kept, &state).unwrap();
        assert_eq!(place.mark().as_deref(), Some("v0.1.0"));
        place.world.release(&place.key, "v0.1.5");
        place
    }
}

#[tokio::test]
async fn a_state_from_a_backup_lets_nothing_below_what_runs_be_deployed() {
    let place = Place::restored().await;
    let (said, status) = place.logged("v0.1.5").await;
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "downgrade"), "{}", status.reason);
    assert!(said.len() == 1 && said[0].contains("ends with v0.1.0, and v0.2.0 runs, signed"), "{said:?}");
    let told = place.world.state().marks.clone();
    assert_eq!((told.len(), told[0].by, told[0].previous.as_ref().unwrap().tag.as_str()), (1, By::Companion, "v0.1.0"));
    assert_eq!(place.world.running(), Some(image_of(digest("v0.2.0"))));
    let (said, status) = place.logged("v0.2.0").await;
    assert_eq!((status.outcome, said.len()), (Outcome::Unchanged, 0), "{}", status.reason);
}

#[tokio::test]
async fn what_was_not_proven_everywhere_raises_no_mark() {
    type Runs = fn(&Place);
    let cases: [(&str, Runs); 5] = [
        ("one is stopped, with another", |place| place.rests("worker", "v0.1.0")),
        ("one service runs another", |place| place.runs("web", "v0.1.0")),
        ("one is unwell", |place| {
            place.world.state().sick.insert(image_of(digest("v0.2.0")));
        }),
        ("it is unsigned", |place| {
            place.world.state().signatures.remove(&digest("v0.2.0"));
        }),
        ("it is older", |place| {
            place.world.release(&place.key, "v0.0.1");
            place.runs("web", "v0.0.1");
            place.runs("worker", "v0.0.1");
        }),
    ];
    for (defect, change) in cases {
        let place = Place::restored().await;
        change(&place);
        let (_, status) = place.logged("v0.1.5").await;
        assert_eq!(status.outcome, Outcome::Deployed, "{defect}: {}", status.reason);
        assert!(place.world.state().marks.is_empty(), "{defect}");
    }
}

#[tokio::test]
async fn the_operator_goes_back_with_a_state_from_a_backup_and_no_registry() {
    let place = Place::restored().await;
    place.world.state().registry_down = true;
    assert_eq!(place.go_back(Some("v0.1.0")).await.unwrap().outcome, Outcome::Deployed);
}

/// The backup is from after the operator went back to what was never verified: nothing that was proven runs by its word.
#[tokio::test]
async fn a_backup_of_a_state_without_a_proven_version_lets_nothing_below_what_runs_be_deployed() {
    for later in [true, false] {
        let place = Place::new();
        for service in ["web", "worker"] {
            place.runs(service, "built here");
        }
        place.deploy("v0.1.0").await;
        assert_eq!(place.go_back(None).await.unwrap().outcome, Outcome::Deployed);
        let (kept, state) = (place.temp.path().join("backup.json"), place.temp.path().join("state/trust.json"));
        fs::copy(&state, &kept).unwrap();
        if later {
            place.deploy("v0.2.0").await;
        }
        fs::copy(&kept, &state).unwrap();
        assert!(place.history().running().is_none());
        place.world.release(&place.key, "v0.1.5");
        let (said, status) = place.logged("v0.1.5").await;
        let (kind, lines) = if later { ("downgrade", 1) } else { ("deployed", 0) };
        assert_eq!((status.kind.as_str(), said.len()), (kind, lines), "{said:?}: {}", status.reason);
    }
}
