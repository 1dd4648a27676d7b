//! The private key: read from its encrypted PEM, used, written by keygen. It exists only here, in memory that is wiped.

use sigstore::crypto::signing_key::ecdsa::EllipticCurve;
use sigstore::crypto::signing_key::ecdsa::ec::{EcdsaKeys, EcdsaSigner};
use sigstore::crypto::signing_key::{KeyPair as _, Signer as _};
use sigstore::errors::SigstoreError;
use tagship_core::explain::Explain;
use tagship_core::secret::Secret;
use tagship_core::signature::pem::{self, PemError};
use tagship_core::signature::{self, PublicKey};
use zeroize::Zeroizing;

use super::envelope::{self, EnvelopeError};

/// The label that cosign 2.x and tagship write.
const LABEL: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// The label that cosign 1.x wrote.
const OLD_LABEL: &str = "ENCRYPTED COSIGN PRIVATE KEY";

/// The kind of key that signs.
const P256: &str = "an ECDSA key on the curve P-256";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// Not one PEM block.
    #[error("cannot read the private key")]
    Pem(#[source] PemError),
    /// A public key where the private one belongs.
    #[error("a public key was given as the private key")]
    Public,
    /// A private key that anybody could read.
    #[error("the private key is not encrypted")]
    NotEncrypted,
    /// Something else, or encrypted by another tool.
    #[error("the private key is a {0:?}, which is not known")]
    Label(String),
    /// It cannot be decrypted.
    #[error("cannot decrypt the private key")]
    Decrypt(#[source] EnvelopeError),
    /// Decrypted, but not a key.
    #[error("the private key does not hold a key that can be used")]
    Contents(#[source] Box<SigstoreError>),
    /// Another algorithm or curve.
    #[error("the private key is {0}, and tagship signs with ECDSA on P-256 alone")]
    Algorithm(&'static str),
    /// The library makes no public key of it.
    #[error("the private key has no public half that can be used")]
    PublicHalf(#[source] signature::KeyError),
    /// The library cannot sign.
    #[error("cannot sign with the private key")]
    Sign(#[source] Box<SigstoreError>),
    /// No new key.
    #[error("cannot make a key")]
    Generate(#[source] Box<SigstoreError>),
    /// It cannot be encrypted.
    #[error("cannot encrypt the private key")]
    Encrypt(#[source] EnvelopeError),
    /// The thread that worked with the key ended early.
    #[error("the work with the private key was interrupted")]
    Interrupted,
}

impl Explain for SigningKeyError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Decrypt(EnvelopeError::Password) => "wrong-key-password",
            Self::NotEncrypted => "key-not-encrypted",
            Self::Sign(_) | Self::Generate(_) | Self::Encrypt(_) | Self::Interrupted => "signing-failed",
            _ => "bad-private-key",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Decrypt(EnvelopeError::Password) => {
                "check `key-password`: a line end or a space at its end counts, and a missing one is the empty password"
            }
            Self::NotEncrypted | Self::Label(_) => {
                "encrypt it with `cosign import-key-pair --key FILE`, or make a new one with `tagship keygen`"
            }
            Self::Public => "give the .key file as `key`; the .pub file is for `public-key` and for the host",
            Self::Algorithm(_) => {
                "make a P-256 key pair with `tagship keygen` or `cosign generate-key-pair`, and have the host trust it; \
                 signatures that cosign makes with P-384 and Ed25519 keys count on the host all the same"
            }
            Self::Contents(_) | Self::PublicHalf(_) => {
                "make a key pair with `tagship keygen` or `cosign generate-key-pair`"
            }
            Self::Pem(PemError::Parameters) => {
                "`openssl pkey -in FILE -out KEY` leaves them out; then encrypt it with `cosign import-key-pair --key KEY`"
            }
            Self::Pem(source) => source
                .hint()
                .unwrap_or("give the whole file that begins with -----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// A decrypted private key, ECDSA on P-256. Wiped when dropped: keep it no longer than needed.
pub struct SigningKey {
    signer: EcdsaSigner,
    public: PublicKey,
}

tagship_core::assert_secret!(SigningKey);

impl SigningKey {
    /// Decrypts a key off the async threads, and wipes both secrets.
    pub async fn load(pem: Secret, password: Secret) -> Result<Self, SigningKeyError> {
        tokio::task::spawn_blocking(move || Self::decrypt(&pem, &password))
            .await
            .map_err(|_| SigningKeyError::Interrupted)?
    }

    /// Decrypts a key. The password may be empty. Takes 0.2 s of one processor.
    pub fn decrypt(pem: &Secret, password: &Secret) -> Result<Self, SigningKeyError> {
        envelope::then_scrub(|| {
            let block = pem::decode(pem.expose()).map_err(SigningKeyError::Pem)?;
            match block.label() {
                LABEL | OLD_LABEL => {}
                "PUBLIC KEY" => return Err(SigningKeyError::Public),
                "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => return Err(SigningKeyError::NotEncrypted),
                label => return Err(SigningKeyError::Label(label.to_owned())),
            }
            let pkcs8 = envelope::open(block.contents(), password.expose()).map_err(SigningKeyError::Decrypt)?;
            Self::from_pkcs8(&pkcs8)
        })
    }

    /// Makes a new key.
    pub fn generate() -> Result<Self, SigningKeyError> {
        let keys = EcdsaKeys::new(EllipticCurve::P256).map_err(|e| SigningKeyError::Generate(Box::new(e)))?;
        Self::from_keys(&keys)
    }

    /// Encrypts the key as cosign 2.5 does. Takes as long as [`SigningKey::decrypt`].
    pub fn to_encrypted_pem(&self, password: &Secret) -> Result<String, SigningKeyError> {
        envelope::then_scrub(|| {
            let pkcs8: Zeroizing<Vec<u8>> = self
                .signer
                .ecdsa_keys()
                .private_key_to_der()
                .map_err(|error| SigningKeyError::Contents(Box::new(error)))?;
            let sealed = envelope::seal(&pkcs8, password.expose()).map_err(SigningKeyError::Encrypt)?;
            Ok(pem::encode(LABEL, &sealed))
        })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message: ECDSA over its SHA-256, in DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningKeyError> {
        envelope::then_scrub(|| self.signer.sign(message).map_err(|error| SigningKeyError::Sign(Box::new(error))))
    }

    /// Other kinds of keys are refused by name, although sigstore could use them. It signs SHA-384 with P-384, which
    /// neither cosign nor Podman verifies unless told to; and no log takes a signature that its Ed25519 makes.
    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningKeyError> {
        match signature::kind_of_private(pkcs8) {
            None | Some(P256) => {}
            Some(other) => return Err(SigningKeyError::Algorithm(other)),
        }
        let keys = EcdsaKeys::from_pkcs8_der(pkcs8).map_err(|error| SigningKeyError::Contents(Box::new(error)))?;
        Self::from_keys(&keys)
    }

    fn from_keys(keys: &EcdsaKeys) -> Result<Self, SigningKeyError> {
        let contents = |error| SigningKeyError::Contents(Box::new(error));
        let spki = keys.public_key_to_der().map_err(contents)?;
        let public = PublicKey::from_spki("the signing key", &spki).map_err(SigningKeyError::PublicHalf)?;
        Ok(Self { signer: EcdsaSigner::from_ecdsa_keys(keys).map_err(contents)?, public })
    }
}

#[cfg(test)]
mod tests {
    use sigstore::crypto::signing_key::ed25519::Ed25519Keys;

    use super::*;

    /// Made by `cosign generate-key-pair` with an empty password: sigstore-rs' test data.
    const COSIGN_KEY: &str = include_str!("testdata/cosign-empty-password.key");

    fn decrypt(pem: &str, password: &str) -> Result<SigningKey, SigningKeyError> {
        SigningKey::decrypt(&Secret::from(pem.to_owned()), &Secret::from(password.to_owned()))
    }

    fn envelope_of(pkcs8: &[u8]) -> String {
        pem::encode(LABEL, &envelope::seal(pkcs8, b"pass").unwrap())
    }

    #[test]
    fn opens_cosigns_key_under_both_labels() {
        for pem in [COSIGN_KEY.to_owned(), COSIGN_KEY.replace("SIGSTORE", "COSIGN"), COSIGN_KEY.replace('\n', "\r\n")] {
            let key = decrypt(&pem, "").unwrap();
            let signature = key.sign(b"message").unwrap();
            assert!(key.public().verify(&signature, b"message"));
            assert!(!key.public().verify(&signature, b"another"));
        }
    }

    #[test]
    fn a_new_key_comes_back() {
        let key = SigningKey::generate().unwrap();
        let pem = key.to_encrypted_pem(&Secret::from("pass".to_owned())).unwrap();
        assert_eq!(decrypt(&pem, "pass").unwrap().public(), key.public());
    }

    #[tokio::test]
    async fn loads_off_the_async_threads() {
        let wrong = SigningKey::load(Secret::from(COSIGN_KEY.to_owned()), Secret::from("x".to_owned())).await;
        assert_eq!(wrong.err().unwrap().kind(), "wrong-key-password");
    }

    #[test]
    fn each_wrong_key_is_told() {
        let p384 = EcdsaKeys::new(EllipticCurve::P384).unwrap().private_key_to_der().unwrap();
        let p256 = EcdsaKeys::new(EllipticCurve::P256).unwrap();
        for (defect, text, password, kind) in [
            ("wrong password", COSIGN_KEY.to_owned(), "wrong", "wrong-key-password"),
            ("newline after the password", COSIGN_KEY.to_owned(), "\n", "wrong-key-password"),
            ("empty", String::new(), "", "bad-private-key"),
            ("a path", "/run/secrets/cosign.key".to_owned(), "", "bad-private-key"),
            ("cut off", COSIGN_KEY[..300].to_owned(), "", "bad-private-key"),
            ("byte order mark", format!("\u{feff}{COSIGN_KEY}"), "", "bad-private-key"),
            ("twice", format!("{COSIGN_KEY}\n{COSIGN_KEY}"), "", "bad-private-key"),
            ("parameters before", pem::encode("EC PARAMETERS", b"x") + COSIGN_KEY, "", "bad-private-key"),
            ("public key", p256.public_key_to_pem().unwrap(), "", "bad-private-key"),
            ("not encrypted", p256.private_key_to_pem().unwrap().to_string(), "", "key-not-encrypted"),
            ("encrypted by OpenSSL", pem::encode("ENCRYPTED PRIVATE KEY", b"x"), "", "bad-private-key"),
            ("no envelope", pem::encode(LABEL, b"{}"), "", "bad-private-key"),
            ("envelope of something else", envelope_of(b"hello"), "pass", "bad-private-key"),
            ("envelope of another curve", envelope_of(&p384), "pass", "bad-private-key"),
        ] {
            let error = decrypt(&text, password).err().unwrap_or_else(|| panic!("{defect}: accepted"));
            assert_eq!(error.kind(), kind, "{defect}: {error}");
            assert!(error.hint().is_some() || kind == "bad-private-key", "{defect}");
        }
    }

    #[test]
    fn what_stands_around_a_key_is_named_with_what_helps() {
        for (text, hint) in [
            (format!("\u{feff}{COSIGN_KEY}"), "without a byte order mark"),
            (format!("{COSIGN_KEY}\n{COSIGN_KEY}"), "a file of its own"),
            (pem::encode("EC PARAMETERS", b"x") + COSIGN_KEY, "`openssl pkey -in FILE -out KEY`"),
            (format!("# mine\n{COSIGN_KEY}"), "remove what stands before"),
            ("/run/secrets/cosign.key".to_owned(), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"),
        ] {
            let helps = decrypt(&text, "").err().and_then(|error| error.hint()).unwrap();
            assert!(helps.contains(hint), "{helps}");
        }
    }

    /// Of other kinds sigstore could sign with some; what it makes of them is not verified by others.
    #[test]
    fn keys_of_other_kinds_are_refused_by_name() {
        let p384 = EcdsaKeys::new(EllipticCurve::P384).unwrap().private_key_to_der().unwrap();
        let p521 = EcdsaKeys::new(EllipticCurve::P521).unwrap().private_key_to_der().unwrap();
        let ed25519 = Ed25519Keys::new().unwrap().private_key_to_der().unwrap();
        for (pkcs8, kind) in [
            (p384, "an ECDSA key on the curve P-384"),
            (p521, "an ECDSA key on the curve P-521"),
            (ed25519, "an Ed25519 key"),
        ] {
            let error = decrypt(&envelope_of(&pkcs8), "pass").err().unwrap();
            assert_eq!(
                error.to_string(),
                format!("the private key is {kind}, and tagship signs with ECDSA on P-256 alone")
            );
            assert!(error.hint().unwrap().starts_with("make a P-256 key pair"), "{kind}");
        }
    }
}
