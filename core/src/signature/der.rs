//! The encoding of an ECDSA signature: strict DER (X.690 clause 10), as Go and every honest signer write it.
//!
//! Only the form is looked at; whether the numbers are a signature is for the key to say. A high S is valid: Go's
//! signer does not normalise it, so half of all real signatures have one.

/// Longest signature over P-256: two INTEGERs of 33 bytes with their headers in one SEQUENCE.
const MAX_LEN: usize = 2 + 2 * (2 + 33);

/// Whether `bytes` are exactly `SEQUENCE { INTEGER r, INTEGER s }` in the one form that DER allows, with positive
/// numbers that fit 256 bits. Anything else would let the same signature be written in many ways.
pub(super) fn is_canonical_ecdsa(bytes: &[u8]) -> bool {
    if bytes.len() > MAX_LEN {
        return false;
    }
    // Short-form lengths only: nothing here reaches 128 bytes, so a long form is never minimal.
    let Some((0x30, rest)) = split_first(bytes) else { return false };
    let Some((len, body)) = split_first(rest) else { return false };
    if len >= 0x80 || usize::from(len) != body.len() {
        return false;
    }
    positive_integer(body).and_then(positive_integer).is_some_and(<[u8]>::is_empty)
}

/// Takes one minimal, positive INTEGER of at most 256 bits off the front and returns what follows.
fn positive_integer(bytes: &[u8]) -> Option<&[u8]> {
    let (0x02, rest) = split_first(bytes)? else { return None };
    let (len, rest) = split_first(rest)?;
    let (number, rest) = rest.split_at_checked(usize::from(len))?;
    let magnitude = match number {
        [] | [0] => return None,
        // A leading zero is allowed only where the next bit would make the number negative.
        [0, next, ..] if next & 0x80 != 0 => number.get(1..)?,
        [0, ..] => return None,
        [first, ..] if first & 0x80 != 0 => return None,
        _ => number,
    };
    (magnitude.len() <= 32).then_some(rest)
}

fn split_first(bytes: &[u8]) -> Option<(u8, &[u8])> {
    bytes.split_first().map(|(first, rest)| (*first, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_the_one_form() {
        let mut widest = vec![0x30, 70];
        for _ in 0..2 {
            widest.extend([0x02, 33, 0]);
            widest.extend([0xff; 32]);
        }
        for good in [&[0x30, 6, 2, 1, 1, 2, 1, 0x7f][..], &[0x30, 7, 2, 2, 0, 0x80, 2, 1, 1], &widest] {
            assert!(is_canonical_ecdsa(good), "{good:02x?}");
        }
    }

    #[test]
    fn refuses_other_forms() {
        let mut too_wide = vec![0x30, 2 + 33 + 3, 2, 33, 1];
        too_wide.extend([0; 32]);
        too_wide.extend([2, 1, 1]);
        for (defect, bytes) in [
            ("empty", &[][..]),
            ("not a sequence", &[0x31, 6, 2, 1, 1, 2, 1, 1]),
            ("truncated", &[0x30, 6, 2, 1, 1, 2, 1]),
            ("trailing byte", &[0x30, 6, 2, 1, 1, 2, 1, 1, 0]),
            ("trailing byte inside", &[0x30, 7, 2, 1, 1, 2, 1, 1, 0]),
            ("long-form length", &[0x30, 0x81, 6, 2, 1, 1, 2, 1, 1]),
            ("indefinite length", &[0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0]),
            ("one number", &[0x30, 3, 2, 1, 1]),
            ("three numbers", &[0x30, 9, 2, 1, 1, 2, 1, 1, 2, 1, 1]),
            ("needless leading zero", &[0x30, 7, 2, 2, 0, 1, 2, 1, 1]),
            ("zero", &[0x30, 6, 2, 1, 0, 2, 1, 1]),
            ("empty number", &[0x30, 5, 2, 0, 2, 1, 1]),
            ("negative", &[0x30, 6, 2, 1, 0x80, 2, 1, 1]),
            ("not an integer", &[0x30, 6, 4, 1, 1, 2, 1, 1]),
            ("wider than 256 bits", &too_wide),
        ] {
            assert!(!is_canonical_ecdsa(bytes), "{defect}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = is_canonical_ecdsa(&bytes);
        }
    }
}
