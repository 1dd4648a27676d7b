//! Why an image may not be deployed, and what to try.

use tagship_core::{
    credentials::CredentialError,
    explain::Explain,
    reference::{ImageRef, Repository},
    registry::RegistryError,
    signature::{CheckError, FetchError, Fingerprint, KeyError},
    tls::RootsError,
};

use crate::{config::VerifySettings, trust::Refusal};

/// Why an image may not be deployed. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The certificate authorities cannot be loaded.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The registry's credentials cannot be read.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A configured key is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The registry did not answer, or not well.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The signatures could not be had, or none counts.
    #[error(transparent)]
    Check(Box<CheckError>),
    /// A key signed it that the administrator has revoked.
    #[error("{} {key}, and that key is revoked", if *known { "it was signed with" } else { "it says to be signed with" })]
    KeyRevoked {
        /// The revoked key's file.
        key: String,
        /// It was found so when the image was proven here; otherwise it is the signature's own unchecked word.
        known: bool,
        /// What the check found.
        source: Box<CheckError>,
    },
    /// The image is genuine, but not to be deployed now.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The tag names nothing.
    #[error("{image} does not exist")]
    NoSuchTag {
        /// The tag, in full.
        image: ImageRef,
    },
    /// The request is for another app.
    #[error("the request is for {asked}, and this app is deployed from {configured}")]
    AnotherImage {
        /// What the request names.
        asked: Repository,
        /// What the configuration names.
        configured: Repository,
    },
    /// The request has to be signed, and is not.
    #[error("the request is not signed")]
    RequestUnsigned {
        /// It asks for a rollback; otherwise the configuration demands it.
        rollback: bool,
    },
    /// The request's signature is by no trusted key, or not over these bytes.
    #[error("the request's signature is not by a trusted key")]
    RequestSignature,
}

impl Denied {
    /// What the check of an image's signatures found, in the light of the administrator's list.
    ///
    /// Where nothing else is `known`, that a revoked key signed is the signature's own unchecked word; it says no more
    /// than which message is right.
    pub(super) fn of(error: CheckError, settings: &VerifySettings, known: Option<Fingerprint>) -> Self {
        let key = known.or(match &error {
            CheckError::Verify(error) => error.claimed_key(),
            CheckError::Fetch(_) | CheckError::Unread { .. } => None,
        });
        match settings.revoked_keys.iter().find(|revoked| key == Some(revoked.fingerprint())) {
            Some(key) => {
                Self::KeyRevoked { key: key.name().to_owned(), known: known.is_some(), source: Box::new(error) }
            }
            None => Self::Check(Box::new(error)),
        }
    }
}

impl Explain for Denied {
    fn kind(&self) -> &'static str {
        match self {
            Self::Roots(error) => error.kind(),
            Self::Credential(error) => error.kind(),
            Self::Key(error) => error.kind(),
            Self::Registry(error) => error.kind(),
            Self::Check(error) => error.kind(),
            Self::KeyRevoked { .. } => "revoked-key",
            Self::Refusal(error) => error.kind(),
            Self::NoSuchTag { .. } => "no-such-tag",
            Self::AnotherImage { .. } => "another-image",
            Self::RequestUnsigned { .. } => "request-unsigned",
            Self::RequestSignature => "request-signature",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Roots(error) => error.hint(),
            Self::Credential(error) => error.hint(),
            Self::Key(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Check(error) => error.hint(),
            Self::KeyRevoked { .. } => {
                Some("if the image is yours, sign it again with a key that counts (`tagship sign`)".into())
            }
            Self::Refusal(error) => error.hint(),
            Self::NoSuchTag { .. } => Some("push the image under this tag first".into()),
            Self::AnotherImage { .. } => {
                Some("mount the right app's hand-off directory into the job, or correct the action's `image`".into())
            }
            Self::RequestUnsigned { rollback: true } => Some(
                "give the action its `key`, so that it signs the request; or run `tagship-host rollback` on the host"
                    .into(),
            ),
            Self::RequestUnsigned { rollback: false } => {
                Some("give the action its `key`, so that it signs the request (`requests: signed` demands it)".into())
            }
            Self::RequestSignature => Some("sign with the key that the host's `verify.keys` names".into()),
        }
    }
}

impl Denied {
    /// It is the image, or what is signed of it; otherwise it could not be looked at, and may count another time.
    pub fn is_about_image(&self) -> bool {
        match self {
            Self::Check(error) => !matches!(**error, CheckError::Fetch(FetchError::Registry { .. })),
            Self::KeyRevoked { .. } | Self::Refusal(_) | Self::NoSuchTag { .. } => true,
            _ => false,
        }
    }
}
