//! What a key signs of an image, in either format: the payload of cosign 2, and the in-toto statement of cosign 3.

use serde_json::Value;
use tagship_core::reference::Repository;
use tagship_core::signature::payload::{self, Payload};
use tagship_core::signature::{Annotations, statement};

use super::{comes_back, same_as_serde_json, told};

/// Reads bytes as a payload and as a statement. Says whether they are one of them.
pub(crate) fn run(bytes: &[u8]) -> bool {
    let document = same_as_serde_json(bytes, payload::MAX_LEN).unwrap_or_default();
    let (payload, statement) = (simple(bytes, &document), in_toto(bytes, &document));
    assert!(!(payload && statement), "one signature may not mean two things");
    payload || statement
}

fn simple(bytes: &[u8], document: &Value) -> bool {
    let payload = match payload::decode(bytes) {
        Ok(payload) => payload,
        Err(error) => {
            told(&error);
            return false;
        }
    };
    // The same bytes as a reader sees them who knows nothing of ours.
    let critical = |path: &str| document.pointer(&format!("/critical/{path}")).and_then(|value| value.as_str());
    assert_eq!(critical("type"), Some("cosign container image signature"));
    assert_eq!(critical("identity/docker-reference"), Some(payload.docker_reference.as_str()));
    assert_eq!(critical("image/docker-manifest-digest"), Some(payload.digest.to_string().as_str()));
    annotated(&payload.annotations, &document["optional"]);
    written_again(&payload);
    true
}

fn in_toto(bytes: &[u8], document: &Value) -> bool {
    let statement = match statement::decode(bytes) {
        Ok(statement) => statement,
        Err(error) => {
            told(&error);
            return false;
        }
    };
    assert_eq!(document["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(document["predicateType"], statement::PREDICATE_TYPE);
    assert_eq!(document["subject"].as_array().map(Vec::len), Some(1));
    assert_eq!(document["subject"][0]["digest"]["sha256"], statement.digest.hex());
    annotated(&statement.annotations, &document["subject"][0]["annotations"]);
    let written = statement::encode(&statement.digest, &statement.annotations).expect("a statement can be written");
    comes_back(&statement, statement::decode(&written));
    true
}

/// Annotations are what was signed, and those with a meaning mean what they say.
fn annotated(annotations: &Annotations, signed: &Value) {
    for (name, value) in annotations.iter() {
        assert_eq!(signed[name].as_str(), Some(value));
    }
    for name in ["tag", "repository", "created"] {
        let known = match name {
            "tag" => annotations.tag().map(ToString::to_string),
            "repository" => annotations.repository().map(ToString::to_string),
            _ => annotations.created().and(annotations.get(name)).map(str::to_owned),
        };
        assert_eq!(known.as_deref(), annotations.get(name), "{name} is kept as it was signed");
    }
}

/// A payload of any repository that there is can be written, and says the same.
fn written_again(payload: &Payload) {
    let Ok(repository) = payload.docker_reference.parse::<Repository>() else { return };
    let bytes = payload::encode(&repository, &payload.digest, &payload.annotations).expect("a payload can be written");
    assert!(!bytes.ends_with(b"\n") && !bytes.iter().any(|byte| matches!(byte, b'<' | b'>' | b'&')));
    let expected = Payload { docker_reference: payload::docker_reference(&repository), ..payload.clone() };
    comes_back(&expected, payload::decode(&bytes));
    let again = payload::encode(&repository, &payload.digest, &payload.annotations).expect("twice");
    assert_eq!(bytes, again, "one payload has one form");
}
