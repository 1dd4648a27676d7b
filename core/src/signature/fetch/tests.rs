//! Lists that are there, spoilt, too long or none, and registries in trouble.

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
    let (found, asked) = found(manifest, blob).await;
    let layer = |attached| match attached {
        Attached::Layer(layer) => layer,
        Attached::Bundle(_) => panic!("no layer"),
    };
    (found.map(|found| found.attached.into_iter().map(layer).collect()), asked)
}

/// As [`fetched`], with what is known of the list.
async fn found(
    manifest: Reply,
    blob: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> (Result<Found, FetchError>, Vec<String>) {
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

/// An entry whose descriptor holds its payload.
fn embedding(payload: &[u8], signature: &str) -> String {
    let data = format!(r#""data":"{}","size""#, STANDARD.encode(payload));
    entry(payload, signature).replace(r#""size""#, &data)
}

/// The signatures of what was read, in order.
fn signatures(found: &Found) -> Vec<&str> {
    let layers = found.attached.iter().filter_map(|attached| match attached {
        Attached::Layer(layer) => layer.signature(),
        Attached::Bundle(_) => None,
    });
    layers.collect()
}

#[tokio::test]
async fn of_too_many_payloads_the_last_are_read_in_their_order() {
    for (more, unread) in [(0, 0), (1, 1), (7, 7)] {
        let names: Vec<_> = (0..MAX_PAYLOADS + more).map(|n| n.to_string()).collect();
        let entries: Vec<_> = names.iter().map(|name| entry(name.as_bytes(), name)).collect();
        let (found, asked) = found(answer(manifest(&entries)), |_| Reply::new(404, "")).await;
        let found = found.unwrap();
        assert_eq!(asked.len(), 1 + MAX_PAYLOADS);
        assert_eq!((found.listed, found.unread, found.is_full()), (MAX_PAYLOADS + more, unread, false));
        assert_eq!(signatures(&found), names[unread..].iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn embedded_payloads_do_not_count_among_those_that_are_asked_for() {
    let mut entries: Vec<_> = (0..300).map(|n| embedding(format!("held {n}").as_bytes(), "a")).collect();
    entries.extend((0..MAX_PAYLOADS).map(|n| entry(n.to_string().as_bytes(), "a")));
    // Shared with one that holds it: asked for by neither.
    entries.push(entry(b"held 0", "a"));
    let (found, asked) = found(answer(manifest(&entries)), |_| Reply::new(404, "")).await;
    let found = found.unwrap();
    assert_eq!((asked.len(), found.unread, found.attached.len()), (1 + MAX_PAYLOADS, 0, entries.len()));
}

#[tokio::test]
async fn of_too_many_signatures_the_last_are_read() {
    for (count, unread, full) in
        [(MAX_LAYERS - 1, 0, false), (MAX_LAYERS, 0, true), (MAX_LAYERS + 1, 1, true), (MAX_LAYERS + 9, 9, true)]
    {
        let entries: Vec<_> = (0..count).map(|n| entry(b"payload", &n.to_string())).collect();
        let (found, asked) = found(answer(manifest(&entries)), |_| Reply::new(200, "payload")).await;
        let found = found.unwrap();
        assert_eq!((found.listed, found.unread, found.is_full(), asked.len()), (count, unread, full, 2));
        let read = signatures(&found);
        assert_eq!((read[0], *read.last().unwrap()), (&*unread.to_string(), &*(count - 1).to_string()));
    }
}

#[tokio::test]
async fn what_helps_against_a_list_that_is_none_names_its_whole_tag() {
    let tag = Digest::of(IMAGE).signature_tag();
    for (defect, text, kind) in [
        ("no list", "{}".to_owned(), "malformed-signature"),
        ("too long", manifest(&[]) + &" ".repeat(MAX_MANIFEST_LEN), "too-many-signatures"),
    ] {
        let (found, _) = found(answer(text), |_| Reply::new(404, "")).await;
        let error = found.unwrap_err();
        let hint = error.hint().unwrap();
        assert_eq!(error.kind(), kind, "{defect}");
        assert!(hint.contains(&format!("/chris/app:{tag}")) && !hint.contains("remove"), "{defect}: {hint}");
    }
}

#[test]
fn refuses_malformed_manifests() {
    let good = manifest(&[entry(b"payload", "a")]);
    assert_eq!(parse(OCI_MANIFEST, good.as_bytes()).unwrap().len(), 1);
    let index = "application/vnd.oci.image.index.v1+json";
    assert!(matches!(parse(index, good.as_bytes()), Err(ListError::MediaType(_))), "an index");
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
