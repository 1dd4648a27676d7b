//! The YAML parser's messages in words for who writes the file: its own speak of Rust's types.

use serde_yaml::{DefaultMessageFormatter, Error, MessageFormatter};

/// What is wrong, without its place.
pub(super) fn of(error: &Error) -> String {
    match error {
        Error::Unexpected { expected: "mapping start", .. } => {
            "keys belong here, each with its value: `key: value`".into()
        }
        Error::Unexpected { expected: "sequence start", .. } => "a list belongs here, in brackets: `[a, b]`".into(),
        Error::Unexpected { expected: "string scalar", .. } => "a single value belongs here".into(),
        Error::NullIntoString { .. } => "there is no value".into(),
        Error::InvalidScalar { ty: "u32", .. } => format!("a whole number from 0 to {} belongs here", u32::MAX),
        Error::InvalidScalar { ty: "u64", .. } => "a whole number, not negative, belongs here".into(),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            let what = match variant.as_str() {
                "~" | "" => "there is no value".to_owned(),
                variant => format!("`{variant}` means nothing here"),
            };
            format!("{what}; it is {}", either(expected))
        }
        Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => "a single word belongs here".into(),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("this is {unexpected}, but {expected}, belongs here")
        }
        Error::MultipleDocuments { .. } => "a second document begins here, and a file has one".into(),
        Error::UnknownAnchor { .. } => {
            "a `*` stands for a text that has its name by `&`, and none has; quote what begins with it".into()
        }
        other => DefaultMessageFormatter.format_message(other).into_owned(),
    }
}

/// `a, b or c`.
fn either(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        words => words.concat(),
    }
}
