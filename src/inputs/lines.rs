//! Inputs of several lines, `NAME=VALUE` each. Pure.

use std::collections::BTreeMap;

use super::InputError;

/// Reads the lines of an input. Empty lines and those that start with `#` say nothing; white space around a name is
/// dropped, a value is kept as it is but for white space at the line's end.
///
/// # Errors
/// A line without `=`, without a name, with white space in the name, or whose name was there before.
pub(super) fn parse(input: &'static str, text: &str) -> Result<BTreeMap<String, String>, InputError> {
    let mut values = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |why| InputError::Line { name: input, line: number, why };
        let line = line.trim_end();
        let start = line.trim_start();
        if start.is_empty() || start.starts_with('#') {
            continue;
        }
        let (name, value) = start.split_once('=').ok_or_else(|| wrong("there is no “=”; write NAME=VALUE"))?;
        let name = name.trim_end();
        if name.is_empty() {
            return Err(wrong("there is no name before “=”"));
        }
        if name.contains(char::is_whitespace) || name.contains(char::is_control) {
            return Err(wrong("a name has no white space"));
        }
        if value.contains(char::is_control) {
            return Err(wrong("the value has a control character"));
        }
        if values.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(wrong("this name was given before"));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept() {
        let values = parse("labels", "A=1\n\n# note\n  B = two words = three \nC=\r\nd.e-f/g=%\n").expect("good");
        let expected = [("A", "1"), ("B", " two words = three"), ("C", ""), ("d.e-f/g", "%")];
        assert_eq!(values, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn bad_lines_are_named_by_number() {
        let vectors = [
            ("no sign", "A", 1),
            ("no name", "A=1\n=2", 2),
            ("blank name", "  =2", 1),
            ("space in the name", "A B=2", 1),
            ("twice", "A=1\nB=2\nA=1", 3),
            ("a control character", "A=1\u{7}", 1),
            ("after blank lines", "\n\n#\nA", 4),
        ];
        for (defect, text, expected) in vectors {
            match parse("labels", text) {
                Err(InputError::Line { line, .. }) => assert_eq!(line, expected, "{defect}"),
                other => panic!("{defect}: {other:?}"),
            }
        }
    }
}
