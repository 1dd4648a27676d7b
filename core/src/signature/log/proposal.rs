//! What a log is sent about a signature (Rekor's OpenAPI, `ProposedEntry`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Serialize, Serializer};

use super::body::{Framed, HashedRekord};
use super::{Kind, Subject};

/// An entry that is proposed to a log. Serialized it is the request's body.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    subject: Subject<'a>,
    envelope: &'a str,
}

impl<'a> Proposal<'a> {
    /// A signature over a payload.
    pub fn hashed_rekord(payload: &'a [u8], signature: &'a [u8], key: &'a super::PublicKey) -> Self {
        Self { subject: Subject { kind: Kind::HashedRekord, payload, signature, key }, envelope: "" }
    }

    /// A signed DSSE envelope: its JSON, and what is in it.
    pub fn dsse(envelope: &'a str, payload: &'a [u8], signature: &'a [u8], key: &'a super::PublicKey) -> Self {
        Self { subject: Subject { kind: Kind::Dsse, payload, signature, key }, envelope }
    }

    /// What the entry must be about.
    pub fn subject(&self) -> &Subject<'a> {
        &self.subject
    }
}

impl Serialize for Proposal<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.subject.kind;
        match kind {
            Kind::HashedRekord => Framed::new(kind, HashedRekord::of(&self.subject)).serialize(serializer),
            Kind::Dsse => {
                let verifier = STANDARD.encode(self.subject.key.to_pem());
                let content = Content { envelope: self.envelope, verifiers: [verifier] };
                Framed::new(kind, Proposed { proposed_content: content }).serialize(serializer)
            }
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Proposed<'a> {
    proposed_content: Content<'a>,
}

#[derive(Serialize)]
struct Content<'a> {
    envelope: &'a str,
    verifiers: [String; 1],
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signature::PublicKey;

    #[test]
    fn a_log_is_sent_what_its_api_asks_for() {
        let key = PublicKey::public_log();
        let pem = STANDARD.encode(key.to_pem());
        assert_eq!(
            serde_json::to_value(Proposal::dsse("{\"a\":1}", b"{}", b"sig", &key)).unwrap(),
            json!({ "apiVersion": "0.0.1", "kind": "dsse",
                "spec": { "proposedContent": { "envelope": "{\"a\":1}", "verifiers": [pem] } } })
        );
        assert_eq!(
            serde_json::to_value(Proposal::hashed_rekord(b"", b"sig", &key)).unwrap(),
            json!({ "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
                "data": { "hash": { "algorithm": "sha256",
                    "value": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" } },
                "signature": { "content": "c2ln", "publicKey": { "content": pem } } } })
        );
    }
}
