//! What a verification yields. A [`Verified`] can be made by [`verify`](super::verify::verify) alone.

use serde::{Deserialize, Serialize};

use super::annotations::Annotations;
use super::keys::Fingerprint;
use super::log::Logged;
use crate::reference::{Digest, Repository, Tag};

/// Proof that an image's signature was checked against a policy and counts.
#[derive(Clone, Debug)]
pub struct Verified {
    pub(super) repository: Repository,
    pub(super) digest: Digest,
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
pub struct Evidence {
    /// The signed payload, which names repository and digest.
    pub payload: String,
    /// The signature over it: base64 of DER.
    pub signature: String,
    /// The log's bundle, where the policy looked at one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// The key that made it.
    pub key: Fingerprint,
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
        self.evidence.key
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
