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
        Some(pages) => Referrers::Listed(pages),
        None => Referrers::Tagged(client.manifest(repository, &Target::from(digest.referrers_tag())).await?),
    })
}

/// All bundles that refer to an image and may be signatures of it; attestations and what else refers to it are left out.
pub async fn bundles(client: &Client, repository: &Repository, digest: &Digest) -> Result<Vec<Blob>, FetchError> {
    let image = || ImageRef::pinned(repository, digest);
    let registry = |source| FetchError::Registry { image: image(), source };
    let malformed = |source| FetchError::Referrers { image: image(), source };
    let pages = match referrers(client, repository, digest).await.map_err(registry)? {
        Referrers::Listed(pages) => pages,
        Referrers::Tagged(index) => index.into_iter().collect(),
    };
    let mut entries = Vec::new();
    for page in pages {
        for entry in parse_index(page.media_type(), page.bytes()).map_err(malformed)? {
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }
    if entries.len() > MAX_BUNDLES {
        return Err(malformed(BundlesError::TooMany));
    }
    let mut found = Vec::new();
    for entry in entries {
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

/// Reads an index of referrers, and keeps what may be a signature: what somebody says to be an SBOM or an attestation is
/// not asked for, and does not count among the most that are.
pub fn parse_index(media_type: &str, bytes: &[u8]) -> Result<Vec<Digest>, BundlesError> {
    if media_type != OCI_INDEX {
        return Err(BundlesError::MediaType);
    }
    let Index { manifests } = json::parse(bytes, MAX_INDEX_LEN).map_err(BundlesError::Json)?;
    let mut digests = Vec::new();
    for Entry { media_type, artifact_type, digest, annotations } in manifests {
        let fits = media_type == OCI_MANIFEST
            && artifact_type.is_none_or(|artifact| ARTIFACTS.contains(&artifact.as_str()))
            && may_sign(annotations.as_ref());
        if fits && !digests.contains(&digest) {
            if digests.len() == MAX_BUNDLES {
                return Err(BundlesError::TooMany);
            }
            digests.push(digest);
        }
    }
    Ok(digests)
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
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::credentials::Credential;
    use crate::explain::Explain as _;
    use crate::registry::Limits;
    use crate::registry::testing::{Reply, Server};
    use crate::signature::Content;
    use crate::tls::Roots;

    const IMAGE: &[u8] = b"the image's manifest";

    /// What a registry holds beside the image, by the last part of its path; and how it lists what refers to the image.
    #[derive(Clone, Default)]
    struct Held {
        answers: HashMap<String, Reply>,
        entries: Vec<Value>,
    }

    impl Held {
        fn hold(&mut self, bytes: &[u8], media_type: &str) -> Digest {
            let reply = Reply::new(200, bytes.to_vec()).with("Content-Type", media_type);
            self.answers.insert(Digest::of(bytes).to_string(), reply);
            Digest::of(bytes)
        }

        /// A manifest with these layers, listed.
        fn refer(&mut self, layers: &[(&str, Digest)], annotations: Value) -> Digest {
            let layers: Vec<_> = layers.iter().map(|(kind, d)| json!({ "mediaType": kind, "digest": d })).collect();
            let manifest = json!({ "mediaType": OCI_MANIFEST, "layers": layers, "annotations": annotations });
            let digest = self.hold(manifest.to_string().as_bytes(), OCI_MANIFEST);
            self.entries.push(json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": 1 }));
            digest
        }

        fn bundle(&mut self, bytes: &[u8]) -> Digest {
            let blob = self.hold(bytes, "application/octet-stream");
            self.refer(
                &[(sigstore_bundle::MEDIA_TYPE, blob)],
                json!({ PREDICATE_ANNOTATION: statement::PREDICATE_TYPE }),
            )
        }

        fn index(&self) -> Reply {
            let index = json!({ "mediaType": OCI_INDEX, "manifests": self.entries });
            Reply::new(200, index.to_string()).with("Content-Type", OCI_INDEX)
        }

        fn list_under(mut self, name: &str) -> Self {
            let index = self.index();
            self.answers.insert(name.to_owned(), index);
            self
        }

        /// Lists by tag, as a registry without the referrers API has it.
        fn tagged(self) -> Self {
            self.list_under(Digest::of(IMAGE).referrers_tag().as_str())
        }

        /// Lists by itself.
        fn listed(self) -> Self {
            self.list_under("referrers")
        }

        /// The bundles that are fetched from it, and the number of requests that took.
        async fn fetched(self) -> (Result<Vec<Blob>, FetchError>, usize) {
            let server = Server::start(move |request| {
                let path = request.target.split('?').next().unwrap_or_default();
                let name = match path.contains("/referrers/") {
                    true => "referrers",
                    false => path.rsplit('/').next().unwrap_or_default(),
                };
                self.answers.get(name).cloned().unwrap_or_else(|| Reply::new(404, ""))
            })
            .await;
            let repository: Repository = format!("127.0.0.1:{}/chris/app", server.port).parse().unwrap();
            let limits = Limits { pause: Duration::from_millis(1), ..Limits::default() };
            let roots = Roots::load(None).unwrap();
            let client = Client::with_limits(repository.registry(), Credential::Anonymous, &roots, limits).unwrap();
            let found = bundles(&client, &repository, &Digest::of(IMAGE)).await;
            (found, server.lines().len())
        }
    }

    fn contents(found: Result<Vec<Blob>, FetchError>) -> Vec<Vec<u8>> {
        let bytes = |blob: Blob| match blob.content {
            Content::Bytes(bytes) => bytes.to_vec(),
            other => format!("{other:?}").into_bytes(),
        };
        found.unwrap().into_iter().map(bytes).collect()
    }

    #[tokio::test]
    async fn an_unsigned_image_has_none() {
        let (found, requests) = Held::default().fetched().await;
        assert_eq!((contents(found), requests), (vec![], 2));
        let (found, requests) = Held::default().listed().fetched().await;
        assert_eq!((contents(found), requests), (vec![], 1), "a registry that lists referrers is believed");
    }

    #[tokio::test]
    async fn they_are_found_where_they_are_listed() {
        let mut held = Held::default();
        held.bundle(b"one");
        held.bundle(b"two");
        // What a list says twice is fetched once.
        held.entries.extend(held.entries.clone());
        let expected = vec![b"one".to_vec(), b"two".to_vec()];
        let (found, requests) = held.clone().listed().fetched().await;
        assert_eq!((contents(found), requests), (expected.clone(), 5));
        let (found, requests) = held.tagged().fetched().await;
        assert_eq!((contents(found), requests), (expected, 6));
    }

    /// Fetches from a registry whose list of one entry a page says that page `n` goes on at `next(n)`.
    async fn fetched_in_pages(
        next: impl Fn(usize) -> String + Send + Sync + 'static,
    ) -> (Result<Vec<Blob>, FetchError>, usize) {
        let mut held = Held::default();
        held.bundle(b"one");
        held.bundle(b"two");
        let server = Server::start(move |request| {
            let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
            if !path.contains("/referrers/") {
                let name = path.rsplit('/').next().unwrap_or_default();
                return held.answers.get(name).cloned().unwrap_or_else(|| Reply::new(404, ""));
            }
            let page = query.split('&').find_map(|pair| pair.strip_prefix("page=")?.parse().ok()).unwrap_or(0);
            let entry = held.entries.get(page % 2).cloned();
            let index = json!({ "mediaType": OCI_INDEX, "manifests": [entry] });
            let reply = Reply::new(200, index.to_string()).with("Content-Type", OCI_INDEX);
            match next(page) {
                link if link.is_empty() => reply,
                link if link == "404" => Reply::new(404, ""),
                link => reply.with("Link", &link),
            }
        })
        .await;
        let repository: Repository = format!("127.0.0.1:{}/chris/app", server.port).parse().unwrap();
        let limits = Limits { pause: Duration::from_millis(1), ..Limits::default() };
        let roots = Roots::load(None).unwrap();
        let client = Client::with_limits(repository.registry(), Credential::Anonymous, &roots, limits).unwrap();
        let found = bundles(&client, &repository, &Digest::of(IMAGE)).await;
        (found, server.lines().len())
    }

    #[tokio::test]
    async fn a_list_of_several_pages_is_read_to_its_end() {
        for link in
            [r#"</v2/chris/app/referrers/x?page=1>; rel="next""#, r#"<?page=0>; rel="prev", <?page=1>;rel=next"#]
        {
            let link = link.to_owned();
            let next = move |page| if page == 0 { link.clone() } else { String::new() };
            let (found, requests) = fetched_in_pages(next).await;
            assert_eq!((contents(found), requests), (vec![b"one".to_vec(), b"two".to_vec()], 6));
        }
        let (found, _) = fetched_in_pages(|_| r#"<?page=1>; rel="last""#.to_owned()).await;
        assert_eq!(contents(found), [b"one".to_vec()], "no other relation leads on");
    }

    #[tokio::test]
    async fn a_list_without_end_or_elsewhere_is_none() {
        for (defect, link, requests) in [
            ("endless", "<?page=1>; rel=next", 8),
            ("on another server", "<https://other.test/v2/>; rel=next", 1),
            ("of another scheme", "<file:///etc/passwd>; rel=next", 1),
            ("no URL", "<https://[>; rel=next", 1),
        ] {
            let (found, asked) = fetched_in_pages(move |_| link.to_owned()).await;
            assert_eq!((found.unwrap_err().kind(), asked), ("registry-protocol", requests), "{defect}");
        }
        let ends = |page| if page == 0 { "<?page=1>; rel=next".to_owned() } else { "404".to_owned() };
        let (found, asked) = fetched_in_pages(ends).await;
        assert_eq!((found.unwrap_err().kind(), asked), ("registry-protocol", 2), "its second page is gone");
    }

    #[tokio::test]
    async fn what_is_no_signature_is_left_out() {
        let mut held = Held::default();
        let blob = held.hold(b"provenance", "application/octet-stream");
        let slsa = json!({ PREDICATE_ANNOTATION: "https://slsa.dev/provenance/v1" });
        held.refer(&[(sigstore_bundle::MEDIA_TYPE, blob)], slsa.clone());
        held.refer(&[("application/spdx+json", blob)], json!({}));
        held.entries.push(json!({ "mediaType": OCI_MANIFEST, "digest": blob, "annotations": slsa }));
        held.entries.push(json!({ "mediaType": OCI_INDEX, "digest": blob }));
        for n in 0..=MAX_BUNDLES {
            let sbom = Digest::of(n.to_string().as_bytes());
            held.entries
                .push(json!({ "mediaType": OCI_MANIFEST, "digest": sbom, "artifactType": "application/spdx+json" }));
        }
        held.bundle(b"signature");
        held.entries.last_mut().unwrap()["artifactType"] = ARTIFACTS[1].into();
        let (found, requests) = held.listed().fetched().await;
        assert_eq!(
            (contents(found), requests),
            (vec![b"signature".to_vec()], 5),
            "the list, three manifests, one blob"
        );
    }

    #[tokio::test]
    async fn one_that_is_spoilt_leaves_the_others() {
        let mut held = Held::default();
        let (gone, corrupt) = (held.bundle(b"gone"), held.bundle(b"corrupt"));
        held.answers.remove(&gone.to_string());
        held.answers.insert(corrupt.to_string(), Reply::new(200, "{}").with("Content-Type", OCI_MANIFEST));
        let unreadable = held.hold(b"[1]", OCI_MANIFEST);
        held.entries.push(json!({ "mediaType": OCI_MANIFEST, "digest": unreadable }));
        held.refer(&[(sigstore_bundle::MEDIA_TYPE, Digest::of(b"never pushed"))], json!(null));
        held.bundle(b"good");
        let (found, _) = held.tagged().fetched().await;
        assert_eq!(contents(found), [b"Missing".to_vec(), b"good".to_vec()]);
    }

    #[tokio::test]
    async fn a_registry_that_does_not_know_the_question_is_asked_for_the_tag() {
        let odd = [Reply::new(400, ""), Reply::new(405, ""), Reply::new(406, "")];
        let page = Reply::new(200, "<html>").with("Content-Type", "text/html");
        let image = Reply::new(200, "{}").with("Content-Type", OCI_MANIFEST);
        for reply in odd.into_iter().chain([page, image]) {
            let mut held = Held::default();
            held.bundle(b"one");
            let mut held = held.tagged();
            held.answers.insert("referrers".to_owned(), reply);
            assert_eq!(contents(held.fetched().await.0), [b"one".to_vec()]);
        }
    }

    #[tokio::test]
    async fn a_registry_in_trouble_is_not_an_unsigned_image() {
        for trouble in ["referrers", Digest::of(IMAGE).referrers_tag().as_str(), &Digest::of(b"one").to_string()] {
            let mut held = Held::default();
            held.bundle(b"one");
            let mut held = held.tagged();
            held.answers.insert(trouble.to_owned(), Reply::new(503, ""));
            assert_eq!(held.fetched().await.0.unwrap_err().kind(), "registry-error", "{trouble}");
        }
    }

    #[tokio::test]
    async fn too_many_are_not_fetched() {
        let mut held = Held::default();
        for n in 0..=MAX_BUNDLES {
            held.entries.push(json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of(n.to_string().as_bytes()) }));
        }
        let (found, requests) = held.listed().fetched().await;
        assert_eq!((found.unwrap_err().kind(), requests), ("malformed-signature", 1));
        let mut held = Held::default();
        let blobs: Vec<_> = (0..=MAX_BUNDLES).map(|n| Digest::of(n.to_string().as_bytes())).collect();
        let layers: Vec<_> = blobs.iter().map(|blob| (sigstore_bundle::MEDIA_TYPE, *blob)).collect();
        held.refer(&layers, json!({}));
        let (found, requests) = held.listed().fetched().await;
        assert_eq!((found.unwrap_err().kind(), requests), ("malformed-signature", 2 + MAX_BUNDLES));
    }

    #[test]
    fn refuses_malformed_indexes() {
        let mut held = Held::default();
        held.bundle(b"one");
        let good = json!({ "manifests": held.entries, "annotations": {} }).to_string();
        assert_eq!(parse_index(OCI_INDEX, good.as_bytes()).unwrap().len(), 1);
        assert!(matches!(parse_index(OCI_MANIFEST, good.as_bytes()), Err(BundlesError::MediaType)), "a manifest");
        for (defect, from, to) in [
            ("no manifests", "manifests", "layers"),
            ("manifests twice", r#""manifests""#, r#""manifests":[],"manifests""#),
            ("manifests an object", r#""manifests":["#, r#""manifests":{},"x":["#),
            ("digest of another algorithm", "sha256:", "sha512:"),
            ("digest a path", "sha256:", "../sha256:"),
            ("no media type", "mediaType", "type"),
            ("trailing data", "]}", "]}x"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{defect}");
            assert!(parse_index(OCI_INDEX, bad.as_bytes()).is_err(), "{defect}");
        }
        let oversized = good + &" ".repeat(MAX_INDEX_LEN);
        assert!(matches!(
            parse_index(OCI_INDEX, oversized.as_bytes()),
            Err(BundlesError::Json(JsonError::TooLarge { .. }))
        ));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = parse_index(OCI_INDEX, &bytes);
            let _ = parse_manifest(&Manifest::new(OCI_MANIFEST, bytes));
        }
    }
}
