//! The older format, where cosign 2 and Podman look for it: one more layer of the image's `.sig` manifest.

use std::time::Instant;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use tagship_core::reference::{Digest, ImageRef, Repository};
use tagship_core::registry::{Client, Manifest, OCI_MANIFEST, Target};
use tagship_core::signature::fetch::{List, MAX_LAYERS, MAX_MANIFEST_LEN};
use tagship_core::signature::json::JsonError;
use tagship_core::signature::log::Entry;
use tagship_core::signature::{KEY_ANNOTATION, Layer, SIGNATURE_ANNOTATION, bundle, payload};

use super::{AttachError, Moment, Problem, Stored, members, take_list, written};
use crate::signing::sign::Signature;

const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// Time of a signature's config: Go's zero time, as cosign writes it, so that equal signatures make equal bytes.
const EPOCH: &str = "0001-01-01T00:00:00Z";

/// A signature layer, ready to be put into any `.sig` manifest.
pub struct NewLayer {
    payload: Vec<u8>,
    descriptor: Value,
}

impl NewLayer {
    /// The layer of a signature, with the log's entry if it was recorded.
    pub fn new(signature: &Signature, entry: Option<&Entry>) -> Result<Self, AttachError> {
        let mut annotations = Map::new();
        annotations.insert(SIGNATURE_ANNOTATION.to_owned(), STANDARD.encode(signature.der()).into());
        if let Some(entry) = entry {
            let text = bundle::encode(entry).map_err(|error| AttachError::Encode(JsonError::Malformed(error)))?;
            annotations.insert(bundle::ANNOTATION.to_owned(), text.into());
        }
        annotations.insert(KEY_ANNOTATION.to_owned(), signature.key().fingerprint().to_string().into());
        let payload = signature.payload().to_vec();
        let descriptor = json!({
            "mediaType": payload::MEDIA_TYPE,
            "digest": Digest::of(&payload),
            "size": payload.len(),
            "annotations": annotations,
            // Spares whoever knows it a request (OCI image specification 1.1, "Descriptors"); all others read the blob.
            "data": STANDARD.encode(&payload),
        });
        Ok(Self { payload, descriptor })
    }

    /// Whether this is the layer, as the core fetched it.
    pub(super) fn is_fetched(&self, layer: &Layer) -> bool {
        layer.payload.digest == Digest::of(&self.payload)
            && layer.annotations.get(SIGNATURE_ANNOTATION).map(String::as_str)
                == self.descriptor.pointer("/annotations").and_then(|all| all.get(SIGNATURE_ANNOTATION)?.as_str())
    }

    /// By how many bytes at most it makes the manifest longer: by itself, and by what a manifest has but its layers.
    pub(super) fn longest(&self) -> usize {
        self.descriptor.to_string().len() + 1024
    }

    /// Whether a manifest's layer is this one.
    fn is(&self, layer: &Value) -> bool {
        let signature = |layer: &Value| layer.pointer("/annotations")?.get(SIGNATURE_ANNOTATION).cloned();
        layer.get("digest") == self.descriptor.get("digest") && signature(layer) == signature(&self.descriptor)
    }
}

/// How often the manifest is made anew because somebody else wrote it meanwhile. After that it is written without another
/// look, always over what was read last.
const READS: u32 = 5;

/// Adds a layer to the image's `.sig` manifest, which was this one a while ago, or makes one. Gives the moment in which
/// another signer's change could have gone unseen: everything that takes time is done before the manifest is read for the
/// last time.
pub(super) async fn put(
    client: &Client,
    (repository, digest): (&Repository, &Digest),
    layer: &NewLayer,
    known: Option<&Manifest>,
    stored: &Stored,
) -> Result<Option<Moment>, AttachError> {
    let image = || Box::new(ImageRef::pinned(repository, digest));
    let registry = |source| AttachError::Registry { image: image(), source };
    let target = Target::from(digest.signature_tag());
    let mut existing = known.cloned();
    let mut reads = 0;
    loop {
        let merged = merge(existing.as_ref(), layer).map_err(|problem| problem.of(List::Signatures, image()))?;
        let Some(Merged { manifest, config }) = merged else { return Ok(None) };
        let mut start = Instant::now();
        let config = stored.put(client, repository, &config);
        match reads {
            0 => tokio::try_join!(config, stored.put(client, repository, &layer.payload)).map(drop),
            _ => config.await,
        }
        .map_err(registry)?;
        if reads < READS {
            start = Instant::now();
            let now = client.manifest(repository, &target).await.map_err(registry)?;
            reads += 1;
            if now.as_ref().map(Manifest::digest) != existing.as_ref().map(Manifest::digest) {
                existing = now;
                continue;
            }
        }
        client.put_manifest(repository, &target, &manifest).await.map_err(registry)?;
        return Ok(Some(Moment::since(start)));
    }
}

struct Merged {
    manifest: Manifest,
    config: Vec<u8>,
}

/// The manifest and config with the new layer at the end; `None` where it is there already.
fn merge(existing: Option<&Manifest>, new: &NewLayer) -> Result<Option<Merged>, Problem> {
    let mut manifest = members(existing, OCI_MANIFEST, MAX_MANIFEST_LEN)?;
    let mut layers = take_list(&mut manifest, "layers")?;
    if layers.iter().any(|layer| new.is(layer)) {
        return Ok(None);
    }
    // What is no signature takes no signature's place.
    let is_signature = |layer: &&Value| layer.get("mediaType").is_some_and(|kind| kind == payload::MEDIA_TYPE);
    let has = layers.iter().filter(is_signature).count();
    if has >= MAX_LAYERS {
        return Err(Problem::Full { has, what: List::Signatures.unit(), read: MAX_LAYERS });
    }
    layers.push(new.descriptor.clone());
    let config = config(&layers)?;
    manifest.insert(
        "config".to_owned(),
        json!({ "mediaType": CONFIG_MEDIA_TYPE, "size": config.len(), "digest": Digest::of(&config) }),
    );
    manifest.insert("layers".to_owned(), layers.into());
    let manifest = Manifest::new(OCI_MANIFEST, written(&manifest)?);
    if manifest.bytes().len() > MAX_MANIFEST_LEN {
        let has = existing.map_or(0, |existing| existing.bytes().len());
        return Err(Problem::Full { has, what: "bytes", read: MAX_MANIFEST_LEN });
    }
    Ok(Some(Merged { manifest, config }))
}

/// The config of a manifest whose only layer is this payload.
pub(super) fn first_config(payload: &[u8]) -> Option<Vec<u8>> {
    config(&[json!({ "digest": Digest::of(payload) })]).ok()
}

/// The config that cosign writes: one history entry and one diff id a layer. A payload is not compressed, so that its
/// layer's digest is its diff id.
fn config(layers: &[Value]) -> Result<Vec<u8>, Problem> {
    let mut diff_ids = Vec::with_capacity(layers.len());
    for layer in layers {
        diff_ids.push(layer.get("digest").ok_or(Problem::Existing("one of its layers has no digest"))?);
    }
    let history = vec![json!({ "created": EPOCH }); layers.len()];
    let config = json!({
        "architecture": "",
        "created": EPOCH,
        "history": history,
        "os": "",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "config": {},
    });
    written(&config)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tagship_core::signature::Annotations;

    use super::*;
    use crate::signing::key::SigningKey;
    use crate::signing::sign;

    fn layer() -> NewLayer {
        let repository = "registry.test/app".parse().unwrap();
        let key = SigningKey::generate().unwrap();
        let annotations = Annotations::new(BTreeMap::new()).unwrap();
        NewLayer::new(&sign::sign(&key, &repository, &Digest::of(b"image"), &annotations).unwrap(), None).unwrap()
    }

    fn merged(existing: Option<&Manifest>, layer: &NewLayer) -> (Value, Value) {
        let merged = merge(existing, layer).unwrap().unwrap();
        (serde_json::from_slice(merged.manifest.bytes()).unwrap(), serde_json::from_slice(&merged.config).unwrap())
    }

    fn manifest(text: &str) -> Manifest {
        Manifest::new(OCI_MANIFEST, text.to_owned())
    }

    #[test]
    fn the_first_signature_makes_what_cosign_makes_and_holds_its_payload() {
        let layer = layer();
        let (manifest, config) = merged(None, &layer);
        let digest = Digest::of(&layer.payload).to_string();
        assert_eq!(manifest["schemaVersion"], 2);
        assert_eq!(manifest["mediaType"], OCI_MANIFEST);
        assert_eq!(manifest["config"]["mediaType"], CONFIG_MEDIA_TYPE);
        assert_eq!(manifest["layers"][0]["mediaType"], payload::MEDIA_TYPE);
        assert_eq!(manifest["layers"][0]["size"], layer.payload.len());
        assert_eq!(manifest["layers"][0]["digest"], digest);
        assert_eq!(manifest["layers"][0]["data"], STANDARD.encode(&layer.payload));
        assert_eq!(
            config,
            json!({
                "architecture": "", "created": EPOCH, "history": [{ "created": EPOCH }], "os": "",
                "rootfs": { "type": "layers", "diff_ids": [digest] }, "config": {},
            })
        );
    }

    #[test]
    fn what_others_signed_stays() {
        let others = json!([
            { "mediaType": payload::MEDIA_TYPE, "digest": "sha256:aa", "size": 3, "annotations": { "x": "y" } },
            { "mediaType": payload::MEDIA_TYPE, "digest": "sha256:aa", "size": 3, "annotations": { "x": "z" }, "u": [1] },
            { "mediaType": "application/else", "digest": "sha256:bb", "size": 18_446_744_073_709_551_615_u64 },
        ]);
        let existing = json!({ "schemaVersion": 2, "annotations": { "mine": "kept" }, "config": {}, "layers": others });
        let (manifest, config) = merged(Some(&manifest(&existing.to_string())), &layer());
        assert_eq!(manifest["layers"].as_array().unwrap()[..3], others.as_array().unwrap()[..]);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 4);
        assert_eq!(manifest["annotations"]["mine"], "kept");
        assert_eq!(config["history"].as_array().unwrap().len(), 4);
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_layer_is_not_added_twice() {
        let layer = layer();
        let once = merge(None, &layer).unwrap().unwrap();
        assert!(merge(Some(&once.manifest), &layer).unwrap().is_none());
    }

    #[test]
    fn more_than_is_read_is_not_written() {
        let existing = |count, note: &str| {
            let mut layers = vec![json!({ "mediaType": payload::MEDIA_TYPE, "digest": "sha256:aa" }); count];
            layers.extend(vec![json!({ "mediaType": "application/else", "digest": "sha256:bb" }); 9]);
            manifest(&json!({ "layers": layers, "annotations": { "note": note } }).to_string())
        };
        assert!(merge(Some(&existing(MAX_LAYERS - 1, "")), &layer()).unwrap().is_some());
        assert!(matches!(merge(Some(&existing(MAX_LAYERS, "")), &layer()), Err(Problem::Full { has: MAX_LAYERS, .. })));
        let long = "x".repeat(MAX_MANIFEST_LEN - existing(1, "").bytes().len());
        assert!(matches!(merge(Some(&existing(1, &long)), &layer()), Err(Problem::Full { what: "bytes", .. })));
    }

    #[test]
    fn it_makes_a_manifest_no_longer_than_it_says() {
        let layer = layer();
        let first = merge(None, &layer).unwrap().unwrap().manifest;
        assert!(first.bytes().len() <= layer.longest());
        let existing = manifest(r#"{"layers":[{"digest":"sha256:aa"}]}"#);
        let second = merge(Some(&existing), &layer).unwrap().unwrap().manifest;
        assert!(second.bytes().len() <= existing.bytes().len() + layer.longest());
    }

    #[test]
    fn what_is_no_list_of_signatures_is_not_overwritten() {
        for (defect, text) in [
            ("not JSON", "x"),
            ("a list", "[]"),
            ("key twice", r#"{"layers":[],"layers":[]}"#),
            ("layers an object", r#"{"layers":{}}"#),
            ("layer without digest", r#"{"layers":[{}]}"#),
        ] {
            assert!(merge(Some(&manifest(text)), &layer()).is_err(), "{defect}");
        }
        let index = Manifest::new("application/vnd.oci.image.index.v1+json", "{}");
        assert!(merge(Some(&index), &layer()).is_err(), "an index");
    }
}
