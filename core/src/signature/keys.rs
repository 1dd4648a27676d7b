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
            Self::Pem { name, source: PemError::Parameters } => {
                format!("give the public key alone, as `openssl pkey -in {name} -pubout` writes it")
            }
            Self::Pem { source, .. } => source.hint().unwrap_or(WHOLE).to_owned(),
            Self::Label { name, label } if label == "CERTIFICATE" => {
                format!("give the public key alone, as `openssl x509 -in {name} -noout -pubkey` writes it")
            }
            Self::Label { .. } => WHOLE.to_owned(),
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
            Self::Form { .. } => {
                "write it anew from the private key, with `cosign public-key --key FILE` or `openssl pkey -pubout`"
                    .to_owned()
            }
        })
    }
}

/// What a public key's file is.
const WHOLE: &str = "give the whole file that begins with -----BEGIN PUBLIC KEY-----, as `cosign public-key` and `openssl pkey -pubout` write it";

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
mod tests;
