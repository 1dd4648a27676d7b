//! For tests: keys, logs and signatures made on the spot, and signed as cosign signs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::json;
use sigstore::crypto::signing_key;
use sigstore::crypto::signing_key::ecdsa::EllipticCurve;
use sigstore::crypto::signing_key::ecdsa::ec::EcdsaKeys;
use sigstore::crypto::signing_key::ed25519::{Ed25519Keys, Ed25519Signer};

use super::dsse::Envelope;
use super::log::{Entry, Proof, Proposal};
use super::*;
use crate::reference::Digest;

/// When every test's log recorded every entry.
pub(super) const TIME: i64 = 1_790_000_000;

/// A key pair of somebody.
pub(super) struct Signer {
    signer: Box<dyn signing_key::Signer>,
    pub(super) public: PublicKey,
}

impl Signer {
    pub(super) fn new(name: &str) -> Self {
        Self::with(name, Algorithm::EcdsaP256)
    }

    /// Signs as sigstore does: over SHA-384 where the key is on P-384, as cosign 3.1.
    pub(super) fn with(name: &str, algorithm: Algorithm) -> Self {
        let ecdsa = |curve| EcdsaKeys::new(curve).unwrap().to_signer().unwrap();
        let signer: Box<dyn signing_key::Signer> = match algorithm {
            Algorithm::EcdsaP256 => Box::new(ecdsa(EllipticCurve::P256)),
            Algorithm::EcdsaP384 => Box::new(ecdsa(EllipticCurve::P384)),
            Algorithm::Ed25519 => Box::new(Ed25519Signer::from_ed25519_keys(&Ed25519Keys::new().unwrap()).unwrap()),
        };
        let public = PublicKey::from_spki(name, &signer.key_pair().public_key_to_der().unwrap()).unwrap();
        Self { signer, public }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message).unwrap()
    }

    /// An entry of this log, signed as it is.
    pub(super) fn entry(&self, body: &[u8]) -> Entry {
        self.stamp(Entry {
            body: STANDARD.encode(body),
            integrated_time: TIME,
            log_index: 42,
            log_id: self.public.fingerprint().to_string(),
            timestamp: Vec::new(),
        })
    }

    /// The proof that a tree of this log, in which it is the second of two leaves, holds a body.
    pub(super) fn proof(&self, body: &[u8]) -> Proof {
        let (first, second) = (node(&[&[0], b"first"]), node(&[&[0], body]));
        let root = node(&[&[1], &first, &second]);
        Proof { index: 1, root, size: 2, hashes: vec![first], checkpoint: self.checkpoint(2, &root) }
    }

    /// A checkpoint that this log signed.
    pub(super) fn checkpoint(&self, size: u64, root: &[u8]) -> String {
        let note = format!("log.test - 1\n{size}\n{}\n", STANDARD.encode(root));
        let signed = [&[1, 2, 3, 4], &self.sign(note.as_bytes())[..]].concat();
        format!("{note}\n\u{2014} log.test {}\n", STANDARD.encode(signed))
    }

    /// The entry with this log's timestamp over what it says now.
    pub(super) fn stamp(&self, mut entry: Entry) -> Entry {
        entry.timestamp = self.sign(entry.signed_bytes().as_bytes());
        entry
    }
}

/// A node of a log's tree (RFC 6962 clause 2.1).
pub(super) fn node(parts: &[&[u8]]) -> [u8; 32] {
    *Digest::of(&parts.concat()).as_bytes()
}

/// The body that a log keeps of a signature.
pub(super) fn body(payload: &[u8], signature: &[u8], key: &PublicKey) -> Vec<u8> {
    serde_json::to_vec(&Proposal::hashed_rekord(payload, signature, key)).unwrap()
}

/// The body that a log keeps of an envelope.
pub(super) fn kept(envelope: &Envelope, key: &PublicKey) -> Vec<u8> {
    let text = envelope.to_json().unwrap();
    let body = json!({
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": { "algorithm": "sha256", "value": Digest::of(text.as_bytes()).hex() },
            "payloadHash": { "algorithm": "sha256", "value": Digest::of(&envelope.payload).hex() },
            "signatures": [{
                "signature": STANDARD.encode(&envelope.signature),
                "verifier": STANDARD.encode(key.to_pem()),
            }],
        },
    });
    body.to_string().into_bytes()
}

/// A layer as a registry answers it.
pub(super) fn layer(payload: &[u8], signature: &[u8], bundle: Option<String>) -> Layer {
    let mut annotations = std::collections::BTreeMap::new();
    annotations.insert(SIGNATURE_ANNOTATION.to_owned(), STANDARD.encode(signature));
    annotations.extend(bundle.map(|text| (bundle::ANNOTATION.to_owned(), text)));
    Layer { payload: Blob::of(Bytes::copy_from_slice(payload)), annotations }
}
