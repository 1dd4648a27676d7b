//! SubjectPublicKeyInfo (RFC 5280 clause 4.1.2.7): which key a DER holds. Each algorithm that counts has exactly one
//! form here, so that a key has one fingerprint; everything else is refused by name.
//!
//! What counts is what cosign's `verify --key` takes, without RSA and P-521: nobody makes such keys for cosign anew.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, EcdsaVerificationAlgorithm, ParsedPublicKey,
};

use super::der;

/// Up to the point's coordinates (RFC 5480 clause 2): two object identifiers, then a bit string that starts with 0x04,
/// an uncompressed point.
pub(super) const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const P384_PREFIX: [u8; 24] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00, 0x04,
];
/// Without parameters (RFC 8410 clause 3).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// Curves by the contents of their object identifiers.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// What keys are called in messages, by the contents of their algorithm's object identifier.
const KINDS: [(&[u8], &str); 8] = [
    (ED25519, "an Ed25519 key"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01], "an RSA key"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a], "an RSA-PSS key"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "a DSA key"),
    (&[0x2b, 0x65, 0x71], "an Ed448 key"),
    (&[0x2b, 0x65, 0x6e], "an X25519 key, which cannot sign"),
    (&[0x2b, 0x65, 0x6f], "an X448 key, which cannot sign"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x03, 0x01], "a Diffie-Hellman key, which cannot sign"),
];

/// Why a point is refused that has a form of its own.
pub(super) const COMPRESSED: &str = "its point is compressed";

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 over SHA-256.
    EcdsaP256,
    /// ECDSA on P-384, over SHA-256 (cosign 2.5, and what cosign's and Podman's `verify` expect) or SHA-384 (cosign 3.1).
    EcdsaP384,
    /// Ed25519 over the message itself (RFC 8032's "pure" form).
    Ed25519,
}

impl Algorithm {
    /// All that count.
    pub(super) const ALL: [Self; 3] = [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519];

    /// Whether transparency logs record its signatures so that the record verifies. On others than P-256 Rekor refuses
    /// what cosign 2.5 signs, and records another hash of what 3.1 signs than any cosign verifies.
    pub fn is_logged(self) -> bool {
        self == Self::EcdsaP256
    }

    /// Whether a signature has the one form that this algorithm's signatures have. Anything else would let the same
    /// signature be written in many ways.
    pub(super) fn fits(self, signature: &[u8]) -> bool {
        match self {
            Self::EcdsaP256 => der::is_canonical_ecdsa(signature, 32),
            Self::EcdsaP384 => der::is_canonical_ecdsa(signature, 48),
            Self::Ed25519 => is_canonical_ed25519(signature),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// Why a DER is not a key that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A key of another kind: which.
    Kind(&'static str),
    /// A key of a kind that counts, badly written: how.
    Form(&'static str),
}

/// Says which key a DER holds.
pub(super) fn recognise(spki: &[u8]) -> Result<Algorithm, Refused> {
    if let Some(point) = spki.strip_prefix(&P256_PREFIX)
        && point.len() == 64
    {
        on_curve(&ECDSA_P256_SHA256_ASN1, spki)?;
        return Ok(Algorithm::EcdsaP256);
    }
    if let Some(point) = spki.strip_prefix(&P384_PREFIX)
        && point.len() == 96
    {
        on_curve(&ECDSA_P384_SHA256_ASN1, spki)?;
        return Ok(Algorithm::EcdsaP384);
    }
    if let Some(point) = spki.strip_prefix(&ED25519_PREFIX)
        && let Ok(point) = <&[u8; 32]>::try_from(point)
    {
        let refused = if has_small_order(point) {
            "its point has a small order, so that anybody can sign for it"
        } else if !is_reduced(point) {
            "its point is not reduced"
        } else {
            return Ok(Algorithm::Ed25519);
        };
        return Err(Refused::Form(refused));
    }
    Err(name(spki).unwrap_or(Refused::Form("it is not a SubjectPublicKeyInfo in DER")))
}

/// For the message alone: what a DER that was refused is.
fn name(spki: &[u8]) -> Option<Refused> {
    let (SEQUENCE, info, rest) = der::element(spki)? else { return None };
    let (SEQUENCE, algorithm, key) = der::element(info)? else { return None };
    let (OBJECT_IDENTIFIER, id, parameters) = der::element(algorithm)? else { return None };
    let kind = kind(algorithm);
    match id {
        EC_PUBLIC_KEY => match der::element(parameters) {
            Some((OBJECT_IDENTIFIER, P256 | P384, [])) => {}
            Some((OBJECT_IDENTIFIER, _, [])) => return Some(Refused::Kind(kind)),
            _ => return Some(Refused::Form("its curve is not named")),
        },
        ED25519 if parameters.is_empty() => {}
        ED25519 => return Some(Refused::Form("its algorithm has parameters")),
        _ => return Some(Refused::Kind(kind)),
    }
    if !rest.is_empty() {
        return Some(Refused::Form("there are bytes after it"));
    }
    Some(Refused::Form(match der::element(key) {
        Some((BIT_STRING, [0, 2 | 3, ..], [])) if id == EC_PUBLIC_KEY => COMPRESSED,
        _ => "its point does not have the length or form of its algorithm's",
    }))
}

/// What the private key in a PKCS#8 PrivateKeyInfo (RFC 5958 clause 2) is, for messages alone. Nothing of it is copied.
pub fn kind_of_private(pkcs8: &[u8]) -> Option<&'static str> {
    let (SEQUENCE, info, []) = der::element(pkcs8)? else { return None };
    let (INTEGER, _, rest) = der::element(info)? else { return None };
    let (SEQUENCE, algorithm, _) = der::element(rest)? else { return None };
    Some(kind(algorithm))
}

/// What the contents of an AlgorithmIdentifier say.
fn kind(algorithm: &[u8]) -> &'static str {
    let Some((OBJECT_IDENTIFIER, id, parameters)) = der::element(algorithm) else { return "a key of no algorithm" };
    if id == EC_PUBLIC_KEY {
        return match der::element(parameters) {
            Some((OBJECT_IDENTIFIER, P256, [])) => "an ECDSA key on the curve P-256",
            Some((OBJECT_IDENTIFIER, P384, [])) => "an ECDSA key on the curve P-384",
            Some((OBJECT_IDENTIFIER, P521, [])) => "an ECDSA key on the curve P-521",
            Some((OBJECT_IDENTIFIER, _, [])) => "an ECDSA key on a curve that is not known here",
            _ => "an ECDSA key whose curve is not named",
        };
    }
    let known = KINDS.iter().find(|(other, _)| *other == id);
    known.map_or("a key of an algorithm that is not known here", |(_, kind)| kind)
}

/// aws-lc looks at the point when it reads a key on a NIST curve (BoringSSL's EC_POINT_oct2point).
fn on_curve(algorithm: &'static EcdsaVerificationAlgorithm, spki: &[u8]) -> Result<(), Refused> {
    ParsedPublicKey::new(algorithm, spki).map(drop).map_err(|_| Refused::Form("its point is not on the curve"))
}

/// Whether S is below the group's order L = 2^252 + 27742317777372353535851937790883648493 (RFC 8032 clause 5.1.7):
/// else S + L would be another writing of the same signature.
fn is_canonical_ed25519(signature: &[u8]) -> bool {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let Some((_, s)) = signature.split_at_checked(32) else { return false };
    s.len() == 32 && s.iter().rev().lt(ORDER.iter().rev())
}

/// Whether the point's y, the lower 255 bits, little-endian, is below the field's prime 2^255 - 19.
fn is_reduced(point: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = point;
    *lowest < 0xed || middle.iter().any(|byte| *byte != 0xff) || highest & 0x7f != 0x7f
}

/// Whether it is one of the eight points whose order divides the cofactor: signatures by them prove nothing. By their
/// y: two of order 8, and 0 (order 4), 1 (order 1), -1 (order 2). Those that are not reduced are refused anyway.
fn has_small_order(point: &[u8; 32]) -> bool {
    const EIGHTHS: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *point;
    let [lowest, middle @ .., highest] = &mut y;
    *highest &= 0x7f;
    let all = |value: u8| middle.iter().all(|byte| *byte == value);
    match (*lowest, *highest) {
        (0 | 1, 0) => all(0),
        (0xec, 0x7f) => all(0xff),
        _ => EIGHTHS.contains(&y),
    }
}

#[cfg(test)]
mod tests;
