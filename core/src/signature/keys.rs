//! Public keys: those whose signatures count, and those of transparency logs. Where a key file lies and who owns it is
//! for the caller to check.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sigstore::crypto::{CosignVerificationKey, Signature};

use super::der;
use super::pem::{self, PemError};
use crate::explain::Explain;
use crate::reference::Digest;

/// The DER of every uncompressed P-256 SubjectPublicKeyInfo up to the point's coordinates (RFC 5480 clause 2): two
/// object identifiers, then a bit string that starts with 0x04.
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// Bytes of such a key: the prefix and two coordinates of 32 bytes.
const P256_LEN: usize = P256_PREFIX.len() + 64;

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
    /// Another algorithm, curve or form.
    #[error("{name} is not an ECDSA key on the curve P-256")]
    Algorithm {
        /// What the key was called.
        name: String,
    },
}

impl Explain for KeyError {
    fn kind(&self) -> &'static str {
        "bad-public-key"
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Private { .. } => "give the .pub file, and keep the private key away from this machine".to_owned(),
            _ => "a key pair that fits is made by `tagship keygen` or `cosign generate-key-pair`".to_owned(),
        })
    }
}

/// A public ECDSA key on P-256. Two are equal when they are the same key, whatever they are called.
#[derive(Clone)]
pub struct PublicKey {
    name: String,
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

    /// Reads the DER of a SubjectPublicKeyInfo, in the one form that DER and RFC 5480 give a P-256 key.
    pub fn from_spki(name: impl Into<String>, spki: &[u8]) -> Result<Self, KeyError> {
        let name = name.into();
        if spki.len() != P256_LEN || !spki.starts_with(&P256_PREFIX) {
            return Err(KeyError::Algorithm { name });
        }
        Ok(Self { name, fingerprint: Fingerprint(Digest::of(spki)), spki: spki.to_vec() })
    }

    /// The key of the public log, rekor.sigstore.dev.
    pub fn public_log() -> Self {
        let spki = [&P256_PREFIX[..], &PUBLIC_LOG_POINT].concat();
        Self { name: "rekor.sigstore.dev".to_owned(), fingerprint: Fingerprint(Digest::of(&spki)), spki }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of its SubjectPublicKeyInfo. A Rekor log's id is its key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// PEM with LF line ends, as Rekor stores it.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki)
    }

    /// Whether `signature` (DER) over `message` was made by this key. Signatures in any form but the canonical one are
    /// refused.
    pub fn verify(&self, signature: &[u8], message: &[u8]) -> bool {
        der::is_canonical_ecdsa(signature)
            && self.sigstore().verify_signature(Signature::Raw(signature), message).is_ok()
    }

    /// The same key as sigstore's type, which borrows nothing.
    pub(super) fn sigstore(&self) -> CosignVerificationKey {
        CosignVerificationKey::ECDSA_P256_SHA256_ASN1(self.spki.clone())
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
    fn refuses_other_keys() {
        let spki = |bytes: &[u8]| pem::encode("PUBLIC KEY", bytes);
        let p256 = PublicKey::public_log().spki;
        let mut compressed = p256[..59].to_vec();
        compressed[26] = 0x02;
        let mut p384 = p256.clone();
        p384[22] = 0x22;
        let ed25519 =
            [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &[9; 32]].concat();
        for (defect, text, error) in [
            ("empty", String::new(), "cannot read public key k"),
            (
                "private key",
                pem::encode("ENCRYPTED SIGSTORE PRIVATE KEY", b"{}"),
                "k holds a private key, not a public key",
            ),
            ("certificate", pem::encode("CERTIFICATE", &p256), "k holds a \"CERTIFICATE\", not a public key"),
            ("other curve", spki(&p384), "k is not an ECDSA key on the curve P-256"),
            ("compressed point", spki(&compressed), "k is not an ECDSA key on the curve P-256"),
            ("Ed25519", spki(&ed25519), "k is not an ECDSA key on the curve P-256"),
            ("trailing byte", spki(&[&p256[..], &[0]].concat()), "k is not an ECDSA key on the curve P-256"),
            ("truncated", spki(&p256[..90]), "k is not an ECDSA key on the curve P-256"),
        ] {
            assert_eq!(PublicKey::from_pem("k", text.as_bytes()).unwrap_err().to_string(), error, "{defect}");
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
