//! DSSE envelopes (secure-systems-lab/dsse, v1): a payload of some type, and a signature over both.
//!
//! Only their form lives here; what the payload says is [`statement`](super::statement)'s to know, and whose signature
//! counts is [`verify`](super::verify)'s.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::json::JsonError;

/// An envelope with exactly one signature, as a sigstore bundle requires it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The media type of the payload.
    pub payload_type: String,
    /// The payload's bytes.
    pub payload: Vec<u8>,
    /// The signature over [`pae`] of both.
    pub signature: Vec<u8>,
}

/// Why an envelope is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A field is no base64.
    #[error("its {0} is not base64")]
    Base64(&'static str),
    /// Not one signature.
    #[error("it has {0} signatures, not one")]
    Signatures(usize),
}

/// What is signed: the pre-authentication encoding of a payload and its type (DSSE protocol, "Signature definition").
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// The bytes that its signature covers.
    pub fn signed_bytes(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    pub(super) fn read(wire: WireEnvelope) -> Result<Self, EnvelopeError> {
        let [signature] = wire.signatures.as_slice() else {
            return Err(EnvelopeError::Signatures(wire.signatures.len()));
        };
        let decode = |text: &str, what| STANDARD.decode(text).map_err(|_| EnvelopeError::Base64(what));
        Ok(Self {
            payload: decode(&wire.payload, "payload")?,
            signature: decode(&signature.sig, "signature")?,
            payload_type: wire.payload_type,
        })
    }

    /// Its JSON, as a log is told of it.
    ///
    /// # Errors
    /// Never for what serde_json can write.
    pub fn to_json(&self) -> Result<String, JsonError> {
        serde_json::to_string(&self.to_wire()).map_err(JsonError::Malformed)
    }

    /// As JSON has it: members in the order in which Go writes them.
    pub(super) fn to_wire(&self) -> WireEnvelope {
        WireEnvelope {
            payload: STANDARD.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: vec![WireSignature { sig: STANDARD.encode(&self.signature) }],
        }
    }
}

/// An envelope's JSON. `keyid` is left out: it decides nothing, and cosign writes none.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    sig: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_protocols() {
        // The specification's own example.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn an_envelope_comes_back() {
        let envelope = Envelope { payload_type: "a/b".to_owned(), payload: b"{}".to_vec(), signature: vec![1, 2] };
        let json = envelope.to_json().unwrap();
        assert_eq!(json, r#"{"payload":"e30=","payloadType":"a/b","signatures":[{"sig":"AQI="}]}"#);
        assert_eq!(Envelope::read(serde_json::from_str(&json).unwrap()), Ok(envelope));
    }
}
