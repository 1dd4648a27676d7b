//! The older format: layers of a `.sig` manifest.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::log::Entry;
use super::super::testing::{self, Signer, TIME};
use super::super::*;
use super::{World, annotations, careless, padded, until};
use crate::reference::Digest;

impl World {
    fn payload_with(&self, entries: &[(&str, &str)]) -> String {
        self.payload_of(&annotations(entries))
    }

    fn payload_of(&self, annotations: &Annotations) -> String {
        let bytes = payload::encode(&self.expected.repository, &self.expected.digest, annotations).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn payload(&self) -> String {
        self.payload_of(&self.annotated())
    }

    /// A payload signed by somebody and recorded truthfully.
    fn signed_by(&self, signer: &Signer, payload: &str) -> Layer {
        let signature = signer.sign(payload.as_bytes());
        self.recorded(signer, payload, &signature)
    }

    /// A signature recorded as it is.
    fn recorded(&self, signer: &Signer, payload: &str, signature: &[u8]) -> Layer {
        let entry = self.log.entry(&testing::body(payload.as_bytes(), signature, &signer.public));
        testing::layer(payload.as_bytes(), signature, Some(bundle::encode(&entry).unwrap()))
    }

    fn signed(&self, payload: &str) -> Layer {
        self.signed_by(&self.owner, payload)
    }

    fn good(&self) -> Layer {
        self.signed(&self.payload())
    }

    /// The good layer with its text changed: layer and payload agree, the signature no longer does.
    fn changed(&self, from: &str, to: &str) -> Layer {
        let (good, payload) = (self.good(), self.payload().replacen(from, to, 1));
        Layer { payload: Blob::of(payload), ..good }
    }

    /// The good layer for which the registry answered something else.
    fn with_content(&self, content: Content) -> Layer {
        let good = self.good();
        Layer { payload: Blob { content, ..good.payload }, annotations: good.annotations }
    }

    /// The good layer with its DER signature changed; the log has recorded it like that.
    fn with_der(&self, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Layer {
        let payload = self.payload();
        let signature = change(self.owner.sign(payload.as_bytes()));
        self.recorded(&self.owner, &payload, &signature)
    }

    /// The good layer with its signature's text changed.
    fn with_signature_text(&self, change: impl Fn(&str) -> String) -> Layer {
        let mut layer = self.good();
        let text = change(layer.signature().unwrap());
        layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), text);
        layer
    }

    /// The good layer with its bundle's text changed.
    fn with_bundle_text(&self, change: impl Fn(String) -> String) -> Layer {
        let mut layer = self.good();
        let text = change(layer.bundle().unwrap().to_owned());
        layer.annotations.insert(bundle::ANNOTATION.to_owned(), text);
        layer
    }

    /// The good layer with one member of its bundle replaced.
    fn with_bundle_member(&self, path: &str, value: &Value) -> Layer {
        self.with_bundle_text(|text| {
            let mut bundle: Value = serde_json::from_str(&text).unwrap();
            *bundle.pointer_mut(path).unwrap() = value.clone();
            bundle.to_string()
        })
    }

    /// The good layer with its log entry changed, and not signed anew.
    fn with_entry(&self, change: impl Fn(&mut Entry)) -> Layer {
        self.with_bundle_text(|text| {
            let mut entry = bundle::decode(&text).unwrap();
            change(&mut entry);
            bundle::encode(&entry).unwrap()
        })
    }

    /// The good layer with the body of its log entry changed, and truthfully signed by the log: a genuine entry of
    /// something else.
    fn with_body(&self, change: impl Fn(String) -> String) -> Layer {
        self.with_entry(|entry| {
            let body = String::from_utf8(STANDARD.decode(&entry.body).unwrap()).unwrap();
            *entry = self.log.entry(change(body).as_bytes());
        })
    }

    fn without_bundle(mut layer: Layer) -> Layer {
        layer.annotations.remove(bundle::ANNOTATION);
        layer
    }

    fn verify_layers(&self, layers: &[Layer]) -> Result<Verified, VerifyError> {
        self.verify(&attached(layers))
    }

    fn refuses_layers(&self, defect: &str, layers: &[Layer], kind: &str) -> String {
        self.refuses(defect, &attached(layers), kind)
    }
}

fn attached(layers: &[Layer]) -> Vec<Attached> {
    layers.iter().cloned().map(Attached::Layer).collect()
}

/// The other half of the signatures over P-256: S becomes N - S.
fn flip_s(der: Vec<u8>) -> Vec<u8> {
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
        0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let r_end = 4 + usize::from(der[3]);
    let s = &der[r_end + 2..];
    let s = &s[s.len().saturating_sub(32)..];
    let mut padded = [0; 32];
    padded[32 - s.len()..].copy_from_slice(s);
    let mut borrow = 0;
    let mut flipped: Vec<u8> = N
        .iter()
        .zip(&padded)
        .rev()
        .map(|(n, s)| {
            let difference = i16::from(*n) - i16::from(*s) - borrow;
            borrow = i16::from(difference < 0);
            u8::try_from(difference.rem_euclid(256)).unwrap()
        })
        .collect();
    flipped.reverse();
    let mut s: Vec<u8> = flipped.into_iter().skip_while(|byte| *byte == 0).collect();
    if s[0] & 0x80 != 0 {
        s.insert(0, 0);
    }
    let mut out = vec![0x30, u8::try_from(r_end - 2 + 2 + s.len()).unwrap()];
    out.extend(&der[2..r_end]);
    out.extend([0x02, u8::try_from(s.len()).unwrap()]);
    out.extend(s);
    out
}

#[test]
fn a_good_signature_says_who_what_and_when() {
    let world = World::new();
    let verified = world.verify_layers(&[world.good()]).unwrap();
    assert_eq!(verified.repository(), &world.expected.repository);
    assert_eq!(verified.digest(), world.expected.digest);
    assert_eq!(verified.tag_claim(), &TagClaim::Signed("v0.2.9".parse().unwrap()));
    assert_eq!(verified.annotations().commit(), Some("0123456789abcdef0123456789abcdef01234567"));
    assert_eq!((verified.key_name(), verified.key_fingerprint()), ("owner.pub", world.owner.public.fingerprint()));
    let logged = verified.logged().unwrap();
    assert_eq!((logged.index(), logged.time(), logged.log()), (42, TIME, world.log.public.fingerprint()));
    let evidence = verified.evidence();
    assert!(matches!(evidence, Evidence::Layer { payload, bundle: Some(_), .. } if *payload == world.payload()));
    assert_eq!(world.verify(&[evidence.attached()]).unwrap().evidence(), evidence, "it can be verified again");
    let stored = serde_json::to_string(evidence).unwrap();
    assert_eq!(&serde_json::from_str::<Evidence>(&stored).unwrap(), evidence);
}

#[test]
fn both_halves_of_s_are_good() {
    let world = World::new();
    for layer in [world.with_der(|der| der), world.with_der(flip_s)] {
        world.verify_layers(&[layer]).unwrap();
    }
}

#[test]
fn good_among_bad() {
    let world = World::new();
    let foreign = world.signed_by(&world.stranger, &world.payload());
    let gone = world.with_content(Content::Missing);
    world.verify_layers(&[foreign.clone(), gone.clone(), world.good()]).unwrap();
    world.verify_layers(&[world.good(), gone, foreign]).unwrap();
}

#[test]
fn the_requested_tag_is_found_among_several() {
    let world = World::new();
    let other = world.signed(&world.payload_with(&[("tag", "v0.2.8")]));
    let plain = world.signed(&world.payload_with(&[]));
    let mut relaxed = World::new();
    relaxed.policy = Policy { annotations: AnnotationRule::WhenPresent, ..world.policy.clone() };
    for layers in [[other.clone(), world.good(), plain.clone()], [world.good(), plain, other]] {
        let found = verify::verify(&world.expected, &attached(&layers), &relaxed.policy).unwrap();
        assert_eq!(found.tag_claim(), &TagClaim::Signed("v0.2.9".parse().unwrap()));
    }
}

#[test]
fn the_newest_counts_among_equals() {
    let world = World::new();
    let layers = ["a", "b"].map(|commit| world.signed(&world.payload_with(&[("tag", "v0.2.9"), ("commit", commit)])));
    assert_eq!(world.verify_layers(&layers).unwrap().annotations().commit(), Some("b"));
}

#[test]
fn without_a_request_the_signed_tag_is_told() {
    let mut world = World::new();
    world.expected.tag = None;
    world.policy.annotations = AnnotationRule::WhenPresent;
    let plain = world.signed(&world.payload_with(&[]));
    assert_eq!(
        world.verify_layers(&[world.good(), plain.clone()]).unwrap().tag_claim(),
        &TagClaim::Signed("v0.2.9".parse().unwrap())
    );
    assert_eq!(world.verify_layers(&[plain]).unwrap().tag_claim(), &TagClaim::Unsigned);
}

#[test]
fn a_signature_without_tag_claims_none() {
    let mut world = World::new();
    world.policy.annotations = AnnotationRule::WhenPresent;
    let plain = world.signed(&world.payload_with(&[]));
    assert_eq!(world.verify_layers(&[plain]).unwrap().tag_claim(), &TagClaim::Unsigned);
}

#[test]
fn annotations_off_means_that_they_say_nothing() {
    let mut world = World::new();
    world.policy.annotations = AnnotationRule::Off;
    let other = world.signed(&world.payload_with(&[("tag", "v0.2.8"), ("repository", "git.example.org/else")]));
    let verified = world.verify_layers(&[other]).unwrap();
    assert_eq!(verified.tag_claim(), &TagClaim::Unsigned);
    assert!(verified.annotations().is_empty());
}

#[test]
fn the_log_counts_as_far_as_policy_says() {
    let mut world = World::new();
    let broken = world.with_bundle_text(|_| "{}".to_owned());
    world.policy.rekor = Rekor::WhenPresent;
    let verified = world.verify_layers(&[World::without_bundle(world.good())]).unwrap();
    assert!(verified.logged().is_none() && matches!(verified.evidence(), Evidence::Layer { bundle: None, .. }));
    assert!(world.verify_layers(&[world.good()]).unwrap().logged().is_some());
    world.refuses_layers("broken though optional", std::slice::from_ref(&broken), "log-invalid");
    world.policy.rekor = Rekor::Off;
    assert!(world.verify_layers(&[broken]).unwrap().logged().is_none());
}

#[test]
fn a_rotated_key_still_counts() {
    let mut world = World::new();
    world.policy.keys.insert(0, world.stranger.public.clone());
    assert_eq!(world.verify_layers(&[world.good()]).unwrap().key_name(), "owner.pub");
}

#[test]
fn of_two_logs_each_counts() {
    let mut world = World::new();
    world.policy.log_keys.insert(0, world.stranger.public.clone());
    assert_eq!(world.verify_layers(&[world.good()]).unwrap().logged().unwrap().log(), world.log.public.fingerprint());
    let other = world.with_entry(|entry| {
        entry.log_id = world.stranger.public.fingerprint().to_string();
        *entry = world.stranger.stamp(entry.clone());
    });
    let verified = world.verify_layers(&[other]).unwrap();
    assert_eq!(verified.logged().unwrap().log(), world.stranger.public.fingerprint());
    let mixed = world.with_entry(|entry| {
        entry.log_id = world.stranger.public.fingerprint().to_string();
        *entry = world.log.stamp(entry.clone());
    });
    world.refuses_layers("stamped by one log under the other's id", &[mixed], "log-invalid");
}

/// White space is free in what is signed, as it is for cosign 2.5, cosign 3.1 and Podman: the signature covers it, and
/// no parser reads another meaning from it.
#[test]
fn tolerated() {
    let w = World::new();
    for (what, layer) in [
        ("a payload signed with a newline at its end", w.signed(&(w.payload() + "\n"))),
        ("a bundle as long as one may be", w.with_bundle_text(|text| padded(&text, bundle::MAX_LEN))),
        ("a body as long as one may be", w.with_body(|body| padded(&body, log::MAX_BODY_LEN))),
    ] {
        if let Err(error) = w.verify_layers(&[layer]) {
            panic!("{what}: {error}");
        }
    }
}

#[test]
fn bad_payloads_and_signatures() {
    let w = World::new();
    let at = |kind, layer| (kind, layer);
    let vectors: BTreeMap<&str, (&str, Layer)> = BTreeMap::from([
        ("payload missing", at("payload-missing", w.with_content(Content::Missing))),
        ("payload corrupt", at("tampered-payload", w.with_content(Content::Corrupt))),
        (
            "payload not of the layer's digest",
            at("tampered-payload", w.with_content(Content::Bytes(Bytes::from(w.payload() + " ")))),
        ),
        ("tag changed after signing", at("tampered-payload", w.changed("v0.2.9", "v9.9.9"))),
        ("newline added after signing", at("tampered-payload", w.changed("}}", "}}\n"))),
        ("digest changed after signing", at("tampered-payload", w.changed("\"sha256:", "\"sha256:0"))),
        ("empty payload", at("tampered-payload", w.changed(&w.payload(), ""))),
        ("another key", at("foreign-signature", w.signed_by(&w.stranger, &w.payload()))),
        (
            "another key, not recorded",
            at("foreign-signature", World::without_bundle(w.signed_by(&w.stranger, &w.payload()))),
        ),
        (
            "changed, and nothing says by whom",
            at("foreign-signature", World::without_bundle(w.changed("v0.2.9", "v9.9.9"))),
        ),
        ("no signature annotation", {
            let mut layer = w.good();
            layer.annotations.remove(SIGNATURE_ANNOTATION);
            at("malformed-signature", layer)
        }),
        ("signature empty", at("malformed-signature", w.with_signature_text(|_| String::new()))),
        ("signature not base64", at("malformed-signature", w.with_signature_text(|_| "@@@@".to_owned()))),
        ("signature with a newline", at("malformed-signature", w.with_signature_text(|text| format!("{text}\n")))),
        (
            "signature twice",
            at("malformed-signature", w.with_signature_text(|text| text.trim_end_matches('=').repeat(2))),
        ),
        ("signature truncated", at("malformed-signature", w.with_der(|der| der[..der.len() - 1].to_vec()))),
        ("signature with a trailing byte", at("malformed-signature", w.with_der(|der| [&der[..], &[0]].concat()))),
        (
            "length in long form",
            at("malformed-signature", w.with_der(|der| [&[0x30, 0x81, der[1]], &der[2..]].concat())),
        ),
        (
            "needless zero before R",
            at(
                "malformed-signature",
                w.with_der(|der| {
                    let mut rest = der[3..].to_vec();
                    rest[0] += 2;
                    rest.splice(1..1, [0, 0]);
                    [&[0x30, der[1] + 2, 0x02], &rest[..]].concat()
                }),
            ),
        ),
        ("R and S alone, 64 bytes", at("malformed-signature", w.with_der(|_| vec![7; 64]))),
        ("R is zero", at("malformed-signature", w.with_der(|_| vec![0x30, 6, 2, 1, 0, 2, 1, 1]))),
        (
            "S beyond the order",
            at("tampered-payload", w.with_der(|_| [&[0x30, 38, 2, 1, 1, 2, 33, 0][..], &[0xff; 32]].concat())),
        ),
        ("signature of another of our payloads", {
            let other = w.signed(&w.payload_with(&[("tag", "v0.2.8")]));
            let mut layer = World::without_bundle(w.good());
            layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), other.signature().unwrap().to_owned());
            layer.annotations.insert(KEY_ANNOTATION.to_owned(), w.owner.public.fingerprint().to_string());
            at("tampered-payload", layer)
        }),
    ]);
    for (defect, (kind, layer)) in vectors {
        w.refuses_layers(defect, &[layer], kind);
    }
    let good = until(|| w.good(), |layer| layer.signature().unwrap().ends_with('='));
    for (defect, text) in careless(good.signature().unwrap()) {
        let mut layer = good.clone();
        layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), text);
        w.refuses_layers(&format!("signature's {defect}"), &[layer], "malformed-signature");
    }
    w.refuses_layers("no signature", &[], "no-signature");
}

#[test]
fn signed_by_the_owner_and_still_not_ours() {
    let w = World::new();
    let signed = |from: &str, to: &str| {
        let payload = w.payload().replacen(from, to, 1);
        assert_ne!(payload, w.payload(), "{from}");
        w.signed(&payload)
    };
    let identity = r#""git.example.org/chris/mastosum"},"image""#;
    let other = Digest::of(b"another manifest");
    for (defect, layer, kind) in [
        ("other repository", signed(identity, r#""git.example.org/chris/other"},"image""#), "other-repository"),
        ("repository below", signed(identity, r#""git.example.org/chris/mastosum/x"},"image""#), "other-repository"),
        ("repository's prefix", signed(identity, r#""git.example.org/chris/masto"},"image""#), "other-repository"),
        ("other registry", signed(identity, r#""evil.example.org/chris/mastosum"},"image""#), "other-repository"),
        (
            "repository in other case",
            signed(identity, r#""Git.example.org/chris/mastosum"},"image""#),
            "other-repository",
        ),
        (
            "repository with tag",
            signed(identity, r#""git.example.org/chris/mastosum:v0.2.9"},"image""#),
            "other-repository",
        ),
        ("repository empty", signed(identity, r#"""},"image""#), "other-repository"),
        (
            "annotated repository differs",
            w.signed(&w.payload_with(&[("tag", "v0.2.9"), ("repository", "git.example.org/chris/other")])),
            "other-repository",
        ),
        ("lifted from another digest", signed(&w.expected.digest.to_string(), &other.to_string()), "other-digest"),
        ("type of another tool", signed("cosign container", "atomic container"), "malformed-signature"),
        ("key twice", signed(r#""image":{"#, r#""image":{},"image":{"#), "malformed-signature"),
        ("trailing data", signed("}}", "}}{}"), "malformed-signature"),
        ("a tag that is none", signed("v0.2.9", "v0 2 9"), "malformed-signature"),
        ("a time that is none", signed("2026-10-01T", "2026-13-01T"), "malformed-signature"),
        ("not JSON", w.signed("v0.2.9"), "malformed-signature"),
        ("a statement of in-toto", w.signed(r#"{"_type":"https://in-toto.io/Statement/v1"}"#), "malformed-signature"),
        ("no tag though required", w.signed(&w.payload_with(&[])), "annotations-missing"),
        ("other tag", w.signed(&w.payload_with(&[("tag", "v0.2.8")])), "tag-mismatch"),
        ("tag in other case", w.signed(&w.payload_with(&[("tag", "V0.2.9")])), "tag-mismatch"),
    ] {
        w.refuses_layers(defect, &[layer], kind);
    }
}

#[test]
fn bad_log_entries() {
    let w = World::new();
    let other_payload = w.payload_with(&[("tag", "v0.2.8")]);
    let second_signature = w.owner.sign(w.payload().as_bytes());
    for (defect, layer, kind) in [
        ("no entry though required", World::without_bundle(w.good()), "log-missing"),
        ("empty bundle", w.with_bundle_text(|_| String::new()), "log-invalid"),
        ("bundle null", w.with_bundle_text(|_| "null".to_owned()), "log-invalid"),
        (
            "bundle of another form",
            w.with_bundle_text(|_| r#"{"base64Signature":"","cert":""}"#.to_owned()),
            "log-invalid",
        ),
        (
            "member twice",
            w.with_bundle_text(|text| text.replacen("\"logIndex\"", "\"logIndex\":42,\"logIndex\"", 1)),
            "log-invalid",
        ),
        (
            "member unknown",
            w.with_bundle_text(|text| text.replacen("\"logIndex\"", "\"x\":0,\"logIndex\"", 1)),
            "log-invalid",
        ),
        ("trailing data", w.with_bundle_text(|text| text + "{}"), "log-invalid"),
        ("index negative", w.with_bundle_text(|text| text.replacen(":42", ":-42", 1)), "log-invalid"),
        ("index a text", w.with_bundle_text(|text| text.replacen(":42", ":\"42\"", 1)), "log-invalid"),
        (
            "timestamp not base64",
            w.with_bundle_text(|text| text.replacen("Timestamp\":\"", "Timestamp\":\"@", 1)),
            "log-invalid",
        ),
        ("timestamp empty", w.with_entry(|entry| entry.timestamp.clear()), "log-invalid"),
        ("timestamp with a trailing byte", w.with_entry(|entry| entry.timestamp.push(0)), "log-invalid"),
        ("timestamp by a stranger", w.with_entry(|entry| *entry = w.stranger.stamp(entry.clone())), "log-invalid"),
        ("time changed", w.with_entry(|entry| entry.integrated_time += 1), "log-invalid"),
        ("index changed", w.with_entry(|entry| entry.log_index += 1), "log-invalid"),
        (
            "log changed",
            w.with_entry(|entry| entry.log_id = w.stranger.public.fingerprint().to_string()),
            "log-invalid",
        ),
        ("log unknown", w.with_entry(|entry| *entry = w.stranger.entry(b"{}")), "log-invalid"),
        ("log in upper case", w.with_entry(|entry| entry.log_id = entry.log_id.to_uppercase()), "log-invalid"),
        ("body changed", w.with_entry(|entry| entry.body = entry.body.replacen("ey", "fy", 1)), "log-invalid"),
        (
            "body not base64",
            w.with_entry(|entry| {
                entry.body.push('"');
                *entry = w.log.stamp(entry.clone());
            }),
            "log-invalid",
        ),
        (
            "genuine entry of another payload",
            w.with_body(|_| {
                String::from_utf8(testing::body(
                    other_payload.as_bytes(),
                    &w.owner.sign(other_payload.as_bytes()),
                    &w.owner.public,
                ))
                .unwrap()
            }),
            "log-invalid",
        ),
        (
            "genuine entry of another signature",
            w.with_body(|_| {
                String::from_utf8(testing::body(w.payload().as_bytes(), &second_signature, &w.owner.public)).unwrap()
            }),
            "log-invalid",
        ),
        (
            "genuine entry of another key",
            w.with_body(|body| {
                body.replace(&STANDARD.encode(w.owner.public.to_pem()), &STANDARD.encode(w.stranger.public.to_pem()))
            }),
            "log-invalid",
        ),
        (
            "genuine entry of a certificate",
            w.with_body(|body| {
                body.replace(
                    &STANDARD.encode(w.owner.public.to_pem()),
                    &STANDARD.encode(w.owner.public.to_pem().replace("PUBLIC KEY", "CERTIFICATE")),
                )
            }),
            "log-invalid",
        ),
        ("genuine entry of another kind", w.with_body(|body| body.replace("hashedrekord", "rekord")), "log-invalid"),
        ("genuine entry of another version", w.with_body(|body| body.replace("0.0.1", "0.0.2")), "log-invalid"),
        ("genuine entry of another hash", w.with_body(|body| body.replace("sha256", "sha512")), "log-invalid"),
        (
            "body with a member twice",
            w.with_body(|body| body.replacen("\"kind\"", "\"kind\":\"rekord\",\"kind\"", 1)),
            "log-invalid",
        ),
        (
            "body with another member",
            w.with_body(|body| body.replacen("\"kind\"", "\"x\":1,\"kind\"", 1)),
            "log-invalid",
        ),
        ("body empty", w.with_body(|_| String::new()), "log-invalid"),
    ] {
        w.refuses_layers(defect, &[layer], kind);
    }
}

/// What is no entry at all, and by which words each is told from the others.
#[test]
fn malformed_log_entries() {
    let w = World::new();
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let list = |entry: &Entry| json!([entry.body, entry.integrated_time, entry.log_index, entry.log_id]);
    let entry = bundle::decode(w.good().bundle().unwrap()).unwrap();
    for (defect, layer, words) in [
        (
            "oversized",
            w.with_bundle_text(|text| padded(&text, bundle::MAX_LEN + 1)),
            "131073 bytes are more than the 131072 allowed",
        ),
        (
            "nested too deep",
            w.with_bundle_text(|text| text.replacen('{', &format!("{{\"x\":{deep},"), 1)),
            "nested too deep",
        ),
        (
            "body oversized",
            w.with_body(|body| padded(&body, log::MAX_BODY_LEN + 1)),
            "65537 bytes are more than the 65536 allowed",
        ),
        ("timestamp a number", w.with_bundle_member("/SignedEntryTimestamp", &json!(1)), "invalid type: integer"),
        ("body null", w.with_bundle_member("/Payload/body", &Value::Null), "invalid type: null"),
        ("Payload a list", w.with_bundle_member("/Payload", &list(&entry)), "invalid type: sequence"),
    ] {
        let message = w.refuses_layers(defect, &[layer], "log-invalid");
        assert!(message.contains(words), "{defect}: {message}");
    }
    let timestamp = |layer: &Layer| {
        let bundle: Value = serde_json::from_str(layer.bundle().unwrap()).unwrap();
        bundle["SignedEntryTimestamp"].as_str().unwrap().to_owned()
    };
    let good = until(|| w.good(), |layer| timestamp(layer).ends_with('='));
    for (defect, text) in careless(&timestamp(&good)) {
        let mut layer = good.clone();
        let bundle = layer.bundle().unwrap().replacen(&timestamp(&good), &text, 1);
        layer.annotations.insert(bundle::ANNOTATION.to_owned(), bundle);
        let message = w.refuses_layers(&format!("timestamp's {defect}"), &[layer], "log-invalid");
        assert!(message.contains("SignedEntryTimestamp"), "{defect}: {message}");
    }
    // White space makes the body as long as it has to be, and the log has signed the text as it is.
    for at in 0..2 {
        let layer = w.with_entry(|entry| {
            let body = String::from_utf8(STANDARD.decode(&entry.body).unwrap()).unwrap();
            let length = body.len().next_multiple_of(3) + 1;
            let (_, text) = careless(&STANDARD.encode(padded(&body, length)))[at].clone();
            entry.body = text;
            *entry = w.log.stamp(entry.clone());
        });
        let message = w.refuses_layers("body's base64 careless, stamped", &[layer], "log-invalid");
        assert!(message.contains("its body does not have"), "{at}: {message}");
    }
}

#[test]
fn a_policy_without_keys_trusts_nobody() {
    let mut world = World::new();
    world.policy.keys.clear();
    world.refuses_layers("no keys", &[world.good()], "foreign-signature");
    let mut world = World::new();
    world.policy.log_keys.clear();
    world.refuses_layers("no logs", &[world.good()], "log-invalid");
}

#[test]
fn other_tags_alone_are_told_even_beside_a_signature_without_any() {
    let mut world = World::new();
    world.policy.annotations = AnnotationRule::WhenPresent;
    let tagged = |tag| world.signed(&world.payload_with(&[("tag", tag)]));
    let layers = [tagged("v0.2.7"), tagged("v0.2.8"), world.signed(&world.payload_with(&[])), tagged("v0.2.8")];
    let message = world.refuses_layers("other tags", &layers, "tag-mismatch");
    assert!(message.contains("requested as v0.2.9, but signed as v0.2.7, v0.2.8"), "{message}");
}

#[test]
fn of_several_the_one_that_came_closest_is_told() {
    let w = World::new();
    let foreign = w.signed_by(&w.stranger, &w.payload());
    let lifted = w.signed(&w.payload().replace(&w.expected.digest.to_string(), &Digest::of(b"x").to_string()));
    let unlogged = World::without_bundle(w.good());
    let message = w.refuses_layers("three", &[unlogged, foreign.clone(), lifted.clone()], "log-missing");
    assert!(message.contains("none of its 3 signatures counts"), "{message}");
    w.refuses_layers("two", &[lifted, foreign], "other-digest");
}

#[test]
fn messages_name_what_is_needed() {
    let w = World::new();
    let message = w.refuses_layers("foreign", &[w.signed_by(&w.stranger, &w.payload())], "foreign-signature");
    assert!(message.contains(&w.stranger.public.fingerprint().to_string()), "{message}");
    assert!(message.contains(&w.owner.public.fingerprint().to_string()), "{message}");
    assert!(message.starts_with("git.example.org/chris/mastosum@sha256:"), "{message}");
    let hostile =
        w.signed(&w.payload().replacen("git.example.org/chris/mastosum\"},", "\\u001b[31m\\n::error::x\"},", 1));
    let message = w.refuses_layers("hostile repository", &[hostile], "other-repository");
    assert!(!message.contains(['\u{1b}', '\n']), "{message}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        signature in ".{0,100}",
        bundle in ".{0,200}",
    ) {
        let world = World::new();
        let mut layer = testing::layer(&payload, b"", Some(bundle));
        layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), signature);
        proptest::prop_assert!(world.verify_layers(&[layer]).is_err());
    }

    #[test]
    fn no_signed_bytes_make_it_panic(payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let world = World::new();
        let signature = world.owner.sign(&payload);
        proptest::prop_assert!(world.verify_layers(&[testing::layer(&payload, &signature, None)]).is_err());
    }
}
