//! The newer format, where cosign 3 looks for it: a manifest that holds the bundle and refers to the image (OCI image
//! specification, "Guidelines for Artifact Usage"), and a list of such manifests where the registry keeps none.

use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tagship_core::reference::{Digest, ImageRef, Repository};
use tagship_core::registry::{Client, Manifest, OCI_INDEX, OCI_MANIFEST, Target};
use tagship_core::signature::fetch::{List, MAX_BUNDLES, MAX_INDEX_LEN, parse_index};
use tagship_core::signature::log::Recorded;
use tagship_core::signature::{sigstore_bundle, statement};

use super::{AttachError, Moment, Problem, Stored, members, take_list, written};
use crate::signing::sign::SignedStatement;

/// Media type and content of a manifest's config that has nothing to say.
const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
pub(super) const EMPTY: &[u8] = b"{}";

/// By how many bytes at most an entry makes an index longer, of which it has about 500 itself.
pub(super) const LONGEST_ENTRY: usize = 1024;

/// A bundle, ready to refer to any image.
pub struct NewBundle {
    bytes: Vec<u8>,
    created: Timestamp,
}

impl NewBundle {
    /// The bundle of a signed statement, with the log's entry if it was recorded.
    pub fn new(statement: &SignedStatement, recorded: Option<&Recorded>, now: Timestamp) -> Result<Self, AttachError> {
        let bundle = statement.bundle(recorded).map_err(AttachError::Encode)?;
        Ok(Self { bytes: bundle.into_bytes(), created: now })
    }

    /// The bundle's digest, as the manifest names it.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The manifest that refers to an image, and how a list names this manifest.
    fn manifest(&self, image: &Manifest) -> Result<(Manifest, Value), Problem> {
        let annotations = json!({
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": statement::PREDICATE_TYPE,
            "org.opencontainers.image.created": self.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": sigstore_bundle::MEDIA_TYPE,
            "config": { "mediaType": EMPTY_MEDIA_TYPE, "digest": Digest::of(EMPTY), "size": EMPTY.len() },
            "layers": [{
                "mediaType": sigstore_bundle::MEDIA_TYPE,
                "digest": self.digest(),
                "size": self.bytes.len(),
            }],
            "subject": {
                "mediaType": image.media_type(),
                "digest": image.digest(),
                "size": image.bytes().len(),
            },
            "annotations": annotations,
        });
        let manifest = Manifest::new(OCI_MANIFEST, written(&manifest)?);
        let descriptor = json!({
            "mediaType": OCI_MANIFEST,
            "digest": manifest.digest(),
            "size": manifest.bytes().len(),
            "artifactType": sigstore_bundle::MEDIA_TYPE,
            "annotations": annotations,
        });
        Ok((manifest, descriptor))
    }
}

/// Puts a bundle's manifest beside the image and, unless the registry lists it by itself, into the image's list. Gives the
/// moment in which another signer's change of the list could have gone unseen.
pub(super) async fn put(
    client: &Client,
    (repository, digest): (&Repository, &Digest),
    bundle: &NewBundle,
    stored: &Stored,
) -> Result<Option<Moment>, AttachError> {
    let image = || Box::new(ImageRef::pinned(repository, digest));
    let registry = |source| AttachError::Registry { image: image(), source };
    let problem = |problem: Problem| problem.of(List::Referrers, image());
    let (subject, ..) = tokio::try_join!(
        stored.subject(client, repository, digest),
        client.put_blob(repository, &bundle.bytes),
        stored.put(client, repository, EMPTY),
    )
    .map_err(registry)?;
    let subject = subject.ok_or_else(|| AttachError::Gone { image: image() })?;
    let (manifest, descriptor) = bundle.manifest(&subject).map_err(problem)?;
    if client.put_referrer(repository, &manifest).await.map_err(registry)? {
        return Ok(None);
    }
    let tag = Target::from(digest.referrers_tag());
    let start = Instant::now();
    let existing = client.manifest(repository, &tag).await.map_err(registry)?;
    let Some(index) = merge(existing.as_ref(), descriptor).map_err(problem)? else { return Ok(None) };
    client.put_manifest(repository, &tag, &index).await.map_err(registry)?;
    Ok(Some(Moment::since(start)))
}

/// The index with one more entry at the end; `None` where it is there already.
fn merge(existing: Option<&Manifest>, descriptor: Value) -> Result<Option<Manifest>, Problem> {
    let mut index: Map<_, _> = members(existing, OCI_INDEX, MAX_INDEX_LEN)?;
    let mut manifests = take_list(&mut index, "manifests")?;
    if manifests.iter().any(|entry| entry.get("digest") == descriptor.get("digest")) {
        return Ok(None);
    }
    // What is no bundle takes no bundle's place.
    let bundles = existing.and_then(|existing| parse_index(existing.media_type(), existing.bytes()).ok());
    let has = bundles.map_or(0, |bundles| bundles.len());
    if has >= MAX_BUNDLES {
        return Err(Problem::Full { has, what: List::Referrers.unit(), read: MAX_BUNDLES });
    }
    manifests.push(descriptor);
    index.insert("manifests".to_owned(), manifests.into());
    let index = Manifest::new(OCI_INDEX, written(&index)?);
    if index.bytes().len() > MAX_INDEX_LEN {
        let has = existing.map_or(0, |existing| existing.bytes().len());
        return Err(Problem::Full { has, what: "bytes", read: MAX_INDEX_LEN });
    }
    Ok(Some(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Manifest {
        Manifest::new(OCI_INDEX, text.to_owned())
    }

    fn entries(merged: &Manifest) -> Value {
        serde_json::from_slice::<Value>(merged.bytes()).unwrap()["manifests"].clone()
    }

    #[test]
    fn a_manifest_refers_to_its_image() {
        let bundle = NewBundle { bytes: b"{\"a\":1}".to_vec(), created: "2026-10-01T12:00:00.5Z".parse().unwrap() };
        let image = Manifest::new(OCI_INDEX, "an image");
        let (manifest, descriptor) = bundle.manifest(&image).unwrap();
        let read: Value = serde_json::from_slice(manifest.bytes()).unwrap();
        assert_eq!(read["subject"], json!({ "mediaType": OCI_INDEX, "digest": image.digest(), "size": 8 }));
        assert_eq!(read["layers"][0]["digest"], json!(bundle.digest()));
        assert_eq!(read["annotations"]["org.opencontainers.image.created"], "2026-10-01T12:00:00Z");
        assert_eq!(descriptor["digest"], json!(manifest.digest()));
        assert_eq!(descriptor["annotations"], read["annotations"]);
    }

    #[test]
    fn what_others_listed_stays() {
        let others = json!([{ "digest": "sha256:aa", "u": [1] }, { "digest": "sha256:bb", "size": u64::MAX }]);
        let existing = json!({ "schemaVersion": 2, "annotations": { "mine": "kept" }, "manifests": others });
        let merged = merge(Some(&index(&existing.to_string())), json!({ "digest": "sha256:cc" })).unwrap().unwrap();
        assert_eq!(entries(&merged).as_array().unwrap()[..2], others.as_array().unwrap()[..]);
        assert_eq!(entries(&merged)[2]["digest"], "sha256:cc");
        assert!(String::from_utf8_lossy(merged.bytes()).contains(r#"{"mine":"kept"}"#));
        assert!(merge(Some(&merged), json!({ "digest": "sha256:cc" })).unwrap().is_none(), "not added twice");
        let fresh = merge(None, json!({ "digest": "sha256:cc" })).unwrap().unwrap();
        assert_eq!((fresh.media_type(), entries(&fresh).as_array().unwrap().len()), (OCI_INDEX, 1));
    }

    #[test]
    fn more_than_is_read_is_not_written() {
        let digest = |n: usize| Digest::of(n.to_string().as_bytes());
        let entry =
            |n, artifact: &str| json!({ "mediaType": OCI_MANIFEST, "digest": digest(n), "artifactType": artifact });
        let existing = |bundles: usize, others: usize, note: &str| {
            let bundles = (0..bundles).map(|n| entry(n, sigstore_bundle::MEDIA_TYPE));
            let others = (0..others).map(|n| entry(1000 + n, "application/spdx+json"));
            let entries: Vec<_> = bundles.chain(others).collect();
            index(&json!({ "manifests": entries, "annotations": { "note": note } }).to_string())
        };
        let new = || entry(9999, sigstore_bundle::MEDIA_TYPE);
        assert!(merge(Some(&existing(MAX_BUNDLES - 1, 200, "")), new()).unwrap().is_some());
        let full = merge(Some(&existing(MAX_BUNDLES, 0, "")), new());
        assert!(matches!(full, Err(Problem::Full { has: MAX_BUNDLES, what: "bundles", .. })));
        assert!(merge(Some(&existing(MAX_BUNDLES, 0, "")), entry(0, "")).unwrap().is_none(), "it is there already");
        let long = merge(Some(&existing(1, 0, &"x".repeat(MAX_INDEX_LEN - 400))), new());
        assert!(matches!(long, Err(Problem::Full { what: "bytes", .. })));
    }

    #[test]
    fn it_makes_an_index_no_longer_than_it_says() {
        let bundle = NewBundle { bytes: vec![b' '; sigstore_bundle::MAX_LEN], created: Timestamp::now() };
        let (_, descriptor) = bundle.manifest(&Manifest::new(OCI_INDEX, vec![b' '; 4 * 1024 * 1024])).unwrap();
        assert!(merge(None, descriptor).unwrap().unwrap().bytes().len() <= LONGEST_ENTRY);
    }

    #[test]
    fn what_is_no_index_is_not_overwritten() {
        for (defect, text) in [
            ("not JSON", "x"),
            ("a list", "[]"),
            ("key twice", r#"{"manifests":[],"manifests":[]}"#),
            ("manifests an object", r#"{"manifests":{}}"#),
        ] {
            assert!(merge(Some(&index(text)), json!({})).is_err(), "{defect}");
        }
        assert!(merge(Some(&Manifest::new(OCI_MANIFEST, "{}")), json!({})).is_err(), "an image");
    }
}
