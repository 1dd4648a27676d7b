//! Talks to a Rekor v1 transparency log: records a signature and believes nothing that the log's key did not sign.
//!
//! What makes a record count is the core's to say; here are requests, retries and bounds.

use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode, Url, redirect};
use tagship_core::explain::Explain;
use tagship_core::signature::log::{self, Answer, Body, Entry, LogError, Logged, Subject};
use tagship_core::signature::{Fingerprint, PublicKey};
use tagship_core::text;
use tagship_core::tls::{HandshakeFault, Roots, handshake_fault};

/// Entries of Rekor v1's API, below its address.
const ENTRIES: &str = "api/v1/log/entries";

/// Pauses before the second, third and fourth try.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3)];

/// The public log answers in one to five seconds: an entry is in the tree before it is signed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// As much of an error's text as is shown, in bytes.
const MESSAGE_LEN: usize = 300;

/// Why a signature is not recorded. Nothing has been pushed then, and trying again is always safe.
#[derive(Debug, thiserror::Error)]
pub enum RekorError {
    /// The HTTP client could not be set up.
    #[error("cannot set up a connection to the transparency log {url}")]
    Setup {
        /// The log.
        url: Url,
        /// Why.
        source: reqwest::Error,
    },
    /// No connection, or it broke.
    #[error("cannot reach the transparency log {url}")]
    Unreachable {
        /// What was asked for.
        url: Url,
        /// Why.
        source: reqwest::Error,
    },
    /// The certificate is not trusted.
    #[error("the certificate of the transparency log {url} is not trusted here")]
    Certificate {
        /// What was asked for.
        url: Url,
        /// Why.
        source: reqwest::Error,
    },
    /// The log is in trouble.
    #[error("the transparency log {url} answered {status}{}", said(.message))]
    Server {
        /// What was asked for.
        url: Url,
        /// Its status, 5xx.
        status: u16,
        /// What it said, escaped.
        message: String,
    },
    /// The log does not want the entry.
    #[error("the transparency log {url} refused the entry with {status}{}", said(.message))]
    Refused {
        /// What was asked for.
        url: Url,
        /// Its status.
        status: u16,
        /// What it said, escaped.
        message: String,
    },
    /// More than an entry.
    #[error("the transparency log {url} answered more than {max} bytes", max = log::MAX_ANSWER_LEN)]
    TooLarge {
        /// What was asked for.
        url: Url,
    },
    /// It says that the entry exists, but not where.
    #[error("the transparency log {url} has the entry already, but does not say where")]
    NoLocation {
        /// What was asked for.
        url: Url,
    },
    /// What it answered proves nothing.
    #[error("the answer of the transparency log {url} does not prove that the signature is recorded")]
    Unproven {
        /// What was asked for.
        url: Url,
        /// Why.
        source: LogError,
    },
}

impl Explain for RekorError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "log-setup",
            Self::Unreachable { .. } => "log-unreachable",
            Self::Certificate { .. } => "log-certificate",
            Self::Server { .. } => "log-error",
            Self::Refused { .. } => "log-refused",
            Self::TooLarge { .. } | Self::NoLocation { .. } | Self::Unproven { .. } => "log-invalid",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Setup { .. } => "check `rekor-url` and `ca`",
            Self::Unreachable { .. } | Self::Server { .. } => {
                "no signature was pushed; run the job again later, or sign without the log (`tlog: false`) if the \
                 host's policy allows it"
            }
            Self::Certificate { .. } => "hand in the log's certificate authority with `ca`; no signature was pushed",
            Self::Refused { .. } => "check that `rekor-url` is a Rekor v1 log; no signature was pushed",
            Self::Unproven { source: LogError::UnknownLog(_), .. } => {
                "for a private log, give its public key as `rekor-public-key`; no signature was pushed"
            }
            Self::TooLarge { .. } | Self::NoLocation { .. } | Self::Unproven { .. } => {
                "check `rekor-url` and `rekor-public-key`; no signature was pushed"
            }
        };
        Some(hint.to_owned())
    }
}

/// A log and the key that its word must be signed with.
pub struct Log {
    entries: Url,
    key: PublicKey,
    http: reqwest::Client,
    pauses: [Duration; 3],
}

/// How a try ended that may be worth another.
enum Outcome {
    Answer(Vec<u8>),
    /// The log has this very entry; it is at this address.
    Exists(Url),
}

impl Log {
    /// Prepares a log; nothing is sent yet.
    pub fn new(url: &Url, key: PublicKey, roots: &Roots) -> Result<Self, RekorError> {
        let mut entries = url.clone();
        entries.set_query(None);
        entries.set_fragment(None);
        entries.set_path(&format!("{}/{ENTRIES}", url.path().trim_end_matches('/')));
        let http = roots
            .client_builder()
            .user_agent(concat!("tagship/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|source| RekorError::Setup { url: url.clone(), source })?;
        Ok(Self { entries, key, http, pauses: PAUSES })
    }

    /// The key that the log's word must be signed with.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Records a signature and checks the log's proof of it. An entry that is there already, from a try whose answer
    /// was lost, is as good as a new one.
    pub async fn record(&self, subject: &Subject<'_>) -> Result<(Entry, Logged), RekorError> {
        let body = Body::new(subject);
        let (url, answer) = match self.tries(&self.entries, Some(&body)).await? {
            Outcome::Answer(bytes) => (self.entries.clone(), bytes),
            Outcome::Exists(url) => match self.tries(&url, None).await? {
                Outcome::Answer(bytes) => (url, bytes),
                Outcome::Exists(url) => return Err(RekorError::NoLocation { url }),
            },
        };
        let unproven = |source| RekorError::Unproven { url: url.clone(), source };
        Answer::parse(&answer).map_err(unproven)?.verify(&self.key, subject).map_err(unproven)
    }

    /// The log's id: what its entries name it by.
    pub fn id(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    async fn tries(&self, url: &Url, body: Option<&Body>) -> Result<Outcome, RekorError> {
        let mut pauses = self.pauses.iter();
        loop {
            let error = match self.once(url, body).await {
                Err(error @ (RekorError::Unreachable { .. } | RekorError::Server { .. })) => error,
                settled => return settled,
            };
            match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(error),
            }
        }
    }

    async fn once(&self, url: &Url, body: Option<&Body>) -> Result<Outcome, RekorError> {
        let request = match body {
            Some(body) => self.http.post(url.clone()).json(body),
            None => self.http.get(url.clone()),
        };
        let response = request
            .header(reqwest::header::ACCEPT, "application/json")
            .send()
            .await
            .map_err(|source| broken(url, source))?;
        let status = response.status();
        if status.is_success() {
            return read(url, response).await.map(Outcome::Answer);
        }
        if status == StatusCode::CONFLICT && body.is_some() {
            return self
                .location(&response)
                .map(Outcome::Exists)
                .ok_or_else(|| RekorError::NoLocation { url: url.clone() });
        }
        let message = match read(url, response).await {
            Ok(bytes) => message(&bytes),
            Err(_) => String::new(),
        };
        let (url, status) = (url.clone(), status.as_u16());
        Err(if status >= 500 {
            RekorError::Server { url, status, message }
        } else {
            RekorError::Refused { url, status, message }
        })
    }

    /// Where an existing entry is: below this log's own entries, nowhere else.
    fn location(&self, response: &Response) -> Option<Url> {
        let url = self.entries.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
        let own = url.origin() == self.entries.origin();
        // A log behind a path prefix may not know of it: the last segment is the entry's id in any case.
        let id = url
            .path_segments()?
            .next_back()
            .filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let mut entry = self.entries.clone();
        entry.set_path(&format!("{}/{id}", self.entries.path()));
        own.then_some(entry)
    }
}

/// Reads an answer, as much as one may have.
async fn read(url: &Url, mut response: Response) -> Result<Vec<u8>, RekorError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|source| broken(url, source))? {
        if bytes.len() + chunk.len() > log::MAX_ANSWER_LEN {
            return Err(RekorError::TooLarge { url: url.clone() });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

fn broken(url: &Url, source: reqwest::Error) -> RekorError {
    let (fault, url, source) = (handshake_fault(&source), url.clone(), source.without_url());
    match fault {
        Some(HandshakeFault::UnknownAuthority | HandshakeFault::Certificate) => RekorError::Certificate { url, source },
        Some(HandshakeFault::NotTls) | None => RekorError::Unreachable { url, source },
    }
}

/// What the log said, in one bounded line.
fn message(bytes: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        message: String,
    }
    let said = serde_json::from_slice(bytes).map(|Said { message }| message);
    let said = said.unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned());
    text::escape(said.trim()).chars().take(MESSAGE_LEN).collect()
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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
        let subject = Subject { payload: b"payload", signature: &signature, key: key.public() };
        let outcome = client.record(&subject).await.map(|(_, logged)| logged);
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
        for refusal in [400, 401, 404, 422] {
            let (outcome, asked) = record(move |_, _, _| status(refusal)).await;
            assert_eq!((outcome.unwrap_err().kind(), asked.len()), ("log-refused", 1));
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
        let subject = Subject { payload: b"", signature: b"", key: key.public() };
        let error = log.record(&subject).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot reach the transparency log http://127.0.0.1:1/api/v1/log/entries");
    }
}
