//! Signatures that count, and signatures that must not, each named for its defect: in the older format in `layers`, in
//! bundles in `bundles`. Here is what both are made of.

mod bundles;
mod layers;

use super::testing::Signer;
use super::*;
use crate::explain::{Explain as _, chain};
use crate::reference::Digest;

/// One image, its owner, a stranger and a log; what they say can be changed before it is signed.
struct World {
    owner: Signer,
    stranger: Signer,
    log: Signer,
    expected: Expectation,
    policy: Policy,
}

impl World {
    fn new() -> Self {
        let (owner, stranger, log) = (Signer::new("owner.pub"), Signer::new("stranger.pub"), Signer::new("log"));
        let expected = Expectation {
            repository: "git.example.org/chris/mastosum".parse().unwrap(),
            digest: Digest::of(b"the image's manifest"),
            tag: Some("v0.2.9".parse().unwrap()),
        };
        let policy = Policy {
            keys: vec![owner.public.clone()],
            formats: Formats::BOTH,
            rekor: Rekor::Required,
            log_keys: vec![log.public.clone()],
            annotations: AnnotationRule::Required,
        };
        Self { owner, stranger, log, expected, policy }
    }

    fn annotated(&self) -> Annotations {
        let entries = [
            ("tag", "v0.2.9"),
            ("repository", "git.example.org/chris/mastosum"),
            ("commit", "0123456789abcdef0123456789abcdef01234567"),
            ("created", "2026-10-01T12:00:00Z"),
            ("run", "17"),
        ];
        annotations(&entries)
    }

    fn verify(&self, found: &[Attached]) -> Result<Verified, VerifyError> {
        verify::verify(&self.expected, found, &self.policy)
    }

    fn refuses(&self, defect: &str, found: &[Attached], kind: &str) -> String {
        match self.verify(found) {
            Ok(_) => panic!("{defect}: accepted"),
            Err(error) => {
                let message = chain(&error);
                assert_eq!(error.kind(), kind, "{defect}: {message}");
                message
            }
        }
    }
}

fn annotations(entries: &[(&str, &str)]) -> Annotations {
    Annotations::new(entries.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()).unwrap()
}
