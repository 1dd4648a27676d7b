//! Against logs that record, refuse, lie, stumble and fall silent.

use std::sync::{Arc, Mutex};

use tagship_core::explain::Explain;
use tagship_core::signature::log::Logged;

use super::*;
use crate::signing::key::SigningKey;
use crate::testing::{FakeLog, Reply, serve};

impl Log {
    /// Without pauses.
    pub(crate) fn impatient(mut self) -> Self {
        self.pauses = [Duration::ZERO; 3];
        self
    }
}

type Asked = Arc<Mutex<Vec<String>>>;

/// Records one signature in a log that answers the n-th request with `reply(n, …)`.
async fn record(
    reply: impl Fn(usize, &FakeLog, &[u8]) -> Reply + Send + 'static,
) -> (Result<Logged, RekorError>, Vec<String>) {
    let asked = Asked::default();
    let log = FakeLog::new();
    let key = SigningKey::generate().unwrap();
    let signature = key.sign(b"payload").unwrap();
    let public = log.public();
    let seen = Arc::clone(&asked);
    let stored = Mutex::new(Vec::new());
    let address = serve(move |request| {
        let mut asked = seen.lock().unwrap();
        asked.push(request.line.clone());
        if !request.body.is_empty() {
            *stored.lock().unwrap() = request.body;
        }
        reply(asked.len(), &log, &stored.lock().unwrap())
    })
    .await;
    let url = format!("http://{address}/").parse().unwrap();
    let client = Log::new(&url, public, &Roots::load(None).unwrap()).unwrap().impatient();
    let proposal = Proposal::hashed_rekord(b"payload", &signature, key.public());
    let outcome = client.record(&proposal).await.map(|recorded| recorded.logged);
    let asked = asked.lock().unwrap().clone();
    (outcome, asked)
}

fn status(status: u16) -> Reply {
    Reply(status, String::new(), br#"{"code":1,"message":"no \u001b[31mluck"}"#.to_vec())
}

fn exists(at: &str) -> Reply {
    Reply(409, format!("location: {at}\r\n"), Vec::new())
}

#[tokio::test]
async fn a_new_entry_is_proven() {
    let (outcome, asked) = record(|_, log, body| Reply(201, String::new(), log.answer(body))).await;
    assert_eq!(outcome.unwrap().index(), 7);
    assert_eq!(asked, ["POST /api/v1/log/entries"]);
}

#[tokio::test]
async fn an_entry_that_exists_is_fetched() {
    for at in ["/api/v1/log/entries/24296fb2", "24296fb2", "/elsewhere/24296fb2"] {
        let at = at.to_owned();
        let (outcome, asked) = record(move |n, log, body| match n {
            1 => exists(&at),
            _ => Reply(200, String::new(), log.answer(body)),
        })
        .await;
        assert_eq!(outcome.unwrap().index(), 7);
        assert_eq!(asked, ["POST /api/v1/log/entries", "GET /api/v1/log/entries/24296fb2"]);
    }
}

#[tokio::test]
async fn a_location_elsewhere_is_not_followed() {
    for at in ["http://127.0.0.2:1/api/v1/log/entries/24296fb2", "", "/api/v1/log/entries/", "/x?y", "http://[/"] {
        let at = at.to_owned();
        let (outcome, asked) = record(move |_, _, _| exists(&at)).await;
        assert_eq!((outcome.unwrap_err().kind(), asked.len()), ("log-invalid", 1));
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let (outcome, asked) = record(|n, log, body| match n {
        1 => Reply(0, String::new(), Vec::new()),
        2 => status(503),
        3 => exists("/api/v1/log/entries/24296fb2"),
        4 => status(500),
        _ => Reply(200, String::new(), log.answer(body)),
    })
    .await;
    assert_eq!(outcome.unwrap().index(), 7);
    assert_eq!(asked.len(), 5);
}

/// A log that stumbles is given time, and more from try to try: the other tests take the pauses away.
#[test]
fn pauses_grow() {
    let url = "http://127.0.0.1:1".parse().unwrap();
    let log = Log::new(&url, FakeLog::new().public(), &Roots::load(None).unwrap()).unwrap();
    assert_eq!(log.pauses, PAUSES);
    assert!(PAUSES[0] > Duration::ZERO && PAUSES.is_sorted_by(|one, next| one < next), "{PAUSES:?}");
}

#[tokio::test]
async fn trouble_ends_after_four_tries() {
    let (outcome, asked) = record(|_, _, _| status(502)).await;
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), asked.len()), ("log-error", 4));
    assert!(error.to_string().ends_with("answered 502: no \\u{1b}[31mluck"), "{error}");
    assert!(error.hint().unwrap().contains("run the job again"));
    let (outcome, asked) = record(|_, _, _| Reply(0, String::new(), Vec::new())).await;
    assert_eq!((outcome.unwrap_err().kind(), asked.len()), ("log-unreachable", 4));
}

#[tokio::test]
async fn a_refusal_is_final() {
    for refusal in (400..=499).filter(|status| *status != 409) {
        let (outcome, asked) = record(move |_, _, _| status(refusal)).await;
        assert_eq!((outcome.unwrap_err().kind(), asked.len()), ("log-refused", 1), "{refusal}");
    }
}

#[tokio::test]
async fn what_proves_nothing_is_refused() {
    for (defect, reply) in [
        ("nothing", Vec::new()),
        ("an empty object", b"{}".to_vec()),
        ("a page", b"<html>".to_vec()),
        ("too much", vec![b' '; log::MAX_ANSWER_LEN + 1]),
        ("an entry of another log", FakeLog::new().answer(b"{}")),
    ] {
        let (outcome, asked) = record(move |_, _, _| Reply(201, String::new(), reply.clone())).await;
        assert_eq!((outcome.unwrap_err().kind(), asked.len()), ("log-invalid", 1), "{defect}");
    }
    let (outcome, _) = record(|_, log, _| Reply(201, String::new(), log.answer(b"{}"))).await;
    assert_eq!(outcome.unwrap_err().kind(), "log-invalid", "another entry of this log");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_named() {
    let log = FakeLog::new().client("127.0.0.1:1");
    let key = SigningKey::generate().unwrap();
    let proposal = Proposal::hashed_rekord(b"", b"", key.public());
    let error = log.record(&proposal).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot reach the transparency log http://127.0.0.1:1/api/v1/log/entries");
}
