//! The bundle of cosign 2: what is kept beside a signature as a transparency log's word.

use tagship_core::signature::log::{Kind, Subject};
use tagship_core::signature::{
    AnnotationRule, Attached, Blob, Expectation, Formats, Layer, Policy, PublicKey, Rekor, SIGNATURE_ANNOTATION,
    bundle, verify,
};

use super::world::{INDEX, TIME, WORLD, base64};
use super::{comes_back, explained, same_as_serde_json, told};

/// A signature in canonical DER that nobody made: numbers 1 and 1.
const NOBODYS: [u8; 8] = [0x30, 6, 2, 1, 1, 2, 1, 1];

/// Reads bytes as the bundle that cosign 2 writes, and as the body of an entry in one. Says whether they have the form
/// of the former: no log that is trusted here ever signed any.
pub(crate) fn run(bytes: &[u8]) -> bool {
    let body = base64(bytes);
    let body = str::from_utf8(&body).expect("base64 is text");
    claimed(&format!(
        r#"{{"SignedEntryTimestamp":"","Payload":{{"body":"{body}","integratedTime":{TIME},"logIndex":{INDEX},"logID":""}}}}"#
    ));
    str::from_utf8(bytes).is_ok_and(|text| {
        claimed(text);
        rekor(text)
    })
}

fn rekor(text: &str) -> bool {
    let entry = match bundle::decode(text) {
        Ok(entry) => entry,
        Err(error) => {
            told(&error);
            return false;
        }
    };
    same_as_serde_json(text.as_bytes(), text.len()).expect("a bundle is strict JSON");
    let written = bundle::encode(&entry).expect("a bundle can be written");
    comes_back(&entry, bundle::decode(&written));
    let subject = Subject { kind: Kind::HashedRekord, payload: b"", signature: &NOBODYS, key: &WORLD.owner.public };
    // The public log's own entries are genuine, but of no signature with this key.
    let logs = [PublicKey::public_log(), WORLD.log.public.clone()];
    match entry.verify(&logs, &subject) {
        Ok(_) => panic!("a record of what nobody signed"),
        Err(error) => told(&error),
    };
    true
}

/// A layer whose signature is nobody's: the bundle is then asked who signed, unchecked, for the error's text.
fn claimed(bundle: &str) {
    let annotations = [
        (SIGNATURE_ANNOTATION.to_owned(), String::from_utf8(base64(&NOBODYS)).expect("base64 is text")),
        (bundle::ANNOTATION.to_owned(), bundle.to_owned()),
    ];
    refused(Attached::Layer(Layer { payload: Blob::of("payload"), annotations: annotations.into() }));
}

/// A signature that no trusted key made counts for nothing, however little is asked of it.
pub(crate) fn refused(signature: Attached) {
    let expected = Expectation { repository: WORLD.repository.clone(), digest: WORLD.digest, tag: None };
    let policy = Policy {
        keys: vec![WORLD.owner.public.clone()],
        formats: Formats::BOTH,
        rekor: Rekor::Off,
        log_keys: vec![PublicKey::public_log()],
        annotations: AnnotationRule::Off,
    };
    match verify::verify(&expected, &[signature], &policy) {
        Ok(_) => panic!("what nobody signed was believed"),
        Err(error) => explained(&error),
    }
}
