//! Fetches an image's signatures: one manifest, and each payload once. Bounded; judges nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json::{self, JsonError};
use super::layer::{Content, Layer};
use super::payload;
use crate::explain::Explain;
use crate::reference::{Digest, ImageRef, Repository};
use crate::registry::{Client, OCI_MANIFEST, RegistryError, Target};

/// Longest `.sig` manifest that is read, in bytes: each signature takes about 2.5 KiB of it.
pub const MAX_MANIFEST_LEN: usize = 1024 * 1024;

/// Most different payloads that are fetched: each is a request. Signatures by several keys share one.
const MAX_PAYLOADS: usize = 128;

/// Why signatures could not be fetched. "There is none" is not among them: that is an empty list.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The registry did not give them.
    #[error("cannot fetch the signatures of {image}")]
    Registry {
        /// Whose signatures.
        image: ImageRef,
        /// Why.
        source: RegistryError,
    },
    /// The `.sig` tag names something else than a list of signatures.
    #[error("the signature manifest of {image} is malformed")]
    Manifest {
        /// Whose signatures.
        image: ImageRef,
        /// Why.
        source: ManifestError,
    },
}

/// What is wrong with a `.sig` manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not an image manifest.
    #[error("its media type is not {OCI_MANIFEST}")]
    MediaType,
    /// Not JSON of the manifest's shape.
    #[error("it is not a manifest")]
    Json(#[source] JsonError),
    /// More than anybody signs.
    #[error("it has more than {MAX_PAYLOADS} different payloads")]
    TooMany,
}

impl Explain for FetchError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Registry { source, .. } => source.kind(),
            Self::Manifest { .. } => "malformed-signature",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry { source, .. } => source.hint(),
            Self::Manifest { .. } => {
                Some("remove the tag that ends in .sig beside the image, then sign it again".to_owned())
            }
        }
    }
}

/// All signature layers of an image; none when it has no `.sig` manifest.
pub async fn layers(client: &Client, repository: &Repository, digest: &Digest) -> Result<Vec<Layer>, FetchError> {
    let image = || ImageRef::pinned(repository, digest);
    let registry = |source| FetchError::Registry { image: image(), source };
    let target = Target::from(digest.signature_tag());
    let Some(manifest) = client.manifest(repository, &target).await.map_err(registry)? else { return Ok(Vec::new()) };
    let malformed = |source| FetchError::Manifest { image: image(), source };
    let entries = parse(manifest.media_type(), manifest.bytes()).map_err(malformed)?;
    let mut contents = BTreeMap::new();
    for entry in &entries {
        if contents.contains_key(&entry.digest) {
            continue;
        }
        if contents.len() == MAX_PAYLOADS {
            return Err(malformed(ManifestError::TooMany));
        }
        // One bad payload says nothing about the other signatures.
        let content = match client.blob(repository, &entry.digest, payload::MAX_LEN).await {
            Ok(bytes) => Content::Bytes(bytes),
            Err(RegistryError::Corrupt { .. } | RegistryError::TooLarge { .. }) => Content::Corrupt,
            Err(RegistryError::Absent { .. }) => Content::Missing,
            Err(source) => return Err(registry(source)),
        };
        contents.insert(entry.digest, content);
    }
    Ok(entries
        .into_iter()
        .filter_map(|entry| {
            let content = contents.get(&entry.digest)?.clone();
            Some(Layer { digest: entry.digest, content, annotations: entry.annotations })
        })
        .collect())
}

/// Reads a `.sig` manifest. Layers of other media types are no signatures and are left out.
fn parse(media_type: &str, bytes: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    if media_type != OCI_MANIFEST {
        return Err(ManifestError::MediaType);
    }
    let SignatureManifest { layers } = json::parse(bytes, MAX_MANIFEST_LEN).map_err(ManifestError::Json)?;
    Ok(layers.into_iter().filter(|entry| entry.media_type == payload::MEDIA_TYPE).collect())
}

#[derive(Deserialize)]
struct SignatureManifest {
    layers: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}
