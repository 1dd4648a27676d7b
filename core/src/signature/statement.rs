//! The in-toto statement that cosign 3 signs about an image: its digest, and annotations beside it.
//!
//! Unlike the older payload it does not say in which repository the image is; tagship signs that as an annotation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::annotations::Annotations;
use super::json::{self, JsonError};
use super::payload::{self, PayloadError};
use crate::reference::Digest;

/// Media type of a statement in its envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The predicate that makes a statement a signature of an image: cosign's own.
pub const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";

/// The statement's type and version (in-toto attestation framework, v1).
const TYPE: &str = "https://in-toto.io/Statement/v1";

/// What a statement says of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The signed manifest's digest.
    pub digest: Digest,
    /// The signed annotations; empty for what plain `cosign sign` made.
    pub annotations: Annotations,
}

/// The bytes to sign, members in cosign's order.
///
/// # Errors
/// Never for what serde_json can write.
pub fn encode(digest: &Digest, annotations: &Annotations) -> Result<Vec<u8>, JsonError> {
    let annotations: Map<_, _> =
        annotations.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    serde_json::to_vec(&Wire {
        kind: TYPE.to_owned(),
        subject: vec![Subject { digest: Hashes { sha256: digest.hex() }, annotations: Some(annotations) }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: json!({}),
    })
    .map_err(JsonError::Malformed)
}

/// Reads a statement about one image. Members that are not known are ignored, as in-toto asks; keys twice and wrong
/// types are refused.
pub fn decode(bytes: &[u8]) -> Result<Statement, PayloadError> {
    let wire: Wire = json::parse(bytes, payload::MAX_LEN).map_err(PayloadError::Json)?;
    if wire.kind != TYPE || wire.predicate_type != PREDICATE_TYPE {
        return Err(PayloadError::Type);
    }
    let mut subjects = wire.subject.into_iter();
    let (Some(Subject { digest, annotations }), None) = (subjects.next(), subjects.next()) else {
        return Err(PayloadError::Subjects);
    };
    Ok(Statement {
        digest: format!("sha256:{}", digest.sha256).parse().map_err(|_| PayloadError::Digest)?,
        annotations: payload::annotations(annotations.unwrap_or_default())?,
    })
}

#[derive(Serialize, Deserialize)]
#[serde(expecting = "an object")]
struct Wire {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    digest: Hashes,
    annotations: Option<Map<String, Value>>,
}

#[derive(Serialize, Deserialize)]
struct Hashes {
    sha256: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What cosign 3.1.1 signed with `-a env=prod`. Its JSON library spaces at random on purpose.
    const COSIGN: &str = r#"{"_type":"https://in-toto.io/Statement/v1", "subject":[{"digest":{"sha256":"f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b"}, "annotations":{"env":"prod"}}], "predicateType":"https://sigstore.dev/cosign/sign/v1", "predicate":{}}"#;

    #[test]
    fn says_what_cosign_says() {
        let statement = decode(COSIGN.as_bytes()).unwrap();
        assert_eq!(statement.annotations.get("env"), Some("prod"));
        let bytes = encode(&statement.digest, &statement.annotations).unwrap();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), COSIGN.replace(", ", ","));
        assert_eq!(decode(&bytes).unwrap(), statement);
    }

    #[test]
    fn refuses_malformed() {
        let hash = "f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b";
        for (defect, from, to) in [
            ("an older statement", "Statement/v1", "Statement/v0.1"),
            ("a provenance", "https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1"),
            ("no type", "_type", "type"),
            ("type twice", r#""_type""#, r#""_type":"x","_type""#),
            ("no subject", r#""subject""#, r#""subjects""#),
            ("subjects empty", r#"[{"digest""#, r#"[],"x":[{"digest""#),
            ("two subjects", r#"[{"digest""#, r#"[{"digest":{"sha256":"00"}},{"digest""#),
            ("subject an object", r#"[{"digest""#, r#"{},"x":[{"digest""#),
            ("subject twice", r#""subject""#, r#""subject":[],"subject""#),
            ("no digest", r#""digest""#, r#""digests""#),
            ("digest of another algorithm", "sha256", "sha512"),
            ("digest twice", r#""sha256""#, r#""sha256":"00","sha256""#),
            ("digest short", hash, "f3cf"),
            ("digest in upper case", "f3cfc9", "F3CFC9"),
            (
                "digest with its algorithm",
                hash,
                "sha256:f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b",
            ),
            ("digest a number", &format!("\"{hash}\""), "1"),
            ("annotations a list", r#"{"env":"prod"}"#, r#"["env"]"#),
            ("annotation twice", r#""env""#, r#""env":"x","env""#),
            ("tag a number", r#""env":"prod""#, r#""tag":1"#),
            ("tag no tag", r#""env":"prod""#, r#""tag":"../x""#),
            ("time without zone", r#""env":"prod""#, r#""created":"2026-10-01T12:00:00""#),
            ("trailing data", "{}}", "{}}{}"),
            ("truncated", "{}}", "{}"),
        ] {
            let bad = COSIGN.replacen(from, to, 1);
            assert_ne!(bad, COSIGN, "{defect}");
            assert!(decode(bad.as_bytes()).is_err(), "{defect}");
        }
        assert!(matches!(decode(&[b' '; payload::MAX_LEN + 1]), Err(PayloadError::Json(JsonError::TooLarge { .. }))));
    }

    #[test]
    fn other_members_mean_nothing() {
        let more = COSIGN.replace(r#""env""#, r#""n":1,"env""#).replace(r#""predicate""#, r#""x":[],"predicate""#);
        assert_eq!(decode(more.as_bytes()).unwrap(), decode(COSIGN.as_bytes()).unwrap());
        let bare = COSIGN.replace(r#", "annotations":{"env":"prod"}"#, "").replace(r#", "predicate":{}"#, "");
        assert!(decode(bare.as_bytes()).unwrap().annotations.is_empty());
    }

    proptest! {
        #[test]
        fn any_annotations_come_back(entries in proptest::collection::btree_map("x.{0,8}", ".{0,20}", 0..6)) {
            let entries: BTreeMap<String, String> = entries;
            let annotations = Annotations::new(entries).unwrap();
            let digest = Digest::of(b"x");
            let statement = decode(&encode(&digest, &annotations).unwrap()).unwrap();
            prop_assert_eq!(statement, Statement { digest, annotations });
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
