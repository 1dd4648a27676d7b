//! Images signed with each kind of key that counts, in both formats: who signed them is told, whatever form the
//! signature has.

use super::dsse::{self, Envelope};
use super::log::{Kind, Recorded, Subject};
use super::testing::{self, Signer};
use super::*;
use crate::explain::Explain as _;
use crate::reference::Digest;

struct World {
    expected: Expectation,
    log: Signer,
}

impl World {
    fn new() -> Self {
        let repository = "git.example.org/chris/mastosum".parse().unwrap();
        let expected = Expectation { repository, digest: Digest::of(b"the image's manifest"), tag: None };
        Self { expected, log: Signer::new("log") }
    }

    fn payload(&self) -> Vec<u8> {
        payload::encode(&self.expected.repository, &self.expected.digest, &Annotations::default()).unwrap()
    }

    /// The image, signed and recorded, in both formats.
    fn signed(&self, signer: &Signer, change: impl Fn(&mut Vec<u8>)) -> [Attached; 2] {
        [Attached::Layer(self.layer(signer, &change)), self.bundle(signer, change, true)]
    }

    /// The same where no log recorded it.
    fn unrecorded(&self, signer: &Signer) -> [Attached; 2] {
        let mut layer = self.layer(signer, |_| {});
        layer.annotations.remove(bundle::ANNOTATION);
        [Attached::Layer(layer), self.bundle(signer, |_| {}, false)]
    }

    fn layer(&self, signer: &Signer, change: impl Fn(&mut Vec<u8>)) -> Layer {
        let mut signature = signer.sign(&self.payload());
        change(&mut signature);
        let entry = self.log.entry(&testing::body(&self.payload(), &signature, &signer.public));
        testing::layer(&self.payload(), &signature, Some(bundle::encode(&entry).unwrap()))
    }

    fn bundle(&self, signer: &Signer, change: impl Fn(&mut Vec<u8>), is_recorded: bool) -> Attached {
        let payload = statement::encode(&self.expected.digest, &Annotations::default()).unwrap();
        let mut signature = signer.sign(&dsse::pae(statement::PAYLOAD_TYPE, &payload));
        change(&mut signature);
        let envelope = Envelope { payload_type: statement::PAYLOAD_TYPE.to_owned(), payload, signature };
        let recorded = is_recorded.then(|| self.recorded(&envelope, &signer.public));
        Attached::Bundle(Blob::of(sigstore_bundle::encode(&envelope, &signer.public, recorded.as_ref()).unwrap()))
    }

    fn recorded(&self, envelope: &Envelope, key: &PublicKey) -> Recorded {
        let body = testing::kept(envelope, key);
        let (entry, proof) = (self.log.entry(&body), self.log.proof(&body));
        let subject = Subject { kind: Kind::Dsse, payload: &envelope.payload, signature: &envelope.signature, key };
        let logged = entry.verify_with(&proof, std::slice::from_ref(&self.log.public), &subject).unwrap();
        Recorded { entry, proof, logged }
    }

    /// The verdict on each format.
    fn kinds(&self, found: [Attached; 2], trusted: &[&Signer]) -> [&'static str; 2] {
        found.map(|found| self.kind(found, trusted))
    }

    fn kind(&self, found: Attached, trusted: &[&Signer]) -> &'static str {
        let policy = Policy {
            keys: trusted.iter().map(|signer| signer.public.clone()).collect(),
            formats: Formats::BOTH,
            rekor: Rekor::Required,
            log_keys: vec![self.log.public.clone()],
            annotations: AnnotationRule::WhenPresent,
        };
        verify::verify(&self.expected, &[found], &policy).map_or_else(|error| error.kind(), |_| "good")
    }
}

#[test]
fn every_kind_of_key_signs_and_is_told_apart() {
    let world = World::new();
    let signers = Algorithm::ALL.map(|algorithm| Signer::with("k", algorithm));
    for signer in &signers {
        let algorithm = signer.public.algorithm();
        assert_eq!(world.kinds(world.signed(signer, |_| {}), &signers.each_ref()), ["good"; 2], "{algorithm}");
        for other in Algorithm::ALL {
            let other = Signer::with("other", other);
            for found in [world.signed(signer, |_| {}), world.unrecorded(signer)] {
                let kinds = world.kinds(found, &[&other]);
                assert_eq!(kinds, ["foreign-signature"; 2], "{algorithm}, trusted {}", other.public.algorithm());
            }
        }
    }
}

#[test]
fn a_signature_in_no_trusted_form_is_malformed() {
    let world = World::new();
    for algorithm in Algorithm::ALL {
        let signer = Signer::with("k", algorithm);
        let kinds = |change: fn(&mut Vec<u8>)| world.kinds(world.signed(&signer, change), &[&signer]);
        assert_eq!(kinds(|signature| signature.push(0)), ["malformed-signature"; 2], "{algorithm}, trailing byte");
        assert_eq!(kinds(|signature| signature.truncate(63)), ["malformed-signature"; 2], "{algorithm}, truncated");
        assert_eq!(kinds(Vec::clear), ["malformed-signature"; 2], "{algorithm}, empty");
    }
}
