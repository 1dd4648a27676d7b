//! What can be wrong with what was given.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tagship_core::explain::Explain;
use tagship_core::text;

use super::table::{Given, INPUTS, ways};

/// An input that cannot be used. Found before any work is done.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A name that no input has.
    #[error("there is no input named{}", named(name))]
    Unknown {
        /// The name as given.
        name: String,
        /// The input whose name is most like it, if one is.
        near: Option<&'static str>,
    },
    /// An input that this version knows and cannot serve.
    #[error("{name} is not supported by this version ({what})")]
    NotYet {
        /// The input.
        name: &'static str,
        /// What it would have done.
        what: &'static str,
    },
    /// An input that the steps need.
    #[error("{name} is missing")]
    Missing {
        /// The input.
        name: &'static str,
        /// Where it comes from.
        hint: String,
    },
    /// A secret that is there, empty, and must not be.
    #[error("{}", emptiness(name, path.as_deref()))]
    Empty {
        /// The input that names the file, or the variable.
        name: &'static str,
        /// The file.
        path: Option<PathBuf>,
        /// What to do.
        hint: &'static str,
    },
    /// A value outside of its grammar.
    #[error("{name} is {}: {why}", shown(value.as_deref()))]
    Invalid {
        /// The input.
        name: &'static str,
        /// Its value, unless it may hold a secret.
        value: Option<String>,
        /// What is wrong with it.
        why: String,
    },
    /// One line of an input with several.
    #[error("{name}, line {line}: {why}")]
    Line {
        /// The input.
        name: &'static str,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Inputs that contradict each other.
    #[error("{inputs} contradict each other: {why}")]
    Conflict {
        /// The inputs.
        inputs: &'static str,
        /// Why they do.
        why: &'static str,
    },
    /// A secret in what everybody who has the image can read. It is not shown.
    #[error("{name} holds what {secret} keeps secret, and would publish it")]
    Published {
        /// The input.
        name: &'static str,
        /// The input that gives the secret.
        secret: &'static str,
    },
    /// A secret where the path of its file belongs. It is not shown.
    #[error("{name} names no file; what it says is not shown, for it may be the secret itself")]
    NotAPath {
        /// The input.
        name: &'static str,
        /// The input that takes the secret itself.
        meant: &'static str,
    },
    /// An input that names a file, and the file cannot be read.
    #[error("cannot read the file of {name}, {}", text::path(path))]
    Unreadable {
        /// The input.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An input that names something that is not read.
    #[error("cannot read the file of {name}, {}: {why}", text::path(path))]
    Unfit {
        /// The input.
        name: &'static str,
        /// What it names.
        path: PathBuf,
        /// Why it is not read.
        why: &'static str,
        /// What to give instead.
        hint: &'static str,
    },
}

impl InputError {
    pub(super) fn unknown(name: &str) -> InputError {
        let near = INPUTS
            .iter()
            .filter(|input| input.given != Given::NotYet)
            .map(|input| (distance(name, input.name), input.name))
            .min()
            .filter(|(distance, _)| *distance <= 2)
            .map(|(_, name)| name);
        InputError::Unknown { name: name.to_owned(), near }
    }

    pub(super) fn invalid(name: &'static str, value: &str, why: impl ToString) -> InputError {
        InputError::Invalid { name, value: Some(value.to_owned()), why: why.to_string() }
    }

    pub(super) fn unshown(name: &'static str, why: impl ToString) -> InputError {
        InputError::Invalid { name, value: None, why: why.to_string() }
    }
}

impl Explain for InputError {
    fn kind(&self) -> &'static str {
        match self {
            InputError::Unknown { .. } => "unknown-input",
            InputError::NotYet { .. } => "unsupported-input",
            InputError::Missing { .. } => "missing-input",
            InputError::Empty { .. }
            | InputError::Invalid { .. }
            | InputError::Line { .. }
            | InputError::NotAPath { .. } => "invalid-input",
            InputError::Conflict { .. } => "contradictory-input",
            InputError::Published { .. } => "published-secret",
            InputError::Unreadable { .. } | InputError::Unfit { .. } => "unreadable-input",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            InputError::Unknown { near: Some(near), .. } => Some(format!("did you mean {near}?")),
            InputError::Unknown { near: None, .. } => Some("tagship release --help lists every input".to_owned()),
            InputError::NotYet { name, .. } => Some(format!("leave {name} out")),
            InputError::Missing { hint, .. } => Some(hint.clone()),
            InputError::Empty { hint, .. } | InputError::Unfit { hint, .. } => Some((*hint).to_owned()),
            InputError::Unreadable { source, .. } => unreadable(source.kind()).map(str::to_owned),
            InputError::NotAPath { meant, .. } => Some(format!(
                "check the path, and in a workflow the volume that brings the file; the secret itself is given as {}",
                ways(meant)
            )),
            InputError::Published { name, secret } => {
                let ways = ways(secret);
                Some(format!("leave it out of {name}; where that was published before, give a new secret as {ways}"))
            }
            InputError::Invalid { .. } | InputError::Line { .. } | InputError::Conflict { .. } => None,
        }
    }
}

/// A value for a message: quoted and escaped, whole or not at all. Part of a secret would not be found any more by what
/// hides secrets in the log.
fn shown(value: Option<&str>) -> String {
    match value {
        Some(value) if is_shown(value) => format!("“{}”", text::escape(value)),
        Some(value) => format!("not shown ({} bytes)", value.len()),
        None => "not shown".to_owned(),
    }
}

/// Whether a value is short enough, and one line.
fn is_shown(value: &str) -> bool {
    const LONGEST: usize = 120;
    value.len() <= LONGEST && value.lines().count() <= 1
}

/// What helps where the system does not let a file be read.
fn unreadable(why: ErrorKind) -> Option<&'static str> {
    Some(match why {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            "check the path; in a workflow, the file must be in a volume of the job that the runner allows"
        }
        ErrorKind::PermissionDenied => "let the user that this runs as read it",
        // Those that take a text as well as a path: a secret's file says by itself that it is none.
        ErrorKind::InvalidFilename => "give the path of a PEM file, or the text from its -----BEGIN line on",
        _ => return None,
    })
}

/// A name that no input has, shown as a value is.
fn named(name: &str) -> String {
    let separator = if is_shown(name) { "" } else { ":" };
    format!("{separator} {}", shown(Some(name)))
}

fn emptiness(name: &str, path: Option<&Path>) -> String {
    match path {
        Some(path) => format!("the file of {name}, {}, is empty, or has nothing but a line end", text::path(path)),
        None => format!("{name} is empty"),
    }
}

/// How many letters must be put in, taken out or replaced to make one word the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        let mut next = vec![left];
        for (cell, against) in row.iter().skip(1).zip(&other) {
            left = (left + 1).min(cell + 1).min(diagonal + usize::from(letter != *against));
            diagonal = *cell;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, expected) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "abc", 3),
            ("tag", "tag", 0),
            ("tga", "tag", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn a_value_is_shown_whole_and_escaped_or_not_at_all() {
        let message = |value: &str| InputError::invalid("tag", value, "no tag").to_string();
        assert_eq!(message("::x"), "tag is “\\u{3a}:x”: no tag");
        assert_eq!(message("a\nb"), "tag is not shown (3 bytes): no tag");
        assert_eq!(message(&"x".repeat(1000)), "tag is not shown (1000 bytes): no tag");
        let unknown = |name: &str| InputError::unknown(name).to_string();
        assert_eq!(unknown("::x"), "there is no input named “\\u{3a}:x”");
        assert_eq!(unknown(&"x".repeat(1000)), "there is no input named: not shown (1000 bytes)");
    }
}
