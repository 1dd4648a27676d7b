//! What is signed, and the signature over it. Pure but for the key's randomness.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, Repository, Tag};
use tagship_core::signature::annotations::{self, AnnotationError, Annotations};
use tagship_core::signature::json::JsonError;
use tagship_core::signature::log::Subject;
use tagship_core::signature::{PublicKey, payload};

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

/// A payload and the signature over it.
pub struct Signature {
    payload: Vec<u8>,
    der: Vec<u8>,
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

/// Signs a manifest's digest, in its repository, with annotations.
pub fn sign(
    key: &SigningKey,
    repository: &Repository,
    digest: &Digest,
    annotations: &Annotations,
) -> Result<Signature, SignError> {
    let payload = payload::encode(repository, digest, annotations).map_err(SignError::Payload)?;
    if payload.len() > payload::MAX_LEN {
        return Err(SignError::TooLong(payload.len()));
    }
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

    /// What a log is told of it.
    pub fn subject(&self) -> Subject<'_> {
        Subject { payload: &self.payload, signature: &self.der, key: &self.key }
    }
}
