//! What is signed, and the signature over it. Pure but for the key's randomness.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, Repository, Tag};
use tagship_core::signature::annotations::{self, AnnotationError, Annotations};
use tagship_core::signature::dsse::Envelope;
use tagship_core::signature::json::JsonError;
use tagship_core::signature::log::{Proposal, Recorded};
use tagship_core::signature::{PublicKey, dsse, payload, sigstore_bundle, statement};

use super::key::{SigningKey, SigningKeyError};

/// What a release says of its image beside repository and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The version tag.
    pub tag: Tag,
    /// The commit it was built from, if known.
    pub commit: Option<String>,
    /// The CI run, if it is one.
    pub run: Option<String>,
    /// Further annotations by the user.
    pub further: BTreeMap<String, String>,
}

impl Facts {
    /// All of it as annotations, signed at `now`, in whole seconds.
    pub fn annotations(&self, repository: &Repository, now: Timestamp) -> Result<Annotations, SignError> {
        let mut entries = self.further.clone();
        let own = [
            (annotations::TAG, Some(self.tag.to_string())),
            (annotations::REPOSITORY, Some(repository.to_string())),
            (annotations::COMMIT, self.commit.clone()),
            (annotations::CREATED, Some(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
            (annotations::RUN, self.run.clone()),
        ];
        for (name, value) in own {
            if entries.contains_key(name) {
                return Err(SignError::Reserved(name));
            }
            entries.extend(value.map(|value| (name.to_owned(), value)));
        }
        Annotations::new(entries).map_err(SignError::Annotation)
    }

    /// Whether a signature's annotations say the same, apart from when and by which run.
    pub fn same_as(&self, signed: &Annotations) -> bool {
        let further = signed
            .iter()
            .filter(|(name, _)| !annotations::MEANINGFUL.contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        signed.tag() == Some(&self.tag) && signed.commit() == self.commit.as_deref() && further.eq(self.further.clone())
    }
}

/// The older format: a payload and the signature over it.
pub struct Signature {
    payload: Vec<u8>,
    der: Vec<u8>,
    key: PublicKey,
}

/// The newer format: a signed envelope with a statement in it.
pub struct SignedStatement {
    envelope: Envelope,
    /// As a log is told of it; it keeps the hash of these very bytes.
    json: String,
    key: PublicKey,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A name that tagship gives a meaning.
    #[error("the annotation {0:?} is made by tagship itself")]
    Reserved(&'static str),
    /// An annotation does not have its form.
    #[error("the annotations cannot be signed")]
    Annotation(#[source] AnnotationError),
    /// The payload cannot be written.
    #[error("cannot write the payload to sign")]
    Payload(#[source] JsonError),
    /// The payload is longer than verifiers read.
    #[error("the annotations are too long: the payload would have {0} bytes, and {max} is the most", max = payload::MAX_LEN)]
    TooLong(usize),
    /// The key does not sign.
    #[error(transparent)]
    Key(#[from] SigningKeyError),
}

impl Explain for SignError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Key(error) => error.kind(),
            Self::Payload(_) => "signing-failed",
            Self::Reserved(_) | Self::Annotation(_) | Self::TooLong(_) => "bad-annotation",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Key(error) => error.hint(),
            Self::Reserved(_) => Some("give it another name in `annotations`".to_owned()),
            _ => None,
        }
    }
}

/// The bytes that a signature in the older format is over.
pub fn payload(repository: &Repository, digest: &Digest, annotations: &Annotations) -> Result<Vec<u8>, SignError> {
    let payload = payload::encode(repository, digest, annotations).map_err(SignError::Payload)?;
    if payload.len() > payload::MAX_LEN {
        return Err(SignError::TooLong(payload.len()));
    }
    Ok(payload)
}

/// Signs a manifest's digest, in its repository, with annotations.
pub fn sign(
    key: &SigningKey,
    repository: &Repository,
    digest: &Digest,
    annotations: &Annotations,
) -> Result<Signature, SignError> {
    let payload = payload(repository, digest, annotations)?;
    let der = key.sign(&payload)?;
    Ok(Signature { payload, der, key: key.public().clone() })
}

impl Signature {
    /// The signed bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signature, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The key that made it.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// What a log is told of it.
    pub fn proposal(&self) -> Proposal<'_> {
        Proposal::hashed_rekord(&self.payload, &self.der, &self.key)
    }
}

/// Signs a manifest's digest with annotations, as a statement.
pub fn sign_statement(
    key: &SigningKey,
    digest: &Digest,
    annotations: &Annotations,
) -> Result<SignedStatement, SignError> {
    let payload = statement::encode(digest, annotations).map_err(SignError::Payload)?;
    if payload.len() > payload::MAX_LEN {
        return Err(SignError::TooLong(payload.len()));
    }
    let signature = key.sign(&dsse::pae(statement::PAYLOAD_TYPE, &payload))?;
    let envelope = Envelope { payload_type: statement::PAYLOAD_TYPE.to_owned(), payload, signature };
    let json = envelope.to_json().map_err(SignError::Payload)?;
    Ok(SignedStatement { envelope, json, key: key.public().clone() })
}

impl SignedStatement {
    /// What a log is told of it.
    pub fn proposal(&self) -> Proposal<'_> {
        Proposal::dsse(&self.json, &self.envelope.payload, &self.envelope.signature, &self.key)
    }

    /// The bundle of it, with the log's entry if it was recorded.
    pub fn bundle(&self, recorded: Option<&Recorded>) -> Result<String, JsonError> {
        sigstore_bundle::encode(&self.envelope, &self.key, recorded)
    }
}
