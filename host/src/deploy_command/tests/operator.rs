//! Going back by hand: to what was proven, and to what ran before tagship came.

use super::*;

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
    let status = place.ask_sick("v0.0.9").await;
    assert_eq!((status.outcome, place.world.running()), (Outcome::RolledBack, Some(incumbent.clone())));
    assert!(status.reason.as_str().contains("was never proven here"), "{}", status.reason);
    place.deploy("v0.1.0").await;
    let status = place.ask_sick("v0.2.0").await;
    assert!(!status.reason.as_str().contains("never proven"), "{}", status.reason);
    assert_eq!(place.go_back(None).await.unwrap().outcome, Outcome::Deployed);
    assert_eq!(place.world.running(), Some(incumbent));
    assert!(place.history().trust.running().is_none());
    assert_eq!(place.ask("v0.1.0", digest("v0.1.0")).await.kind.as_str(), "held");
}
