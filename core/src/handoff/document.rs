//! Proof that `docs/handoff.md` tells what the code does: its names, keys, words and limits, and that its examples are
//! good ones.

use super::fields::Line;
use super::host::{self, HostFile};
use super::log::{self, LogLine};
use super::names::{self, RequestId};
use super::request::{self, Received};
use super::status::{self, FirstLine, Outcome, Status};

const DOCUMENT: &str = include_str!("../../../docs/handoff.md");

/// The example in the document's block of this language.
fn example(language: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn every_name_key_word_and_limit_is_documented() {
    let id = RequestId::generate();
    let placeholder = |name: String| name.replace(&id.to_string(), "ULID");
    let mut words = vec![names::HOST.to_owned(), names::TRIGGER.to_owned(), names::STATUS.to_owned()];
    words.extend([id.request_name(), id.log_name(), id.status_name()].map(placeholder));
    words.push(names::ASIDE.to_owned());
    words.extend(request::KEYS.map(str::to_owned));
    words.extend(Outcome::ALL.map(|outcome| outcome.to_string()));
    for word in words {
        assert!(DOCUMENT.contains(&format!("`{word}`")), "{word}");
    }
    for limit in [request::LIMIT, status::LIMIT, host::LIMIT, log::LINE_LIMIT, Line::LIMIT] {
        assert!(DOCUMENT.contains(&format!("{limit} bytes")), "{limit} bytes");
    }
    assert!(DOCUMENT.starts_with(&format!("# The hand-off protocol, version {}\n", super::VERSION)));
}

#[test]
fn the_examples_are_good_and_whole() {
    let received = Received::parse(example("request").as_bytes()).unwrap();
    assert!(received.request.commit.is_some() && received.request.run.is_some() && received.signature().is_some());

    let text = example("status");
    let status = Status::parse(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8_lossy(&status.encode()), text);
    assert_eq!(status.request, Some(received.request.id));
    // Named one by one, so that a further key cannot be left out.
    let Status { tag, request: _, outcome: _, kind, reason, digest, previous_digest, started, finished, services } =
        status;
    assert_eq!((tag, digest), (Some(received.request.tag), Some(received.request.digest)));
    assert!(!kind.as_str().is_empty() && !reason.is_empty() && previous_digest.is_some());
    assert!(started.is_some() && finished.is_some() && !services.is_empty());

    let host = HostFile::parse(example("json").as_bytes()).unwrap();
    assert_eq!(String::from_utf8_lossy(&host.encode()), example("json"));
    assert_eq!(host.request_keys.iter().map(Line::as_str).collect::<Vec<_>>(), request::KEYS);
    assert!(host.running.is_some());

    for line in example("log").lines() {
        let parsed = LogLine::parse(line.as_bytes()).unwrap();
        assert_eq!(String::from_utf8_lossy(&parsed.encode()), format!("{line}\n"));
    }
    assert!(FirstLine::parse(example("plain-status").as_bytes()).unwrap().ok);
    assert!(example("trigger").trim_end().parse::<crate::reference::Tag>().is_ok());
}
