//! Talks to a Rekor v1 transparency log: records a signature and believes nothing that the log's key did not sign.
//!
//! What makes a record count is the core's to say; here are requests, retries and bounds.

mod error;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode, Url, redirect};
use tagship_core::signature::log::{self, Answer, Proposal, Recorded};
use tagship_core::signature::{Fingerprint, PublicKey};
use tagship_core::text;
use tagship_core::tls::{HandshakeFault, Roots, handshake_fault};

pub use error::RekorError;

/// Entries of Rekor v1's API, below its address.
const ENTRIES: &str = "api/v1/log/entries";

/// Pauses before the second, third and fourth try.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3)];

/// The public log answers in one to five seconds: an entry is in the tree before it is signed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// As much of an error's text as is shown, in characters.
const MESSAGE_LEN: usize = 300;

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
    pub async fn record(&self, proposal: &Proposal<'_>) -> Result<Recorded, RekorError> {
        let (url, answer) = match self.tries(&self.entries, Some(proposal)).await? {
            Outcome::Answer(bytes) => (self.entries.clone(), bytes),
            Outcome::Exists(url) => match self.tries(&url, None).await? {
                Outcome::Answer(bytes) => (url, bytes),
                Outcome::Exists(url) => return Err(RekorError::NoLocation { url }),
            },
        };
        let unproven = |source| RekorError::Unproven { url: url.clone(), source };
        Answer::parse(&answer).map_err(unproven)?.verify(&self.key, proposal.subject()).map_err(unproven)
    }

    /// The log's id: what its entries name it by.
    pub fn id(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    async fn tries(&self, url: &Url, body: Option<&Proposal<'_>>) -> Result<Outcome, RekorError> {
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

    async fn once(&self, url: &Url, body: Option<&Proposal<'_>>) -> Result<Outcome, RekorError> {
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
