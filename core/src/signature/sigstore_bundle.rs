//! The sigstore bundle, version 0.3, that cosign 3 writes: an envelope, who signed it, and the log's evidence, in one
//! JSON document (sigstore protobuf-specs, `sigstore_bundle.proto`, in protobuf's JSON mapping).
//!
//! Only its form lives here. What is in it is unsigned except for the envelope and the log's words, so members that are
//! not known are ignored; whether it proves anything is [`verify`](super::verify)'s to say.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::dsse::{Envelope, EnvelopeError, WireEnvelope};
use super::json::{self, JsonError};
use super::keys::{Fingerprint, PublicKey};
use super::log::{Entry, Kind, LogError, Proof, Recorded};

/// Media type of a bundle, as a layer and as an artifact.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Longest bundle that is read, in bytes: one with our annotations and a log entry has 6 KiB.
pub const MAX_LEN: usize = 256 * 1024;

/// Most log entries of one bundle: a log's, and that of a second one.
const MAX_ENTRIES: usize = 8;

/// A bundle with an envelope. Nothing of it is checked.
#[derive(Clone, Debug)]
pub struct SigstoreBundle {
    /// What was signed, with its signature.
    pub envelope: Envelope,
    /// Who signed it, by the bundle's own word.
    pub signer: Signer,
    /// What logs recorded of it.
    pub entries: Vec<Result<Evidence, Unfit>>,
}

/// Who signed, by the bundle's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// A key, with cosign's hint at it if there is one.
    Key(Option<Fingerprint>),
    /// A certificate: keyless signing, or a key with one.
    Certificate,
}

/// Why an entry of a bundle is none that could count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Of another kind or version, such as those of Rekor v2, which signs no timestamps.
    Kind,
    /// The proof is missing.
    NoProof,
    /// A field does not have its form.
    Field(&'static str),
}

impl From<Unfit> for LogError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Kind => Self::Kind(Kind::Dsse),
            Unfit::NoProof => Self::NoProof,
            Unfit::Field(field) => Self::Field(field),
        }
    }
}

/// A log's entry, and the proof that its tree holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The entry with its signed timestamp.
    pub entry: Entry,
    /// The proof.
    pub proof: Proof,
}

/// Why bytes are no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not JSON of the bundle's shape.
    #[error("it is not a sigstore bundle")]
    Json(#[source] JsonError),
    /// Of another version.
    #[error("it is not a sigstore bundle of version 0.3")]
    MediaType,
    /// A bundle of something else than an envelope.
    #[error("it has no DSSE envelope")]
    NoEnvelope,
    /// Its envelope is none.
    #[error("its DSSE envelope is malformed")]
    Envelope(#[source] EnvelopeError),
    /// More log entries than anybody makes.
    #[error("it has more than {MAX_ENTRIES} log entries")]
    Entries,
}

/// Reads a bundle. A log entry that is malformed is kept as what is wrong with it: another one, or a policy that asks
/// for none, may do.
pub fn decode(bytes: &[u8]) -> Result<SigstoreBundle, BundleError> {
    let wire: WireBundle = json::parse(bytes, MAX_LEN).map_err(BundleError::Json)?;
    if wire.media_type != MEDIA_TYPE {
        return Err(BundleError::MediaType);
    }
    let envelope = wire.dsse_envelope.ok_or(BundleError::NoEnvelope)?;
    let material = wire.verification_material;
    if material.tlog_entries.len() > MAX_ENTRIES {
        return Err(BundleError::Entries);
    }
    Ok(SigstoreBundle {
        envelope: Envelope::read(envelope).map_err(BundleError::Envelope)?,
        signer: match material.public_key {
            Some(key) => Signer::Key(fingerprint(&key.hint)),
            None => Signer::Certificate,
        },
        entries: material.tlog_entries.into_iter().map(WireEntry::read).collect(),
    })
}

/// Writes a bundle as cosign does: the key's hint, and the log's entry if it was recorded.
///
/// # Errors
/// Never for what serde_json can write.
pub fn encode(envelope: &Envelope, key: &PublicKey, recorded: Option<&Recorded>) -> Result<String, JsonError> {
    serde_json::to_string(&WireBundle {
        media_type: MEDIA_TYPE.to_owned(),
        verification_material: WireMaterial {
            public_key: Some(WireKey { hint: STANDARD.encode(key.fingerprint().as_bytes()) }),
            tlog_entries: recorded.into_iter().map(WireEntry::write).collect::<Result<_, _>>()?,
        },
        dsse_envelope: Some(envelope.to_wire()),
    })
    .map_err(JsonError::Malformed)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
struct WireBundle {
    media_type: String,
    verification_material: WireMaterial,
    dsse_envelope: Option<WireEnvelope>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMaterial {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<WireKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tlog_entries: Vec<WireEntry>,
}

#[derive(Serialize, Deserialize)]
struct WireKey {
    #[serde(default)]
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    /// Absent for a log's first entry: protobuf leaves zeros out.
    #[serde(default, with = "integer")]
    log_index: u64,
    log_id: Option<WireLog>,
    kind_version: Option<WireKind>,
    #[serde(default, with = "integer")]
    integrated_time: u64,
    inclusion_promise: Option<WirePromise>,
    inclusion_proof: Option<WireProof>,
    #[serde(default)]
    canonicalized_body: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireLog {
    key_id: String,
}

#[derive(Serialize, Deserialize)]
struct WireKind {
    kind: String,
    version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePromise {
    signed_entry_timestamp: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProof {
    /// Absent for the first leaf: protobuf leaves zeros out.
    #[serde(default, with = "integer")]
    log_index: u64,
    root_hash: String,
    #[serde(with = "integer")]
    tree_size: u64,
    /// Absent in a tree of one leaf.
    #[serde(default)]
    hashes: Vec<String>,
    checkpoint: Option<WireCheckpoint>,
}

#[derive(Serialize, Deserialize)]
struct WireCheckpoint {
    envelope: String,
}

impl WireEntry {
    fn read(self) -> Result<Evidence, Unfit> {
        if !self.kind_version.is_some_and(|it| it.kind == Kind::Dsse.name() && it.version == Kind::VERSION) {
            return Err(Unfit::Kind);
        }
        let promise = self.inclusion_promise.ok_or(Unfit::Field("inclusionPromise"))?;
        let proof = self.inclusion_proof.ok_or(Unfit::NoProof)?;
        let log = self.log_id.and_then(|log| fingerprint(&log.key_id)).ok_or(Unfit::Field("logId"))?;
        Ok(Evidence {
            entry: Entry {
                body: self.canonicalized_body,
                integrated_time: i64::try_from(self.integrated_time).map_err(|_| Unfit::Field("integratedTime"))?,
                log_index: self.log_index,
                log_id: log.to_string(),
                timestamp: STANDARD
                    .decode(promise.signed_entry_timestamp)
                    .map_err(|_| Unfit::Field("signedEntryTimestamp"))?,
            },
            proof: Proof {
                index: proof.log_index,
                root: hash(&proof.root_hash).ok_or(Unfit::Field("root hash"))?,
                size: proof.tree_size,
                hashes: proof
                    .hashes
                    .iter()
                    .map(|text| hash(text).ok_or(Unfit::Field("inclusion proof")))
                    .collect::<Result<_, _>>()?,
                checkpoint: proof.checkpoint.ok_or(Unfit::Field("checkpoint"))?.envelope,
            },
        })
    }

    fn write(recorded: &Recorded) -> Result<Self, JsonError> {
        let Recorded { entry, proof, logged } = recorded;
        Ok(Self {
            log_index: entry.log_index,
            log_id: Some(WireLog { key_id: STANDARD.encode(logged.log().as_bytes()) }),
            kind_version: Some(WireKind { kind: Kind::Dsse.name().to_owned(), version: Kind::VERSION.to_owned() }),
            integrated_time: u64::try_from(entry.integrated_time).unwrap_or_default(),
            inclusion_promise: Some(WirePromise { signed_entry_timestamp: STANDARD.encode(&entry.timestamp) }),
            inclusion_proof: Some(WireProof {
                log_index: proof.index,
                root_hash: STANDARD.encode(proof.root),
                tree_size: proof.size,
                hashes: proof.hashes.iter().map(|hash| STANDARD.encode(hash)).collect(),
                checkpoint: Some(WireCheckpoint { envelope: proof.checkpoint.clone() }),
            }),
            canonicalized_body: entry.body.clone(),
        })
    }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    hash(text).map(Fingerprint::from)
}

/// 64-bit integers as protobuf's JSON mapping has them: written as texts, read as texts or numbers.
mod integer {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(number),
            Either::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().map_err(|_| D::Error::custom("an integer that is too large"))
            }
            Either::Text(_) => Err(D::Error::custom("a text that is no integer")),
        }
    }
}
