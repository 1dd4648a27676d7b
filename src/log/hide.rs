//! Hides secrets in lines of the log, without keeping them: a line is searched by fingerprints.
//!
//! Runners offer `::add-mask::` for this. It is not used: whatever a container prints is kept by its engine, on a systemd
//! host in the journal, where a line that tells a secret in order to hide it stays readable when the container is gone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tagship_core::text;
use zeroize::Zeroizing;

use crate::telling;

/// What stands in the place of a secret, as runners have it.
const INSTEAD: &str = "***";

/// A Mersenne prime, 2^61 - 1: the fingerprints' modulus.
const PRIME: u64 = (1 << 61) - 1;

/// Fingerprints of what must not be shown.
pub(super) struct Hidden {
    /// Drawn anew in each process, so that a fingerprint tells nobody else whether a guess is right.
    base: u64,
    /// By length in bytes.
    forms: BTreeMap<usize, Vec<u64>>,
}

impl Hidden {
    /// Hides nothing yet.
    pub(super) fn new() -> Hidden {
        // Above 256: two different bytes in one place never make up for each other in the next.
        let base = 256 + RandomState::new().hash_one(0) % (PRIME - 256);
        Hidden { base, forms: BTreeMap::new() }
    }

    /// Hides a secret from now on, in each of the forms in which it may show.
    pub(super) fn add(&mut self, secret: &str) {
        for form in forms(secret) {
            let fingerprint = form.bytes().fold(0, |so_far, byte| self.append(so_far, byte));
            self.forms.entry(form.len()).or_default().push(fingerprint);
        }
    }

    /// The line with each secret in it replaced.
    pub(super) fn redact<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let mut found: Vec<Range<usize>> =
            self.forms.iter().flat_map(|(len, known)| self.find(line, *len, known)).collect();
        if found.is_empty() {
            return Cow::Borrowed(line);
        }
        found.sort_unstable_by_key(|range| range.start);
        let (mut shown, mut from) = (String::with_capacity(line.len()), 0);
        for Range { start, end } in found {
            if start >= from {
                shown.push_str(line.get(from..start).unwrap_or_default());
                shown.push_str(INSTEAD);
            }
            from = from.max(end);
        }
        shown.push_str(line.get(from..).unwrap_or_default());
        Cow::Owned(shown)
    }

    /// Where something of this length and one of these fingerprints is (Rabin and Karp's search: one multiplication a
    /// byte). That something else has the same fingerprint happens once in 10^15 lines.
    fn find(&self, line: &str, len: usize, known: &[u64]) -> Vec<Range<usize>> {
        let bytes = line.as_bytes();
        let Some((first, rest)) = bytes.split_at_checked(len) else { return Vec::new() };
        let highest = (1..len).fold(1, |power, _| times(power, self.base));
        let mut window = first.iter().fold(0, |so_far, byte| self.append(so_far, *byte));
        let mut found = Vec::new();
        let mut look = |window: u64, start: usize| {
            // Text within text begins and ends at a character's boundary.
            if known.contains(&window) && line.is_char_boundary(start) && line.is_char_boundary(start + len) {
                found.push(start..start + len);
            }
        };
        look(window, 0);
        for (start, (leaving, coming)) in bytes.iter().zip(rest).enumerate() {
            let without = window + PRIME - times(u64::from(*leaving), highest);
            window = self.append(without % PRIME, *coming);
            look(window, start + 1);
        }
        found
    }

    /// The fingerprint of one more byte: a polynomial of the bytes.
    fn append(&self, so_far: u64, byte: u8) -> u64 {
        (times(so_far, self.base) + u64::from(byte)) % PRIME
    }
}

fn times(a: u64, b: u64) -> u64 {
    // Below the modulus again, hence below 2^64.
    (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64
}

/// The forms in which a secret may show: itself or each of its telling lines, its base64, and what a line of the log
/// makes of it.
fn forms(secret: &str) -> Vec<Zeroizing<String>> {
    let secret = secret.trim_end_matches(['\r', '\n']);
    // A shorter one would riddle the log, and each gap would tell it.
    if secret.trim().len() < telling::SHORTEST {
        return Vec::new();
    }
    let mut forms = Vec::new();
    if secret.contains(['\r', '\n']) {
        forms.extend(telling::lines(secret).map(|line| Zeroizing::new(line.to_owned())));
    } else {
        forms.push(Zeroizing::new(secret.to_owned()));
    }
    forms.push(Zeroizing::new(STANDARD.encode(secret)));
    let escaped: Vec<_> = forms.iter().map(|form| Zeroizing::new(text::escape(form))).collect();
    forms.extend(escaped);
    forms.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(secrets: &[&str], line: &str) -> String {
        let mut hidden = Hidden::new();
        secrets.iter().for_each(|secret| hidden.add(secret));
        hidden.redact(line).into_owned()
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_is_in_a_line() {
        for (line, expected) in [
            ("hunter22", "***"),
            ("hunter22hunter22", "******"),
            ("xhunter22", "x***"),
            ("hunter22x", "***x"),
            ("a hunter22 b hunter22", "a *** b ***"),
            ("aHVudGVyMjI=", "***"),
            ("hunter2", "hunter2"),
            ("Hunter22", "Hunter22"),
            ("", ""),
        ] {
            assert_eq!(redacted(&["hunter22"], line), expected, "{line}");
            assert_eq!(redacted(&["hunter22\n"], line), expected, "{line}");
        }
    }

    #[test]
    fn each_telling_line_of_a_key() {
        let pem = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJrZGYiOnsibmFtZSI6\r\nfQ==\n-----END-----\n";
        assert_eq!(redacted(&[pem], "x eyJrZGYiOnsibmFtZSI6 fQ=="), "x *** fQ==");
        assert_eq!(redacted(&[pem], &STANDARD.encode(pem.trim_end())), "***");
        assert_eq!(redacted(&[pem], "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"), pem.lines().next().unwrap());
    }

    #[test]
    fn secrets_that_overlap_leave_nothing() {
        assert_eq!(redacted(&["abcdef", "cdefgh", "cdef"], "<abcdefgh>"), "<***>");
        assert_eq!(redacted(&["ci:t0ken", "t0ken"], "ci:t0ken"), "***");
    }

    #[test]
    fn nothing_for_what_is_short() {
        for short in ["", "\n", "   ", "\r\n", "a", "abc", "abc\n"] {
            assert!(forms(short).is_empty(), "{short:?}");
        }
    }

    #[test]
    fn as_a_line_of_the_log_shows_it() {
        assert_eq!(redacted(&["pass\u{1b}[1m"], &text::escape("pass\u{1b}[1m")), "***");
        assert_eq!(redacted(&["pässwörd"], "ä pässwörd ö"), "ä *** ö");
    }

    #[test]
    fn no_secret_is_kept() {
        let mut hidden = Hidden::new();
        hidden.add("hunter22");
        assert_eq!(hidden.forms.iter().map(|(len, known)| (*len, known.len())).collect::<Vec<_>>(), [(8, 1), (12, 1)]);
        assert_ne!(hidden.forms, { Hidden { base: hidden.base ^ 1, ..Hidden::new() } }.with("hunter22").forms);
    }

    impl Hidden {
        fn with(mut self, secret: &str) -> Self {
            self.add(secret);
            self
        }
    }

    proptest::proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(before in "[ab]{0,9}", secret in "[ab]{4,6}", after in "[abä]{0,9}") {
            let line = format!("{before}{secret}{after}");
            let shown = redacted(&[&secret], &line);
            proptest::prop_assert!(!shown.contains(&secret), "{shown}");
            proptest::prop_assert!(shown.contains(INSTEAD));
        }

        #[test]
        fn leaves_everything_else(line in "[a-z ä]{0,40}") {
            proptest::prop_assert_eq!(redacted(&["0123456789", "ABCD"], &line), line);
        }
    }
}
