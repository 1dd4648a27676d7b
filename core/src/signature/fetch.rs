//! Fetches an image's signatures: one manifest, and each payload once; or its bundles. Bounded; judges nothing.
//!
//! Signers add to the end of a list, and whoever may push may add anything anywhere. Of a list that is too long the last
//! entries are read, which are the newest: the signature that is wanted is most likely among them.

mod bundles;
mod list;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::attached::{Attached, Blob, Content};
use super::json::{self, JsonError};
use super::layer::Layer;
use super::payload;
use super::policy::Format;
use crate::explain::Explain;
use crate::reference::{Digest, ImageRef, Repository};
use crate::registry::{Client, OCI_MANIFEST, RegistryError, Target};

/// Longest `.sig` manifest that is read, in bytes: each signature takes about 2.5 KiB of it.
pub const MAX_MANIFEST_LEN: usize = 1024 * 1024;

/// Most different payloads that are asked for: each is a request. Signatures by several keys share one, and one that the
/// manifest itself holds is not asked for.
const MAX_PAYLOADS: usize = 128;

/// Most signatures that are looked at: as many as `MAX_MANIFEST_LEN` holds of real ones, and a bound on the arithmetic.
pub const MAX_LAYERS: usize = 1024;

pub use bundles::{MAX_BUNDLES, MAX_INDEX_LEN, Referrers, bundles, parse_index, parse_manifest, referrers};
pub use list::{Found, List};

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
    /// What should list them is no such list.
    #[error("the {list} of {image} is malformed")]
    Malformed {
        /// Which list.
        list: List,
        /// Whose signatures.
        image: ImageRef,
        /// Why.
        source: ListError,
    },
}

/// What is wrong with a list of signatures.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Of another media type.
    #[error("its media type is not {0}")]
    MediaType(&'static str),
    /// Not JSON of the list's shape.
    #[error("it cannot be read")]
    Json(#[source] JsonError),
    /// The registry's own, and longer than it is read.
    #[error("it is too long")]
    Long(#[source] RegistryError),
}

impl ListError {
    fn is_length(&self) -> bool {
        matches!(self, Self::Json(JsonError::TooLarge { .. }) | Self::Long(_))
    }
}

impl FetchError {
    /// Whether there is more than is read, of which nothing is known then.
    pub(super) fn is_length(&self) -> bool {
        matches!(self, Self::Malformed { source, .. } if source.is_length())
    }
}

impl Explain for FetchError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Registry { source, .. } => source.kind(),
            Self::Malformed { source, .. } if source.is_length() => "too-many-signatures",
            Self::Malformed { .. } => "malformed-signature",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Registry { source, .. } => return source.hint(),
            Self::Malformed { list, image, source } if source.is_length() => list.room(image),
            Self::Malformed { list, image, .. } => list.repair(image),
        })
    }
}

/// An image's signatures in one format.
pub async fn attached(
    client: &Client,
    repository: &Repository,
    digest: &Digest,
    format: Format,
) -> Result<Found, FetchError> {
    match format {
        Format::Sig => layers(client, repository, digest).await,
        Format::Bundle => bundles(client, repository, digest).await,
    }
}

/// The signature layers of an image; none when it has no `.sig` manifest.
pub async fn layers(client: &Client, repository: &Repository, digest: &Digest) -> Result<Found, FetchError> {
    let list = List::Signatures;
    let image = || ImageRef::pinned(repository, digest);
    let registry = |source| FetchError::Registry { image: image(), source };
    let target = Target::from(digest.signature_tag());
    let Some(manifest) = client.manifest(repository, &target).await.map_err(registry)? else {
        return Ok(Found::none(list));
    };
    let malformed = |source| FetchError::Malformed { list, image: image(), source };
    let mut entries = parse(manifest.media_type(), manifest.bytes()).map_err(malformed)?;
    let listed = entries.len();
    entries.drain(..listed.saturating_sub(MAX_LAYERS));
    let mut contents = BTreeMap::new();
    for entry in &entries {
        if !contents.contains_key(&entry.digest)
            && let Some(bytes) = entry.embedded()
        {
            contents.insert(entry.digest, Content::Bytes(bytes));
        }
    }
    let mut asked = 0;
    for entry in entries.iter().rev() {
        if asked == MAX_PAYLOADS {
            break;
        }
        if contents.contains_key(&entry.digest) {
            continue;
        }
        asked += 1;
        let blob = client.blob(repository, &entry.digest, payload::MAX_LEN).await;
        contents.insert(entry.digest, content(blob).map_err(registry)?);
    }
    let read = |entry: Entry| {
        let content = contents.get(&entry.digest)?.clone();
        let payload = Blob { digest: entry.digest, content };
        Some(Attached::Layer(Layer { payload, annotations: entry.annotations }))
    };
    let attached: Vec<_> = entries.into_iter().filter_map(read).collect();
    Ok(Found { list, listed, unread: listed - attached.len(), attached, manifest: Some(manifest) })
}

/// One bad blob says nothing about the other signatures; a registry in trouble does.
fn content(blob: Result<Bytes, RegistryError>) -> Result<Content, RegistryError> {
    match blob {
        Ok(bytes) => Ok(Content::Bytes(bytes)),
        Err(RegistryError::Corrupt { .. } | RegistryError::TooLarge { .. }) => Ok(Content::Corrupt),
        Err(RegistryError::Absent { .. }) => Ok(Content::Missing),
        Err(source) => Err(source),
    }
}

/// Reads a `.sig` manifest. Layers of other media types are no signatures and are left out.
pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Vec<Entry>, ListError> {
    if media_type != OCI_MANIFEST {
        return Err(ListError::MediaType(OCI_MANIFEST));
    }
    let SignatureManifest { layers } = json::parse(bytes, MAX_MANIFEST_LEN).map_err(ListError::Json)?;
    Ok(layers.into_iter().filter(|entry| entry.media_type == payload::MEDIA_TYPE).collect())
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct SignatureManifest {
    layers: Vec<Entry>,
}

/// What a `.sig` manifest says of one signature.
#[derive(Deserialize)]
pub struct Entry {
    #[serde(rename = "mediaType")]
    media_type: String,
    /// The payload's digest.
    pub digest: Digest,
    /// All annotations of the layer, the signature among them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The payload itself, in base64 (OCI image specification 1.1, "Descriptors"): a request less.
    #[serde(default)]
    data: Option<String>,
}

impl Entry {
    /// The payload that the manifest itself holds, if it is the one that it names; any other is asked for.
    pub fn embedded(&self) -> Option<Bytes> {
        let bytes = STANDARD.decode(self.data.as_ref()?).ok()?;
        (bytes.len() <= payload::MAX_LEN && Digest::of(&bytes) == self.digest).then(|| bytes.into())
    }
}

#[cfg(test)]
mod tests;
