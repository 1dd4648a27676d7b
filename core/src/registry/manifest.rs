//! Manifests as bytes: what is asked for, what came, and its true digest.
//!
//! What a manifest says inside (layers, annotations) is read by those who know its kind; here only its media type
//! counts, because the bytes must come out of a registry, and go back in, unchanged.

use bytes::Bytes;

use crate::reference::{Digest, Tag};

/// An image manifest as OCI defines it.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image index as OCI defines it.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image manifest as Docker defines it, the only format with a HEALTHCHECK.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A manifest list as Docker defines it.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The media types asked for, and the only ones taken.
pub(super) const KNOWN: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// Which manifest of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one that the tag names at this moment.
    Tag(Tag),
    /// The one with this digest.
    Digest(Digest),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Target {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<Digest> for Target {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

/// A manifest's exact bytes with their media type. The digest is always that of the bytes, computed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    media_type: String,
    bytes: Bytes,
    digest: Digest,
}

impl Manifest {
    /// A manifest of these bytes; its digest is computed from them.
    pub fn new(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { media_type: media_type.into(), digest: Digest::of(&bytes), bytes }
    }

    /// The media type, as the registry keeps it beside the bytes.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The bytes, unchanged.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether it lists other manifests (an index, a manifest list) rather than layers.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }
}
