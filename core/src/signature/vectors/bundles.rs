//! Sigstore bundles, as cosign 3 writes them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::super::dsse::{self, Envelope};
use super::super::log::Entry;
use super::super::testing::{Signer, TIME, body, kept};
use super::super::*;
use super::{World, annotations, careless, until};
use crate::reference::Digest;

impl World {
    fn statement(&self, annotations: &Annotations) -> Vec<u8> {
        statement::encode(&self.expected.digest, annotations).unwrap()
    }

    /// A bundle about these bytes, signed by somebody and recorded truthfully; to be changed before it is written.
    fn bundle_of(&self, signer: &Signer, payload: &[u8]) -> Value {
        let signature = signer.sign(&dsse::pae(statement::PAYLOAD_TYPE, payload));
        let envelope =
            Envelope { payload_type: statement::PAYLOAD_TYPE.to_owned(), payload: payload.to_vec(), signature };
        let mut bundle: Value =
            serde_json::from_str(&sigstore_bundle::encode(&envelope, &signer.public, None).unwrap()).unwrap();
        let body = kept(&envelope, &signer.public);
        bundle["verificationMaterial"]["tlogEntries"] = json!([self.entry(&self.log, &body)]);
        bundle
    }

    fn good_bundle(&self) -> Value {
        self.bundle_of(&self.owner, &self.statement(&self.annotated()))
    }

    /// An entry of a log as a bundle has it.
    fn entry(&self, log: &Signer, body: &[u8]) -> Value {
        self.entry_of(&log.entry(body), log, body)
    }

    fn entry_of(&self, entry: &Entry, log: &Signer, body: &[u8]) -> Value {
        let proof = log.proof(body);
        json!({
            "logIndex": "42",
            "logId": { "keyId": STANDARD.encode(log.public.fingerprint().as_bytes()) },
            "kindVersion": { "kind": "dsse", "version": "0.0.1" },
            "integratedTime": TIME.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": STANDARD.encode(timestamp(entry)) },
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": STANDARD.encode(proof.root),
                "treeSize": "2",
                "hashes": [STANDARD.encode(proof.hashes[0])],
                "checkpoint": { "envelope": proof.checkpoint },
            },
            "canonicalizedBody": STANDARD.encode(body),
        })
    }

    /// The good bundle with its log entry's body changed, and truthfully recorded by the log: a genuine entry of
    /// something else.
    fn with_recorded(&self, change: impl Fn(Value) -> Value) -> Value {
        let mut bundle = self.good_bundle();
        let body = STANDARD.decode(bundle.pointer(&at("canonicalizedBody")).unwrap().as_str().unwrap()).unwrap();
        let body = change(serde_json::from_slice(&body).unwrap()).to_string();
        bundle["verificationMaterial"]["tlogEntries"][0] = self.entry(&self.log, body.as_bytes());
        bundle
    }
}

fn timestamp(entry: &Entry) -> Vec<u8> {
    let text = bundle::encode(entry).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    STANDARD.decode(value["SignedEntryTimestamp"].as_str().unwrap()).unwrap()
}

/// Where a member of the log entry is in a bundle.
fn at(member: &str) -> String {
    format!("/verificationMaterial/tlogEntries/0/{member}")
}

/// The bundle with one member replaced.
fn with(mut bundle: Value, path: &str, value: Value) -> Value {
    *bundle.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
    bundle
}

/// The bundle without one member.
fn without(mut bundle: Value, parent: &str, member: &str) -> Value {
    bundle.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(member).unwrap();
    bundle
}

/// Signatures under a checkpoint, of so many witnesses that are not known here.
fn witnesses(count: usize) -> String {
    format!("\u{2014} witness.test {}\n", STANDARD.encode([9; 70])).repeat(count)
}

/// The bundle with other signatures under its checkpoint, made of the log's own.
fn witnessed(bundle: &Value, signatures: impl Fn(&str) -> String) -> Value {
    let path = at("inclusionProof/checkpoint/envelope");
    let (note, own) = bundle.pointer(&path).unwrap().as_str().unwrap().split_once("\n\n").unwrap();
    with(bundle.clone(), &path, format!("{note}\n\n{}", signatures(own)).into())
}

fn found(bundle: &Value) -> Attached {
    Attached::Bundle(Blob::of(bundle.to_string()))
}

#[test]
fn a_good_bundle_says_who_what_and_when() {
    let world = World::new();
    let verified = world.verify(&[found(&world.good_bundle())]).unwrap();
    assert_eq!(verified.digest(), world.expected.digest);
    assert_eq!(verified.tag_claim(), &TagClaim::Signed("v0.2.9".parse().unwrap()));
    assert_eq!(verified.annotations().run(), Some("17"));
    assert_eq!((verified.key_name(), verified.key_fingerprint()), ("owner.pub", world.owner.public.fingerprint()));
    assert!(verified.is_repository_signed());
    let logged = verified.logged().unwrap();
    assert_eq!((logged.index(), logged.time(), logged.log()), (42, TIME, world.log.public.fingerprint()));
    let stored = serde_json::to_string(verified.evidence()).unwrap();
    let evidence: Evidence = serde_json::from_str(&stored).unwrap();
    assert_eq!(&evidence, verified.evidence());
    assert_eq!(world.verify(&[evidence.attached()]).unwrap().evidence(), &evidence, "it can be verified again");
}

#[test]
fn what_is_written_is_what_is_read() {
    let world = World::new();
    let payload = world.statement(&world.annotated());
    let signature = world.owner.sign(&dsse::pae(statement::PAYLOAD_TYPE, &payload));
    let envelope = Envelope { payload_type: statement::PAYLOAD_TYPE.to_owned(), payload, signature };
    let body = kept(&envelope, &world.owner.public);
    let (entry, proof) = (world.log.entry(&body), world.log.proof(&body));
    let subject = log::Subject {
        kind: log::Kind::Dsse,
        payload: &envelope.payload,
        signature: &envelope.signature,
        key: &world.owner.public,
    };
    let logged = entry.verify_with(&proof, &world.policy.log_keys, &subject).unwrap();
    let recorded = log::Recorded { entry, proof, logged };
    let text = sigstore_bundle::encode(&envelope, &world.owner.public, Some(&recorded)).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written.pointer(&at("logIndex")), Some(&json!("42")), "64-bit integers are texts in protobuf's JSON");
    assert!(world.verify(&[Attached::Bundle(Blob::of(text))]).unwrap().logged().is_some());
}

#[test]
fn what_a_plain_cosign_signs_claims_neither_tag_nor_repository() {
    let mut world = World::new();
    world.policy.annotations = AnnotationRule::WhenPresent;
    let plain = world.bundle_of(&world.owner, &world.statement(&annotations(&[])));
    let verified = world.verify(&[found(&plain)]).unwrap();
    assert_eq!((verified.tag_claim(), verified.is_repository_signed()), (&TagClaim::Unsigned, false));
    world.policy.annotations = AnnotationRule::Required;
    world.refuses("no annotations though required", &[found(&plain)], "annotations-missing");
}

#[test]
fn tolerated() {
    let world = World::new();
    let good = world.good_bundle();
    let numbers = with(with(good.clone(), &at("logIndex"), json!(42)), &at("integratedTime"), json!(TIME));
    let mut strangers = good.clone();
    let entry = world.entry(&world.stranger, b"{}");
    strangers["verificationMaterial"]["tlogEntries"].as_array_mut().unwrap().insert(0, entry);
    let mut more = good.clone();
    more["verificationMaterial"]["timestampVerificationData"] = json!({ "rfc3161Timestamps": [] });
    more["dsseEnvelope"]["signatures"][0]["keyid"] = json!("");
    more["unknown"] = json!([1]);
    for (what, bundle) in [
        ("integers as numbers", numbers),
        ("a checkpoint with two witnesses", witnessed(&good, |own| witnesses(1) + own + &witnesses(1))),
        ("a checkpoint with fifteen witnesses", witnessed(&good, |own| witnesses(15) + own)),
        ("a second log that is not trusted", strangers),
        ("members that are not known", more),
        ("no hint", without(good.clone(), "/verificationMaterial/publicKey", "hint")),
        ("another hint", with(good.clone(), "/verificationMaterial/publicKey/hint", json!("AAAA"))),
    ] {
        if let Err(error) = world.verify(&[found(&bundle)]) {
            panic!("{what}: {error}");
        }
    }
}

#[test]
fn a_good_signature_in_either_format_is_enough() {
    let world = World::new();
    let bad = with(world.good_bundle(), "/dsseEnvelope/payload", json!("e30="));
    world.verify(&[found(&bad), found(&world.good_bundle())]).unwrap();
    let older = world.bundle_of(&world.owner, &world.statement(&annotations(&[("tag", "v0.2.8")])));
    let verified = world.verify(&[found(&world.good_bundle()), found(&older)]).unwrap();
    assert_eq!(verified.tag_claim(), &TagClaim::Signed("v0.2.9".parse().unwrap()));
}

#[test]
fn the_log_counts_as_far_as_policy_says() {
    let mut world = World::new();
    let mut unlogged = world.good_bundle();
    unlogged["verificationMaterial"].as_object_mut().unwrap().remove("tlogEntries");
    let broken = with(world.good_bundle(), &at("logIndex"), json!("43"));
    world.refuses("no entry though required", &[found(&unlogged)], "log-missing");
    world.policy.rekor = Rekor::WhenPresent;
    assert!(world.verify(&[found(&unlogged)]).unwrap().logged().is_none());
    world.refuses("broken though optional", &[found(&broken)], "log-invalid");
    world.policy.rekor = Rekor::Off;
    assert!(world.verify(&[found(&broken)]).unwrap().logged().is_none());
}

#[test]
fn a_rotated_key_still_counts() {
    let mut world = World::new();
    world.policy.keys.insert(0, world.stranger.public.clone());
    assert_eq!(world.verify(&[found(&world.good_bundle())]).unwrap().key_name(), "owner.pub");
}

#[test]
fn of_two_logs_each_counts() {
    let mut world = World::new();
    world.policy.log_keys.insert(0, world.stranger.public.clone());
    let good = world.good_bundle();
    let verified = world.verify(&[found(&good)]).unwrap();
    assert_eq!(verified.logged().unwrap().log(), world.log.public.fingerprint());
    let body = STANDARD.decode(good.pointer(&at("canonicalizedBody")).unwrap().as_str().unwrap()).unwrap();
    let other = with(good.clone(), "/verificationMaterial/tlogEntries/0", world.entry(&world.stranger, &body));
    let verified = world.verify(&[found(&other)]).unwrap();
    assert_eq!(verified.logged().unwrap().log(), world.stranger.public.fingerprint());
    // All that the other log would sign, signed by this one.
    let mut entry = world.stranger.entry(&body);
    entry = world.log.stamp(entry);
    let mut mixed = world.entry_of(&entry, &world.log, &body);
    mixed["logId"]["keyId"] = json!(STANDARD.encode(world.stranger.public.fingerprint().as_bytes()));
    let mixed = with(good, "/verificationMaterial/tlogEntries/0", mixed);
    world.refuses("stamped by one log under the other's id", &[found(&mixed)], "log-invalid");
}

/// Base64 that only a careless parser reads, where it is signed as it is.
#[test]
fn careless_base64() {
    let w = World::new();
    let path = "/dsseEnvelope/signatures/0/sig";
    let sig = |bundle: &Value| bundle.pointer(path).unwrap().as_str().unwrap().to_owned();
    let padded = until(|| w.good_bundle(), |bundle| sig(bundle).ends_with('='));
    for (defect, text) in careless(&sig(&padded)) {
        let bundle = with(padded.clone(), path, json!(text));
        w.refuses(&format!("sig's {defect}"), &[found(&bundle)], "malformed-signature");
    }
    let good = w.good_bundle();
    let body = STANDARD.decode(good.pointer(&at("canonicalizedBody")).unwrap().as_str().unwrap()).unwrap();
    // White space makes it as long as it has to be.
    let body = [&body[..], &b"   "[body.len() % 3..], b" "].concat();
    for (defect, text) in careless(&STANDARD.encode(&body)) {
        let mut entry = w.log.entry(&body);
        entry.body.clone_from(&text);
        let mut entry = w.entry_of(&w.log.stamp(entry), &w.log, &body);
        entry["canonicalizedBody"] = json!(text);
        let bundle = with(good.clone(), "/verificationMaterial/tlogEntries/0", entry);
        let message = w.refuses(&format!("body's {defect}, stamped"), &[found(&bundle)], "log-invalid");
        assert!(message.contains("its body does not have"), "{defect}: {message}");
    }
}

#[test]
fn malformed_bundles() {
    let w = World::new();
    let good = w.good_bundle();
    let text = good.to_string();
    let blob = |bytes: String| Attached::Bundle(Blob::of(bytes));
    let set = |path: &str, value: Value| found(&with(good.clone(), path, value));
    let drop = |parent: &str, member: &str| found(&without(good.clone(), parent, member));
    let signature = STANDARD.decode(good.pointer("/dsseEnvelope/signatures/0/sig").unwrap().as_str().unwrap()).unwrap();
    let sig = |der: &[u8]| set("/dsseEnvelope/signatures/0/sig", json!(STANDARD.encode(der)));
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    for (defect, attached, kind) in [
        ("empty", blob(String::new()), "malformed-signature"),
        ("not JSON", blob("bundle".to_owned()), "malformed-signature"),
        ("a list", blob("[]".to_owned()), "malformed-signature"),
        ("null", blob("null".to_owned()), "malformed-signature"),
        ("cut short", blob(text[..text.len() / 2].to_owned()), "malformed-signature"),
        ("trailing data", blob(format!("{text}{{}}")), "malformed-signature"),
        ("oversized", blob(format!("{text}{}", " ".repeat(sigstore_bundle::MAX_LEN))), "malformed-signature"),
        ("nested too deep", blob(text.replacen('{', &format!("{{\"x\":{deep},"), 1)), "malformed-signature"),
        (
            "envelope twice",
            blob(text.replacen("\"dsseEnvelope\"", "\"dsseEnvelope\":{},\"dsseEnvelope\"", 1)),
            "malformed-signature",
        ),
        ("payload twice", blob(text.replacen("\"payload\"", "\"payload\":\"\",\"payload\"", 1)), "malformed-signature"),
        ("no media type", drop("", "mediaType"), "malformed-signature"),
        (
            "an older version",
            set("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.2")),
            "malformed-signature",
        ),
        (
            "a newer version",
            set("/mediaType", json!("application/vnd.dev.sigstore.bundle.v0.4+json")),
            "malformed-signature",
        ),
        ("media type a number", set("/mediaType", json!(3)), "malformed-signature"),
        ("no envelope", drop("", "dsseEnvelope"), "malformed-signature"),
        ("envelope null", set("/dsseEnvelope", Value::Null), "malformed-signature"),
        ("envelope a text", set("/dsseEnvelope", json!("")), "malformed-signature"),
        ("no material", drop("", "verificationMaterial"), "malformed-signature"),
        ("material null", set("/verificationMaterial", Value::Null), "malformed-signature"),
        ("key a list", set("/verificationMaterial/publicKey", json!([""])), "malformed-signature"),
        ("entries an object", set("/verificationMaterial/tlogEntries", json!({})), "malformed-signature"),
        ("hint a number", set("/verificationMaterial/publicKey/hint", json!(1)), "malformed-signature"),
        (
            "more entries than anybody makes",
            set(
                "/verificationMaterial/tlogEntries",
                json!(vec![good.pointer("/verificationMaterial/tlogEntries/0"); 9]),
            ),
            "malformed-signature",
        ),
        ("payload not base64", set("/dsseEnvelope/payload", json!("@")), "malformed-signature"),
        ("payload's base64 truncated", set("/dsseEnvelope/payload", json!("e30")), "malformed-signature"),
        ("payload a list", set("/dsseEnvelope/payload", json!([])), "malformed-signature"),
        ("no signature", set("/dsseEnvelope/signatures", json!([])), "malformed-signature"),
        (
            "two signatures",
            set("/dsseEnvelope/signatures", json!(vec![good.pointer("/dsseEnvelope/signatures/0"); 2])),
            "malformed-signature",
        ),
        ("signature not base64", set("/dsseEnvelope/signatures/0/sig", json!("@")), "malformed-signature"),
        ("signature empty", sig(&[]), "malformed-signature"),
        ("signature truncated", sig(&signature[..signature.len() - 1]), "malformed-signature"),
        ("signature with a trailing byte", sig(&[&signature[..], &[0]].concat()), "malformed-signature"),
        (
            "signature's length in long form",
            sig(&[&[0x30, 0x81, signature[1]], &signature[2..]].concat()),
            "malformed-signature",
        ),
        ("index a fraction", set(&at("logIndex"), json!(4.2)), "malformed-signature"),
        ("index with a sign", set(&at("logIndex"), json!("+42")), "malformed-signature"),
        ("index beyond 64 bits", set(&at("logIndex"), json!("18446744073709551616")), "malformed-signature"),
        ("time negative", set(&at("integratedTime"), json!(-1)), "malformed-signature"),
        ("bytes gone", Attached::Bundle(Blob { content: Content::Missing, ..Blob::of("") }), "payload-missing"),
        ("bytes corrupt", Attached::Bundle(Blob { content: Content::Corrupt, ..Blob::of("") }), "tampered-payload"),
        (
            "bytes not of their digest",
            Attached::Bundle(Blob { digest: Digest::of(b"x"), ..Blob::of(text.clone()) }),
            "tampered-payload",
        ),
    ] {
        w.refuses(defect, &[attached], kind);
    }
}

#[test]
fn signatures_that_do_not_count() {
    let w = World::new();
    let payload = w.statement(&w.annotated());
    let good = w.good_bundle();
    let set = |path: &str, value: Value| with(good.clone(), path, value);
    let signed = |from: &str, to: &str| {
        let text = String::from_utf8(payload.clone()).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        w.bundle_of(&w.owner, changed.as_bytes())
    };
    let of = |entries: &[(&str, &str)]| w.bundle_of(&w.owner, &w.statement(&annotations(entries)));
    let raw_payload = {
        // The signature is over the payload alone, as a careless signer might do it.
        let signature = STANDARD.encode(w.owner.sign(&payload));
        set("/dsseEnvelope/signatures/0/sig", json!(signature))
    };
    let other = Digest::of(b"another manifest");
    for (defect, bundle, kind) in [
        ("another key", w.bundle_of(&w.stranger, &payload), "foreign-signature"),
        (
            "another key under our hint",
            with(
                w.bundle_of(&w.stranger, &payload),
                "/verificationMaterial/publicKey/hint",
                json!(STANDARD.encode(w.owner.public.fingerprint().as_bytes())),
            ),
            "tampered-payload",
        ),
        (
            "a certificate instead of a key",
            without(good.clone(), "/verificationMaterial", "publicKey"),
            "foreign-signature",
        ),
        (
            "payload changed after signing",
            set("/dsseEnvelope/payload", json!(STANDARD.encode([&payload[..], b"\n"].concat()))),
            "tampered-payload",
        ),
        ("type changed after signing", set("/dsseEnvelope/payloadType", json!("text/plain")), "tampered-payload"),
        ("the payload signed without its type", raw_payload, "tampered-payload"),
        (
            "a statement under another type",
            {
                let signature = STANDARD.encode(w.owner.sign(&dsse::pae("text/plain", &payload)));
                with(
                    set("/dsseEnvelope/payloadType", json!("text/plain")),
                    "/dsseEnvelope/signatures/0/sig",
                    json!(signature),
                )
            },
            "malformed-signature",
        ),
        ("another digest", signed(&w.expected.digest.hex(), &other.hex()), "other-digest"),
        ("another kind of claim", signed("cosign/sign/v1", "cosign/other/v1"), "malformed-signature"),
        ("an older statement", signed("Statement/v1", "Statement/v0.1"), "malformed-signature"),
        ("the older payload", w.bundle_of(&w.owner, br#"{"critical":{}}"#), "malformed-signature"),
        ("not JSON", w.bundle_of(&w.owner, b"v0.2.9"), "malformed-signature"),
        (
            "a trailing newline is JSON, trailing data is not",
            w.bundle_of(&w.owner, &[&payload[..], b"{}"].concat()),
            "malformed-signature",
        ),
        ("digest twice", signed("\"sha256\"", "\"sha256\":\"00\",\"sha256\""), "malformed-signature"),
        ("no tag though required", of(&[]), "annotations-missing"),
        ("other tag", of(&[("tag", "v0.2.8")]), "tag-mismatch"),
        (
            "other repository",
            of(&[("tag", "v0.2.9"), ("repository", "git.example.org/chris/other")]),
            "other-repository",
        ),
        ("a tag that is none", signed("v0.2.9", "v0 2 9"), "malformed-signature"),
    ] {
        w.refuses(defect, &[found(&bundle)], kind);
    }
}

#[test]
fn bad_log_entries() {
    let w = World::new();
    let set = |member: &str, value: Value| with(w.good_bundle(), &at(member), value);
    let drop = |parent: &str, member: &str| {
        let parent = if parent.is_empty() { "/verificationMaterial/tlogEntries/0".to_owned() } else { at(parent) };
        without(w.good_bundle(), &parent, member)
    };
    let recorded = |path: &str, value: Value| w.with_recorded(|body| with(body, path, value.clone()));
    let second = {
        let payload = w.statement(&w.annotated());
        STANDARD.encode(w.owner.sign(&dsse::pae(statement::PAYLOAD_TYPE, &payload)))
    };
    let grafted = {
        // A genuine entry of another of our own bundles.
        let other = w.bundle_of(&w.owner, &w.statement(&annotations(&[("tag", "v0.2.8")])));
        with(w.good_bundle(), "/verificationMaterial/tlogEntries", other["verificationMaterial"]["tlogEntries"].clone())
    };
    let hashed = {
        // A genuine entry of this very signature, but as a hashedrekord.
        let payload = w.statement(&w.annotated());
        let signature = w.owner.sign(&payload);
        let mut bundle = w.good_bundle();
        bundle["verificationMaterial"]["tlogEntries"][0] =
            w.entry(&w.log, &body(&payload, &signature, &w.owner.public));
        bundle
    };
    let good = w.good_bundle();
    let read = |path: &str| STANDARD.decode(good.pointer(path).unwrap().as_str().unwrap()).unwrap();
    let forged = {
        let entry = w.log.entry(&read(&at("canonicalizedBody")));
        w.entry_of(&w.stranger.stamp(entry), &w.log, &read(&at("canonicalizedBody")))
    };
    for (defect, bundle) in [
        ("grafted from another bundle", grafted),
        ("a hashedrekord under another name", hashed),
        ("timestamp by a stranger", with(w.good_bundle(), "/verificationMaterial/tlogEntries/0", forged)),
        ("timestamp missing", drop("", "inclusionPromise")),
        ("timestamp null", set("inclusionPromise", Value::Null)),
        ("timestamp empty", set("inclusionPromise/signedEntryTimestamp", json!(""))),
        ("timestamp not base64", set("inclusionPromise/signedEntryTimestamp", json!("@"))),
        ("body missing", drop("", "canonicalizedBody")),
        ("kind missing", drop("", "kindVersion")),
        ("log missing", drop("", "logId")),
        ("index missing, which means 0", drop("", "logIndex")),
        ("checkpoint missing", drop("inclusionProof", "checkpoint")),
        ("proof missing", drop("", "inclusionProof")),
        ("proof null", set("inclusionProof", Value::Null)),
        ("proof without hashes", set("inclusionProof/hashes", json!([]))),
        ("proof with another hash", set("inclusionProof/hashes", json!([STANDARD.encode([0; 32])]))),
        ("proof with a short hash", set("inclusionProof/hashes", json!(["AAAA"]))),
        ("proof with too many hashes", set("inclusionProof/hashes", json!(vec![STANDARD.encode([0; 32]); 65]))),
        ("proof of another place", set("inclusionProof/logIndex", json!("0"))),
        ("proof of no place", drop("inclusionProof", "logIndex")),
        ("proof of another size", set("inclusionProof/treeSize", json!("3"))),
        ("proof of another root", set("inclusionProof/rootHash", json!(STANDARD.encode([0; 32])))),
        ("root not base64", set("inclusionProof/rootHash", json!("@"))),
        ("checkpoint empty", set("inclusionProof/checkpoint/envelope", json!(""))),
        (
            "checkpoint by a stranger",
            set(
                "inclusionProof/checkpoint/envelope",
                json!(w.stranger.checkpoint(2, &read(&at("inclusionProof/rootHash")))),
            ),
        ),
        ("two witnesses, and not the log", witnessed(&good, |_| witnesses(2))),
        ("the log after sixteen witnesses", witnessed(&good, |own| witnesses(16) + own)),
        ("checkpoint of another root", set("inclusionProof/checkpoint/envelope", json!(w.log.checkpoint(2, &[7; 32])))),
        ("checkpoint too long", set("inclusionProof/checkpoint/envelope", json!("x".repeat(20_000)))),
        ("time changed", set("integratedTime", json!("1"))),
        ("index changed", set("logIndex", json!("43"))),
        ("log unknown", set("logId/keyId", json!(STANDARD.encode(w.stranger.public.fingerprint().as_bytes())))),
        ("log's id too short", set("logId/keyId", json!("AAAA"))),
        ("another kind named", set("kindVersion/kind", json!("hashedrekord"))),
        ("Rekor v2's version", set("kindVersion/version", json!("0.0.2"))),
        ("body changed", set("canonicalizedBody", json!(STANDARD.encode(b"{}")))),
        ("body not base64", set("canonicalizedBody", json!("@"))),
        ("genuine entry of another payload", recorded("/spec/payloadHash/value", json!(Digest::of(b"x").hex()))),
        ("genuine entry of another hash", recorded("/spec/payloadHash/algorithm", json!("sha512"))),
        ("genuine entry of another signature", recorded("/spec/signatures/0/signature", json!(second))),
        (
            "genuine entry of another key",
            recorded("/spec/signatures/0/verifier", json!(STANDARD.encode(w.stranger.public.to_pem()))),
        ),
        (
            "genuine entry of a certificate",
            recorded(
                "/spec/signatures/0/verifier",
                json!(STANDARD.encode(w.owner.public.to_pem().replace("PUBLIC KEY", "CERTIFICATE"))),
            ),
        ),
        ("genuine entry without signature", recorded("/spec/signatures", json!([]))),
        ("genuine entry of another kind", recorded("/kind", json!("intoto"))),
        ("genuine entry of another version", recorded("/apiVersion", json!("0.0.2"))),
        (
            "genuine entry with another member",
            w.with_recorded(|mut body| {
                body["spec"]["x"] = json!(1);
                body
            }),
        ),
    ] {
        w.refuses(defect, &[found(&bundle)], "log-invalid");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let world = World::new();
        proptest::prop_assert!(world.verify(&[Attached::Bundle(Blob::of(bytes))]).is_err());
    }

    #[test]
    fn no_signed_bytes_make_it_panic(payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let world = World::new();
        let bundle = world.bundle_of(&world.owner, &payload);
        proptest::prop_assert!(world.verify(&[found(&bundle)]).is_err());
    }
}
