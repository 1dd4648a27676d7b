//! Bytes with gaps: `${name}` stands for something true that no fuzzer could guess, such as a signature over the rest.
//!
//! So an input can be a signature that counts but for one thing, and its mutations can be signed as well.

/// `text` with each `${name}` that `value` knows put in its place. Others stay as they are.
pub(crate) fn fill(text: &[u8], value: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, name, after)) = gap(rest) {
        filled.extend_from_slice(before);
        match value(name) {
            Some(bytes) => filled.extend_from_slice(&bytes),
            None => filled.extend_from_slice(format!("${{{name}}}").as_bytes()),
        }
        rest = after;
    }
    filled.extend_from_slice(rest);
    filled
}

/// The first `${name}`: what stands before it, the name, and what follows.
fn gap(text: &[u8]) -> Option<(&[u8], &str, &[u8])> {
    let mut from = 0;
    loop {
        let start = from + find(text.get(from..)?, b"${")?;
        let name = text.get(start + 2..)?;
        let end = name.iter().position(|byte| !byte.is_ascii_lowercase())?;
        if name.get(end) == Some(&b'}') {
            let name = name.get(..end)?;
            return Some((text.get(..start)?, str::from_utf8(name).ok()?, text.get(start + end + 3..)?));
        }
        from = start + 2;
    }
}

/// The parts of `text` between its lines that are exactly `line`.
pub(crate) fn sections<'a>(text: &'a [u8], line: &str) -> Vec<&'a [u8]> {
    let between = format!("\n{line}\n");
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = find(rest, between.as_bytes()) {
        let (part, tail) = rest.split_at(at);
        parts.push(part);
        rest = tail.get(between.len()..).unwrap_or_default();
    }
    parts.push(rest);
    parts
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        let bytes = fill(text.as_bytes(), |name| (name == "a").then(|| b"true".to_vec()));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn gaps_are_filled_and_all_else_is_left() {
        for (text, expected) in [
            ("", ""),
            ("${a}", "true"),
            ("x${a}${a}y", "xtruetruey"),
            ("${b}${a}", "${b}true"),
            ("${${a}}", "${true}"),
            ("${", "${"),
            ("${a", "${a"),
            ("$${a", "$${a"),
            ("${A}${a}", "${A}true"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn sections_are_what_lies_between() {
        assert_eq!(sections(b"a\n--\nb\n--\n", "--"), [&b"a"[..], b"b", b""]);
        assert_eq!(sections(b"--\na", "--"), [&b"--\na"[..]]);
        assert_eq!(sections(b"", "--"), [&b""[..]]);
    }
}
