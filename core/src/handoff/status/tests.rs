//! Answers, most of them with a defect.

use proptest::prelude::*;

use super::*;

const GOOD: &str = "fail v0.2.9\n\
    Request: 01D39ZY06FGSCTVN4T2V9PKHFZ\n\
    Outcome: rolled-back\n\
    Kind: unhealthy\n\
    Reason: web did not become healthy within 120 s\n\
    Digest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\
    Started: 2026-02-03T04:05:06Z\n\
    Finished: 2026-02-03T04:07:06.5Z\n\
    Service: web unhealthy connection refused\n\
    Service: worker healthy\n";

fn without(key: &str) -> String {
    GOOD.split_inclusive('\n').filter(|line| !line.starts_with(&format!("{key}: "))).collect()
}

fn with(key: &str, value: &str) -> String {
    without(key) + &format!("{key}: {value}\n")
}

#[test]
fn a_good_answer_says_what_it_says() {
    let status = Status::parse(GOOD.as_bytes()).unwrap();
    assert_eq!(status.outcome, Outcome::RolledBack);
    assert_eq!(status.previous_digest, None);
    assert_eq!(status.services.len(), 2);
    assert_eq!(status.services[0].detail.as_str(), "connection refused");
    assert!(status.services[1].detail.is_empty());
    assert_eq!(status.encode(), GOOD.as_bytes());
}

#[test]
fn keys_of_later_versions_are_passed_over() {
    let status = Status::parse((GOOD.to_owned() + "Mood: good\n").as_bytes()).unwrap();
    assert_eq!(status, Status::parse(GOOD.as_bytes()).unwrap());
}

#[test]
fn answers_with_a_defect_are_refused() {
    let good = GOOD.to_owned();
    for (defect, text) in [
        ("empty", String::new()),
        ("only the first line", "ok v0.2.9\n".to_owned()),
        ("no first line", good.replacen("fail v0.2.9\n", "", 1)),
        ("a word in upper case", good.replacen("fail", "FAIL", 1)),
        ("another word", good.replacen("fail", "fine", 1)),
        ("no tag", good.replacen("fail v0.2.9", "fail", 1)),
        ("an empty tag", good.replacen("fail v0.2.9", "fail ", 1)),
        ("two tags", good.replacen("fail v0.2.9", "fail v0.2.9 v0.3.0", 1)),
        ("two spaces", good.replacen("fail v0.2.9", "fail  v0.2.9", 1)),
        ("ok with a bad outcome", good.replacen("fail", "ok", 1)),
        ("fail with a good outcome", with("Outcome", "deployed")),
        ("half a file", good.trim_end().to_owned()),
        ("a carriage return", good.replacen('\n', "\r\n", 1)),
        ("an escape sequence", with("Reason", "\u{1b}[2J")),
        ("no Outcome", without("Outcome")),
        ("an unknown Outcome", with("Outcome", "fine")),
        ("an Outcome in upper case", with("Outcome", "Rolled-back")),
        ("an Outcome twice", good.clone() + "Outcome: rolled-back\n"),
        ("no Kind", without("Kind")),
        ("a Kind of several words", with("Kind", "not healthy")),
        ("no Reason", without("Reason")),
        ("a Reason that is too long", with("Reason", &"a".repeat(2001))),
        ("a Reason that turns the direction", with("Reason", "\u{202e}ko")),
        ("a Request that is none", with("Request", "7")),
        ("a Digest of another algorithm", with("Digest", "sha512:00")),
        ("a Previous-Digest that is too short", with("Previous-Digest", "sha256:00")),
        ("a time in another zone", with("Started", "2026-02-03T04:05:06+01:00")),
        ("a time that is none", with("Finished", "soon")),
        ("a Service without a state", with("Service", "web")),
        ("a Service without a name", with("Service", " healthy")),
        ("a Service with a state in upper case", with("Service", "web Healthy")),
        ("more Services than anybody has", good.clone() + &"Service: web healthy\n".repeat(200)),
        ("a line that is no field", good.clone() + "and so on\n"),
        ("more than 64 KiB", good.clone() + &"X: y\n".repeat(20_000)),
    ] {
        let result = Status::parse(text.as_bytes());
        assert!(result.is_err(), "{defect}: {result:?}");
    }
}

#[test]
fn the_first_line_decides_for_scripts() {
    let ok = FirstLine { ok: true, tag: "v1".parse().unwrap() };
    assert_eq!(FirstLine::parse(b"ok v1\n"), Ok(ok.clone()));
    assert_eq!(FirstLine::parse(b"ok v1"), Ok(ok.clone()));
    assert_eq!(FirstLine::parse(b"ok v1\n\xff anything"), Ok(ok));
    assert!(!FirstLine::parse(GOOD.as_bytes()).unwrap().ok);
    let vectors: [&[u8]; 10] =
        [b"", b"\n", b"ok", b"ok ", b"ok  v1", b"ok v1 ", b"ok v1\r\n", b"OK v1", b"bad\nok v1", b"ok \xff\n"];
    for bytes in vectors {
        assert_eq!(FirstLine::parse(bytes), Err(StatusError::FirstLine), "{bytes:?}");
    }
}

#[test]
fn an_answer_to_nobody_in_particular_is_invalid() {
    let status = Status::new(Outcome::Refused, "not-a-file", "deploy-trigger is a FIFO");
    assert!(status.encode().starts_with(b"fail invalid\nOutcome: refused\n"));
}

#[test]
fn only_what_runs_is_ok() {
    let ok: Vec<_> = Outcome::ALL.into_iter().filter(|outcome| outcome.is_ok()).collect();
    assert_eq!(ok, [Outcome::Deployed, Outcome::Unchanged]);
    for outcome in Outcome::ALL {
        assert_eq!(outcome.as_str().parse(), Ok(outcome));
        assert_eq!(serde_json::to_string(&outcome).unwrap(), format!("\"{outcome}\""));
    }
}

prop_compose! {
    fn any_status()(
        tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}",
        request in proptest::option::of(any::<u128>()),
        outcome in 0..Outcome::ALL.len(),
        kind in ".{0,80}",
        reason in ".{0,2500}",
        digests in any::<(Option<Vec<u8>>, Option<Vec<u8>>)>(),
        times in proptest::option::of((0i64..4_000_000_000, 0i32..1_000_000_000)),
        services in proptest::collection::vec(("[a-z@._-]{1,40}", "[a-z]{1,9}", ".{0,200}"), 0..6),
    ) -> Status {
        let time = times.map(|(second, nanosecond)| Timestamp::new(second, nanosecond).unwrap());
        Status {
            tag: Some(tag.parse().unwrap()),
            request: request.map(|random| ulid::Ulid(random).to_string().parse().unwrap()),
            digest: digests.0.map(|content| Digest::of(&content)),
            previous_digest: digests.1.map(|content| Digest::of(&content)),
            started: time,
            finished: time,
            services: services.into_iter().map(|(name, state, detail)| Service {
                name: Line::lossy(&name), state: Word::lossy(&state), detail: Line::lossy(&detail),
            }).collect(),
            ..Status::new(Outcome::ALL[outcome], &kind, &reason)
        }
    }
}

proptest! {
    #[test]
    fn every_answer_comes_back(status in any_status()) {
        let bytes = status.encode();
        prop_assert_eq!(Status::parse(&bytes).unwrap(), status.clone());
        let first = FirstLine::parse(&bytes).unwrap();
        prop_assert_eq!(first.ok, status.outcome.is_ok());
        let json = serde_json::to_vec(&status).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Status>(&json).unwrap(), status);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in any::<Vec<u8>>(), at in 0..GOOD.len(), byte in any::<u8>()) {
        let _ = Status::parse(&bytes);
        let _ = FirstLine::parse(&bytes);
        let mut changed = GOOD.as_bytes().to_vec();
        changed[at] = byte;
        let _ = Status::parse(&changed);
    }
}
