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
    /// The formats that are looked for.
    pub formats: Formats,
    /// Whether a log must have recorded it.
    pub rekor: Rekor,
    /// Logs that are believed; [`PublicKey::public_log`] unless configured.
    pub log_keys: Vec<PublicKey>,
    /// Whether tag, repository, commit and time must be signed, too.
    pub annotations: AnnotationRule,
}

/// Where an image's signatures may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The image's tag `sha256-<hex>.sig`: what cosign 2 writes and Podman reads.
    Sig,
    /// A sigstore bundle that refers to the image: what cosign 3 writes.
    Bundle,
}

impl Format {
    /// Both, in the order in which they are looked at: the first takes two requests, the second at least four.
    pub const ALL: [Self; 2] = [Self::Sig, Self::Bundle];

    /// How inputs and configurations call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sig => "sig",
            Self::Bundle => "bundle",
        }
    }
}

/// A choice of formats; never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    sig: bool,
    bundle: bool,
}

impl Formats {
    /// Both formats.
    pub const BOTH: Self = Self { sig: true, bundle: true };

    /// Those that are in a list; nothing if there are none.
    pub fn among(list: &[Format]) -> Option<Self> {
        let (sig, bundle) = (list.contains(&Format::Sig), list.contains(&Format::Bundle));
        (sig || bundle).then_some(Self { sig, bundle })
    }

    /// Whether a format is among them.
    pub fn has(self, format: Format) -> bool {
        match format {
            Format::Sig => self.sig,
            Format::Bundle => self.bundle,
        }
    }

    /// Those that are, in the order in which they are looked at.
    pub fn iter(self) -> impl Iterator<Item = Format> {
        Format::ALL.into_iter().filter(move |format| self.has(*format))
    }
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

impl Rekor {
    /// Why no signature by any of these keys can count, if that is so. What to do about it is the caller's to say.
    pub fn doubt(self, keys: &[PublicKey]) -> Option<String> {
        if self != Self::Required || keys.iter().any(|key| key.algorithm().is_logged()) {
            return None;
        }
        let names: Vec<String> = keys.iter().map(|key| format!("{} ({})", key.name(), key.algorithm())).collect();
        Some(format!(
            "no signature can count: it must be recorded by a transparency log, and none records those of {} so that it \
             verifies",
            names.join(" and ")
        ))
    }
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
