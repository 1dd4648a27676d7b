//! Images signed with each kind of key that counts: who signed them is told, whatever form the signature has.

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

    /// The image, signed and recorded.
    fn signed(&self, signer: &Signer, change: impl Fn(&mut Vec<u8>)) -> Layer {
        let mut signature = signer.sign(&self.payload());
        change(&mut signature);
        let entry = self.log.entry(&testing::body(&self.payload(), &signature, &signer.public));
        testing::layer(&self.payload(), &signature, Some(bundle::encode(&entry).unwrap()))
    }

    fn kind(&self, layer: Layer, trusted: &[&Signer]) -> &'static str {
        let policy = Policy {
            keys: trusted.iter().map(|signer| signer.public.clone()).collect(),
            formats: Formats::BOTH,
            rekor: Rekor::Required,
            log_keys: vec![self.log.public.clone()],
            annotations: AnnotationRule::WhenPresent,
        };
        verify::verify(&self.expected, &[Attached::Layer(layer)], &policy).map_or_else(|error| error.kind(), |_| "good")
    }
}

#[test]
fn every_kind_of_key_signs_and_is_told_apart() {
    let world = World::new();
    let signers = Algorithm::ALL.map(|algorithm| Signer::with("k", algorithm));
    for signer in &signers {
        let algorithm = signer.public.algorithm();
        assert_eq!(world.kind(world.signed(signer, |_| {}), &signers.each_ref()), "good", "{algorithm}");
        for other in Algorithm::ALL {
            let other = Signer::with("other", other);
            let noted = world.kind(world.signed(signer, |_| {}), &[&other]);
            let mut bare = world.signed(signer, |_| {});
            bare.annotations.remove(bundle::ANNOTATION);
            let unnoted = world.kind(bare, &[&other]);
            assert_eq!([noted, unnoted], ["foreign-signature"; 2], "{algorithm}, trusted {}", other.public.algorithm());
        }
    }
}

#[test]
fn a_signature_in_no_trusted_form_is_malformed() {
    let world = World::new();
    for algorithm in Algorithm::ALL {
        let signer = Signer::with("k", algorithm);
        let kind = |change: fn(&mut Vec<u8>)| world.kind(world.signed(&signer, change), &[&signer]);
        assert_eq!(kind(|signature| signature.push(0)), "malformed-signature", "{algorithm}, trailing byte");
        assert_eq!(kind(|signature| signature.truncate(63)), "malformed-signature", "{algorithm}, truncated");
        assert_eq!(kind(Vec::clear), "malformed-signature", "{algorithm}, empty");
    }
}
