//! Rekor v1's word about a signature: the entry, its signed timestamp, and the proof that the log's tree holds it.
//!
//! Pure: bytes and trusted log keys in, [`Logged`] out. Talking to a log does not live here.

mod answer;
mod body;
mod proof;
mod proposal;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::json::JsonError;
use super::keys::{Fingerprint, PublicKey};

pub use answer::{Answer, Recorded};
use body::Body;
#[cfg(test)]
pub(super) use body::MAX_BODY_LEN;
pub use proof::Proof;
pub use proposal::Proposal;

/// Longest answer of a log that is read, in bytes: an entry with its proof has 4 KiB.
pub const MAX_ANSWER_LEN: usize = 256 * 1024;

/// What a log entry must be about to count for a signature.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// As what the log keeps it.
    pub kind: Kind,
    /// The payload's bytes; of a DSSE envelope those inside of it, without what else is signed with them.
    pub payload: &'a [u8],
    /// The signature over it, DER.
    pub signature: &'a [u8],
    /// The key that made it.
    pub key: &'a PublicKey,
}

/// The kinds of entry that record signatures of images, in the versions that Rekor v1 writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `hashedrekord` 0.0.1: a signature over bytes of which the log knows the hash.
    HashedRekord,
    /// `dsse` 0.0.1: a DSSE envelope, of which the log keeps hashes and signature.
    Dsse,
}

impl Kind {
    /// The one version of it that is read and written.
    pub const VERSION: &'static str = "0.0.1";

    /// What the log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HashedRekord => "hashedrekord",
            Self::Dsse => "dsse",
        }
    }
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
    /// Over another hash than cosign verifies: that is what cosign 3.1 records for keys that are not on P-256.
    #[error("the log recorded the {0} of what was signed, and cosign verifies a record of its SHA-256 alone")]
    Hash(&'static str),
    /// Of a kind that Rekor keeps other things in.
    #[error("the log entry is not a {} {}", .0.name(), Kind::VERSION)]
    Kind(Kind),
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
        self.body(subject.kind)?.is_about(subject)?;
        Ok(Logged { index: self.log_index, time: self.integrated_time, log: log.fingerprint() })
    }

    /// As [`Entry::verify`], and that the log's signed tree holds the entry.
    pub fn verify_with(&self, proof: &Proof, logs: &[PublicKey], subject: &Subject<'_>) -> Result<Logged, LogError> {
        let logged = self.verify(logs, subject)?;
        proof.verify(&self.body_bytes()?, self.log(logs)?)?;
        Ok(logged)
    }

    /// The key that the entry says the signature was made with. Unchecked: good for an error's text only.
    pub(super) fn claimed_key(&self) -> Option<PublicKey> {
        self.body(Kind::HashedRekord).ok()?.key().ok()
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

    fn body(&self, kind: Kind) -> Result<Body, LogError> {
        Body::parse(&self.body_bytes()?, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::bundle;

    /// A bundle that cosign wrote about an entry of the public log, from sigstore-rs' test data. It is of the kind
    /// `rekord`, which is not taken.
    const PUBLIC_BUNDLE: &str = include_str!("../../../testdata/rekor-public-bundle.json");

    fn verify(text: &str) -> Result<Logged, LogError> {
        let key = PublicKey::public_log();
        let subject = Subject { kind: Kind::HashedRekord, payload: b"", signature: b"", key: &key };
        bundle::decode(text)?.verify(std::slice::from_ref(&key), &subject)
    }

    #[test]
    fn the_public_logs_timestamp_verifies() {
        assert!(matches!(verify(PUBLIC_BUNDLE), Err(LogError::Kind(Kind::HashedRekord))), "all but the kind");
        for (from, to) in [("783606", "783607"), ("1634714179", "1634714178"), ("MEUCIDx9", "MEUCIDx8")] {
            let changed = PUBLIC_BUNDLE.replacen(from, to, 1);
            assert_ne!(changed, PUBLIC_BUNDLE);
            assert!(matches!(verify(&changed), Err(LogError::Timestamp)), "{from}");
        }
    }

    #[test]
    fn a_bundle_comes_back_in_cosigns_order() {
        let text = bundle::encode(&bundle::decode(PUBLIC_BUNDLE).unwrap()).unwrap();
        let members: Vec<_> = ["SignedEntryTimestamp", "Payload", "body", "integratedTime", "logIndex", "logID"]
            .iter()
            .map(|name| text.find(&format!("\"{name}\"")).unwrap())
            .collect();
        assert!(members.is_sorted());
        assert_eq!(bundle::decode(&text).unwrap(), bundle::decode(PUBLIC_BUNDLE).unwrap());
    }
}
