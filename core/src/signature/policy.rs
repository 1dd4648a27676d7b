//! What is asked of a signature: which keys, which logs, and how much must be signed.

use serde::{Deserialize, Serialize};

use super::keys::PublicKey;
use crate::reference::{Digest, Repository, Tag};

/// The image that a signature must be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Where the image is.
    pub repository: Repository,
    /// Its manifest's digest.
    pub digest: Digest,
    /// The tag it is asked for under, if any.
    pub tag: Option<Tag>,
}

/// What makes a signature count.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Keys whose signatures count. None means that no signature does.
    pub keys: Vec<PublicKey>,
    /// Whether a log must have recorded it.
    pub rekor: Rekor,
    /// Logs that are believed; [`PublicKey::public_log`] unless configured.
    pub log_keys: Vec<PublicKey>,
    /// Whether tag, repository, commit and time must be signed, too.
    pub annotations: AnnotationRule,
}

/// Whether a transparency log must have recorded a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rekor {
    /// It must, and the record must verify.
    #[default]
    Required,
    /// A record that is there must verify; none is fine.
    WhenPresent,
    /// Records are not looked at.
    Off,
}

/// Whether the image's tag and origin must be signed as annotations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnotationRule {
    /// A signature without a `tag` annotation does not count.
    Required,
    /// Those that are there must fit. (That they stay required once seen is the caller's memory.)
    #[default]
    WhenPresent,
    /// Annotations are not looked at: identity is what the registry's tags say.
    Off,
}
