//! What a verification yields. A [`Verified`] can be made by [`verify`](super::verify::verify) alone.

use serde::{Deserialize, Serialize};

use super::annotations::Annotations;
use super::attached::{Attached, Blob};
use super::bundle;
use super::keys::Fingerprint;
use super::layer::{Layer, SIGNATURE_ANNOTATION};
use super::log::Logged;
use crate::reference::{Digest, Repository, Tag};

/// Proof that an image's signature was checked against a policy and counts.
#[derive(Clone, Debug)]
pub struct Verified {
    pub(super) repository: Repository,
    pub(super) digest: Digest,
    pub(super) repository_signed: bool,
    pub(super) tag: TagClaim,
    pub(super) annotations: Annotations,
    pub(super) key_name: String,
    pub(super) logged: Option<Logged>,
    pub(super) evidence: Evidence,
}

/// What the signature says about the tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagClaim {
    /// The signature covers this tag. It is the requested one, where one was requested.
    Signed(Tag),
    /// The signature covers no tag: a tag counts only if the registry resolves it to the verified digest, which the
    /// caller must have done itself.
    Unsigned,
}

/// What to keep so that it can be shown later why the image was believed: the signature as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Evidence {
    /// A sigstore bundle.
    #[serde(rename_all = "kebab-case")]
    Bundle {
        /// The whole bundle.
        sigstore_bundle: String,
        /// The key that made the signature.
        key: Fingerprint,
    },
    /// A layer of a `.sig` manifest.
    Layer {
        /// The signed payload, which names repository and digest.
        payload: String,
        /// The signature over it: base64 of DER.
        signature: String,
        /// The log's bundle, where the policy looked at one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<String>,
        /// The key that made the signature.
        key: Fingerprint,
    },
}

impl Evidence {
    /// The key that made the signature.
    pub fn key(&self) -> Fingerprint {
        match self {
            Self::Bundle { key, .. } | Self::Layer { key, .. } => *key,
        }
    }

    /// The signature as it was found, to be verified again.
    pub fn attached(&self) -> Attached {
        match self {
            Self::Bundle { sigstore_bundle, .. } => Attached::Bundle(Blob::of(sigstore_bundle.clone())),
            Self::Layer { payload, signature, bundle, .. } => {
                let signature = (SIGNATURE_ANNOTATION.to_owned(), signature.clone());
                let bundle = bundle.clone().map(|text| (bundle::ANNOTATION.to_owned(), text));
                let annotations = std::iter::once(signature).chain(bundle).collect();
                Attached::Layer(Layer { payload: Blob::of(payload.clone()), annotations })
            }
        }
    }
}

impl Verified {
    /// The repository that was verified.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The manifest's digest that was verified.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether the signature names the repository. cosign 3 signs it only where an annotation says it: then the same
    /// digest in another repository, signed by the same key, counts there as well.
    pub fn is_repository_signed(&self) -> bool {
        self.repository_signed
    }

    /// What the signature says about the tag.
    pub fn tag_claim(&self) -> &TagClaim {
        &self.tag
    }

    /// The signed annotations; empty where the policy does not look at them.
    pub fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// The fingerprint of the key that signed.
    pub fn key_fingerprint(&self) -> Fingerprint {
        self.evidence.key()
    }

    /// What the policy calls that key, its path for example.
    pub fn key_name(&self) -> &str {
        &self.key_name
    }

    /// The log's record, where the policy looked at one.
    pub fn logged(&self) -> Option<&Logged> {
        self.logged.as_ref()
    }

    /// What to keep of it.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}
