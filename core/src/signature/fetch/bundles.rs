//! Fetches the sigstore bundles that refer to an image: from the registry's index of referrers, or from the tag that
//! stands in for it where the registry has none (OCI distribution specification, "Referrers Tag Schema").

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::attached::Blob;
use super::super::json::{self, JsonError};
use super::super::{sigstore_bundle, statement};
use super::{FetchError, content};
use crate::reference::{Digest, ImageRef, Repository};
use crate::registry::{Client, Manifest, OCI_INDEX, OCI_MANIFEST, RegistryError, Target};

/// Longest index of referrers that is read, in bytes: each entry takes about 500 of it.
pub const MAX_INDEX_LEN: usize = 1024 * 1024;

/// Longest manifest of a bundle, in bytes: one has 1 KiB.
const MAX_MANIFEST_LEN: usize = 64 * 1024;

/// Most bundles that are fetched: each is two requests.
const MAX_BUNDLES: usize = 64;

/// The manifest's annotation by which cosign says what a bundle's statement claims.
const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";

/// Where an image's referrers are listed.
#[derive(Clone, Debug)]
pub enum Referrers {
    /// By the registry itself.
    Listed(Manifest),
    /// Under the image's own tag `sha256-<hex>`, if anybody has begun such a list.
    Tagged(Option<Manifest>),
}

/// What is wrong with an index of referrers.
#[derive(Debug, thiserror::Error)]
pub enum BundlesError {
    /// Not an index.
    #[error("its media type is not {OCI_INDEX}")]
    MediaType,
    /// Not JSON of the index's shape.
    #[error("it is not an index")]
    Json(#[source] JsonError),
    /// More than anybody signs.
    #[error("it names more than {MAX_BUNDLES} bundles")]
    TooMany,
}

/// The list of what refers to an image.
pub async fn referrers(client: &Client, repository: &Repository, digest: &Digest) -> Result<Referrers, RegistryError> {
    Ok(match client.referrers(repository, digest, sigstore_bundle::MEDIA_TYPE).await? {
        Some(index) => Referrers::Listed(index),
        None => Referrers::Tagged(client.manifest(repository, &Target::from(digest.referrers_tag())).await?),
    })
}

/// All bundles that refer to an image and may be signatures of it; attestations and what else refers to it are left out.
pub async fn bundles(client: &Client, repository: &Repository, digest: &Digest) -> Result<Vec<Blob>, FetchError> {
    let image = || ImageRef::pinned(repository, digest);
    let registry = |source| FetchError::Registry { image: image(), source };
    let malformed = |source| FetchError::Referrers { image: image(), source };
    let (Referrers::Listed(index) | Referrers::Tagged(Some(index))) =
        referrers(client, repository, digest).await.map_err(registry)?
    else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in parse_index(index.media_type(), index.bytes()).map_err(malformed)? {
        let manifest = match client.manifest(repository, &Target::Digest(entry)).await {
            Ok(Some(manifest)) => manifest,
            // An index may outlive what it names, and one that is spoilt says nothing about the others.
            Ok(None)
            | Err(RegistryError::Corrupt { .. } | RegistryError::TooLarge { .. } | RegistryError::Protocol { .. }) => {
                continue;
            }
            Err(source) => return Err(registry(source)),
        };
        for layer in parse_manifest(&manifest) {
            if found.len() == MAX_BUNDLES {
                return Err(malformed(BundlesError::TooMany));
            }
            let blob = client.blob(repository, &layer, sigstore_bundle::MAX_LEN).await;
            found.push(Blob { digest: layer, content: content(blob).map_err(registry)? });
        }
    }
    Ok(found)
}

/// Reads an index of referrers, and keeps what may be a signature. Not by its artifact type: in the tag's index cosign
/// writes another one there than in the manifest itself.
fn parse_index(media_type: &str, bytes: &[u8]) -> Result<Vec<Digest>, BundlesError> {
    if media_type != OCI_INDEX {
        return Err(BundlesError::MediaType);
    }
    let Index { manifests } = json::parse(bytes, MAX_INDEX_LEN).map_err(BundlesError::Json)?;
    let mut digests = Vec::new();
    for Entry { media_type, digest, annotations } in manifests {
        if media_type == OCI_MANIFEST && may_sign(annotations.as_ref()) && !digests.contains(&digest) {
            if digests.len() == MAX_BUNDLES {
                return Err(BundlesError::TooMany);
            }
            digests.push(digest);
        }
    }
    Ok(digests)
}

/// The bundles in a referrer's manifest; none if it is something else.
fn parse_manifest(manifest: &Manifest) -> Vec<Digest> {
    let parsed: Result<Referrer, _> = json::parse(manifest.bytes(), MAX_MANIFEST_LEN);
    match parsed {
        Ok(Referrer { layers, annotations }) if may_sign(annotations.as_ref()) => layers
            .into_iter()
            .filter(|layer| layer.media_type == sigstore_bundle::MEDIA_TYPE)
            .map(|layer| layer.digest)
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether annotations do not say that it is an attestation.
fn may_sign(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations
        .and_then(|all| all.get(PREDICATE_ANNOTATION))
        .is_none_or(|predicate| predicate == statement::PREDICATE_TYPE)
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Referrer {
    layers: Vec<Entry>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: Digest,
    annotations: Option<BTreeMap<String, String>>,
}
