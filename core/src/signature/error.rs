//! Why an image's signatures do not count, told apart by what the user has to do about it.

use std::fmt;

use super::keys::Fingerprint;
use super::log::LogError;
use super::payload::PayloadError;
use super::sigstore_bundle::BundleError;
use crate::explain::Explain;
use crate::reference::{Digest, ImageRef, Repository, Tag};
use crate::text;

/// An image without a signature that counts.
#[derive(Debug)]
pub struct VerifyError {
    // Boxed: results stay small where all goes well.
    image: Box<ImageRef>,
    signatures: usize,
    fault: Fault,
}

/// What is wrong: of several signatures, with the one that came closest.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is none.
    #[error("it is not signed")]
    NoSignature,
    /// The manifest names a payload that the registry does not have.
    #[error("the signed payload is missing in the registry")]
    PayloadMissing,
    /// By a key that is not trusted.
    #[error("it is signed, but not by a trusted key{}", signer(.by, .trusted))]
    Foreign {
        /// Who claims to have signed, where something says so. Unchecked.
        by: Option<Fingerprint>,
        /// The keys that would have counted.
        trusted: Vec<Fingerprint>,
    },
    /// The signature does not have its form.
    #[error("its signature is malformed: {0}")]
    Malformed(&'static str),
    /// The payload is not what was signed.
    #[error("the signed payload was changed after it was signed")]
    Tampered,
    /// Signed by a trusted key, but no payload.
    #[error("its signature does not count")]
    Payload(#[source] PayloadError),
    /// No bundle.
    #[error("its signature is malformed")]
    Bundle(#[source] BundleError),
    /// Of another repository.
    #[error("the signature is for another repository: {}", text::escape(.signed))]
    OtherRepository {
        /// What was signed.
        signed: String,
    },
    /// Of another digest: lifted from another image.
    #[error("the signature is for another image of this repository: {signed}")]
    OtherDigest {
        /// What was signed.
        signed: Digest,
    },
    /// Not recorded in a log.
    #[error("the signature has no transparency log entry, which is required")]
    LogMissing,
    /// The log's record does not count.
    #[error("the signature's transparency log entry does not count")]
    Log(#[source] LogError),
    /// Signed without a tag.
    #[error("the signature covers no tag, which is required")]
    AnnotationsMissing,
    /// Signed, but under other tags than the requested one.
    #[error("requested as {requested}, but signed as {}", list(.signed))]
    TagMismatch {
        /// What was asked for.
        requested: Tag,
        /// What it was signed as.
        signed: Vec<Tag>,
    },
}

impl VerifyError {
    pub(super) fn new(repository: Repository, digest: Digest, signatures: usize, fault: Fault) -> Self {
        Self { image: Box::new(ImageRef { repository, tag: None, digest: Some(digest) }), signatures, fault }
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// The key that is not trusted and signed, by the signature's own word, which nobody has checked.
    pub fn claimed_key(&self) -> Option<Fingerprint> {
        match self.fault {
            Fault::Foreign { by, .. } => by,
            _ => None,
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.image, self.fault)?;
        if self.signatures > 1 {
            write!(f, " (none of its {} signatures counts; this one came closest)", self.signatures)?;
        }
        Ok(())
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.fault)
    }
}

impl Explain for VerifyError {
    fn kind(&self) -> &'static str {
        self.fault.kind()
    }

    fn hint(&self) -> Option<String> {
        self.fault.hint()
    }
}

impl Explain for Fault {
    fn kind(&self) -> &'static str {
        match self {
            Self::NoSignature => "no-signature",
            Self::PayloadMissing => "payload-missing",
            Self::Foreign { .. } => "foreign-signature",
            Self::Malformed(_) | Self::Bundle(_) | Self::Payload(_) => "malformed-signature",
            Self::Tampered => "tampered-payload",
            Self::OtherRepository { .. } => "other-repository",
            Self::OtherDigest { .. } => "other-digest",
            Self::LogMissing => "log-missing",
            Self::Log(_) => "log-invalid",
            Self::AnnotationsMissing => "annotations-missing",
            Self::TagMismatch { .. } => "tag-mismatch",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoSignature => {
                "sign it with `tagship sign` or `cosign sign --key`; what is looked for is `verify.formats` on the host"
            }
            Self::PayloadMissing => "sign it again; a clean-up rule of the registry may have removed the payload",
            Self::Foreign { .. } => "sign it with the release's key, or add that key's public half to the trusted keys",
            Self::Malformed(_) | Self::Bundle(_) | Self::Payload(_) => {
                "sign it again with `tagship sign` or `cosign sign --key`"
            }
            Self::Tampered => {
                "do not trust this registry's contents before you know who changed it; sign the image again"
            }
            Self::OtherRepository { .. } => "sign the image where it is now: signatures do not move with copies",
            Self::OtherDigest { .. } => {
                "somebody attached another image's signature to this one; sign this one if it is meant"
            }
            Self::LogMissing => {
                "sign it with the transparency log on (`tlog`); what requires the record is `verify.rekor` in the host's \
                 configuration, and `tlog` for the action and the tool"
            }
            Self::Log(LogError::UnknownLog(_)) => {
                "for a private log, give its public key (`rekor-public-key`; `rekor-keys` on the host)"
            }
            Self::Log(LogError::Hash(_)) => {
                "sign it with a key on P-256: only such signatures can be recorded and verified"
            }
            Self::Log(_) => "sign it again, so that a new entry is made",
            Self::AnnotationsMissing => "release it with tagship, or sign it with `cosign sign -a tag=TAG`",
            Self::TagMismatch { .. } => "request the tag it was signed as, or sign it under the requested one",
        };
        Some(hint.to_owned())
    }
}

impl Fault {
    /// How close to counting a signature came: of several, the closest is the one to talk about.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::NoSignature => 0,
            Self::PayloadMissing => 1,
            Self::Foreign { .. } => 2,
            Self::Malformed(_) | Self::Bundle(_) => 3,
            Self::Tampered => 4,
            Self::Payload(_) => 5,
            Self::OtherRepository { .. } => 6,
            Self::OtherDigest { .. } => 7,
            Self::LogMissing => 8,
            Self::Log(_) => 9,
            Self::AnnotationsMissing => 10,
            Self::TagMismatch { .. } => 11,
        }
    }
}

fn signer(by: &Option<Fingerprint>, trusted: &[Fingerprint]) -> String {
    let trusted = match trusted {
        [] => "no key is".to_owned(),
        keys => list(keys),
    };
    match by {
        Some(by) => format!(" (by the key {by}; trusted: {trusted})"),
        None => format!(" (trusted: {trusted})"),
    }
}

fn list(items: &[impl fmt::Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
