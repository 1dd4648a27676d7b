//! One signature as a registry holds it: a layer of the image's `.sig` manifest, nothing of it believed yet.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::bundle;
use crate::reference::Digest;

/// The layer annotation that carries the signature: base64 of DER.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// The layer annotation in which tagship names the key that signed. Unsigned, so it decides nothing; it lets a message
/// tell "changed after signing" from "signed by somebody else" where no log says so.
pub const KEY_ANNOTATION: &str = "tagship/key";

/// A signature layer: what the manifest says of it, and its payload.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The digest that the manifest gives the payload.
    pub digest: Digest,
    /// The payload as the registry answered it.
    pub content: Content,
    /// All annotations of the layer.
    pub annotations: BTreeMap<String, String>,
}

/// What the registry answered for a payload.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes; nobody has compared them with the digest yet.
    Bytes(Bytes),
    /// Bytes that do not have the layer's digest.
    Corrupt,
    /// Nothing: the manifest names a blob that is gone.
    Missing,
}

impl Layer {
    pub(super) fn signature(&self) -> Option<&str> {
        self.annotations.get(SIGNATURE_ANNOTATION).map(String::as_str)
    }

    pub(super) fn bundle(&self) -> Option<&str> {
        // cosign writes no bundle as no annotation; an empty one is one that somebody emptied.
        self.annotations.get(bundle::ANNOTATION).map(String::as_str)
    }

    pub(super) fn claimed_key(&self) -> Option<&str> {
        self.annotations.get(KEY_ANNOTATION).map(String::as_str)
    }
}
