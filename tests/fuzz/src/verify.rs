//! The judgement itself: signature layers, policy and expectation go in, and what comes out must be what was signed.
//!
//! The input is a text with gaps, which are filled with real signatures of a real owner and a real log, so that the
//! bytes behind a good signature are tried as well. First line: the rules for the log and for annotations, and the tag
//! asked for. Then the signatures, divided by lines `==`. The parts of each are divided by lines `--`. Of a layer they
//! are its payload, its signature's annotation, its bundle's annotation, and the body of the log's entry; of a sigstore
//! bundle the word `bundle`, its statement, its JSON, and the body of the log's entry. A part that is left out is good;
//! `none` alone stands for one that is not there.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tagship_core::reference::Digest;
use tagship_core::signature::{
    AnnotationRule, Attached, Blob, Content, Evidence, Expectation, Formats, KEY_ANNOTATION, Layer, Policy, Rekor,
    SIGNATURE_ANNOTATION, TagClaim, Verified, bundle, dsse, statement, verify,
};

use super::explained;
use super::template::{fill, sections};
use super::world::{INDEX, Party, TIME, WORLD, base64, stamped, tree};

const PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":"${repository}"},"image":{"docker-manifest-digest":"${digest}"},"type":"cosign container image signature"},"optional":{"commit":"0123456789abcdef0123456789abcdef01234567","created":"2026-10-01T12:00:00Z","repository":"${repository}","run":"17","tag":"v0.2.9"}}"#;
const SIGNATURE: &str = "${signature}";
const BUNDLE: &str = r#"{"SignedEntryTimestamp":"${timestamp}","Payload":{"body":"${body}","integratedTime":1790000000,"logIndex":42,"logID":"${log}"}}"#;
const BODY: &str = r#"{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"${hash}"}},"signature":{"content":"${signature}","publicKey":{"content":"${key}"}}}}"#;

const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"${hex}"},"annotations":{"repository":"${repository}","tag":"v0.2.9"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}"#;
const SIGSTORE: &str = r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"${hint}"},"tlogEntries":[{"logIndex":"42","logId":{"keyId":"${log}"},"kindVersion":{"kind":"dsse","version":"0.0.1"},"integratedTime":"1790000000","inclusionPromise":{"signedEntryTimestamp":"${timestamp}"},"inclusionProof":{"logIndex":"1","rootHash":"${root}","treeSize":"2","hashes":["${first}"],"checkpoint":{"envelope":"${checkpoint}"}},"canonicalizedBody":"${body}"}]},"dsseEnvelope":{"payload":"${payload}","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"${signature}"}]}}"#;
const DSSE_BODY: &str = r#"{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"${hash}"},"payloadHash":{"algorithm":"sha256","value":"${hash}"},"signatures":[{"signature":"${signature}","verifier":"${key}"}]}}"#;

/// Most signatures that are looked at: each costs a few to make.
const MAX_FOUND: usize = 4;

/// Verifies what the bytes describe. Says whether it counts.
pub(crate) fn run(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (rules, rest) = bytes.split_at(end);
    let (expected, policy) = rules_of(&String::from_utf8_lossy(rules));
    let found: Vec<Attached> = match rest.strip_prefix(b"\n") {
        Some(rest) => sections(rest, "==").into_iter().take(MAX_FOUND).map(attached).collect(),
        None => Vec::new(),
    };
    match verify::verify(&expected, &found, &policy) {
        Ok(verified) => {
            holds(&verified, &expected, &policy, &found);
            true
        }
        Err(error) => {
            explained(&error);
            false
        }
    }
}

fn rules_of(line: &str) -> (Expectation, Policy) {
    let mut words = line.split(' ');
    let rekor = match words.next() {
        Some("off") => Rekor::Off,
        Some("when-present") => Rekor::WhenPresent,
        _ => Rekor::Required,
    };
    let annotations = match words.next() {
        Some("off") => AnnotationRule::Off,
        Some("when-present") => AnnotationRule::WhenPresent,
        _ => AnnotationRule::Required,
    };
    let tag = words.next().and_then(|tag| tag.parse().ok());
    let expected = Expectation { repository: WORLD.repository.clone(), digest: WORLD.digest, tag };
    let keys = vec![WORLD.owner.public.clone()];
    (expected, Policy { keys, formats: Formats::BOTH, rekor, log_keys: vec![WORLD.log.public.clone()], annotations })
}

fn attached(text: &[u8]) -> Attached {
    let parts = sections(text, "--");
    match parts.split_first() {
        Some((&b"bundle", parts)) => Attached::Bundle(bundle_of(parts)),
        _ => Attached::Layer(layer(&parts)),
    }
}

/// A part of a signature, or what it would be if all were well.
fn part<'a>(parts: &[&'a [u8]], at: usize, good: &'static str) -> &'a [u8] {
    parts.get(at).copied().filter(|part| !part.is_empty()).unwrap_or(good.as_bytes())
}

/// What the owner could say of the image.
fn said(template: &[u8]) -> Vec<u8> {
    fill(template, |name| match name {
        "repository" => Some(WORLD.repository.to_string().into_bytes()),
        "digest" => Some(WORLD.digest.to_string().into_bytes()),
        "hex" => Some(WORLD.digest.hex().into_bytes()),
        _ => None,
    })
}

/// The body of the log's entry, in base64.
fn body(template: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    base64(&fill(template, |name| match name {
        "hash" => Some(Digest::of(payload).hex().into_bytes()),
        "signature" => Some(signature.to_vec()),
        "key" => Some(WORLD.owner.key64()),
        "stranger" => Some(WORLD.stranger.key64()),
        _ => None,
    }))
}

/// The log's signed timestamp about a body.
fn timestamp(body: &[u8], by: &Party) -> Vec<u8> {
    let log = WORLD.log.public.fingerprint().to_string();
    by.sign64(stamped(str::from_utf8(body).expect("base64 is text"), &log).as_bytes())
}

fn bundle_of(parts: &[&[u8]]) -> Blob {
    let statement = said(part(parts, 0, STATEMENT));
    let signed = dsse::pae(statement::PAYLOAD_TYPE, &statement);
    // One signature, which the log's entry must repeat.
    let signature = WORLD.owner.sign64(&signed);
    let body = body(part(parts, 2, DSSE_BODY), &statement, &signature);
    let tree = tree(&STANDARD.decode(&body).expect("base64"));
    let text = fill(part(parts, 1, SIGSTORE), |name| match name {
        "payload" => Some(base64(&statement)),
        "signature" => Some(signature.clone()),
        "stranger" => Some(WORLD.stranger.sign64(&signed)),
        "bare" => Some(WORLD.owner.sign64(&statement)),
        "hint" => Some(base64(WORLD.owner.public.fingerprint().as_bytes())),
        "log" => Some(base64(WORLD.log.public.fingerprint().as_bytes())),
        "body" => Some(body.clone()),
        "timestamp" => Some(timestamp(&body, &WORLD.log)),
        "forged" => Some(timestamp(&body, &WORLD.stranger)),
        "root" => Some(base64(&tree.root)),
        "first" => Some(base64(&tree.first)),
        "checkpoint" => Some(tree.checkpoint(&WORLD.log).replace('\n', "\\n").into_bytes()),
        "strange" => Some(tree.checkpoint(&WORLD.stranger).replace('\n', "\\n").into_bytes()),
        _ => None,
    });
    blob(text)
}

fn blob(bytes: Vec<u8>) -> Blob {
    let digest = Digest::of(&bytes);
    let content = match &bytes[..] {
        b"none" => Content::Missing,
        b"corrupt" => Content::Corrupt,
        _ => Content::Bytes(bytes.into()),
    };
    Blob { digest, content }
}

fn layer(parts: &[&[u8]]) -> Layer {
    let payload = said(part(parts, 0, PAYLOAD));
    let signature = fill(part(parts, 1, SIGNATURE), |name| match name {
        "signature" => Some(WORLD.owner.sign64(&payload)),
        "stranger" => Some(WORLD.stranger.sign64(&payload)),
        "empty" => Some(WORLD.owner.sign64(b"")),
        _ => None,
    });
    let body = body(part(parts, 3, BODY), &payload, &signature);
    let bundle = fill(part(parts, 2, BUNDLE), |name| match name {
        "body" => Some(body.clone()),
        "log" => Some(WORLD.log.public.fingerprint().to_string().into_bytes()),
        "timestamp" => Some(timestamp(&body, &WORLD.log)),
        "stranger" => Some(timestamp(&body, &WORLD.stranger)),
        _ => None,
    });
    let annotations =
        [(SIGNATURE_ANNOTATION, &signature[..]), (bundle::ANNOTATION, &bundle), (KEY_ANNOTATION, b"none")]
            .into_iter()
            .filter(|(_, text)| *text != b"none")
            .map(|(name, text)| (name.to_owned(), String::from_utf8_lossy(text).into_owned()))
            .collect();
    Layer { payload: blob(payload), annotations }
}

/// What must hold of everything that counts: read once more, by means that know nothing of the verifier's.
fn holds(verified: &Verified, expected: &Expectation, policy: &Policy, found: &[Attached]) {
    assert_eq!((verified.repository(), verified.digest()), (&expected.repository, expected.digest));
    assert_eq!(verified.key_fingerprint(), WORLD.owner.public.fingerprint());
    let (annotations, recorded) = match verified.evidence() {
        Evidence::Layer { payload, signature, bundle, .. } => {
            (layer_holds(payload, signature, expected), bundle.as_deref().map(|text| entry(text, payload, signature)))
        }
        Evidence::Bundle { sigstore_bundle, .. } => {
            let bundle: Value = serde_json::from_str(sigstore_bundle).expect("JSON");
            (bundle_holds(&bundle, expected), verified.logged().map(|_| entry_of(&bundle)))
        }
    };
    assert!(found.iter().any(|one| is_evidence(one, verified.evidence())), "the evidence is none of what was found");
    // It is what is verified when it is gone back to, maybe years later.
    let again = verify::verify(expected, &[verified.evidence().attached()], policy).expect("it counts again");
    assert_eq!((again.evidence(), again.tag_claim()), (verified.evidence(), verified.tag_claim()));

    let text = |name: &str| annotations[name].as_str();
    match verified.tag_claim() {
        TagClaim::Signed(tag) => {
            assert_eq!(text("tag"), Some(tag.as_str()));
            assert!(expected.tag.as_ref().is_none_or(|requested| requested == tag), "another tag than the requested");
            assert_ne!(policy.annotations, AnnotationRule::Off);
        }
        TagClaim::Unsigned => {
            assert_ne!(policy.annotations, AnnotationRule::Required);
            assert!(policy.annotations == AnnotationRule::Off || text("tag").is_none(), "the tag was not seen");
        }
    }
    if policy.annotations != AnnotationRule::Off {
        assert!(text("repository").is_none_or(|signed| signed == expected.repository.to_string()));
    }
    match (policy.rekor, verified.logged()) {
        (Rekor::Off, logged) => assert!(logged.is_none()),
        (Rekor::Required, None) => panic!("no log recorded it"),
        (Rekor::WhenPresent, None) => {}
        (_, Some(logged)) => {
            assert_eq!((logged.index(), logged.time()), (INDEX, TIME));
            assert_eq!(logged.log(), WORLD.log.public.fingerprint());
            assert_eq!(recorded, Some(true), "the record is of something else");
        }
    }
}

fn is_evidence(found: &Attached, evidence: &Evidence) -> bool {
    let is = |blob: &Blob, text: &str| matches!(&blob.content, Content::Bytes(bytes) if *bytes == text.as_bytes());
    match (found, evidence) {
        (Attached::Layer(layer), Evidence::Layer { payload, signature, .. }) => {
            is(&layer.payload, payload) && layer.annotations.get(SIGNATURE_ANNOTATION) == Some(signature)
        }
        (Attached::Bundle(blob), Evidence::Bundle { sigstore_bundle, .. }) => is(blob, sigstore_bundle),
        _ => false,
    }
}

/// The owner signed a payload about this image. Gives its annotations.
fn layer_holds(payload: &str, signature: &str, expected: &Expectation) -> Value {
    let signature = STANDARD.decode(signature).expect("base64");
    assert!(WORLD.owner.public.verify(&signature, payload.as_bytes()), "signed by somebody else");
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    let critical = &payload["critical"];
    assert_eq!(critical["type"], "cosign container image signature");
    assert_eq!(critical["identity"]["docker-reference"], expected.repository.to_string());
    assert_eq!(critical["image"]["docker-manifest-digest"], expected.digest.to_string());
    payload["optional"].clone()
}

/// As [`layer_holds`], about a sigstore bundle.
fn bundle_holds(bundle: &Value, expected: &Expectation) -> Value {
    let envelope = &bundle["dsseEnvelope"];
    let statement = unbase64(&envelope["payload"]);
    let signed = dsse::pae(statement::PAYLOAD_TYPE, &statement);
    let signature = unbase64(&envelope["signatures"][0]["sig"]);
    assert!(WORLD.owner.public.verify(&signature, &signed), "signed by somebody else");
    assert_eq!(envelope["signatures"].as_array().map(Vec::len), Some(1));
    let statement: Value = serde_json::from_slice(&statement).expect("JSON");
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], statement::PREDICATE_TYPE);
    assert_eq!(statement["subject"].as_array().map(Vec::len), Some(1));
    assert_eq!(statement["subject"][0]["digest"]["sha256"], expected.digest.hex());
    statement["subject"][0]["annotations"].clone()
}

/// Whether the log's entry beside a layer is of this very signature.
fn entry(bundle: &str, payload: &str, signature: &str) -> bool {
    let bundle: Value = serde_json::from_str(bundle).expect("JSON");
    let body: Value = serde_json::from_slice(&unbase64(&bundle["Payload"]["body"])).expect("JSON");
    let (spec, hash) = (&body["spec"], &body["spec"]["data"]["hash"]);
    body["kind"] == "hashedrekord"
        && hash["algorithm"] == "sha256"
        && hash["value"] == Digest::of(payload.as_bytes()).hex()
        && spec["signature"]["content"] == signature
}

/// Whether one of a sigstore bundle's log entries is of its very signature.
fn entry_of(bundle: &Value) -> bool {
    let envelope = &bundle["dsseEnvelope"];
    let payload = Digest::of(&unbase64(&envelope["payload"])).hex();
    let entries = bundle["verificationMaterial"]["tlogEntries"].as_array();
    entries.into_iter().flatten().any(|entry| {
        let body = entry["canonicalizedBody"].as_str().and_then(|text| STANDARD.decode(text).ok());
        let body: Value = body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        let (spec, hash) = (&body["spec"], &body["spec"]["payloadHash"]);
        body["kind"] == "dsse"
            && hash["algorithm"] == "sha256"
            && hash["value"] == payload
            && spec["signatures"][0]["signature"] == envelope["signatures"][0]["sig"]
    })
}

fn unbase64(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap_or_default()).expect("base64")
}
