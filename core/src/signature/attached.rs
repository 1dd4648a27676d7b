//! What a registry holds beside an image, in either format; nothing of it believed yet.

use bytes::Bytes;

use super::layer::Layer;
use crate::reference::Digest;

/// One signature of an image, as it was found.
#[derive(Clone, Debug)]
pub enum Attached {
    /// A layer of the image's `.sig` manifest.
    Layer(Layer),
    /// A sigstore bundle that refers to the image.
    Bundle(Blob),
}

/// Bytes that a manifest names by their digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The digest that the manifest gives them.
    pub digest: Digest,
    /// What came.
    pub content: Content,
}

/// What the registry answered for a digest.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes; nobody has compared them with the digest yet.
    Bytes(Bytes),
    /// Bytes that do not have this digest, or far too many.
    Corrupt,
    /// Nothing: the manifest names a blob that is gone.
    Missing,
}

impl Blob {
    /// Bytes that are what their digest says.
    pub fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: Digest::of(&bytes), content: Content::Bytes(bytes) }
    }

    /// The bytes, if there are any and they have the digest.
    pub(super) fn bytes(&self) -> Result<&Bytes, Unusable> {
        match &self.content {
            Content::Bytes(bytes) if Digest::of(bytes) == self.digest => Ok(bytes),
            Content::Bytes(_) | Content::Corrupt => Err(Unusable::Corrupt),
            Content::Missing => Err(Unusable::Missing),
        }
    }
}

/// Why there are no bytes to look at.
pub(super) enum Unusable {
    /// They are not what the manifest names.
    Corrupt,
    /// They are gone.
    Missing,
}
