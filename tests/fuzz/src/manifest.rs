//! Manifests that say where an image's signatures are, or what it consists of, as a registry answers them.

use std::collections::BTreeSet;

use serde_json::Value;
use tagship_core::reference::Digest;
use tagship_core::registry::{Manifest, OCI_INDEX, OCI_MANIFEST};
use tagship_core::signature::fetch;
use tagship_host::deploy::{Contents, Described};

use super::{same_as_serde_json, told};

/// Reads bytes as a `.sig` manifest, as the index of what refers to an image, and as the manifest of a bundle in it.
/// Says whether they name a signature. Reads them, too, as what says how much room an image takes.
pub(crate) fn run(bytes: &[u8]) -> bool {
    contents(bytes);
    layers(bytes) | index(bytes) | bundle(bytes)
}

fn contents(bytes: &[u8]) {
    let document = || serde_json::from_slice::<Value>(bytes).expect("what was read is JSON");
    match Described::parse(bytes, "amd64") {
        Some(Described::Image { config, sizes }) => {
            assert_eq!(document()["config"]["digest"].as_str(), Some(config.to_string().as_str()));
            let layers = document()["layers"].as_array().map_or(0, Vec::len);
            assert_eq!(sizes.len(), layers, "a size for each layer");
        }
        Some(Described::Platform(image)) => named(&[image], &document()["manifests"]),
        None => {}
    }
    for sizes in [&[][..], &[7], &[7, u64::MAX]] {
        let Some(contents) = Contents::new(sizes, bytes) else { continue };
        let names = document()["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
        assert_eq!(names, sizes.len(), "a name for each size");
        assert!(contents.missing(&BTreeSet::new()) >= sizes.iter().copied().max().unwrap_or(0).min(7));
    }
}

fn layers(bytes: &[u8]) -> bool {
    let entries = match fetch::parse(OCI_MANIFEST, bytes) {
        Ok(entries) => entries,
        Err(error) => {
            told(&error);
            return false;
        }
    };
    let document = same_as_serde_json(bytes, fetch::MAX_MANIFEST_LEN).expect("a manifest is strict JSON");
    let layers = document["layers"].as_array().expect("a manifest has layers");
    // Each is a layer of the manifest, in its order, and nothing is made up.
    let mut rest = layers.iter();
    for entry in &entries {
        let same = rest.any(|layer| {
            layer["digest"].as_str() == Some(entry.digest.to_string().as_str())
                && entry.annotations.iter().all(|(name, value)| layer["annotations"][name].as_str() == Some(value))
        });
        assert!(same, "an entry is none of the manifest's layers");
        assert!(entry.embedded().is_none_or(|bytes| Digest::of(&bytes) == entry.digest), "another payload");
    }
    !entries.is_empty()
}

fn index(bytes: &[u8]) -> bool {
    let digests = match fetch::parse_index(OCI_INDEX, bytes) {
        Ok(digests) => digests,
        Err(error) => {
            told(&error);
            return false;
        }
    };
    let document = same_as_serde_json(bytes, fetch::MAX_INDEX_LEN).expect("an index is strict JSON");
    named(&digests, &document["manifests"]);
    assert!(
        digests.iter().enumerate().all(|(at, digest)| digests.iter().position(|one| one == digest) == Some(at)),
        "twice"
    );
    !digests.is_empty()
}

fn bundle(bytes: &[u8]) -> bool {
    let digests = fetch::parse_manifest(&Manifest::new(OCI_MANIFEST, bytes.to_vec()));
    if digests.is_empty() {
        return false;
    }
    let document = same_as_serde_json(bytes, bytes.len()).expect("a manifest is strict JSON");
    named(&digests, &document["layers"]);
    true
}

/// Each is one of the descriptors, in their order.
fn named(digests: &[Digest], descriptors: &Value) {
    let mut rest = descriptors.as_array().expect("a list of descriptors").iter();
    for digest in digests {
        let text = digest.to_string();
        assert!(rest.any(|one| one["digest"].as_str() == Some(text.as_str())), "{text} is not named");
    }
}
