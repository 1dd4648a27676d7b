//! The signed payload: cosign's "simple signing" JSON, byte for byte as cosign 2.5 writes it, and read strictly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::annotations::{self, AnnotationError, Annotations};
use super::json::{self, JsonError};
use crate::reference::{Digest, Repository};

/// Media type of a payload's layer.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Longest payload that is read, in bytes: one with our annotations has 600.
pub const MAX_LEN: usize = 64 * 1024;

/// The only type of payload there is.
const TYPE: &str = "cosign container image signature";

/// What a signature says: this digest, in this repository, with these annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The signed `docker-reference`: registry and path as the signer wrote them.
    pub docker_reference: String,
    /// The signed manifest's digest.
    pub digest: Digest,
    /// The signed annotations; empty for what plain `cosign sign` made.
    pub annotations: Annotations,
}

/// Why bytes are no payload.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON of the payload's shape.
    #[error("the signed payload is malformed")]
    Json(#[source] JsonError),
    /// Of another type.
    #[error("the signed payload is not a container image signature")]
    Type,
    /// A statement about none or several images.
    #[error("the signed statement is not about exactly one image")]
    Subjects,
    /// Its digest is none.
    #[error("the signed payload names no valid digest")]
    Digest,
    /// An annotation with a meaning is not a text.
    #[error("the signed payload has an annotation that is not a text")]
    NotText,
    /// An annotation does not have its form.
    #[error("the signed payload is malformed")]
    Annotation(#[source] AnnotationError),
}

/// The bytes to sign: no newline, names in Go's order, `<`, `>`, `&`, U+2028 and U+2029 escaped as Go escapes them.
pub fn encode(repository: &Repository, digest: &Digest, annotations: &Annotations) -> Result<Vec<u8>, JsonError> {
    let document = Document {
        critical: Critical {
            identity: Identity { docker_reference: docker_reference(repository) },
            image: Image { docker_manifest_digest: digest.to_string() },
            kind: TYPE.to_owned(),
        },
        // Go marshals a nil map as null; cosign's map is nil when no annotation was given.
        optional: (!annotations.is_empty())
            .then(|| annotations.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()),
    };
    let plain = serde_json::to_string(&document).map_err(JsonError::Malformed)?;
    // These characters can only stand inside strings, where Go writes them as escapes.
    let mut escaped = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    Ok(escaped.into_bytes())
}

/// Reads a payload. White space and order are free, as other signers' differ; unknown members are refused outside
/// `optional`, as are keys twice and wrong types.
pub fn decode(bytes: &[u8]) -> Result<Payload, PayloadError> {
    let document: Document = json::parse(bytes, MAX_LEN).map_err(PayloadError::Json)?;
    if document.critical.kind != TYPE {
        return Err(PayloadError::Type);
    }
    Ok(Payload {
        docker_reference: document.critical.identity.docker_reference,
        digest: document.critical.image.docker_manifest_digest.parse().map_err(|_| PayloadError::Digest)?,
        annotations: annotations(document.optional.unwrap_or_default())?,
    })
}

/// The annotations among signed members: all texts, and nothing else where a text has a meaning.
pub(super) fn annotations(members: impl IntoIterator<Item = (String, Value)>) -> Result<Annotations, PayloadError> {
    let mut entries = BTreeMap::new();
    for (name, value) in members {
        match value {
            Value::String(text) => _ = entries.insert(name, text),
            _ if annotations::MEANINGFUL.contains(&name.as_str()) => return Err(PayloadError::NotText),
            // Other signers put numbers and objects among the optional members; they mean nothing here.
            _ => {}
        }
    }
    Annotations::new(entries).map_err(PayloadError::Annotation)
}

/// How `docker-reference` names a repository: registry and path, no tag, no digest. Docker Hub goes by the name that
/// Go's registry library gives it.
pub fn docker_reference(repository: &Repository) -> String {
    let name = repository.to_string();
    match name.strip_prefix("docker.io/") {
        Some(path) => format!("index.docker.io/{path}"),
        None => name,
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(expecting = "an object")]
struct Document {
    critical: Critical,
    optional: Option<BTreeMap<String, Value>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = r#"{"critical":{"identity":{"docker-reference":"registry.test/app"},"image":{"docker-manifest-digest":"sha256:f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b"},"type":"cosign container image signature"},"optional":null}"#;

    fn image() -> (Repository, Digest) {
        let digest = "sha256:f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b";
        ("registry.test/app".parse().unwrap(), digest.parse().unwrap())
    }

    fn annotations(entries: &[(&str, &str)]) -> Annotations {
        Annotations::new(entries.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()).unwrap()
    }

    fn encoded(entries: &[(&str, &str)]) -> String {
        let (repository, digest) = image();
        String::from_utf8(encode(&repository, &digest, &annotations(entries)).unwrap()).unwrap()
    }

    #[test]
    fn is_byte_for_byte_what_cosign_writes() {
        assert_eq!(encoded(&[]), PLAIN);
        assert_eq!(
            encoded(&[("n", "1"), ("env", "prod")]),
            PLAIN.replace("null", r#"{"env":"prod","n":"1"}"#),
            "sorted by name"
        );
        assert_eq!(
            encoded(&[("b", "<a>&\u{2028}\u{2029}\"\\/\n\t\u{1}\u{7f}é"), ("<", "")]),
            PLAIN.replace(
                "null",
                "{\"\\u003c\":\"\",\"b\":\"\\u003ca\\u003e\\u0026\\u2028\\u2029\\\"\\\\/\\n\\t\\u0001\u{7f}é\"}"
            ),
            "escaped as Go escapes"
        );
    }

    #[test]
    fn docker_hub_goes_by_its_old_name() {
        let hub = "docker.io/library/busybox".parse().unwrap();
        assert_eq!(docker_reference(&hub), "index.docker.io/library/busybox");
    }

    #[test]
    fn reads_what_others_write() {
        let spaced = PLAIN
            .replace(':', " : ")
            .replace("sha256 : ", "sha256:")
            .replace("null", r#"{"creator":"x","timestamp":1700000000}"#);
        let payload = decode(spaced.as_bytes()).unwrap();
        assert_eq!((payload.docker_reference.as_str(), payload.digest), ("registry.test/app", image().1));
        assert_eq!(payload.annotations.iter().collect::<Vec<_>>(), [("creator", "x")]);
        assert!(decode(PLAIN.replace(r#","optional":null"#, "").as_bytes()).unwrap().annotations.is_empty());
    }

    #[test]
    fn refuses_malformed() {
        for (defect, from, to) in [
            ("other type", "cosign container", "atomic container"),
            ("digest not hexadecimal", "sha256:f3", "sha256:g3"),
            ("digest in upper case", "sha256:f3", "sha256:F3"),
            ("digest of another algorithm", "sha256:f3", "sha512:f3"),
            ("digest a number", r#""sha256:f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b""#, "1"),
            ("no critical", r#""critical""#, r#""Critical""#),
            ("no identity", r#""identity":{"docker-reference":"registry.test/app"},"#, ""),
            ("type twice", r#""type":"#, r#""type":"x","type":"#),
            (
                "digest twice",
                r#""docker-manifest-digest":"#,
                r#""docker-manifest-digest":"sha256:00","docker-manifest-digest":"#,
            ),
            ("identity a list", r#"{"docker-reference":"registry.test/app"}"#, r#"["registry.test/app"]"#),
            ("critical twice", r#"{"critical""#, r#"{"critical":{},"critical""#),
            ("optional twice", r#""optional":null"#, r#""optional":null,"optional":{}"#),
            ("annotation twice", "null", r#"{"tag":"v1","tag":"v2"}"#),
            ("member in critical", r#""type""#, r#""x":1,"type""#),
            ("member beside critical", r#""optional""#, r#""x":1,"optional""#),
            ("member in image", r#"{"docker-manifest-digest""#, r#"{"x":1,"docker-manifest-digest""#),
            ("optional a list", "null", "[]"),
            ("tag a number", "null", r#"{"tag":1}"#),
            ("tag no tag", "null", r#"{"tag":"../x"}"#),
            ("time without zone", "null", r#"{"created":"2026-10-01T12:00:00"}"#),
            ("trailing data", "null}", "null}{}"),
            ("truncated", "null}", "null"),
        ] {
            let bad = PLAIN.replacen(from, to, 1);
            assert_ne!(bad, PLAIN, "{defect}");
            assert!(decode(bad.as_bytes()).is_err(), "{defect}");
        }
        assert!(matches!(decode(&[b' '; MAX_LEN + 1]), Err(PayloadError::Json(JsonError::TooLarge { .. }))));
    }

    proptest! {
        #[test]
        fn any_annotations_come_back(entries in proptest::collection::btree_map("x.{0,8}", ".{0,20}", 0..6)) {
            let (repository, digest) = image();
            let annotations = Annotations::new(entries).unwrap();
            let payload = decode(&encode(&repository, &digest, &annotations).unwrap()).unwrap();
            prop_assert_eq!(payload, Payload { docker_reference: repository.to_string(), digest, annotations });
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
