//! Keys of each kind, and what is none.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;

/// Made by OpenSSL.
const P256_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE99X9pGf5TSzXbuNxjd1JNx3k5ux9eOLgzTUdyHbRFp8UdEB4Dj/O6tFiRJOIxnfNqItzsidFwynORYhLKdTUSA==";
const P384_KEY: &str = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEp45dYQ+kmIZ3XNKCZ80lSOb/pgLzh8OKBRxIKuHBlB40yOYxTnDCdflCJYwz9Oao++RVRX5pGfeUL3p2b3IYr1bgyV3f5qKwPYuHxT7f6K8TZr0YDawzzUdreGWThFhO";
const ED25519_KEY: &str = "MCowBQYDK2VwAyEAiEADruMqojmUlRGeXyV0Q3MXt2p4lRb094207N5uqPI=";
const P384_COMPRESSED: &str =
    "MEYwEAYHKoZIzj0CAQYFK4EEACIDMgACp45dYQ+kmIZ3XNKCZ80lSOb/pgLzh8OKBRxIKuHBlB40yOYxTnDCdflCJYwz9Oao";
const P384_HYBRID: &str = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAGp45dYQ+kmIZ3XNKCZ80lSOb/pgLzh8OKBRxIKuHBlB40yOYxTnDCdflCJYwz9Oao++RVRX5pGfeUL3p2b3IYr1bgyV3f5qKwPYuHxT7f6K8TZr0YDawzzUdreGWThFhO";
const P521_KEY: &str = "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBd9b+QACa/nSMchI7X3LUvrFbVz0nawzk6LcOxoJdggba8rYMwWr36nhi0oeYWcK/J/ZlzZfRn7Rz5NoGk2XH0IcAXrr53zB86ASeJyZzUbVtL3n4tuKL/69BdbTFTqvlVALreSo686wseb8smBa/djJimu8qAVjwZAcWixWUo/7JCX0=";
const P224_KEY: &str =
    "ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAERRtO0ntZyTX4LUiXJFqPfYrDB10wibbLElMv+ETIgEpntW8KaLMImlrJ/yqiaFSW3+vShnw2qy4=";
const SECP256K1_KEY: &str = "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAES9rLtl/Mtb23FejXJz2QEyUMYGf2f/FXr1zlneKM1yRO/Kf2zibhITXmfi9d0qdNbtO05fTfjcdR8F31GdjxpQ==";
const ED448_KEY: &str = "MEMwBQYDK2VxAzoAPcC9QnW6f4rXOEat4tbYOfdaxueslkyAAGIKifKzD3l5bXAQmvRiLVkd/mmDiYHU3gOamEdet0mA";
const X25519_KEY: &str = "MCowBQYDK2VuAyEASXFAupayFiiHpw683k/idwg+Nx3SKWvuHupTKCT/pg4=";
const RSA_KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr24M88QPL5G4ripaVlkhGAS6uWZMSVJNFf8eAP9wb1ybIyj1pjQX+orzw9JvQ92K+xggabPncBXh/nZKwKZDoNAxau5JY7rgbvhr+i+bC1lwv4o2ojKzS6SdtPIRge9BD6S8aQS80PBp2iiiaqIpC+WzZKOLOvg3DtubVl6hQCfsAMUvjw45LUzuXipezuNs8dBtqxkyOhFsrDrQLue7aERhbauPq9Wju/z3yhEvPcmAhgAZYJ07cvTHEcG7WDQPt1C1B3AjtjZ55NIooWnr0NVhdloS+t/P95ExNUo7fXB4EwsZkeiY6RuoXb2/lI13mf4gUnK8e7+7SL5iXMLqpQIDAQAB";
const EXPLICIT_P256: &str = "MIIBSzCCAQMGByqGSM49AgEwgfcCAQEwLAYHKoZIzj0BAQIhAP////8AAAABAAAAAAAAAAAAAAAA////////////////MFsEIP////8AAAABAAAAAAAAAAAAAAAA///////////////8BCBaxjXYqjqT57PrvVV2mIa8ZR0GsMxTsPY7zjw+J9JgSwMVAMSdNgiG5wSTamZ44ROdJreBn36QBEEEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9QIhAP////8AAAAA//////////+85vqtpxeehPO5ysL8YyVRAgEBA0IABOaZ0F8TtskGMf46ZEJY6qFAe9XJW+D8YVlBAp31qAPs44TwUK7xzKZDJjVNYTt+guC7X52bZabR6k1fWdBzTNU=";

fn der(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap()
}

/// The key with some bytes in another way, from an offset on.
fn changed(key: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut spki = der(key);
    spki.splice(at..at + bytes.len(), bytes.iter().copied());
    spki
}

fn ed25519(point: &[u8]) -> Vec<u8> {
    [&ED25519_PREFIX[..], point].concat()
}

/// Y, little-endian.
fn y(lowest: u8, middle: u8, highest: u8) -> [u8; 32] {
    let mut point = [middle; 32];
    (point[0], point[31]) = (lowest, highest);
    point
}

#[test]
fn knows_the_keys_that_count() {
    for (key, algorithm) in
        [(P256_KEY, Algorithm::EcdsaP256), (P384_KEY, Algorithm::EcdsaP384), (ED25519_KEY, Algorithm::Ed25519)]
    {
        assert_eq!(recognise(&der(key)), Ok(algorithm));
    }
}

#[test]
fn refuses_other_kinds_by_name() {
    for (key, kind) in [
        (RSA_KEY, "an RSA key"),
        (P521_KEY, "an ECDSA key on the curve P-521"),
        (P224_KEY, "an ECDSA key on a curve that is not known here"),
        (SECP256K1_KEY, "an ECDSA key on a curve that is not known here"),
        (ED448_KEY, "an Ed448 key"),
        (X25519_KEY, "an X25519 key, which cannot sign"),
    ] {
        assert_eq!(recognise(&der(key)), Err(Refused::Kind(kind)));
    }
    let unknown = changed(ED25519_KEY, 8, &[0x7f]);
    assert_eq!(recognise(&unknown), Err(Refused::Kind("a key of an algorithm that is not known here")));
}

#[test]
fn names_private_keys() {
    // Version 0, the algorithm of a public key, and an empty key.
    let private = |spki: &[u8], algorithm: usize| {
        let info = [&[2, 1, 0][..], &spki[algorithm..algorithm + 2 + usize::from(spki[algorithm + 1])], &[4, 0]];
        let info = info.concat();
        [&[0x30, u8::try_from(info.len()).unwrap()][..], &info].concat()
    };
    for (key, algorithm, kind) in [
        (P256_KEY, 2, "an ECDSA key on the curve P-256"),
        (P384_KEY, 2, "an ECDSA key on the curve P-384"),
        (P521_KEY, 3, "an ECDSA key on the curve P-521"),
        (ED25519_KEY, 2, "an Ed25519 key"),
        (RSA_KEY, 4, "an RSA key"),
    ] {
        let pkcs8 = private(&der(key), algorithm);
        assert_eq!(kind_of_private(&pkcs8), Some(kind));
        assert_eq!(kind_of_private(&pkcs8[..pkcs8.len() - 1]), None, "{kind}, truncated");
    }
    assert_eq!(kind_of_private(b"hello"), None);
    assert_eq!(kind_of_private(&[]), None);
}

#[test]
fn refuses_other_forms() {
    const LENGTH: &str = "its point does not have the length or form of its algorithm's";
    const CURVE: &str = "its point is not on the curve";
    const PARAMETERS: &str = "its curve is not named";
    const NO_DER: &str = "it is not a SubjectPublicKeyInfo in DER";
    const ORDER: &str = "its point has a small order, so that anybody can sign for it";
    const REDUCED: &str = "its point is not reduced";
    let with_null = [&[0x30, 0x2c, 0x30, 0x07, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x05, 0x00][..], &der(ED25519_KEY)[9..]];
    let long_length = [&[0x30, 0x81, 0x2a][..], &der(ED25519_KEY)[2..]];
    let other_curve = [&[0x30, 0x79], &P256_PREFIX[2..23], &[0x03, 0x62, 0x00], &der(P384_KEY)[23..]];
    let eighth = "JuiVj8KyJ7BFw/SJ8u+Y8NXfrAXTxjM5sTgCiG1T/AU=";
    for (defect, spki, why) in [
        ("empty", vec![], NO_DER),
        ("not a sequence", changed(P256_KEY, 0, &[0x31]), NO_DER),
        ("the point alone", der(P256_KEY)[26..].to_vec(), NO_DER),
        ("length in a longer form", long_length.concat(), NO_DER),
        ("P-256 truncated", der(P256_KEY)[..90].to_vec(), NO_DER),
        ("P-384 truncated", der(P384_KEY)[..119].to_vec(), NO_DER),
        ("Ed25519 truncated", der(ED25519_KEY)[..43].to_vec(), NO_DER),
        ("P-256 with a trailing byte", [&der(P256_KEY)[..], &[0]].concat(), "there are bytes after it"),
        ("P-384 with a trailing byte", [&der(P384_KEY)[..], &[0]].concat(), "there are bytes after it"),
        ("Ed25519 with a trailing byte", [&der(ED25519_KEY)[..], &[0]].concat(), "there are bytes after it"),
        ("P-384 compressed", der(P384_COMPRESSED), COMPRESSED),
        ("P-384 in hybrid form", der(P384_HYBRID), LENGTH),
        (
            "P-256 with the point of P-384",
            [&P256_PREFIX[..], &der(P384_KEY)[24..]].concat(),
            "there are bytes after it",
        ),
        ("P-256's parameters on P-384's point", other_curve.concat(), LENGTH),
        ("curve spelt out", der(EXPLICIT_P256), PARAMETERS),
        ("curve by NULL", changed(P256_KEY, 13, &[0x05]), PARAMETERS),
        ("P-256 off the curve", changed(P256_KEY, 90, &[0]), CURVE),
        ("P-384 off the curve", changed(P384_KEY, 119, &[0]), CURVE),
        ("P-256 at infinity", [&P256_PREFIX[..], &[0; 64]].concat(), CURVE),
        ("P-384 beyond the field", [&P384_PREFIX[..], &[0xff; 96]].concat(), CURVE),
        ("unused bits in the point", changed(P256_KEY, 25, &[1]), LENGTH),
        ("Ed25519 with parameters", with_null.concat(), "its algorithm has parameters"),
        ("Ed25519 with 31 bytes", changed(ED25519_KEY, 1, &[0x29])[..43].to_vec(), LENGTH),
        ("Ed25519 identity", ed25519(&y(1, 0, 0)), ORDER),
        ("Ed25519 identity with a sign", ed25519(&y(1, 0, 0x80)), ORDER),
        ("Ed25519 order 2", ed25519(&y(0xec, 0xff, 0x7f)), ORDER),
        ("Ed25519 order 4", ed25519(&[0; 32]), ORDER),
        ("Ed25519 order 4 with a sign", ed25519(&y(0, 0, 0x80)), ORDER),
        ("Ed25519 order 8", ed25519(&der(eighth)), ORDER),
        ("Ed25519 identity plus the prime", ed25519(&y(0xee, 0xff, 0x7f)), REDUCED),
        ("Ed25519 zero plus the prime, with a sign", ed25519(&y(0xed, 0xff, 0xff)), REDUCED),
        ("Ed25519 beyond the field", ed25519(&[0xff; 32]), REDUCED),
    ] {
        assert_eq!(recognise(&spki), Err(Refused::Form(why)), "{defect}");
    }
}

/// Why the eight points are refused: with A = 1 the signature (R, S) = (1, 0) is good for any message.
#[test]
fn points_of_small_order_would_let_anybody_sign() {
    let (identity, signature) = (y(1, 0, 0), [y(1, 0, 0), [0; 32]].concat());
    assert!(UnparsedPublicKey::new(&ED25519, &identity).verify(b"anything", &signature).is_ok());
}

#[test]
fn a_signature_fits_one_algorithm() {
    let order = "7dP1XBpjEljWnPei3vneFAAAAAAAAAAAAAAAAAAAABA=";
    let s = |s: &[u8]| [&[7; 32], s].concat();
    let mut below = der(order);
    below[0] -= 1;
    for (name, signature, fits) in [
        ("small numbers", vec![0x30, 6, 2, 1, 1, 2, 1, 1], [true, true, false]),
        ("64 bytes, S = 0", s(&[0; 32]), [false, false, true]),
        ("64 bytes, S = L - 1", s(&below), [false, false, true]),
        ("64 bytes, S = L", s(&der(order)), [false; 3]),
        ("64 bytes, S with the highest bit", s(&y(0, 0, 0x80)), [false; 3]),
        ("63 bytes", vec![0; 63], [false; 3]),
        ("65 bytes", vec![0; 65], [false; 3]),
        ("32 bytes", vec![0; 32], [false; 3]),
        ("empty", vec![], [false; 3]),
    ] {
        assert_eq!(Algorithm::ALL.map(|algorithm| algorithm.fits(&signature)), fits, "{name}");
    }
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (recognise(&bytes), name(&bytes), kind_of_private(&bytes));
    }

    #[test]
    fn no_changed_byte_is_taken_for_the_same_key(at in 0_usize..120, by in 1_u8..) {
        // On a NIST curve a point has one Y and its negative: no single byte leads from one to the other.
        for (key, changeable) in [(P256_KEY, 91), (P384_KEY, 120), (ED25519_KEY, 12)] {
            let mut spki = der(key);
            if let Some(byte) = spki.get_mut(at) {
                *byte ^= by;
                prop_assert!(at >= changeable || recognise(&spki).is_err());
            }
        }
    }
}
