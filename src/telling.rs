//! What of a secret tells it. Whoever looks for a secret in a text looks for this, and for nothing shorter.

/// A secret of less than this many bytes is nobody's: it is part of too many words.
pub(crate) const SHORTEST: usize = 4;

/// A line of a secret of less than this many bytes says nothing about it: it may be part of a word by chance.
const SHORTEST_LINE: usize = 8;

/// The lines of a secret that tell it, without the blanks around them. The armour of a PEM file is the same for everybody.
pub(crate) fn lines(secret: &str) -> impl Iterator<Item = &str> {
    secret.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE && !line.starts_with("-----"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_long_and_no_armour_tells() {
        for (secret, expected) in [
            ("hunter22", &["hunter22"][..]),
            (" hunter22 \n", &["hunter22"]),
            ("hunter2", &[]),
            ("hunter2 \n", &[]),
            ("", &[]),
            ("-----BEGIN PRIVATE KEY-----\r\neyJrZGYi\r\nfQ==\r\n-----END PRIVATE KEY-----", &["eyJrZGYi"]),
        ] {
            assert_eq!(lines(secret).collect::<Vec<_>>(), expected, "{secret:?}");
        }
    }
}
