//! Fetches the sigstore bundles that refer to an image: from the registry's index of referrers, or from the tag that
//! stands in for it where the registry has none (OCI distribution specification, "Referrers Tag Schema").

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::super::attached::{Attached, Blob, Content};
use super::super::json;
use super::super::{sigstore_bundle, statement};
use super::list::{Found, List};
use super::{FetchError, ListError, content};
use crate::reference::{Digest, ImageRef, Repository};
use crate::registry::{Client, Manifest, OCI_INDEX, OCI_MANIFEST, RegistryError, Target};

/// Longest index of referrers that is read, in bytes: each entry takes about 500 of it.
pub const MAX_INDEX_LEN: usize = 1024 * 1024;

/// Longest manifest of a bundle, in bytes: one has 1 KiB.
const MAX_MANIFEST_LEN: usize = 64 * 1024;

/// Most bundles that are fetched: each is two requests.
pub const MAX_BUNDLES: usize = 64;

/// What a list may call a bundle's manifest: what it is and, by cosign in the tag's index, what its config is.
const ARTIFACTS: [&str; 2] = [sigstore_bundle::MEDIA_TYPE, "application/vnd.oci.empty.v1+json"];

/// The manifest's annotation by which cosign says what a bundle's statement claims.
const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";

/// Where an image's referrers are listed.
#[derive(Clone, Debug)]
pub enum Referrers {
    /// By the registry itself, page by page.
    Listed(Vec<Manifest>),
    /// Under the image's own tag `sha256-<hex>`, if anybody has begun such a list.
    Tagged(Option<Manifest>),
}

/// The list of what refers to an image.
pub async fn referrers(client: &Client, repository: &Repository, digest: &Digest) -> Result<Referrers, RegistryError> {
    Ok(match client.referrers(repository, digest, sigstore_bundle::MEDIA_TYPE).await? {
        Some(pages) => Referrers::Listed(pages),
        None => Referrers::Tagged(client.manifest(repository, &Target::from(digest.referrers_tag())).await?),
    })
}

/// The bundles that refer to an image and may be signatures of it; attestations and what else refers to it are left out.
pub async fn bundles(client: &Client, repository: &Repository, digest: &Digest) -> Result<Found, FetchError> {
    let image = || ImageRef::pinned(repository, digest);
    let registry = |source| FetchError::Registry { image: image(), source };
    let listed = referrers(client, repository, digest).await.map_err(|source| match source {
        long @ RegistryError::LongList { .. } => {
            FetchError::Malformed { list: List::Registry, image: image(), source: ListError::Long(long) }
        }
        source => registry(source),
    })?;
    let (list, manifest, pages) = match listed {
        Referrers::Listed(pages) => (List::Registry, None, pages),
        Referrers::Tagged(index) => (List::Referrers, index.clone(), index.into_iter().collect()),
    };
    let (mut entries, mut known) = (Vec::new(), BTreeSet::new());
    for page in pages {
        let named = parse_index(page.media_type(), page.bytes());
        let named = named.map_err(|source| FetchError::Malformed { list, image: image(), source })?;
        entries.extend(named.into_iter().filter(|entry| known.insert(*entry)));
    }
    let mut found = Vec::new();
    let (mut asked, mut unread) = (0, 0);
    for entry in entries.iter().rev() {
        if asked == MAX_BUNDLES || found.len() == MAX_BUNDLES {
            unread += 1;
            continue;
        }
        asked += 1;
        let manifest = match client.manifest(repository, &Target::Digest(*entry)).await {
            Ok(Some(manifest)) => manifest,
            // Of what was listed as a bundle something else came.
            Err(RegistryError::Corrupt { .. }) => {
                found.push(Blob { digest: *entry, content: Content::Corrupt });
                continue;
            }
            // An index may outlive what it names, and may name what is no bundle.
            Ok(None) | Err(RegistryError::TooLarge { .. } | RegistryError::Protocol { .. }) => continue,
            Err(source) => return Err(registry(source)),
        };
        for layer in parse_manifest(&manifest).into_iter().rev() {
            if found.len() == MAX_BUNDLES {
                unread += 1;
                continue;
            }
            let blob = client.blob(repository, &layer, sigstore_bundle::MAX_LEN).await;
            found.push(Blob { digest: layer, content: content(blob).map_err(registry)? });
        }
    }
    // A manifest may hold several bundles, or none.
    let listed = entries.len().max(found.len() + unread);
    let attached = found.into_iter().rev().map(Attached::Bundle).collect();
    Ok(Found { list, manifest, listed, unread, attached })
}

/// Reads an index of referrers, and keeps what may be a signature: what somebody says to be an SBOM or an attestation is
/// not asked for, and does not count among the most that are.
pub fn parse_index(media_type: &str, bytes: &[u8]) -> Result<Vec<Digest>, ListError> {
    if media_type != OCI_INDEX {
        return Err(ListError::MediaType(OCI_INDEX));
    }
    let Index { manifests } = json::parse(bytes, MAX_INDEX_LEN).map_err(ListError::Json)?;
    let mut known = BTreeSet::new();
    let signs = |entry: &Entry| {
        entry.media_type == OCI_MANIFEST
            && entry.artifact_type.as_deref().is_none_or(|artifact| ARTIFACTS.contains(&artifact))
            && may_sign(entry.annotations.as_ref())
    };
    let digests = manifests.into_iter().filter(signs).map(|entry| entry.digest);
    Ok(digests.filter(|digest| known.insert(*digest)).collect())
}

/// The bundles in a referrer's manifest; none if it is something else.
pub fn parse_manifest(manifest: &Manifest) -> Vec<Digest> {
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
#[serde(expecting = "an object")]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
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
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
}

#[cfg(test)]
mod tests;
