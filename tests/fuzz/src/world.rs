//! Those who sign in the targets: an owner who is trusted, a stranger who is not, and a log. Their keys are made anew in
//! each process: nothing that is asserted depends on which they are.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use sigstore::crypto::signing_key::ecdsa::EllipticCurve;
use sigstore::crypto::signing_key::ecdsa::ec::{EcdsaKeys, EcdsaSigner};
use sigstore::crypto::signing_key::{KeyPair as _, Signer as _};
use tagship_core::reference::{Digest, Repository};
use tagship_core::signature::PublicKey;

/// When the log recorded every entry, in seconds since 1970.
pub(crate) const TIME: i64 = 1_790_000_000;

/// Where the log recorded every entry.
pub(crate) const INDEX: u64 = 42;

/// The image's repository.
pub(crate) const REPOSITORY: &str = "git.example.org/chris/mastosum";

/// Who takes part.
pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| World {
    owner: Party::new("owner.pub"),
    stranger: Party::new("stranger.pub"),
    log: Party::new("log.pub"),
    repository: REPOSITORY.parse().expect("a repository"),
    digest: Digest::of(b"the image's manifest"),
});

/// Everybody, and the image that all of it is about.
pub(crate) struct World {
    pub(crate) owner: Party,
    pub(crate) stranger: Party,
    pub(crate) log: Party,
    pub(crate) repository: Repository,
    pub(crate) digest: Digest,
}

/// Somebody with a key.
pub(crate) struct Party {
    signer: EcdsaSigner,
    pub(crate) public: PublicKey,
}

impl Party {
    fn new(name: &str) -> Self {
        let keys = EcdsaKeys::new(EllipticCurve::P256).expect("a key");
        let spki = keys.public_key_to_der().expect("its public half");
        let public = PublicKey::from_spki(name, &spki).expect("on P-256");
        Self { signer: EcdsaSigner::from_ecdsa_keys(&keys).expect("a signer"), public }
    }

    /// DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message).expect("a signature")
    }

    /// Base64 of DER.
    pub(crate) fn sign64(&self, message: &[u8]) -> Vec<u8> {
        base64(&self.sign(message))
    }

    /// As a log's entry has it: base64 of PEM.
    pub(crate) fn key64(&self) -> Vec<u8> {
        base64(self.public.to_pem().as_bytes())
    }
}

/// Base64 as bytes, to be put into a template.
pub(crate) fn base64(bytes: &[u8]) -> Vec<u8> {
    STANDARD.encode(bytes).into_bytes()
}

/// What a log signs of an entry (RFC 8785 over four members).
pub(crate) fn stamped(body: &str, log: &str) -> String {
    format!(r#"{{"body":"{body}","integratedTime":{TIME},"logID":"{log}","logIndex":{INDEX}}}"#)
}

/// A log's tree of two leaves, of which the second is ours.
pub(crate) struct Tree {
    pub(crate) first: Hash,
    pub(crate) root: Hash,
}

/// A node of a tree.
pub(crate) type Hash = [u8; 32];

/// The tree that holds a body.
pub(crate) fn tree(body: &[u8]) -> Tree {
    let (first, ours) = (hash(&[&[0], b"first"]), hash(&[&[0], body]));
    Tree { first, root: hash(&[&[1], &first, &ours]) }
}

impl Tree {
    /// Its checkpoint, signed by somebody.
    pub(crate) fn checkpoint(&self, by: &Party) -> String {
        let note = format!("log.test - 1\n2\n{}\n", STANDARD.encode(self.root));
        let signature = STANDARD.encode([&[1, 2, 3, 4], &by.sign(note.as_bytes())[..]].concat());
        format!("{note}\n\u{2014} log.test {signature}\n")
    }
}

/// A node of a tree (RFC 9162 clause 2.1.1).
pub(crate) fn hash(parts: &[&[u8]]) -> Hash {
    Sha256::digest(parts.concat()).into()
}
