//! Strict DER (X.690 clause 10), as Go and every honest signer write it: the encoding of an ECDSA signature, and one
//! element at a time.
//!
//! Only the form is looked at; whether the numbers are a signature is for the key to say. A high S is valid: Go's
//! signer does not normalise it, so half of all real signatures have one.

/// Whether `bytes` are exactly `SEQUENCE { INTEGER r, INTEGER s }` in the one form that DER allows, with positive
/// numbers of at most `width` bytes, a coordinate's width on the curve. Anything else would let the same signature be
/// written in many ways.
pub(super) fn is_canonical_ecdsa(bytes: &[u8], width: usize) -> bool {
    let Some((0x30, numbers, [])) = element(bytes) else { return false };
    positive_integer(numbers, width).and_then(|rest| positive_integer(rest, width)).is_some_and(<[u8]>::is_empty)
}

/// Takes one element off the front: its tag, its contents, and what follows. Tags of one byte and lengths below 65536
/// in their shortest form, which is all that keys and signatures have.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (len, rest) = match bytes.get(1..)? {
        [len @ 0..=0x7f, rest @ ..] => (usize::from(*len), rest),
        [0x81, len @ 0x80..=0xff, rest @ ..] => (usize::from(*len), rest),
        [0x82, high @ 1..=0xff, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(len)?;
    Some((*bytes.first()?, contents, rest))
}

/// Takes one minimal, positive INTEGER off the front and returns what follows.
fn positive_integer(bytes: &[u8], width: usize) -> Option<&[u8]> {
    let (0x02, number, rest) = element(bytes)? else { return None };
    let magnitude = match number {
        [] | [0] => return None,
        // A leading zero is allowed only where the next bit would make the number negative.
        [0, next, ..] if next & 0x80 != 0 => number.get(1..)?,
        [0, ..] => return None,
        [first, ..] if first & 0x80 != 0 => return None,
        _ => number,
    };
    (magnitude.len() <= width).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two numbers as wide as can be.
    fn widest(width: u8) -> Vec<u8> {
        let mut bytes = vec![0x30, 2 * (width + 3)];
        for _ in 0..2 {
            bytes.extend([2, width + 1, 0]);
            bytes.extend(vec![0xff; width.into()]);
        }
        bytes
    }

    #[test]
    fn accepts_the_one_form() {
        for good in [&[0x30, 6, 2, 1, 1, 2, 1, 0x7f][..], &[0x30, 7, 2, 2, 0, 0x80, 2, 1, 1], &widest(32)] {
            assert!(is_canonical_ecdsa(good, 32), "{good:02x?}");
            assert!(is_canonical_ecdsa(good, 48), "{good:02x?}");
        }
        assert!(is_canonical_ecdsa(&widest(48), 48));
        assert!(!is_canonical_ecdsa(&widest(48), 32), "too wide for P-256");
        assert!(!is_canonical_ecdsa(&widest(49), 48), "too wide for P-384");
    }

    #[test]
    fn takes_elements_apart() {
        let long = [&[0x30, 0x81, 0x80][..], &[7; 128], b"rest"].concat();
        assert_eq!(element(&long), Some((0x30, &[7; 128][..], &b"rest"[..])));
        let longer = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
        assert_eq!(element(&longer), Some((0x30, &[7; 256][..], &[][..])));
        for (defect, bytes) in [
            ("empty", &[][..]),
            ("a tag alone", &[0x30]),
            ("cut off", &[0x30, 2, 1]),
            ("length in two bytes that one holds", &[0x30, 0x81, 1, 1]),
            ("length in three bytes that two hold", &[0x30, 0x82, 0, 0x80]),
            ("indefinite length", &[0x30, 0x80, 0, 0]),
            ("length in four bytes", &[0x30, 0x83, 0, 0, 1, 1]),
        ] {
            assert_eq!(element(bytes), None, "{defect}");
        }
    }

    #[test]
    fn refuses_other_forms() {
        let too_wide = [&[0x30, 2 + 33 + 3, 2, 33, 1][..], &[0; 32], &[2, 1, 1]].concat();
        assert!(!is_canonical_ecdsa(&too_wide, 32), "wider than 256 bits");
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
        ] {
            assert!(!is_canonical_ecdsa(bytes, 32), "{defect}");
            assert!(!is_canonical_ecdsa(bytes, 48), "{defect}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = is_canonical_ecdsa(&bytes, 32);
            let _ = is_canonical_ecdsa(&bytes, 48);
            let _ = element(&bytes);
        }
    }
}
