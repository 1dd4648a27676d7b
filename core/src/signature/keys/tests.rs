//! Keys and signatures of each kind, and what is neither.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;
use crate::explain::chain;
use crate::signature::testing::Signer;

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
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
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
        ("of another library", pem::encode("EC PUBLIC KEY", &p256), "k holds a \"EC PUBLIC KEY\", not a public key"),
        ("lower-case label", good.replace("PUBLIC KEY", "public key"), "k holds a \"public key\", not a public key"),
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

#[test]
fn what_stands_around_a_key_is_named_with_what_helps() {
    let good = PublicKey::public_log().to_pem();
    let parameters = pem::encode("EC PARAMETERS", b"x");
    let private = pem::encode("EC PRIVATE KEY", b"x");
    for (defect, text, why, hint) in [
        ("byte order mark", format!("\u{feff}{good}"), "it begins with a byte order mark", "without a byte order mark"),
        ("two keys", format!("{good}{good}"), "there are 2 PEM blocks, and one is wanted", "a file of its own"),
        ("ecparam", format!("{parameters}{private}"), "a block of parameters", "`openssl pkey -in k.pub -pubout`"),
        ("a comment", format!("# mine\n{good}"), "there is text around the PEM block", "remove what stands before"),
        ("cut off", good[..90].to_owned(), "no matching", "copy the whole file"),
        ("nothing", String::new(), "no PEM block", "-----BEGIN PUBLIC KEY-----"),
        ("certificate", pem::encode("CERTIFICATE", b"x"), "", "`openssl x509 -in k.pub -noout -pubkey`"),
        ("damaged", pem::encode("PUBLIC KEY", b"x"), "", "write it anew"),
    ] {
        let error = PublicKey::from_pem("k.pub", text.as_bytes()).unwrap_err();
        let (chain, helps) = (chain(&error), error.hint().unwrap());
        assert!(chain.contains(why) && helps.contains(hint), "{defect}: {chain}; {helps}");
        assert!(!helps.contains("key pair"), "{defect}: another key would not help");
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
