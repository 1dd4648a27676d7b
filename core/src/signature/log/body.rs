//! The body of a Rekor entry: what the log keeps of a signature.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LogError, Subject};
use crate::reference::Digest;
use crate::signature::json::{self, JsonError};
use crate::signature::keys::PublicKey;
use crate::signature::pem;

/// Longest entry body, in bytes.
const MAX_BODY_LEN: usize = 64 * 1024;

/// The body of a `hashedrekord` entry, read and written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    spec: Spec,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    data: Data,
    signature: SignatureOf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    hash: Hash,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureOf {
    content: String,
    #[serde(rename = "publicKey")]
    public_key: Content,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    content: String,
}

impl Body {
    /// What to send to a log about a signature.
    pub fn new(subject: &Subject<'_>) -> Self {
        Self {
            api_version: "0.0.1".to_owned(),
            kind: "hashedrekord".to_owned(),
            spec: Spec {
                data: Data { hash: Hash { algorithm: "sha256".to_owned(), value: Digest::of(subject.payload).hex() } },
                signature: SignatureOf {
                    content: STANDARD.encode(subject.signature),
                    public_key: Content { content: STANDARD.encode(subject.key.to_pem()) },
                },
            },
        }
    }

    /// Reads a body. Its kind is looked at first: others have other members.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let body: Value = json::parse(bytes, MAX_BODY_LEN).map_err(LogError::Json)?;
        let is = |member: &str, text: &str| body.get(member).and_then(Value::as_str) == Some(text);
        if !is("kind", "hashedrekord") || !is("apiVersion", "0.0.1") {
            return Err(LogError::Kind);
        }
        serde_json::from_value(body).map_err(|error| LogError::Json(JsonError::Malformed(error)))
    }

    /// Compares everything that an entry could be lifted from.
    pub(super) fn is_about(&self, subject: &Subject<'_>) -> Result<(), LogError> {
        let hash = &self.spec.data.hash;
        if hash.algorithm != "sha256" || hash.value != Digest::of(subject.payload).hex() {
            return Err(LogError::Other("payload"));
        }
        let signature = STANDARD.decode(&self.spec.signature.content).map_err(|_| LogError::Field("signature"))?;
        if signature != subject.signature {
            return Err(LogError::Other("signature"));
        }
        if self.key()? != *subject.key {
            return Err(LogError::Other("public key"));
        }
        Ok(())
    }

    pub(super) fn key(&self) -> Result<PublicKey, LogError> {
        let field = LogError::Field("public key");
        let Ok(pem) = STANDARD.decode(&self.spec.signature.public_key.content) else { return Err(field) };
        // A certificate instead of a key is a genuine entry, but of keyless signing.
        match pem::decode(&pem) {
            Ok(block) if block.label() == "PUBLIC KEY" => {
                PublicKey::from_spki("log entry", block.contents()).map_err(|_| LogError::Other("public key"))
            }
            Ok(_) => Err(LogError::Other("public key")),
            Err(_) => Err(field),
        }
    }
}
