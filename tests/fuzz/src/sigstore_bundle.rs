//! The sigstore bundle of version 0.3, which cosign 3 writes, with the envelope and the log entries in it.

use serde_json::Value;
use tagship_core::signature::log::{Kind, Subject};
use tagship_core::signature::sigstore_bundle::{self, Signer, SigstoreBundle};
use tagship_core::signature::{Attached, Blob, PublicKey, dsse};

use super::bundle::refused;
use super::world::{WORLD, base64};
use super::{comes_back, same_as_serde_json, told};

/// Reads bytes as a bundle. Says whether they have its form: no key that is trusted here signed any.
pub(crate) fn run(bytes: &[u8]) -> bool {
    let bundle = match sigstore_bundle::decode(bytes) {
        Ok(bundle) => bundle,
        Err(error) => {
            told(&error);
            return false;
        }
    };
    let document = same_as_serde_json(bytes, sigstore_bundle::MAX_LEN).expect("a bundle is strict JSON");
    enveloped(&bundle, &document["dsseEnvelope"]);
    let material = &document["verificationMaterial"];
    let hint = match bundle.signer {
        Signer::Key(Some(hint)) => Some(base64(hint.as_bytes())),
        Signer::Key(None) | Signer::Certificate => None,
    };
    assert!(hint.is_none_or(|hint| material["publicKey"]["hint"].as_str().map(str::as_bytes) == Some(&hint)));
    assert_eq!(material["tlogEntries"].as_array().map_or(0, Vec::len), bundle.entries.len(), "entries were lost");
    let logs = [PublicKey::public_log(), WORLD.log.public.clone()];
    let subject = Subject {
        kind: Kind::Dsse,
        payload: &bundle.envelope.payload,
        signature: &bundle.envelope.signature,
        key: &WORLD.owner.public,
    };
    for evidence in bundle.entries.iter().flatten() {
        match evidence.entry.verify_with(&evidence.proof, &logs, &subject) {
            Ok(_) => panic!("a record of what nobody signed"),
            Err(error) => told(&error),
        };
    }
    written_again(&bundle);
    refused(Attached::Bundle(Blob::of(bytes.to_vec())));
    true
}

fn enveloped(bundle: &SigstoreBundle, document: &Value) {
    let envelope = &bundle.envelope;
    assert_eq!(document["payloadType"].as_str(), Some(envelope.payload_type.as_str()));
    assert_eq!(document["payload"].as_str().map(str::as_bytes), Some(&base64(&envelope.payload)[..]), "one spelling");
    let signature = &document["signatures"][0]["sig"];
    assert_eq!(signature.as_str().map(str::as_bytes), Some(&base64(&envelope.signature)[..]), "one spelling");
    let signed = dsse::pae(&envelope.payload_type, &envelope.payload);
    assert!(signed.ends_with(&envelope.payload) && signed == envelope.signed_bytes());
}

/// What is written of an envelope and a key is a bundle of both.
fn written_again(bundle: &SigstoreBundle) {
    let key = &WORLD.owner.public;
    let text = sigstore_bundle::encode(&bundle.envelope, key, None).expect("a bundle can be written");
    let again = sigstore_bundle::decode(text.as_bytes());
    let again = again.map(|again| (again.envelope, again.signer, again.entries));
    let expected = (bundle.envelope.clone(), Signer::Key(Some(key.fingerprint())), Vec::new());
    comes_back(&expected, again);
}
