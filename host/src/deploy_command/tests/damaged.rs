//! State that cannot be read: whoever asks is told, and nothing is decided or written over.

use rustix::fs::Mode;

use super::{killed::*, *};
use crate::history::Verdict;

#[tokio::test]
async fn who_asks_is_told_of_damaged_state() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let trust = place.temp.path().join("state/trust.json");
    let whole = fs::read(&trust).unwrap();
    for damaged in [&b"{"[..], b"", b"{}x", &whole[..whole.len() / 2]] {
        fs::write(&trust, damaged).unwrap();
        let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
        place.put(request.id, &request.encode());
        assert!(matches!(place.run().await, Err(CommandError::State(_))));
        let status = place.answer(request.id);
        assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "state-damaged"), "{}", status.reason);
        assert!(status.reason.as_str().contains("trust.json"), "{}", status.reason);
        assert_eq!(fs::read(&trust).unwrap(), damaged, "it is kept as it is");
    }
    fs::write(&trust, whole).unwrap();
    place.deploy("v0.2.0").await;
}

#[tokio::test]
async fn who_asks_is_told_of_a_damaged_ledger() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let open = place.request("v0.1.0", digest("v0.1.0"));
    begin(&place, &open).await;
    let ledger = place.temp.path().join("state/requests.json");
    let whole = fs::read(&ledger).unwrap();
    let half = &whole[..whole.len() / 2];
    for damaged in [&b""[..], b"[", b"[{", b"{}", b"[]x", b"[{\"id\":1}]", b"\xff", half] {
        fs::write(&ledger, damaged).unwrap();
        let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
        place.put(request.id, &request.encode());
        fs::write(place.path("deploy-trigger"), "v0.2.0\n").unwrap();
        assert_eq!(place.run().await.unwrap_err().kind(), "state-damaged");
        let status = place.answer(request.id);
        assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "state-damaged"), "{}", status.reason);
        assert!(status.reason.as_str().contains("requests.json"), "{}", status.reason);
        let plain = fs::read(place.path("deploy-status")).unwrap();
        assert!(plain.starts_with(b"fail v0.2.0"), "{}", String::from_utf8_lossy(&plain));
        fs::remove_file(place.path("deploy-status")).unwrap();
        assert_eq!(fs::read(&ledger).unwrap(), damaged, "it is kept as it is");
        // The same request once more is no new one.
        fs::remove_file(place.path(&request.id.status_name())).unwrap();
        place.put(request.id, &request.encode());
        assert!(place.run().await.is_err());
        assert!(!place.path(&request.id.request_name()).exists());
        assert!(!place.path(&request.id.status_name()).exists());
    }
    assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))));
    fs::write(&ledger, whole).unwrap();
    place.deploy("v0.2.0").await;
    assert_eq!(place.answer(open.id).outcome, Outcome::Interrupted, "what was open before has its answer");
}

#[tokio::test]
async fn who_asks_is_told_of_state_that_cannot_be_read() {
    let pipe = |path: &Path| rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::from_raw_mode(0o600)).unwrap();
    let directory = |path: &Path| fs::create_dir(path).unwrap();
    let in_place: [&dyn Fn(&Path); 2] = [&directory, &pipe];
    let files = ["requests.json", "seen", "spent", "trust.json", "journal.json"];
    for (file, put) in files.into_iter().flat_map(|file| in_place.map(|put| (file, put))) {
        let place = Place::new();
        place.deploy("v0.1.0").await;
        let (path, aside) = (place.state().file(file), place.temp.path().join("aside"));
        let was_there = fs::rename(&path, &aside).is_ok();
        put(&path);
        let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
        place.put(request.id, &request.encode());
        assert_eq!(place.run().await.unwrap_err().kind(), "state-io", "{file}");
        let status = place.answer(request.id);
        assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "state-io"), "{}", status.reason);
        assert!(status.reason.as_str().contains(file), "{}", status.reason);
        assert!(status.reason.as_str().contains("move it away"), "{}", status.reason);
        fs::remove_dir(&path).or_else(|_| fs::remove_file(&path)).unwrap();
        if was_there {
            fs::rename(&aside, &path).unwrap();
        }
        place.deploy("v0.2.0").await;
    }
}

#[tokio::test]
async fn what_was_interrupted_is_answered_while_the_state_is_damaged_and_told_once() {
    for file in ["trust.json", "journal.json"] {
        let place = Place::new();
        place.deploy("v0.1.0").await;
        let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
        begin(&place, &request).await;
        kill_in_the_middle(&place, &request, Phase::Replacing(0));
        let path = place.state().file(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(place.run().await.unwrap_err().kind(), "state-damaged");
        let status = place.answer(request.id);
        assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Interrupted, "state-damaged"), "{file}");
        assert!(status.reason.as_str().contains("will be ended later: "), "{}", status.reason);
        assert!(status.reason.as_str().contains(file), "{}", status.reason);
        assert!(status.finished.is_some());
        // Whoever ends it first after the repair, also the operator, finds it without a request where it could be written.
        let left = Journal::open(place.state()).ok().and_then(|journal| journal.current().cloned());
        assert!(left.is_none_or(|left| left.postponed && left.request.is_none()), "{file}");

        fs::write(&path, whole).unwrap();
        fs::remove_file(place.path(&request.id.status_name())).unwrap();
        place.run().await.unwrap();
        assert_eq!(place.world.running(), Some(image_of(digest("v0.1.0"))), "{file}");
        assert!(Journal::open(place.state()).unwrap().current().is_none());
        assert!(!place.path(&request.id.status_name()).exists(), "it has had its answer");
        let told = place.world.state().verdicts.last().cloned().unwrap();
        assert_eq!((told.by, told.status.request), (By::Companion, None), "{file}");
    }
}

/// One that was killed before that could be told, and one whose deploy had not begun.
#[tokio::test]
async fn who_was_postponed_and_who_had_not_begun_are_told_apart_while_the_state_is_damaged() {
    for (postponed, words) in [(true, "will be ended later"), (false, "before anything was touched")] {
        let place = Place::new();
        place.deploy("v0.1.0").await;
        let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
        begin(&place, &request).await;
        if postponed {
            kill_in_the_middle(&place, &request, Phase::Replacing(0));
            Journal::open(place.state()).unwrap().postpone(Some(request.id)).unwrap();
        }
        fs::write(place.state().file("trust.json"), "{").unwrap();
        place.run().await.unwrap_err();
        let status = place.answer(request.id);
        assert_eq!(status.outcome, Outcome::Interrupted);
        assert!(status.reason.as_str().contains(words), "{}", status.reason);
    }
}

#[tokio::test]
async fn a_verdict_that_nobody_was_told_is_told_while_the_state_is_damaged() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = decided_and_untold(&place).await;
    fs::write(place.state().file("trust.json"), b"{").unwrap();
    assert_eq!(place.run().await.unwrap_err().kind(), "state-damaged");
    assert_eq!(place.answer(request.id).outcome, Outcome::Deployed);
}

#[tokio::test]
async fn a_verdict_is_told_also_where_only_the_history_can_be_read() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let request = place.request("v0.2.0", digest("v0.2.0"));
    begin(&place, &request).await;
    let status = Status { request: Some(request.id), ..Status::new(Outcome::Deployed, "deployed", "it runs") };
    let verdict = Verdict { time: Timestamp::now(), by: By::Request, status };
    place.history().conclude(&place.state(), verdict).unwrap();
    fs::write(place.state().file("journal.json"), b"{").unwrap();
    assert_eq!(place.run().await.unwrap_err().kind(), "state-damaged");
    assert_eq!(place.answer(request.id).outcome, Outcome::Deployed);
}

/// Neither the list of requests nor what was seen can be written, and whoever asks is answered all the same.
#[tokio::test]
async fn who_cannot_be_noted_is_answered() {
    let place = Place::new();
    place.deploy("v0.1.0").await;
    let seen = place.state().file("seen");
    fs::write(place.state().file("requests.json"), "[").unwrap();
    fs::remove_file(&seen).unwrap();
    fs::create_dir(&seen).unwrap();
    let request = place.request("v0.2.0", place.world.release(&place.key, "v0.2.0"));
    place.put(request.id, &request.encode());
    for _ in 0..2 {
        assert_eq!(place.run().await.unwrap_err().kind(), "state-damaged");
        let status = place.answer(request.id);
        assert_eq!((status.outcome, status.kind.as_str()), (Outcome::Refused, "state-damaged"), "{}", status.reason);
        let waits = fs::read_dir(&place.settings.handoff).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!waits.into_iter().any(|name| name.to_string_lossy().starts_with('.')), "no claim is left");
    }
}
