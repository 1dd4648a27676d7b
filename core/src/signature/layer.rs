//! One signature in the older format: a layer of the image's `.sig` manifest.

use std::collections::BTreeMap;

use super::attached::Blob;
use super::bundle;

/// The layer annotation that carries the signature: base64 of DER.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// The layer annotation in which tagship names the key that signed. Unsigned, so it decides nothing; it lets a message
/// tell "changed after signing" from "signed by somebody else" where no log says so.
pub const KEY_ANNOTATION: &str = "tagship/key";

/// A signature layer: what the manifest says of it, and its payload.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The payload.
    pub payload: Blob,
    /// All annotations of the layer.
    pub annotations: BTreeMap<String, String>,
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
