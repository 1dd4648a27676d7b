//! Keys as files: public ones in PEM, and the encrypted private one of cosign as far as it can be read without its
//! password.

use tagship::signing::envelope::Sealed;
use tagship_core::reference::Digest;
use tagship_core::signature::{Fingerprint, PublicKey, pem};

use super::{explained, told};

/// Reads bytes as a PEM block, as a public key, and as what an encrypted private key's block holds. Says whether they
/// are a key of either kind.
pub(crate) fn run(bytes: &[u8]) -> bool {
    let private = match pem::decode(bytes) {
        Ok(block) => {
            let again = pem::encode(block.label(), block.contents());
            let again = pem::decode(again.as_bytes()).expect("a block that was written can be read");
            assert_eq!((again.label(), again.contents()), (block.label(), block.contents()));
            spki(block.contents());
            sealed(block.contents())
        }
        Err(error) => {
            told(&error);
            false
        }
    };
    sealed(bytes);
    spki(bytes);
    if let Some(fingerprint) = str::from_utf8(bytes).ok().and_then(|text| text.parse::<Fingerprint>().ok()) {
        assert_eq!(fingerprint.to_string().as_bytes(), bytes, "a fingerprint has one spelling");
    }
    public(bytes) | private
}

fn public(bytes: &[u8]) -> bool {
    match PublicKey::from_pem("k", bytes) {
        Ok(key) => {
            let again = PublicKey::from_pem("k", key.to_pem().as_bytes()).expect("a key that was written can be read");
            assert_eq!((&again, again.fingerprint()), (&key, key.fingerprint()));
            true
        }
        Err(error) => {
            explained(&error);
            false
        }
    }
}

fn spki(bytes: &[u8]) {
    if let Ok(key) = PublicKey::from_spki("k", bytes) {
        assert_eq!(key.fingerprint().to_string(), Digest::of(bytes).hex());
        let block = pem::decode(key.to_pem().as_bytes()).expect("PEM");
        assert_eq!(block.contents(), bytes, "a key has one form");
        // Most such points are not on the curve: the key must then verify nothing, and say so quietly.
        assert!(!key.verify(&[0x30, 6, 2, 1, 1, 2, 1, 1], b"message"));
    }
}

/// Not opened: that takes scrypt's 0.2 s, and the password.
fn sealed(bytes: &[u8]) -> bool {
    match Sealed::parse(bytes) {
        Ok(_) => true,
        Err(error) => {
            told(&error);
            false
        }
    }
}
