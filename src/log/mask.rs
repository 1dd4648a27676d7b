//! Which strings the runner must hide for a secret. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Lines of a longer secret shorter than this say nothing about it, and hiding them would riddle the log.
const SHORTEST_LINE: usize = 8;

/// The arguments of the `::add-mask::` lines for a secret: itself, each of its telling lines, its base64 form, and the
/// same with the characters escaped that a workflow command unescapes (runners differ in whether they do).
///
/// A mask is a single line, and the runner does not know derived forms by itself: base64 of a masked secret was seen
/// in clear in a Forgejo log.
#[must_use]
pub fn masks_for(secret: &str) -> Vec<String> {
    let secret = secret.trim_end_matches(['\r', '\n']);
    if secret.trim().is_empty() {
        return Vec::new();
    }
    let mut masks = Vec::new();
    if secret.contains(['\r', '\n']) {
        masks.extend(secret.lines().map(str::trim).filter(|line| telling(line)).map(str::to_owned));
    } else {
        masks.push(secret.to_owned());
    }
    masks.push(STANDARD.encode(secret));
    let escaped: Vec<_> = masks.iter().filter(|mask| mask.contains('%')).map(|mask| mask.replace('%', "%25")).collect();
    masks.extend(escaped);
    masks
}

/// Whether a line of a longer secret is worth hiding: the armour of a PEM file is the same for everybody.
fn telling(line: &str) -> bool {
    line.len() >= SHORTEST_LINE && !line.starts_with("-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_and_its_base64() {
        assert_eq!(masks_for("hunter22"), ["hunter22", "aHVudGVyMjI="]);
        assert_eq!(masks_for("hunter22\n"), masks_for("hunter22"));
    }

    #[test]
    fn each_telling_line_of_a_key() {
        let pem = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJrZGYiOnsibmFtZSI6\r\nfQ==\n-----END-----\n";
        let masks = masks_for(pem);
        assert_eq!(masks[0], "eyJrZGYiOnsibmFtZSI6");
        assert_eq!(masks.len(), 2, "the line and the base64 of the whole: {masks:?}");
    }

    #[test]
    fn nothing_for_nothing() {
        for empty in ["", "\n", "   ", "\r\n"] {
            assert!(masks_for(empty).is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn a_percent_sign_both_ways() {
        assert_eq!(masks_for("a%0Ab"), ["a%0Ab", "YSUwQWI=", "a%250Ab"]);
    }

    #[test]
    fn no_mask_has_a_line_end() {
        for secret in ["a\nb", "a\r\nlonger line here\rb", "long enough one\nlong enough two"] {
            for mask in masks_for(secret) {
                assert!(!mask.contains(['\n', '\r']) || mask.lines().count() == 1, "{mask:?}");
            }
        }
    }
}
