//! The body of a Rekor entry: what the log keeps of a signature.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Kind, LogError, Subject};
use crate::reference::Digest;
use crate::signature::json::{self, JsonError};
use crate::signature::keys::PublicKey;
use crate::signature::pem;

/// Longest entry body, in bytes.
pub(in crate::signature) const MAX_BODY_LEN: usize = 64 * 1024;

/// The body of an entry, of one of the kinds that record signatures of images.
#[derive(Debug)]
pub(super) enum Body {
    HashedRekord(HashedRekord),
    Dsse(Dsse),
}

/// An entry as the log frames it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Framed<T> {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) spec: T,
}

/// What the log keeps of a `hashedrekord`, and what it is sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HashedRekord {
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

/// What the log keeps of a `dsse`. It was sent something else: the whole envelope.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Dsse {
    /// Of the envelope's JSON as its signer happened to write it: nothing to compare with.
    #[serde(rename = "envelopeHash")]
    _envelope_hash: Hash,
    payload_hash: Hash,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    signature: String,
    verifier: String,
}

impl HashedRekord {
    /// What to send to a log about a signature.
    pub(super) fn of(subject: &Subject<'_>) -> Self {
        Self {
            data: Data { hash: Hash { algorithm: "sha256".to_owned(), value: Digest::of(subject.payload).hex() } },
            signature: SignatureOf {
                content: STANDARD.encode(subject.signature),
                public_key: Content { content: STANDARD.encode(subject.key.to_pem()) },
            },
        }
    }
}

impl<T> Framed<T> {
    pub(super) fn new(kind: Kind, spec: T) -> Self {
        Self { api_version: Kind::VERSION.to_owned(), kind: kind.name().to_owned(), spec }
    }
}

impl Body {
    /// Reads a body. Its kind is looked at first: others have other members.
    pub(super) fn parse(bytes: &[u8], kind: Kind) -> Result<Self, LogError> {
        let body: Value = json::parse(bytes, MAX_BODY_LEN).map_err(LogError::Json)?;
        let is = |member: &str, text: &str| body.get(member).and_then(Value::as_str) == Some(text);
        if !is("kind", kind.name()) || !is("apiVersion", Kind::VERSION) {
            return Err(LogError::Kind(kind));
        }
        let body = match kind {
            Kind::HashedRekord => json::read(body).map(|framed: Framed<_>| Self::HashedRekord(framed.spec)),
            Kind::Dsse => json::read(body).map(|framed: Framed<_>| Self::Dsse(framed.spec)),
        };
        body.map_err(|error| LogError::Json(JsonError::Malformed(error)))
    }

    /// Compares everything that an entry could be lifted from.
    pub(super) fn is_about(&self, subject: &Subject<'_>) -> Result<(), LogError> {
        let hash = match self {
            Self::HashedRekord(body) => &body.data.hash,
            Self::Dsse(body) => &body.payload_hash,
        };
        match hash.algorithm.as_str() {
            "sha384" => return Err(LogError::Hash("SHA-384")),
            "sha512" => return Err(LogError::Hash("SHA-512")),
            _ => {}
        }
        if hash.algorithm != "sha256" || hash.value != Digest::of(subject.payload).hex() {
            return Err(LogError::Other("payload"));
        }
        let (signature, _) = self.signature()?;
        if STANDARD.decode(signature).map_err(|_| LogError::Field("signature"))? != subject.signature {
            return Err(LogError::Other("signature"));
        }
        if self.key()? != *subject.key {
            return Err(LogError::Other("public key"));
        }
        Ok(())
    }

    pub(super) fn key(&self) -> Result<PublicKey, LogError> {
        let field = LogError::Field("public key");
        let (_, key) = self.signature()?;
        let Ok(pem) = STANDARD.decode(key) else { return Err(field) };
        // A certificate instead of a key is a genuine entry, but of keyless signing.
        match pem::decode(&pem) {
            Ok(block) if block.label() == "PUBLIC KEY" => {
                PublicKey::from_spki("log entry", block.contents()).map_err(|_| LogError::Other("public key"))
            }
            Ok(_) => Err(LogError::Other("public key")),
            Err(_) => Err(field),
        }
    }

    /// The signature and the key, both in base64. An envelope with several signatures is none of an image's.
    fn signature(&self) -> Result<(&str, &str), LogError> {
        match self {
            Self::HashedRekord(HashedRekord { signature, .. }) => {
                Ok((&signature.content, &signature.public_key.content))
            }
            Self::Dsse(Dsse { signatures, .. }) => match signatures.as_slice() {
                [one] => Ok((&one.signature, &one.verifier)),
                _ => Err(LogError::Field("number of signatures")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Algorithm;
    use crate::signature::testing::{self, Signer};

    /// cosign 3.1.1 has the log record SHA-384 for a key on P-384 and SHA-512 for Ed25519; no version of cosign verifies
    /// that: "unexpected algorithm".
    #[test]
    fn takes_the_hash_that_cosign_takes() {
        for algorithm in Algorithm::ALL {
            let signer = Signer::with("k", algorithm);
            let signature = signer.sign(b"payload");
            let body = String::from_utf8(testing::body(b"payload", &signature, &signer.public)).unwrap();
            let kind = Kind::HashedRekord;
            let subject = Subject { kind, payload: b"payload", signature: &signature, key: &signer.public };
            let about = |body: &str| Body::parse(body.as_bytes(), kind).unwrap().is_about(&subject);
            assert!(about(&body).is_ok(), "{algorithm}");
            assert!(matches!(about(&body.replace("sha256", "sha384")), Err(LogError::Hash("SHA-384"))), "{algorithm}");
            assert!(matches!(about(&body.replace("sha256", "sha512")), Err(LogError::Hash("SHA-512"))), "{algorithm}");
            assert!(matches!(about(&body.replace("sha256", "sha1")), Err(LogError::Other("payload"))), "{algorithm}");
        }
    }
}
