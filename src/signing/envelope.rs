//! The encrypted form of a private key that cosign and go-tuf share: JSON that names scrypt and NaCl's secretbox.
//!
//! Works in place, in memory that is wiped; what the decrypted bytes are is not known here.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto_secretbox::aead::AeadInPlace as _;
use crypto_secretbox::{Key, KeyInit as _, Nonce, Tag, XSalsa20Poly1305};
use serde::{Deserialize, Serialize};
use tagship_core::signature::json::{self, JsonError};
use tagship_core::sys;
use zeroize::Zeroizing;

/// An encrypted key has 700 bytes.
const MAX_LEN: usize = 16 * 1024;

/// scrypt's cost as cosign 2.x writes it: N = 2^16, which takes 64 MiB and 0.2 s. cosign 1.x wrote 2^15.
const LOG_N: u8 = 16;
/// scrypt's block size.
const R: u32 = 8;
/// scrypt's parallelism.
const P: u32 = 1;

const SALT_LEN: usize = 32;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// Stack that is overwritten after work with secrets: more than scrypt, secretbox and ECDSA reach down.
const STACK: usize = 128 * 1024;

/// Why an envelope cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not the JSON of an envelope.
    #[error("the encrypted key is malformed")]
    Json(#[source] JsonError),
    /// A field does not have its form.
    #[error("the encrypted key is malformed: its {0} does not have the expected form")]
    Field(&'static str),
    /// Not scrypt, or not secretbox.
    #[error("the key is encrypted in a way that is not known: not by scrypt and nacl/secretbox")]
    Algorithm,
    /// scrypt with other costs than cosign's.
    #[error("the key's scrypt parameters are not those that cosign writes")]
    Cost,
    /// The box does not open.
    #[error("the password is wrong")]
    Password,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cipher {
    name: String,
    nonce: String,
}

/// An envelope that has its form, not opened yet.
pub struct Sealed {
    /// The binary logarithm of scrypt's N.
    log_n: u8,
    salt: Vec<u8>,
    nonce: [u8; NONCE_LEN],
    tag: [u8; TAG_LEN],
    encrypted: Vec<u8>,
}

impl Sealed {
    /// Reads an envelope. Costs other than cosign's are refused: they are the attacker's choice, and N = 2^40 would
    /// take all memory.
    pub fn parse(envelope: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope: Envelope = json::parse(envelope, MAX_LEN).map_err(EnvelopeError::Json)?;
        if envelope.kdf.name != "scrypt" || envelope.cipher.name != "nacl/secretbox" {
            return Err(EnvelopeError::Algorithm);
        }
        let log_n = match envelope.kdf.params {
            Params { n: 32_768, r: R, p: P } => 15,
            Params { n: 65_536, r: R, p: P } => 16,
            _ => return Err(EnvelopeError::Cost),
        };
        let salt = decode(&envelope.kdf.salt, "salt")?;
        let nonce = decode(&envelope.cipher.nonce, "nonce")?.try_into().map_err(|_| EnvelopeError::Field("nonce"))?;
        let sealed = decode(&envelope.ciphertext, "ciphertext")?;
        // NaCl's order: the tag, then the encrypted bytes.
        let Some((tag, encrypted)) = sealed.split_first_chunk::<TAG_LEN>() else {
            return Err(EnvelopeError::Field("ciphertext"));
        };
        Ok(Self { log_n, salt, nonce, tag: *tag, encrypted: encrypted.to_vec() })
    }

    /// Decrypts it. Takes 0.2 s of one processor: not for an async thread.
    pub fn open(self, password: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        // Decrypted where it lies.
        let mut plain = Zeroizing::new(self.encrypted);
        sys::keep_out_of_swap(&plain);
        let opened = secretbox(password, &self.salt, self.log_n)?.decrypt_in_place_detached(
            &Nonce::from(self.nonce),
            b"",
            &mut plain,
            &Tag::from(self.tag),
        );
        opened.map(|()| plain).map_err(|_| EnvelopeError::Password)
    }
}

/// Reads and decrypts an envelope. Takes as long as [`Sealed::open`].
pub fn open(envelope: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    Sealed::parse(envelope)?.open(password)
}

/// Encrypts bytes as cosign 2.5 does. Takes as long as [`open`].
pub fn seal(plain: &[u8], password: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    seal_at(LOG_N, plain, password)
}

fn seal_at(log_n: u8, plain: &[u8], password: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
    getrandom::fill(&mut salt).map_err(EnvelopeError::Random)?;
    getrandom::fill(&mut nonce).map_err(EnvelopeError::Random)?;
    let mut buffer = Zeroizing::new(plain.to_vec());
    let tag = secretbox(password, &salt, log_n)?
        .encrypt_in_place_detached(&Nonce::from(nonce), b"", &mut buffer)
        .map_err(|_| EnvelopeError::Field("plaintext"))?;
    let envelope = Envelope {
        kdf: Kdf {
            name: "scrypt".to_owned(),
            params: Params { n: 1 << log_n, r: R, p: P },
            salt: STANDARD.encode(salt),
        },
        cipher: Cipher { name: "nacl/secretbox".to_owned(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode([tag.as_slice(), &buffer].concat()),
    };
    serde_json::to_vec(&envelope).map_err(|error| EnvelopeError::Json(JsonError::Malformed(error)))
}

/// Runs `work`, which handles secrets, and then overwrites the stack that it used.
pub fn then_scrub<T>(work: impl FnOnce() -> T) -> T {
    sys::then_scrub(STACK, work)
}

/// The box that a password opens.
fn secretbox(password: &[u8], salt: &[u8], log_n: u8) -> Result<XSalsa20Poly1305, EnvelopeError> {
    let params = scrypt::Params::new(log_n, R, P).map_err(|_| EnvelopeError::Cost)?;
    let mut key = Zeroizing::new(Key::default());
    scrypt::scrypt(password, salt, &params, &mut key).map_err(|_| EnvelopeError::Cost)?;
    Ok(XSalsa20Poly1305::new(&key))
}

fn decode(text: &str, field: &'static str) -> Result<Vec<u8>, EnvelopeError> {
    STANDARD.decode(text).map_err(|_| EnvelopeError::Field(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_of_cosigns_costs_open() {
        for log_n in [15, 16] {
            let sealed = seal_at(log_n, b"secret", b"pass").unwrap();
            assert_eq!(&*open(&sealed, b"pass").unwrap(), b"secret");
            assert!(matches!(open(&sealed, b"Pass"), Err(EnvelopeError::Password)));
            assert!(matches!(open(&sealed, b""), Err(EnvelopeError::Password)));
        }
    }

    #[test]
    fn no_two_envelopes_are_equal() {
        assert_ne!(seal_at(15, b"secret", b"pass").unwrap(), seal_at(15, b"secret", b"pass").unwrap());
    }

    #[test]
    fn refuses_malformed() {
        let good = String::from_utf8(seal_at(15, b"secret", b"pass").unwrap()).unwrap();
        let salt = good.split(r#""salt":""#).nth(1).unwrap().split('"').next().unwrap();
        for (defect, from, to) in [
            ("absurd N", r#""N":32768"#, r#""N":1099511627776"#),
            ("N that is no power of two", r#""N":32768"#, r#""N":32769"#),
            ("small N", r#""N":32768"#, r#""N":2"#),
            ("N zero", r#""N":32768"#, r#""N":0"#),
            ("N negative", r#""N":32768"#, r#""N":-32768"#),
            ("other r", r#""r":8"#, r#""r":4294967295"#),
            ("other p", r#""p":1"#, r#""p":1000000"#),
            ("other kdf", "scrypt", "pbkdf2"),
            ("other cipher", "nacl/secretbox", "aes-256-gcm"),
            ("salt not base64", salt, "@"),
            ("nonce too short", r#""nonce":""#, r#""nonce":"","x":""#),
            ("member twice", r#""kdf":{"#, r#""kdf":{},"kdf":{"#),
            ("truncated", "}", ""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{defect}");
            let error = open(bad.as_bytes(), b"pass").err();
            assert!(!matches!(error, None | Some(EnvelopeError::Password)), "{defect}: {error:?}");
        }
        let mut changed: serde_json::Value = serde_json::from_str(&good).unwrap();
        changed["cipher"]["nonce"] = "AAAA".into();
        assert!(matches!(open(changed.to_string().as_bytes(), b"pass"), Err(EnvelopeError::Field("nonce"))));
        changed["cipher"]["nonce"] = STANDARD.encode([0; 24]).into();
        assert!(matches!(open(changed.to_string().as_bytes(), b"pass"), Err(EnvelopeError::Password)), "other nonce");
        changed["ciphertext"] = "AAAA".into();
        assert!(matches!(open(changed.to_string().as_bytes(), b"pass"), Err(EnvelopeError::Field("ciphertext"))));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = open(&bytes, b"");
        }
    }
}
