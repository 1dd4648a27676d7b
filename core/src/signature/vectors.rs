//! Signatures that count, and signatures that must not, each named for its defect: in the older format in `layers`, in
//! bundles in `bundles`. Here is what both are made of.

mod bundles;
mod layers;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

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

/// The same bytes in what only a careless parser takes for base64: without its padding, and with bits in its last
/// symbol that stand for nothing. Needs a text that has padding.
fn careless(text: &str) -> [(&'static str, String); 2] {
    let (symbols, padding) = text.split_at(text.find('=').unwrap());
    let (rest, last) = symbols.split_at(symbols.len() - 1);
    // One bit more: the symbols are in the order of their values, and where there is padding the last bit is zero.
    let place = ALPHABET.as_str().find(last).unwrap();
    let variants = [
        ("base64 truncated", symbols.to_owned()),
        ("base64 with loose bits", format!("{rest}{}{padding}", &ALPHABET.as_str()[place + 1..place + 2])),
    ];
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let lenient = GeneralPurpose::new(&ALPHABET, config.with_decode_padding_mode(DecodePaddingMode::Indifferent));
    for (defect, variant) in &variants {
        assert_eq!(lenient.decode(variant), lenient.decode(text), "{defect}: nothing else is wrong with it");
    }
    variants
}

/// Makes one until it is as it has to be: signatures are of several lengths.
fn until<T>(make: impl Fn() -> T, is: impl Fn(&T) -> bool) -> T {
    std::iter::repeat_with(make).find(is).unwrap()
}

/// The text with as much white space after it as it takes to this length.
fn padded(text: &str, length: usize) -> String {
    text.to_owned() + &" ".repeat(length - text.len())
}
