//! How errors speak to people and to programs: a stable kind, the chain of causes, and what to try.
//!
//! Nothing here prints, and no error type lives here.

use std::error::Error;

/// What every error that reaches a user can tell beside its own text.
pub trait Explain: Error {
    /// A stable, lower-case word with dashes, such as `registry-unreachable`: it goes into status files, metrics and
    /// exit codes, so it never changes once released.
    fn kind(&self) -> &'static str;

    /// What the user can try, one sentence without a final full stop; `None` when the text says it all.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// An error and its causes in one line, `what was done: why: because`.
///
/// A cause whose text the line already ends with is left out: some libraries repeat their source in their own text.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !text.is_empty() && !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn link(texts: &[&'static str]) -> Link {
        let (first, rest) = texts.split_first().unwrap();
        Link { text: first, source: (!rest.is_empty()).then(|| Box::new(link(rest))) }
    }

    #[test]
    fn causes_follow_in_order() {
        assert_eq!(chain(&link(&["pushing", "sending", "connection refused"])), "pushing: sending: connection refused");
    }

    #[test]
    fn a_repeated_cause_is_said_once() {
        assert_eq!(chain(&link(&["sending: refused", "refused"])), "sending: refused");
        assert_eq!(chain(&link(&["a", "", "b"])), "a: b");
    }
}
