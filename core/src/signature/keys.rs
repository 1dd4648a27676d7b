//! Public keys: those whose signatures count, and those of transparency logs. Where a key file lies and who owns it is
//! for the caller to check.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ECDSA_P384_SHA256_ASN1, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sigstore::crypto::{CosignVerificationKey, Signature};

use super::pem::{self, PemError};
use super::spki::{self, Refused};
use crate::explain::Explain;
use crate::reference::Digest;

pub use super::spki::Algorithm;

/// The point of the public log's key (rekor.sigstore.dev, in service since 2021-01), from Sigstore's trust root.
const PUBLIC_LOG_POINT: [u8; 64] = [
    0xd8, 0x6d, 0x98, 0xfb, 0x6b, 0x5a, 0x6d, 0xd4, 0xd5, 0xe4, 0x17, 0x06, 0x88, 0x12, 0x31, 0xd1, 0xaf, 0x5f, 0x00,
    0x5c, 0x2b, 0x90, 0x16, 0xe6, 0x2d, 0x21, 0xad, 0x92, 0xce, 0x0b, 0xde, 0xa5, 0xfa, 0xc9, 0x86, 0x34, 0xce, 0xe7,
    0xc1, 0x9e, 0x10, 0xbc, 0x52, 0xbf, 0xe2, 0xcb, 0x9e, 0x46, 0x85, 0x63, 0xff, 0xf4, 0x0f, 0xdb, 0x63, 0x62, 0xe1,
    0x0b, 0x7d, 0x0c, 0xf7, 0xe4, 0x58, 0xb7,
];

/// SHA-256 of a public key's SubjectPublicKeyInfo: what names a key in answers, logs and the log's own id. Its text is
/// 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(Digest);

impl Fingerprint {
    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash.into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A text is not 64 lower-case hexadecimal digits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key's fingerprint is 64 lower-case hexadecimal digits")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        format!("sha256:{text}").parse().map(Self).map_err(|_| FingerprintError)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// A public key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not one PEM block.
    #[error("cannot read public key {name}")]
    Pem {
        /// What the key was called: its path, mostly.
        name: String,
        /// Why.
        source: PemError,
    },
    /// A PEM block of something else.
    #[error("{name} holds a {label:?}, not a public key")]
    Label {
        /// What the key was called.
        name: String,
        /// The block's label.
        label: String,
    },
    /// A private key where a public one belongs.
    #[error("{name} holds a private key, not a public key")]
    Private {
        /// What the key was called.
        name: String,
    },
    /// Of an algorithm or curve that does not count.
    #[error("{name} holds {kind}: only ECDSA on P-256 or P-384, and Ed25519, count")]
    Algorithm {
        /// What the key was called.
        name: String,
        /// What it is instead.
        kind: &'static str,
    },
    /// A log's key that cannot be used for one.
    #[error("{name} is an {algorithm} key, and a log's must be ECDSA P-256")]
    Log {
        /// What the key was called.
        name: String,
        /// What it is instead.
        algorithm: Algorithm,
    },
    /// Not in the one form that its algorithm's keys have, or no key at all.
    #[error("{name} does not hold a public key that can be used: {why}")]
    Form {
        /// What the key was called.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Explain for KeyError {
    fn kind(&self) -> &'static str {
        "bad-public-key"
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Private { .. } => "give the .pub file, and keep the private key away from this machine".to_owned(),
            Self::Algorithm { .. } => {
                "make a P-256 key pair with `tagship keygen` or `cosign generate-key-pair`, and sign with that"
                    .to_owned()
            }
            Self::Log { .. } => {
                "give the key that the log signs with, as `URL/api/v1/log/publicKey` answers it; a log that signs with \
                 another kind of key cannot be used"
                    .to_owned()
            }
            Self::Form { why: spki::COMPRESSED, name } => {
                format!("write it in full: `openssl pkey -pubin -in {name} -pubout -ec_conv_form uncompressed`")
            }
            _ => "a key pair that fits is made by `tagship keygen` or `cosign generate-key-pair`".to_owned(),
        })
    }
}

/// A public key: ECDSA on P-256 or P-384, or Ed25519. Two are equal when they are the same key, whatever they are called.
#[derive(Clone)]
pub struct PublicKey {
    name: String,
    algorithm: Algorithm,
    fingerprint: Fingerprint,
    spki: Vec<u8>,
}

impl PublicKey {
    /// Reads a PEM `PUBLIC KEY`. `name` is what messages call it, its path for example.
    pub fn from_pem(name: impl Into<String>, pem: &[u8]) -> Result<Self, KeyError> {
        let name = name.into();
        match pem::decode(pem) {
            Err(source) => Err(KeyError::Pem { name, source }),
            Ok(block) if block.label() == "PUBLIC KEY" => Self::from_spki(name, block.contents()),
            Ok(block) if block.label().ends_with("PRIVATE KEY") => Err(KeyError::Private { name }),
            Ok(block) => Err(KeyError::Label { name, label: block.label().to_owned() }),
        }
    }

    /// Reads the PEM `PUBLIC KEY` of a transparency log, which must be on P-256. Logs sign SHA-256 whatever their key:
    /// on P-384 sigstore does not verify their checkpoints, and Ed25519 logs are refused by cosign 2.5 and 3.1 ("is not
    /// type ecdsa.PublicKey").
    pub fn of_log(name: impl Into<String>, pem: &[u8]) -> Result<Self, KeyError> {
        match Self::from_pem(name, pem)? {
            key @ Self { algorithm: Algorithm::EcdsaP256, .. } => Ok(key),
            Self { name, algorithm, .. } => Err(KeyError::Log { name, algorithm }),
        }
    }

    /// Reads the DER of a SubjectPublicKeyInfo, in the one form that DER and its algorithm's RFC (5480, 8410) give it.
    pub fn from_spki(name: impl Into<String>, spki: &[u8]) -> Result<Self, KeyError> {
        let name = name.into();
        match spki::recognise(spki) {
            Ok(algorithm) => Ok(Self::new(name, algorithm, spki.to_vec())),
            Err(Refused::Kind(kind)) => Err(KeyError::Algorithm { name, kind }),
            Err(Refused::Form(why)) => Err(KeyError::Form { name, why }),
        }
    }

    /// The key of the public log, rekor.sigstore.dev.
    pub fn public_log() -> Self {
        let spki = [&spki::P256_PREFIX[..], &PUBLIC_LOG_POINT].concat();
        Self::new("rekor.sigstore.dev".to_owned(), Algorithm::EcdsaP256, spki)
    }

    fn new(name: String, algorithm: Algorithm, spki: Vec<u8>) -> Self {
        Self { name, algorithm, fingerprint: Fingerprint(Digest::of(&spki)), spki }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SHA-256 of its SubjectPublicKeyInfo. A Rekor log's id is its key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// PEM with LF line ends, as Rekor stores it.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki)
    }

    /// Whether `signature` over `message` was made by this key. A signature in any form but the one that its algorithm
    /// gives it is refused.
    ///
    /// A P-384 key may have signed the message's SHA-256 or its SHA-384: cosign 2.5 does the one, cosign 3.1 the other.
    pub fn verify(&self, signature: &[u8], message: &[u8]) -> bool {
        self.fits(signature)
            && (self.sigstore().verify_signature(Signature::Raw(signature), message).is_ok()
                || self.algorithm == Algorithm::EcdsaP384 && self.verify_p384_sha256(signature, message))
    }

    /// Whether `signature` has the form of this key's: DER as Go writes it, or 64 bytes. A signature that has no trusted
    /// key's form is malformed, or of another kind of key.
    pub(super) fn fits(&self, signature: &[u8]) -> bool {
        self.algorithm.fits(signature)
    }

    /// sigstore knows P-384 with SHA-384 alone.
    fn verify_p384_sha256(&self, signature: &[u8], message: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P384_SHA256_ASN1, &self.spki).verify(message, signature).is_ok()
    }

    /// The same key as sigstore's type, which borrows nothing. For P-384 it verifies over SHA-384 only.
    pub(super) fn sigstore(&self) -> CosignVerificationKey {
        let spki = self.spki.clone();
        match self.algorithm {
            Algorithm::EcdsaP256 => CosignVerificationKey::ECDSA_P256_SHA256_ASN1(spki),
            Algorithm::EcdsaP384 => CosignVerificationKey::ECDSA_P384_SHA384_ASN1(spki),
            Algorithm::Ed25519 => CosignVerificationKey::ED25519(spki),
        }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("name", &self.name).field("fingerprint", &self.fingerprint).finish()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    use super::super::testing::Signer;
    use super::*;

    /// A key, and a signature that cosign made with it over [`PAYLOAD`]: sigstore-rs' test data.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAENptdY/l3nB0yqkXLBWkZWQwo6+cu
OSWS1X9vPavpiQOoTTGC0xX57OojUadxF1cdQmrsiReWg2Wn4FneJfa8xw==
-----END PUBLIC KEY-----";
    const SIGNATURE: &str =
        "MEUCIQD6q/COgzOyW0YH1Dk+CCYSt4uAhm3FDHUwvPI55zwnlwIgE0ZK58ZOWpZw8YVmBapJhBqCfdPekIknimuO0xH8Jh8=";
    const PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":"registry-testing.svc.lan/busybox"},"image":{"docker-manifest-digest":"sha256:f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b"},"type":"cosign container image signature"},"optional":null}"#;

    #[test]
    fn verifies_what_cosign_signed() {
        let key = PublicKey::from_pem("cosign.pub", KEY.replace('\n', "\r\n").as_bytes()).unwrap();
        let signature = STANDARD.decode(SIGNATURE).unwrap();
        assert!(key.verify(&signature, PAYLOAD.as_bytes()));
        assert!(!key.verify(&signature, format!("{PAYLOAD}\n").as_bytes()), "newline added");
        assert!(!PublicKey::public_log().verify(&signature, PAYLOAD.as_bytes()), "another key");
        assert!(!key.verify(&[&signature[..], b"x"].concat(), PAYLOAD.as_bytes()), "trailing byte");
        assert!(!key.verify(&[], PAYLOAD.as_bytes()), "empty signature");
    }

    /// What cosign 2.5.0 and 3.1.1 signed with the same keys, made by OpenSSL, and whether `cosign verify --key` accepts
    /// it. 3.1.1 signs with Ed25519ph, which neither of them verifies.
    #[test]
    fn verifies_what_cosign_verifies() {
        const P384: &str = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEp45dYQ+kmIZ3XNKCZ80lSOb/pgLzh8OKBRxIKuHBlB40yOYxTnDCdflCJYwz9Oao++RVRX5pGfeUL3p2b3IYr1bgyV3f5qKwPYuHxT7f6K8TZr0YDawzzUdreGWThFhO";
        const ED25519: &str = "MCowBQYDK2VwAyEAiEADruMqojmUlRGeXyV0Q3MXt2p4lRb094207N5uqPI=";
        for (what, key, digest, signature, accepted) in [
            (
                "P-384 by 2.5.0: SHA-256",
                P384,
                "17aeac46ff53f68d42b1eee7d288f7de78945067c33748c11e21c89e17d0e0bc",
                "MGUCMDX2S5yS0tS/1C9KnAbyZvhods+WYnWT3nw5VaRaZLeb8wmwZzjCR7Fdv4Hc17+fugIxAJSb5ODbo1KNie4G7/PWlKSjiOrSNXhBA/bwegBUF8Hbg2oIATuufEfFJX4Hd3jF4Q==",
                true,
            ),
            (
                "P-384 by 3.1.1: SHA-384",
                P384,
                "37d121bcf1e13b7d9dfaef807ef04dd4f0ad353cf5730bce92ce31040b65850f",
                "MGQCMGHxEMAsL/DjNwvpO8dX7E9I7qsSJnxRcmhXQuivI2XHWVWcSB8KsKns0fuNq19SoQIwIXl47mQL1vBWsBpTg5H4HL6Je1dV4z6cgGS+ale67HW7pbLndkNG9Ln+OfIpcFVn",
                true,
            ),
            (
                "Ed25519 by 2.5.0: pure",
                ED25519,
                "aa5bdab3815ffc8bcf09f30b6a039eb3b26b43ecb8bf381f2206c8667b944435",
                "HFgOeO6N3DgkpuxjOV/xtFscwSjCrqvbnfkrkKssg0aBahgNrsWaW4lkYq2aJe+kEhfiaXjoFWAPINtYqBGxCQ==",
                true,
            ),
            (
                "Ed25519 by 3.1.1: prehashed",
                ED25519,
                "b1e8d05ac4932979a8aa7f9c7773467aec9e930e376d9698f516f557ff6b927b",
                "HSdwSfyMiey+KzpFqnwpgwhp3ZmFP3/ND6ANk432kJYsM6sPteT7P1DDJlmngkW9oTlD2faWRB/nZYQY1MjPBw==",
                false,
            ),
        ] {
            let key = PublicKey::from_spki("k", &STANDARD.decode(key).unwrap()).unwrap();
            let signature = STANDARD.decode(signature).unwrap();
            let payload = format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"registry.test:5000/chris/demo"}},"image":{{"docker-manifest-digest":"sha256:{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
            );
            assert!(key.fits(&signature), "{what}");
            assert_eq!(key.verify(&signature, payload.as_bytes()), accepted, "{what}");
            assert!(!key.verify(&signature, format!("{payload}\n").as_bytes()), "{what}, newline added");
        }
    }

    #[test]
    fn the_public_log_has_its_well_known_id() {
        assert_eq!(
            PublicKey::public_log().fingerprint().to_string(),
            "c0d23d6ad406973f9559f3ba2d1ca01f84147d8ffc5b8445c224f98b9591801d"
        );
    }

    #[test]
    fn pem_and_fingerprint_come_back() {
        let key = PublicKey::public_log();
        let again = PublicKey::from_pem("again", key.to_pem().as_bytes()).unwrap();
        assert_eq!(again, key);
        assert!(!key.to_pem().contains('\r'));
        assert_eq!(key.fingerprint().to_string().parse(), Ok(key.fingerprint()));
    }

    #[test]
    fn each_algorithm_verifies_its_own_signatures_alone() {
        let signers = Algorithm::ALL.map(|algorithm| Signer::with("k", algorithm));
        for signer in &signers {
            let signature = signer.sign(b"message");
            for other in &signers {
                let verifies = other.public.verify(&signature, b"message");
                assert_eq!(
                    verifies,
                    other.public == signer.public,
                    "{} {}",
                    signer.public.algorithm(),
                    other.public.algorithm()
                );
            }
            assert!(!signer.public.verify(&signature, b"another"));
            assert!(!signer.public.verify(&[&signature[..], &[0]].concat(), b"message"), "trailing byte");
            assert!(!signer.public.verify(&signature[..signature.len() - 1], b"message"), "truncated");
            assert!(!signer.public.verify(&[], b"message"), "empty");
        }
    }

    #[test]
    fn a_log_has_a_key_on_p256() {
        for algorithm in Algorithm::ALL {
            let key = Signer::with("k", algorithm).public;
            let read = PublicKey::of_log("log.pub", key.to_pem().as_bytes());
            match algorithm {
                Algorithm::EcdsaP256 => assert_eq!(read.unwrap(), key),
                _ => {
                    let error = format!("log.pub is an {algorithm} key, and a log's must be ECDSA P-256");
                    assert_eq!(read.unwrap_err().to_string(), error);
                }
            }
        }
    }

    /// S + L is the same number to the curve; RFC 8032 clause 5.1.7 refuses it.
    #[test]
    fn refuses_an_ed25519_signature_written_otherwise() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let signer = Signer::with("k", Algorithm::Ed25519);
        let mut signature = signer.sign(b"message");
        let mut carry = 0;
        for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert!(!signer.public.verify(&signature, b"message"));
    }

    #[test]
    fn refuses_what_is_no_public_key() {
        let p256 = PublicKey::public_log().spki;
        let public = |bytes: &[u8]| pem::encode("PUBLIC KEY", bytes);
        let good = public(&p256);
        let compressed = [&[0x30, 0x39], &p256[2..23], &[0x03, 0x22, 0x00, 0x02], &p256[27..59]].concat();
        let rsa = [
            &[0x30, 0x15, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00][..],
            &[0x03, 0x04, 0x00, 0x30, 0x01, 0x00],
        ];
        for (defect, text, error) in [
            ("empty", String::new(), "cannot read public key k"),
            (
                "private key",
                pem::encode("ENCRYPTED SIGSTORE PRIVATE KEY", b"{}"),
                "k holds a private key, not a public key",
            ),
            ("bare private key", pem::encode("EC PRIVATE KEY", b"x"), "k holds a private key, not a public key"),
            ("certificate", pem::encode("CERTIFICATE", &p256), "k holds a \"CERTIFICATE\", not a public key"),
            (
                "of another library",
                pem::encode("EC PUBLIC KEY", &p256),
                "k holds a \"EC PUBLIC KEY\", not a public key",
            ),
            (
                "lower-case label",
                good.replace("PUBLIC KEY", "public key"),
                "k holds a \"public key\", not a public key",
            ),
            (
                "label with a space",
                good.replace("PUBLIC KEY", "PUBLIC KEY "),
                "k holds a \"PUBLIC KEY \", not a public key",
            ),
            ("two keys", format!("{good}{good}"), "cannot read public key k"),
            (
                "a key before a private one",
                format!("{good}{}", pem::encode("PRIVATE KEY", b"x")),
                "cannot read public key k",
            ),
            ("a comment before", format!("# mine\n{good}"), "cannot read public key k"),
            ("headers", good.replacen('\n', "\nComment: mine\n\n", 1), "cannot read public key k"),
            ("a space within a line", good.replacen("MFkw", "MF kw", 1), "cannot read public key k"),
            ("URL-safe base64", good.replace(['+', '/'], "-"), "cannot read public key k"),
            ("a NUL after", format!("{good}\0"), "cannot read public key k"),
            ("DER", String::from_utf8_lossy(&p256).into_owned(), "cannot read public key k"),
            ("RSA", public(&rsa.concat()), "k holds an RSA key: only ECDSA on P-256 or P-384, and Ed25519, count"),
            (
                "compressed point",
                public(&compressed),
                "k does not hold a public key that can be used: its point is compressed",
            ),
            (
                "truncated",
                public(&p256[..90]),
                "k does not hold a public key that can be used: it is not a SubjectPublicKeyInfo in DER",
            ),
        ] {
            let refused = PublicKey::from_pem("k", text.as_bytes()).unwrap_err();
            assert_eq!(refused.to_string(), error, "{defect}");
            assert_eq!((refused.kind(), refused.hint().is_some()), ("bad-public-key", true), "{defect}");
        }
        for text in ["", "c0d2", &"C0".repeat(32), &"0g".repeat(32), &"00".repeat(33)] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
            let _ = PublicKey::from_pem("k", &bytes);
            let _ = PublicKey::from_spki("k", &bytes);
            let _ = text.parse::<Fingerprint>();
        }
    }
}
