//! What a key signed that the administrator has revoked since.

use tagship_core::signature::PublicKey;

use super::{killed::*, *};
use crate::{config::RootFile, deploy::Failure};

impl Place {
    /// Another key signs from now on. The old one is on the administrator's list, or only not trusted any more.
    fn rekeyed(&mut self, revoked: bool) -> Signer {
        let old = std::mem::replace(&mut self.key, Signer::new());
        let file = |key: &Signer| RootFile::for_test("/etc/app.pub", key.public.to_pem().as_bytes());
        self.settings.verify.keys = vec![file(&self.key)];
        let listed = PublicKey::from_pem("/etc/old.pub", old.public.to_pem().as_bytes()).unwrap();
        self.settings.verify.revoked_keys = if revoked { vec![listed] } else { vec![] };
        old
    }

    fn runs_old(&self, service: &str) -> bool {
        let runs = self.world.state().runs.get(&service.parse().unwrap()).cloned();
        runs.is_some_and(|(image, _)| image == image_of(digest("v0.1.0")))
    }

    fn old_runs(&self) -> bool {
        self.runs_old("web") && self.runs_old("worker")
    }
}

#[tokio::test]
async fn a_rotated_key_still_restores_and_a_revoked_one_does_not() {
    for revoked in [false, true] {
        let mut place = Place::new();
        place.deploy("v0.1.0").await;
        place.rekeyed(revoked);
        let status = place.ask_sick("v0.2.0").await;
        let expected = if revoked { Outcome::Failed } else { Outcome::RolledBack };
        assert_eq!(status.outcome, expected, "{}", status.reason);
        // The first service was replaced and could not come back; the second one's turn had not come.
        assert_eq!(place.runs_old("web"), !revoked);
        assert!(place.runs_old("worker"));
        let names = place.world.state().names.clone();
        assert_eq!(names.contains_key("localhost/app:web"), !revoked, "{names:?}");
        // Nobody is blamed where nothing came back to show that it was not the host.
        assert_eq!(place.ask("v0.2.0", digest("v0.2.0")).await.kind.as_str() == "rejected", !revoked);
    }
}

#[tokio::test]
async fn what_a_revoked_key_signed_goes_on_until_something_else_is_deployed() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    let old = place.rekeyed(true);
    place.run().await.unwrap();
    assert!(place.old_runs());
    // Refused before anything is touched, and under its name where the signature says whose it is.
    let status = place.ask("v0.1.0", digest("v0.1.0")).await;
    assert_eq!(status.outcome, Outcome::Refused);
    assert!(place.old_runs());
    let newer = place.world.release(&old, "v0.1.1");
    assert_eq!(place.ask("v0.1.1", newer).await.outcome, Outcome::Refused);
    place.deploy("v0.2.0").await;
    let status = place.go_back(Some("v0.1.0")).await.unwrap();
    assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "revoked-key"));
    assert!(status.reason.as_str().contains("/etc/old.pub"), "{}", status.reason);
}

#[tokio::test]
async fn signed_again_by_a_key_that_counts_it_is_put_back() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    place.rekeyed(true);
    let same = place.world.release(&place.key, "v0.1.0");
    assert_eq!(place.ask("v0.1.0", same).await.outcome, Outcome::Unchanged);
    assert_eq!(place.ask_sick("v0.2.0").await.outcome, Outcome::RolledBack);
    assert!(place.old_runs());
}

/// Killed in the middle: the companion that ends it heeds the list of today. What it never came to goes on, or starts.
#[tokio::test]
async fn a_recovery_does_not_put_back_what_was_revoked_meanwhile() {
    let back = || Phase::RollingBack { cause: Failure::new("unhealthy", "web is not healthy") };
    for (phase, outcome, moved, runs) in [
        (Phase::Pulling, Outcome::Interrupted, false, true),
        (Phase::Replacing(0), Outcome::Failed, false, true),
        (Phase::Replacing(1), Outcome::Failed, true, true),
        (back(), Outcome::Failed, false, true),
        (back(), Outcome::Failed, true, true),
        // At a boot the companion may be there before the service.
        (back(), Outcome::Failed, false, false),
    ] {
        let mut place = Place::new();
        place.deploy("v0.1.0").await;
        place.rekeyed(true);
        let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
        begin(&place, &request).await;
        kill_in_the_middle(&place, &request, phase.clone());
        let (web, worker) = ("web".parse().unwrap(), "worker".parse().unwrap());
        if !moved {
            place.world.state().names.insert("localhost/app:worker".into(), image_of(digest("v0.1.0")));
        }
        if !runs {
            place.world.state().runs.remove(&worker);
        }
        place.run().await.unwrap();
        let told = place.answer(request.id);
        let state = |name: &str| {
            told.services.iter().find(|service| service.name.as_str() == name).map(|s| s.state.as_str().to_owned())
        };
        assert_eq!(told.outcome, outcome, "{phase:?}: {}", told.reason);
        assert_eq!(place.runs_old("worker"), runs, "{phase:?}");
        assert_eq!(place.world.state().runs.contains_key(&web), phase == Phase::Pulling, "{phase:?}");
        let names = place.world.state().names.clone();
        assert_eq!(names.contains_key("localhost/app:worker"), !moved, "{phase:?}: {names:?}");
        // What runs on and cannot start again is not called untouched.
        assert_eq!(state("worker").as_deref(), Some(if moved { "broken" } else { "untouched" }), "{phase:?}");
        let word = "worker cannot start again until a deploy succeeds: the key of what it ran is revoked";
        assert_eq!(told.reason.as_str().contains(word), moved, "{}", told.reason);
    }
}

/// The key came on the list between the boot's recovery, which gave the name back, and the companion's.
#[tokio::test]
async fn a_name_that_was_given_back_before_the_key_was_revoked_is_taken() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
    begin(&place, &request).await;
    kill_in_the_middle(&place, &request, Phase::Replacing(0));
    for name in ["web", "worker"] {
        place.world.state().names.insert(format!("localhost/app:{name}"), image_of(digest("v0.1.0")));
    }
    place.rekeyed(true);
    place.run().await.unwrap();
    assert_eq!(place.answer(request.id).outcome, Outcome::Failed);
    let names = place.world.state().names.clone();
    assert_eq!(names.keys().collect::<Vec<_>>(), ["localhost/app:worker"]);
    assert!(place.runs_old("worker") && !place.world.state().runs.contains_key(&"web".parse().unwrap()));
}

/// It was found running, never proven, and noted whose key had signed it.
#[tokio::test]
async fn the_operator_does_not_put_back_what_a_revoked_key_signed_either() {
    for revoked in [false, true] {
        let mut place = Place::new();
        // Without a version nothing can be proven by it.
        let before = place.world.release(&place.key, "v0.1.0");
        place.world.state().signatures.insert(before, vec![place.key.layer(before, &[])]);
        place.runs("web", "v0.1.0");
        place.runs("worker", "v0.1.0");
        place.deploy("v0.2.0").await;
        place.rekeyed(revoked);
        let status = place.go_back(None).await.unwrap();
        let expected = if revoked { (Outcome::Refused, "revoked-key") } else { (Outcome::Deployed, "deployed") };
        assert_eq!((status.outcome, status.kind.as_str()), expected, "{}", status.reason);
        assert_eq!(place.old_runs(), !revoked);
    }
}

/// It rests, and what it would have started is taken from it: the answer does not call that untouched.
#[tokio::test]
async fn a_stopped_service_whose_image_is_revoked_is_told_of() {
    for everything in [true, false] {
        let mut place = Place::new();
        place.settings.services = vec![vec!["web".parse().unwrap(), "worker".parse().unwrap()]];
        place.deploy("v0.1.0").await;
        place.world.state().runs.remove(&"worker".parse().unwrap());
        place.rekeyed(true);
        if !everything {
            // Somebody's own, which no key has to do with.
            place.runs("web", "by hand");
        }
        let status = place.ask_sick("v0.2.0").await;
        let told = |name: &str| status.services.iter().find(|s| s.name.as_str() == name).unwrap().state.clone();
        let (outcome, web) = if everything { (Outcome::Failed, "stopped") } else { (Outcome::RolledBack, "restored") };
        assert_eq!((status.outcome, told("web").as_str(), told("worker").as_str()), (outcome, web, "stopped"));
        assert!(!place.world.state().names.contains_key("localhost/app:worker"));
    }
}

/// The state is gone, and with it whose key signed what runs: the registry has the signature.
#[tokio::test]
async fn with_lost_state_too_a_revoked_keys_image_is_not_put_back() {
    for (revoked, everywhere) in [(true, true), (true, false), (false, true)] {
        let mut place = Place::new();
        place.deploy("v0.1.0").await;
        place.rekeyed(revoked);
        place.lose();
        if !everywhere {
            place.world.release(&place.key, "v0.0.9");
            place.runs("worker", "v0.0.9");
        }
        let status = place.ask_sick("v0.2.0").await;
        let expected = if revoked { Outcome::Failed } else { Outcome::RolledBack };
        assert_eq!(status.outcome, expected, "{}", status.reason);
        assert_eq!(place.runs_old("web"), !revoked);
    }
}

/// It counted when its image was found running, and not everywhere, so that nothing was proven by it.
#[tokio::test]
async fn a_key_that_is_revoked_after_the_state_was_lost_restores_nothing_either() {
    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    place.lose();
    place.world.release(&place.key, "v0.0.9");
    place.runs("worker", "v0.0.9");
    assert_eq!(place.ask("v0.0.9", digest("v0.0.9")).await.kind.as_str(), "downgrade");
    assert!(place.history().proven().is_empty());
    place.rekeyed(true);
    assert_eq!(place.ask_sick("v0.2.0").await.outcome, Outcome::Failed);
    assert!(!place.runs_old("web"));
}

/// Whoever may push writes into a signature whose it is; only one that verifies takes the way back.
#[tokio::test]
async fn a_signature_that_only_claims_a_revoked_key_takes_no_way_back() {
    use tagship_core::signature::{Attached, KEY_ANNOTATION};

    let mut place = Place::new();
    place.deploy("v0.1.0").await;
    let revoked = place.rekeyed(true);
    place.lose();
    let Attached::Layer(mut layer) = Signer::new().layer(digest("v0.1.0"), &[("tag", "v0.1.0")]) else {
        unreachable!()
    };
    layer.annotations.insert(KEY_ANNOTATION.into(), revoked.public.fingerprint().to_string());
    place.world.state().signatures.insert(digest("v0.1.0"), vec![Attached::Layer(layer)]);
    assert_eq!(
        place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(),
        "revoked-key",
        "it is taken at its word there"
    );
    let status = place.ask_sick("v0.2.0").await;
    assert_eq!(status.outcome, Outcome::RolledBack, "{}", status.reason);
    assert!(place.old_runs());
}
