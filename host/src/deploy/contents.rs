//! What an image consists of, as far as it takes room: the size of each layer, and by which name the store knows it.
//!
//! Pure: a registry's bytes to types (OCI image specification: manifest, index, config). Whose bytes they are was checked
//! by their digests. What is odd here is not judged here: the engine, which takes it, says what is wrong with it.

use std::collections::BTreeSet;

use serde::Deserialize;
use tagship_core::{reference::Digest, signature::json};

/// The most layers that are counted: storage drivers take 127 and less.
const LAYERS: usize = 1024;

/// The longest document that is read, in bytes: what the OCI distribution specification asks registries to accept.
const LONGEST: usize = 4 * 1024 * 1024;

/// An image's layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    /// Digest of the layer unpacked: the store's name for it.
    diff: Digest,
    /// As the registry sends it, in bytes.
    size: u64,
}

/// What a manifest leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Described {
    /// It is an image: where its configuration is, and the size of each layer.
    Image {
        /// The configuration.
        config: Digest,
        /// In bytes, as the registry sends them.
        sizes: Vec<u64>,
    },
    /// It is an index; this is the image for this machine.
    Platform(Digest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Described {
    /// Reads a manifest or an index, for an `architecture` by its name in OCI's documents; none if it is neither, or of
    /// another shape.
    pub fn parse(manifest: &[u8], architecture: &str) -> Option<Self> {
        let Manifest { config, layers, manifests } = json::parse(manifest, LONGEST).ok()?;
        match config {
            Some(config) if layers.len() <= LAYERS => {
                Some(Self::Image { config: config.digest, sizes: layers.into_iter().map(|layer| layer.size).collect() })
            }
            Some(_) => None,
            None => {
                let here = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
                let found = manifests.into_iter().find(|entry| entry.platform.as_ref().is_some_and(here))?;
                Some(Self::Platform(found.digest))
            }
        }
    }
}

impl Contents {
    /// Puts the sizes of a manifest and the names in its configuration together; none if they do not fit.
    pub fn new(sizes: &[u64], config: &[u8]) -> Option<Self> {
        let config: Config = json::parse(config, LONGEST).ok()?;
        let diffs = config.rootfs.diff_ids;
        let fits = diffs.len() == sizes.len();
        let layers = diffs.into_iter().zip(sizes).map(|(diff, &size)| Layer { diff, size });
        fits.then(|| Self { layers: layers.collect() })
    }

    /// How many bytes have to be fetched where these layers are there already.
    pub fn missing(&self, there: &BTreeSet<Digest>) -> u64 {
        let mut seen = BTreeSet::new();
        let missing = self.layers.iter().filter(|layer| !there.contains(&layer.diff) && seen.insert(layer.diff));
        missing.fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// This machine's architecture as OCI's documents name it (Go's names).
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn manifest(layers: &[(&str, u64)]) -> String {
        let layers: Vec<String> =
            layers.iter().map(|(name, size)| format!(r#"{{"digest":"{}","size":{size}}}"#, digest(name))).collect();
        format!(r#"{{"config":{{"digest":"{}","size":7}},"layers":[{}]}}"#, digest("config"), layers.join(","))
    }

    fn config(layers: &[&str]) -> String {
        let diffs: Vec<String> = layers.iter().map(|name| format!("\"{}\"", digest(name))).collect();
        format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, diffs.join(","))
    }

    fn contents(layers: &[(&str, u64)]) -> Contents {
        let sizes: Vec<u64> = layers.iter().map(|(_, size)| *size).collect();
        let names: Vec<&str> = layers.iter().map(|(name, _)| *name).collect();
        Contents::new(&sizes, config(&names).as_bytes()).unwrap()
    }

    #[test]
    fn an_image_is_read() {
        let found = Described::parse(manifest(&[("a", 10), ("b", 20)]).as_bytes(), "amd64");
        assert_eq!(found, Some(Described::Image { config: digest("config"), sizes: vec![10, 20] }));
    }

    #[test]
    fn of_an_index_this_machines_image_counts() {
        let entry = |name: &str, os: &str, arch: &str| {
            format!(r#"{{"digest":"{}","size":1,"platform":{{"os":"{os}","architecture":"{arch}"}}}}"#, digest(name))
        };
        let plain = format!(r#"{{"digest":"{}","size":1}}"#, digest("plain"));
        let entries =
            [plain, entry("w", "windows", "amd64"), entry("a", "linux", "arm64"), entry("b", "linux", "amd64")];
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        assert_eq!(Described::parse(index.as_bytes(), "amd64"), Some(Described::Platform(digest("b"))));
        assert_eq!(Described::parse(index.as_bytes(), "arm64"), Some(Described::Platform(digest("a"))));
        assert_eq!(Described::parse(index.as_bytes(), "s390x"), None);
    }

    #[test]
    fn what_is_there_is_not_counted_and_what_comes_twice_is_counted_once() {
        let contents = contents(&[("a", 10), ("b", 20), ("empty", 3), ("empty", 3)]);
        assert_eq!(contents.missing(&BTreeSet::new()), 33);
        assert_eq!(contents.missing(&[digest("b"), digest("other")].into()), 13);
        assert_eq!(contents.missing(&[digest("a"), digest("b"), digest("empty")].into()), 0);
    }

    #[test]
    fn the_largest_sizes_are_no_small_sum() {
        assert_eq!(contents(&[("a", u64::MAX), ("b", u64::MAX)]).missing(&BTreeSet::new()), u64::MAX);
    }

    #[test]
    fn what_does_not_fit_is_not_counted() {
        let many: Vec<(&str, u64)> = vec![("a", 1); LAYERS + 1];
        for (defect, bytes) in [
            ("empty", String::new()),
            ("a list", "[]".into()),
            ("no config and no images", "{}".into()),
            ("a negative size", manifest(&[("a", 1)]).replace(":1}", ":-1}")),
            ("a size beyond 64 bits", manifest(&[("a", 1)]).replace(":1}", ":18446744073709551616}")),
            ("a digest that is none", manifest(&[("a", 1)]).replace("sha256:", "sha256-")),
            ("too many layers", manifest(&many)),
            ("a key twice", manifest(&[]).replace("\"layers\":", "\"layers\":[],\"layers\":")),
        ] {
            assert_eq!(Described::parse(bytes.as_bytes(), "amd64"), None, "{defect}");
        }
        for (defect, sizes, bytes) in [
            ("no configuration", &[][..], "{}".to_owned()),
            ("more layers than names", &[1, 2], config(&["a"])),
            ("more names than layers", &[1], config(&["a", "b"])),
            ("no digest", &[1], config(&["a"]).replace("sha256:", "md5:")),
        ] {
            assert_eq!(Contents::new(sizes, bytes.as_bytes()), None, "{defect}");
        }
    }
}
