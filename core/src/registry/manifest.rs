//! Manifests as bytes: what is asked for, what came, and its true digest.
//!
//! What a manifest says inside (layers, annotations) is read by those who know its kind; here only its media type
//! counts, because the bytes must come out of a registry, and go back in, unchanged.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

use crate::reference::{Digest, Tag};
use crate::text::escape;

/// An image manifest as OCI defines it.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image index as OCI defines it.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image manifest as Docker defines it, the only format with a HEALTHCHECK.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A manifest list as Docker defines it.
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The media types asked for, and the only ones taken: those above.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

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
}

/// The media type that a manifest was sent as, or what is wrong with it.
pub(super) fn media_type(headers: &HeaderMap) -> Result<&'static str, String> {
    let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let named = header.split(';').next().unwrap_or_default().trim();
    let known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].into_iter().find(|known| *known == named);
    known.ok_or_else(|| format!("a manifest of the media type {:?}", escape(named)))
}

/// Whether the manifest's own word agrees with what it was sent as, or what is wrong with it: bytes that one reader takes
/// for an index and another for an image would be one digest with two meanings (OCI image specification, "mediaType").
pub(super) fn agrees(sent: &'static str, body: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", expecting = "an object")]
    struct Itself {
        media_type: Option<String>,
    }
    let itself: Itself = serde_json::from_slice(body).map_err(|error| format!("a manifest that is none: {error}"))?;
    match itself.media_type {
        Some(own) if own != sent => Err(format!("a manifest sent as {sent} that calls itself {:?}", escape(&own))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn judged(header: &str, body: &str) -> Result<&'static str, String> {
        let sent = media_type(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(header).unwrap())]))?;
        agrees(sent, body.as_bytes()).map(|()| sent)
    }

    #[test]
    fn all_accepted_types_are_known() {
        for known in ACCEPTED.split(", ") {
            assert_eq!(judged(known, "{}"), Ok(known));
            assert_eq!(judged(&format!("{known}; charset=utf-8"), &format!("{{\"mediaType\":{known:?}}}")), Ok(known));
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for (header, body, defect) in [
            ("text/html", "<html>", "a login page"),
            ("", "{}", "no type"),
            ("application/json", "{}", "any JSON"),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}", "the first format"),
            (OCI_MANIFEST, "", "nothing"),
            (OCI_MANIFEST, "[]", "a list"),
            (OCI_MANIFEST, "{\"mediaType\":7}", "a type that is a number"),
            (OCI_MANIFEST, "{\"mediaType\":\"application/vnd.oci.image.index.v1+json\"}", "two meanings"),
            (OCI_MANIFEST, "{\"mediaType\":\"a\",\"mediaType\":\"b\"}", "two words for one"),
        ] {
            let why = judged(header, body).unwrap_err();
            assert!(!why.contains("struct"), "{defect}: {why}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_bytes() {
        let manifest = Manifest::new(OCI_INDEX, "{}");
        assert_eq!(manifest.digest(), Digest::of(b"{}"));
    }
}
