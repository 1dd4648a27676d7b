//! Rekor v1's word about a signature: the entry, its signed timestamp, and the proof that the log's tree holds it.
//!
//! Pure: bytes and trusted log keys in, [`Logged`] out. Talking to a log does not live here.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sigstore::rekor::models::InclusionProof;
use sigstore::rekor::models::checkpoint::SignedCheckpoint;

use super::json::{self, JsonError};
use super::keys::{Fingerprint, PublicKey};
use super::pem;
use crate::reference::Digest;

/// Longest answer of a log that is read, in bytes: an entry with its proof has 4 KiB.
pub const MAX_ANSWER_LEN: usize = 256 * 1024;

/// Longest entry body, in bytes.
const MAX_BODY_LEN: usize = 64 * 1024;

/// Most hashes of an inclusion proof: a path in a tree of 2^64 leaves.
const MAX_HASHES: usize = 64;

/// Most signatures under a checkpoint: the log's own and some witnesses'.
const MAX_CHECKPOINT_SIGNATURES: usize = 16;

/// What a log entry must be about to count for a signature.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The signed payload's bytes.
    pub payload: &'a [u8],
    /// The signature over it, DER.
    pub signature: &'a [u8],
    /// The key that made it.
    pub key: &'a PublicKey,
}

/// Proof, checked, that a log recorded a signature. Made only here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    index: u64,
    time: i64,
    log: Fingerprint,
}

impl Logged {
    /// The entry's index in the log, over all of its shards.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// When the log recorded it, in seconds since 1970.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// The log's id: its key's fingerprint.
    pub fn log(&self) -> Fingerprint {
        self.log
    }
}

/// Why a log entry does not count.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not an entry.
    #[error("the log entry is malformed")]
    Json(#[source] JsonError),
    /// A field does not have its form.
    #[error("the log entry is malformed: its {0} does not have the expected form")]
    Field(&'static str),
    /// Of a log that is not trusted.
    #[error("the entry is of the log {0}, whose key is not trusted")]
    UnknownLog(String),
    /// The signed timestamp is not by the log's key.
    #[error("the log's signed timestamp does not verify")]
    Timestamp,
    /// Genuine, but about another signature.
    #[error("the log entry is about another {0}")]
    Other(&'static str),
    /// Of a kind that Rekor keeps other things in.
    #[error("the log entry is not a hashedrekord 0.0.1")]
    Kind,
    /// The log answered without a proof.
    #[error("the log gave no inclusion proof")]
    NoProof,
    /// The proof does not lead to the root, or the root is not signed by the log.
    #[error("the log's inclusion proof does not verify")]
    Proof(#[source] Box<sigstore::errors::SigstoreError>),
}

/// A Rekor v1 entry as a log signs it. Nothing of it is checked until [`Entry::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(super) body: String,
    pub(super) integrated_time: i64,
    pub(super) log_index: u64,
    pub(super) log_id: String,
    /// Signed entry timestamp, DER.
    pub(super) timestamp: Vec<u8>,
}

impl Entry {
    /// Checks that a trusted log signed this entry and that it is about this very signature, key and payload. Skipping
    /// the latter would let any genuine entry vouch for anything (CVE-2026-22703).
    pub fn verify(&self, logs: &[PublicKey], subject: &Subject<'_>) -> Result<Logged, LogError> {
        let log = self.log(logs)?;
        if !log.verify(&self.timestamp, self.signed_bytes().as_bytes()) {
            return Err(LogError::Timestamp);
        }
        self.body()?.is_about(subject)?;
        Ok(Logged { index: self.log_index, time: self.integrated_time, log: log.fingerprint() })
    }

    /// The key that the entry says the signature was made with. Unchecked: good for an error's text only.
    pub(super) fn claimed_key(&self) -> Option<PublicKey> {
        self.body().ok()?.key().ok()
    }

    fn log<'k>(&self, logs: &'k [PublicKey]) -> Result<&'k PublicKey, LogError> {
        let id: Fingerprint = self.log_id.parse().map_err(|_| LogError::Field("logID"))?;
        logs.iter().find(|key| key.fingerprint() == id).ok_or_else(|| LogError::UnknownLog(id.to_string()))
    }

    /// What the timestamp signs: canonical JSON (RFC 8785) of four fields. Base64, hexadecimal and integers need no
    /// escape, and all three forms are checked before or by this very comparison.
    pub(super) fn signed_bytes(&self) -> String {
        let Self { body, integrated_time, log_index, log_id, .. } = self;
        format!(r#"{{"body":"{body}","integratedTime":{integrated_time},"logID":"{log_id}","logIndex":{log_index}}}"#)
    }

    fn body_bytes(&self) -> Result<Vec<u8>, LogError> {
        STANDARD.decode(&self.body).map_err(|_| LogError::Field("body"))
    }

    fn body(&self) -> Result<Body, LogError> {
        json::parse(&self.body_bytes()?, MAX_BODY_LEN).map_err(LogError::Json)
    }
}

/// A log's answer to an upload or a query: one entry and its inclusion proof.
#[derive(Clone, Debug)]
pub struct Answer {
    entry: Entry,
    proof: Option<WireProof>,
}

impl Answer {
    /// Reads the answer of `POST` and `GET` of `/api/v1/log/entries`: an object with one entry under its id.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let entries: BTreeMap<String, WireEntry> = json::parse(bytes, MAX_ANSWER_LEN).map_err(LogError::Json)?;
        let mut entries = entries.into_values();
        let (Some(entry), None) = (entries.next(), entries.next()) else {
            return Err(LogError::Field("number of entries"));
        };
        let timestamp = STANDARD
            .decode(entry.verification.signed_entry_timestamp)
            .map_err(|_| LogError::Field("signedEntryTimestamp"))?;
        Ok(Self {
            entry: Entry {
                body: entry.body,
                integrated_time: entry.integrated_time,
                log_index: entry.log_index,
                log_id: entry.log_id,
                timestamp,
            },
            proof: entry.verification.inclusion_proof,
        })
    }

    /// Checks all of it: what [`Entry::verify`] checks, and that the log's signed tree holds the entry.
    pub fn verify(self, log: &PublicKey, subject: &Subject<'_>) -> Result<(Entry, Logged), LogError> {
        let logged = self.entry.verify(std::slice::from_ref(log), subject)?;
        self.proof.ok_or(LogError::NoProof)?.verify(&self.entry.body_bytes()?, log)?;
        Ok((self.entry, logged))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    body: String,
    integrated_time: i64,
    #[serde(rename = "logID")]
    log_id: String,
    log_index: u64,
    verification: WireVerification,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireVerification {
    signed_entry_timestamp: String,
    inclusion_proof: Option<WireProof>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProof {
    checkpoint: String,
    hashes: Vec<String>,
    /// In this shard of the log, unlike the entry's own index.
    log_index: i64,
    root_hash: String,
    tree_size: u64,
}

impl WireProof {
    fn verify(&self, leaf: &[u8], log: &PublicKey) -> Result<(), LogError> {
        let hash = |hex: &String| format!("sha256:{hex}").parse::<Digest>().map(|digest| *digest.as_bytes());
        if self.hashes.len() > MAX_HASHES {
            return Err(LogError::Field("inclusion proof"));
        }
        let hashes: Vec<_> =
            self.hashes.iter().map(hash).collect::<Result<_, _>>().map_err(|_| LogError::Field("inclusion proof"))?;
        let root = hash(&self.root_hash).map_err(|_| LogError::Field("root hash"))?;
        let mut outcome = Err(LogError::Field("checkpoint"));
        for checkpoint in checkpoints(&self.checkpoint) {
            let checkpoint = checkpoint.ok_or(LogError::Field("checkpoint"))?;
            let proof = InclusionProof::new(self.log_index, root, self.tree_size, hashes.clone(), Some(checkpoint));
            outcome = proof.verify(leaf, &log.sigstore()).map_err(|error| LogError::Proof(Box::new(error)));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// The checkpoint once for each of its signatures: sigstore's parser takes exactly one, but a log may add witnesses'.
fn checkpoints(text: &str) -> impl Iterator<Item = Option<SignedCheckpoint>> {
    let (note, signatures) = text.split_once("\n\n").unwrap_or_default();
    signatures
        .lines()
        .filter(|line| !line.is_empty())
        .take(MAX_CHECKPOINT_SIGNATURES)
        .map(move |line| SignedCheckpoint::deserialize(serde_json::Value::String(format!("{note}\n\n{line}\n"))).ok())
}

/// The body of a `hashedrekord` entry, read and written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    spec: Spec,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    data: Data,
    signature: SignatureOf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    hash: Hash,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureOf {
    content: String,
    #[serde(rename = "publicKey")]
    public_key: Content,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    content: String,
}

impl Body {
    /// What to send to a log about a signature.
    pub fn new(subject: &Subject<'_>) -> Self {
        Self {
            api_version: "0.0.1".to_owned(),
            kind: "hashedrekord".to_owned(),
            spec: Spec {
                data: Data { hash: Hash { algorithm: "sha256".to_owned(), value: Digest::of(subject.payload).hex() } },
                signature: SignatureOf {
                    content: STANDARD.encode(subject.signature),
                    public_key: Content { content: STANDARD.encode(subject.key.to_pem()) },
                },
            },
        }
    }

    fn is_about(&self, subject: &Subject<'_>) -> Result<(), LogError> {
        if self.kind != "hashedrekord" || self.api_version != "0.0.1" {
            return Err(LogError::Kind);
        }
        let hash = &self.spec.data.hash;
        if hash.algorithm != "sha256" || hash.value != Digest::of(subject.payload).hex() {
            return Err(LogError::Other("payload"));
        }
        let signature = STANDARD.decode(&self.spec.signature.content).map_err(|_| LogError::Field("signature"))?;
        if signature != subject.signature {
            return Err(LogError::Other("signature"));
        }
        if self.key()? != *subject.key {
            return Err(LogError::Other("public key"));
        }
        Ok(())
    }

    fn key(&self) -> Result<PublicKey, LogError> {
        let field = LogError::Field("public key");
        let Ok(pem) = STANDARD.decode(&self.spec.signature.public_key.content) else { return Err(field) };
        // A certificate instead of a key is a genuine entry, but of keyless signing.
        match pem::decode(&pem) {
            Ok(block) if block.label() == "PUBLIC KEY" => {
                PublicKey::from_spki("log entry", block.contents()).map_err(|_| LogError::Other("public key"))
            }
            Ok(_) => Err(LogError::Other("public key")),
            Err(_) => Err(field),
        }
    }
}
