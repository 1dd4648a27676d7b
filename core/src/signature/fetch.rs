//! Fetches an image's signatures: one manifest, and each payload once; or its bundles. Bounded; judges nothing.

mod bundles;

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

/// Most different payloads that are fetched: each is a request. Signatures by several keys share one.
const MAX_PAYLOADS: usize = 128;

/// Most signatures that are looked at: as many as `MAX_MANIFEST_LEN` holds of real ones, and a bound on the arithmetic.
pub const MAX_LAYERS: usize = 1024;

pub use bundles::{BundlesError, MAX_INDEX_LEN, Referrers, bundles, parse_index, parse_manifest, referrers};

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
    /// The list of what refers to the image is none.
    #[error("the list of what refers to {image} is malformed")]
    Referrers {
        /// Whose signatures.
        image: ImageRef,
        /// Why.
        source: BundlesError,
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
    #[error("it has more than {MAX_LAYERS} signatures, or {MAX_PAYLOADS} different payloads")]
    TooMany,
}

impl Explain for FetchError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Registry { source, .. } => source.kind(),
            Self::Manifest { .. } | Self::Referrers { .. } => "malformed-signature",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry { source, .. } => source.hint(),
            Self::Manifest { .. } => {
                Some("remove the tag that ends in .sig beside the image, then sign it again".to_owned())
            }
            Self::Referrers { .. } => Some(
                "remove the tag sha256-… beside the image, which lists what refers to it, then sign the image again"
                    .to_owned(),
            ),
        }
    }
}

/// All signatures of an image in one format.
pub async fn attached(
    client: &Client,
    repository: &Repository,
    digest: &Digest,
    format: Format,
) -> Result<Vec<Attached>, FetchError> {
    Ok(match format {
        Format::Sig => layers(client, repository, digest).await?.into_iter().map(Attached::Layer).collect(),
        Format::Bundle => bundles(client, repository, digest).await?.into_iter().map(Attached::Bundle).collect(),
    })
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
        if let Some(bytes) = entry.embedded() {
            contents.insert(entry.digest, Content::Bytes(bytes));
            continue;
        }
        let blob = client.blob(repository, &entry.digest, payload::MAX_LEN).await;
        contents.insert(entry.digest, content(blob).map_err(registry)?);
    }
    Ok(entries
        .into_iter()
        .filter_map(|entry| {
            let content = contents.get(&entry.digest)?.clone();
            Some(Layer { payload: Blob { digest: entry.digest, content }, annotations: entry.annotations })
        })
        .collect())
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
pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    if media_type != OCI_MANIFEST {
        return Err(ManifestError::MediaType);
    }
    let SignatureManifest { layers } = json::parse(bytes, MAX_MANIFEST_LEN).map_err(ManifestError::Json)?;
    if layers.len() > MAX_LAYERS {
        return Err(ManifestError::TooMany);
    }
    Ok(layers.into_iter().filter(|entry| entry.media_type == payload::MEDIA_TYPE).collect())
}

#[derive(Deserialize)]
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credentials::Credential;
    use crate::registry::Limits;
    use crate::registry::testing::{Received, Reply, Server};
    use crate::tls::Roots;

    const IMAGE: &[u8] = b"the image's manifest";

    fn entry(payload: &[u8], signature: &str) -> String {
        let digest = Digest::of(payload);
        let size = payload.len();
        format!(
            r#"{{"mediaType":"{}","size":{size},"digest":"{digest}","annotations":{{"{}":"{signature}"}}}}"#,
            payload::MEDIA_TYPE,
            crate::signature::SIGNATURE_ANNOTATION
        )
    }

    fn manifest(entries: &[String]) -> String {
        format!(r#"{{"schemaVersion":2,"config":{{}},"layers":[{}]}}"#, entries.join(","))
    }

    /// Fetches from a registry that answers the `.sig` tag with `manifest`, and blobs as `blob` says.
    async fn fetched(
        manifest: Reply,
        blob: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> (Result<Vec<Layer>, FetchError>, Vec<String>) {
        let tag = Digest::of(IMAGE).signature_tag();
        let server = Server::start(move |request| match request.target.rsplit('/').next() {
            Some(last) if last == tag.as_str() => manifest.clone(),
            _ => blob(request),
        })
        .await;
        let repository: Repository = format!("127.0.0.1:{}/chris/app", server.port).parse().unwrap();
        let limits = Limits { pause: Duration::from_millis(1), ..Limits::default() };
        let roots = Roots::load(None).unwrap();
        let client = Client::with_limits(repository.registry(), Credential::Anonymous, &roots, limits).unwrap();
        (layers(&client, &repository, &Digest::of(IMAGE)).await, server.lines())
    }

    fn answer(text: String) -> Reply {
        Reply::new(200, text).with("Content-Type", OCI_MANIFEST)
    }

    #[tokio::test]
    async fn an_unsigned_image_has_no_layers() {
        let (layers, asked) = fetched(Reply::new(404, ""), |_| Reply::new(404, "")).await;
        assert!(layers.unwrap().is_empty());
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test]
    async fn a_shared_payload_is_fetched_once() {
        let signed = manifest(&[entry(b"payload", "a"), entry(b"payload", "b"), entry(b"payload", "a")]);
        let (layers, asked) = fetched(answer(signed), |_| Reply::new(200, "payload")).await;
        let signatures: Vec<_> = layers.unwrap().iter().map(|layer| layer.signature().unwrap().to_owned()).collect();
        assert_eq!((signatures, asked.len()), (["a", "b", "a"].map(str::to_owned).to_vec(), 2));
    }

    #[tokio::test]
    async fn an_embedded_payload_is_not_asked_for_unless_it_is_another() {
        let with = |payload: &[u8], data: &str| {
            let entry = entry(payload, "a").replace(r#""size""#, &format!(r#""data":"{data}","size""#));
            answer(manifest(&[entry]))
        };
        let long = vec![b' '; payload::MAX_LEN + 1];
        for (defect, signed, requests) in [
            ("none", with(b"payload", &STANDARD.encode("payload")), 1),
            ("another", with(b"payload", &STANDARD.encode("payloae")), 2),
            ("empty", with(b"payload", ""), 2),
            ("no base64", with(b"payload", "@@@@"), 2),
            ("too long", with(&long, &STANDARD.encode(&long)), 2),
        ] {
            let (layers, asked) = fetched(signed, |_| Reply::new(200, "payload")).await;
            let layers = layers.unwrap();
            let right = matches!(&layers[0].payload.content, Content::Bytes(bytes) if &bytes[..] == b"payload");
            assert_eq!((right, asked.len()), (defect != "too long", requests), "{defect}");
        }
    }

    #[tokio::test]
    async fn one_bad_payload_leaves_the_others() {
        let signed = manifest(&[entry(b"gone", "a"), entry(b"corrupt", "b"), entry(b"long", "c"), entry(b"good", "d")]);
        let (layers, _) = fetched(answer(signed), |request| {
            let wants = |payload: &[u8]| request.target.ends_with(&Digest::of(payload).to_string());
            match () {
                () if wants(b"gone") => Reply::new(404, ""),
                () if wants(b"long") => Reply::new(200, vec![b' '; payload::MAX_LEN + 1]),
                () => Reply::new(200, "good"),
            }
        })
        .await;
        let contents: Vec<_> = layers.unwrap().into_iter().map(|layer| layer.payload.content).collect();
        assert!(matches!(contents[..], [Content::Missing, Content::Corrupt, Content::Corrupt, Content::Bytes(_)]));
    }

    #[tokio::test]
    async fn a_registry_in_trouble_is_not_an_unsigned_image() {
        let (layers, _) = fetched(Reply::new(503, ""), |_| Reply::new(404, "")).await;
        assert_eq!(layers.unwrap_err().kind(), "registry-error");
        let signed = manifest(&[entry(b"payload", "a")]);
        let (layers, _) = fetched(answer(signed), |_| Reply::closed()).await;
        assert_eq!(layers.unwrap_err().kind(), "registry-unreachable");
    }

    #[tokio::test]
    async fn too_many_payloads_are_not_fetched() {
        let entries: Vec<_> = (0..=MAX_PAYLOADS).map(|n| entry(n.to_string().as_bytes(), "a")).collect();
        let (layers, asked) = fetched(answer(manifest(&entries)), |_| Reply::new(404, "")).await;
        assert_eq!((layers.unwrap_err().kind(), asked.len()), ("malformed-signature", MAX_PAYLOADS + 1));
    }

    #[test]
    fn too_many_signatures_are_not_looked_at() {
        let of = |count| manifest(&vec![entry(b"payload", "a"); count]);
        assert_eq!(parse(OCI_MANIFEST, of(MAX_LAYERS).as_bytes()).unwrap().len(), MAX_LAYERS);
        assert!(matches!(parse(OCI_MANIFEST, of(MAX_LAYERS + 1).as_bytes()), Err(ManifestError::TooMany)));
    }

    #[test]
    fn refuses_malformed_manifests() {
        let good = manifest(&[entry(b"payload", "a")]);
        assert_eq!(parse(OCI_MANIFEST, good.as_bytes()).unwrap().len(), 1);
        let index = "application/vnd.oci.image.index.v1+json";
        assert!(matches!(parse(index, good.as_bytes()), Err(ManifestError::MediaType)), "an index");
        for (defect, from, to) in [
            ("no layers", "layers", "manifests"),
            ("layers twice", r#""layers""#, r#""layers":[],"layers""#),
            ("layers an object", r#""layers":["#, r#""layers":{},"x":["#),
            ("annotations twice", r#""annotations""#, r#""annotations":{},"annotations""#),
            ("annotation a number", r#":"a""#, ":1"),
            ("digest of another algorithm", "sha256:", "sha512:"),
            ("digest a path", "sha256:", "../sha256:"),
            ("trailing data", "]}", "]}x"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{defect}");
            assert!(parse(OCI_MANIFEST, bad.as_bytes()).is_err(), "{defect}");
        }
        let other = good.replace(payload::MEDIA_TYPE, "application/vnd.in-toto+json");
        assert!(parse(OCI_MANIFEST, other.as_bytes()).unwrap().is_empty(), "an attestation is no signature");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = parse(OCI_MANIFEST, &bytes);
        }
    }
}
