//! Registries that list referrers or do not, and lists that are spoilt, too long or none.

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
        self.refer(&[(sigstore_bundle::MEDIA_TYPE, blob)], json!({ PREDICATE_ANNOTATION: statement::PREDICATE_TYPE }))
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

    /// What is fetched from it, and the number of requests that took.
    async fn fetched(self) -> (Result<Found, FetchError>, usize) {
        let server = Server::start(move |request| {
            let path = request.target.split('?').next().unwrap_or_default();
            let name = match path.contains("/referrers/") {
                true => "referrers",
                false => path.rsplit('/').next().unwrap_or_default(),
            };
            self.answers.get(name).cloned().unwrap_or_else(|| Reply::new(404, ""))
        })
        .await;
        fetched_from(&server).await
    }
}

/// The bundles of the image, and the number of requests that took.
async fn fetched_from(server: &Server) -> (Result<Found, FetchError>, usize) {
    let repository: Repository = format!("127.0.0.1:{}/chris/app", server.port).parse().unwrap();
    let limits = Limits { pause: Duration::from_millis(1), ..Limits::default() };
    let roots = Roots::load(None).unwrap();
    let client = Client::with_limits(repository.registry(), Credential::Anonymous, &roots, limits).unwrap();
    let found = bundles(&client, &repository, &Digest::of(IMAGE)).await;
    (found, server.lines().len())
}

fn contents(found: Result<Found, FetchError>) -> Vec<Vec<u8>> {
    let bytes = |attached| match attached {
        Attached::Bundle(Blob { content: Content::Bytes(bytes), .. }) => bytes.to_vec(),
        Attached::Bundle(Blob { content, .. }) => format!("{content:?}").into_bytes(),
        Attached::Layer(_) => panic!("no bundle"),
    };
    found.unwrap().attached.into_iter().map(bytes).collect()
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
) -> (Result<Found, FetchError>, usize) {
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
    fetched_from(&server).await
}

#[tokio::test]
async fn a_list_of_several_pages_is_read_to_its_end() {
    for link in [r#"</v2/chris/app/referrers/x?page=1>; rel="next""#, r#"<?page=0>; rel="prev", <?page=1>;rel=next"#] {
        let link = link.to_owned();
        let next = move |page| if page == 0 { link.clone() } else { String::new() };
        let (found, requests) = fetched_in_pages(next).await;
        assert_eq!((contents(found), requests), (vec![b"one".to_vec(), b"two".to_vec()], 6));
    }
    let (found, _) = fetched_in_pages(|_| r#"<?page=1>; rel="last""#.to_owned()).await;
    assert_eq!(contents(found), [b"one".to_vec()], "no other relation leads on");
}

#[tokio::test]
async fn a_list_that_goes_on_elsewhere_is_none() {
    for (defect, link, requests) in [
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
async fn a_registrys_own_list_that_is_too_long_is_told_from_a_registry_that_is_none() {
    let page = format!(r#"{{"manifests":[]}}{}"#, " ".repeat(MAX_INDEX_LEN));
    let mut held = Held::default();
    held.answers.insert("referrers".to_owned(), Reply::new(200, page).with("Content-Type", OCI_INDEX));
    for (defect, (found, asked), requests) in [
        ("without end", fetched_in_pages(|_| "<?page=1>; rel=next".to_owned()).await, 8),
        ("a page beyond its length", held.fetched().await, 1),
    ] {
        let error = found.unwrap_err();
        assert_eq!((error.kind(), asked), ("too-many-signatures", requests), "{defect}");
        let told = crate::explain::chain(&error);
        assert!(told.contains("registry's index of referrers") && told.contains("that are read"), "{told}");
        assert!(error.hint().unwrap().contains("by its manifest's digest"), "{:?}", error.hint());
    }
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
    assert_eq!((contents(found), requests), (vec![b"signature".to_vec()], 5), "the list, three manifests, one blob");
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
    assert_eq!(contents(found), [b"Corrupt".to_vec(), b"Missing".to_vec(), b"good".to_vec()]);
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
async fn what_came_instead_of_a_bundles_manifest_is_told() {
    let other = json!({ "mediaType": OCI_MANIFEST, "layers": [] }).to_string();
    for (defect, body) in [
        ("another manifest", other.as_str()),
        ("no JSON", "spoilt"),
        ("cut short", "{"),
        ("an index", &json!({ "mediaType": OCI_INDEX }).to_string()),
    ] {
        let mut held = Held::default();
        let entry = held.bundle(b"one");
        held.answers.insert(entry.to_string(), Reply::new(200, body).with("Content-Type", OCI_MANIFEST));
        let found = contents(held.listed().fetched().await.0);
        assert_eq!(found, [b"Corrupt".to_vec()], "{defect}");
    }
}

#[tokio::test]
async fn of_too_many_the_last_are_fetched_in_their_order() {
    for (more, unread, full) in [(-1, 0, false), (0, 0, true), (1, 1, true), (9, 9, true)] {
        let count = MAX_BUNDLES.checked_add_signed(more).unwrap();
        let names: Vec<_> = (0..count).map(|n| n.to_string().into_bytes()).collect();
        let mut held = Held::default();
        for name in &names {
            held.bundle(name);
        }
        let (found, requests) = held.listed().fetched().await;
        let known = found.as_ref().map(|found| (found.listed, found.unread, found.is_full(), found.list)).unwrap();
        assert_eq!(known, (count, unread, full, List::Registry));
        assert_eq!(requests, 1 + 2 * count.min(MAX_BUNDLES));
        assert_eq!(contents(found), names[unread..]);
    }
}

#[tokio::test]
async fn a_manifest_of_many_bundles_is_read_no_further_than_a_list_of_them() {
    let mut held = Held::default();
    held.bundle(b"older");
    let blobs: Vec<_> = (0..=MAX_BUNDLES).map(|n| Digest::of(n.to_string().as_bytes())).collect();
    let layers: Vec<_> = blobs.iter().map(|blob| (sigstore_bundle::MEDIA_TYPE, *blob)).collect();
    held.refer(&layers, json!({}));
    let (found, requests) = held.listed().fetched().await;
    let found = found.unwrap();
    assert_eq!((requests, found.attached.len()), (2 + MAX_BUNDLES, MAX_BUNDLES));
    assert_eq!((found.listed, found.unread), (MAX_BUNDLES + 2, 2));
}

#[tokio::test]
async fn entries_that_hold_no_bundle_take_their_share_of_the_requests() {
    let mut held = Held::default();
    held.bundle(b"older");
    for n in 0..MAX_BUNDLES {
        held.entries.push(json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of(n.to_string().as_bytes()) }));
    }
    let (found, requests) = held.tagged().fetched().await;
    let found = found.unwrap();
    assert_eq!((found.attached.len(), requests), (0, 2 + MAX_BUNDLES));
    assert_eq!((found.listed, found.unread, found.list), (MAX_BUNDLES + 1, 1, List::Referrers));
}

#[tokio::test]
async fn what_helps_against_a_list_that_is_none_names_its_tag_if_it_has_one() {
    let tag = Digest::of(IMAGE).referrers_tag();
    let none = Reply::new(200, r#"{"manifests":{}}"#).with("Content-Type", OCI_INDEX);
    for name in [tag.as_str(), "referrers"] {
        let mut held = Held::default();
        held.answers.insert(name.to_owned(), none.clone());
        let error = held.fetched().await.0.unwrap_err();
        let hint = error.hint().unwrap();
        assert_eq!(error.kind(), "malformed-signature", "{name}");
        assert_eq!(hint.contains(&format!("/chris/app:{tag}")), name != "referrers", "{hint}");
        assert!(!hint.contains("sha256-…") && !hint.contains("remove"), "{hint}");
    }
}

#[test]
fn refuses_malformed_indexes() {
    let mut held = Held::default();
    held.bundle(b"one");
    let good = json!({ "manifests": held.entries, "annotations": {} }).to_string();
    assert_eq!(parse_index(OCI_INDEX, good.as_bytes()).unwrap().len(), 1);
    assert!(matches!(parse_index(OCI_MANIFEST, good.as_bytes()), Err(ListError::MediaType(_))), "a manifest");
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
        Err(ListError::Json(json::JsonError::TooLarge { .. }))
    ));
}

proptest::proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = parse_index(OCI_INDEX, &bytes);
        let _ = parse_manifest(&Manifest::new(OCI_MANIFEST, bytes));
    }
}
