//! What a command said and how it ended.

use std::process::Output;
use std::time::Duration;

/// A finished command.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command, for messages.
    pub what: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output, then standard error.
    pub text: String,
    /// Wall time.
    pub took: Duration,
}

impl Ran {
    pub(crate) fn new(what: &str, output: &Output, took: Duration) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self { what: what.to_owned(), code: output.status.code().unwrap_or(-1), text, took }
    }

    /// Requires exit code 0.
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Requires this exit code.
    pub fn exits(self, code: i32) -> Self {
        if self.code != code {
            self.complain(&format!("exit code {} instead of {code}", self.code));
        }
        self
    }

    /// Requires that it failed because the system forbade it, and not for a mistake in the attempt.
    pub fn denied(self) -> Self {
        let words = ["ermission denied", "not permitted", "ccess denied"];
        if self.code == 0 || !words.iter().any(|words| self.text.contains(words)) {
            self.complain("was not denied by the system");
        }
        self
    }

    /// Requires these words in the output.
    pub fn says(self, words: &str) -> Self {
        if !self.text.contains(words) {
            self.complain(&format!("does not say {words:?}"));
        }
        self
    }

    /// Requires these words, or this secret, to be absent from the output.
    pub fn never_says(self, words: &str) -> Self {
        if self.text.contains(words) {
            self.complain(&format!("says {words:?}"));
        }
        self
    }

    /// Requires these words in this order.
    pub fn says_in_order(self, words: &[&str]) -> Self {
        let mut rest = self.text.as_str();
        for word in words {
            match rest.find(word) {
                Some(at) => rest = &rest[at + word.len()..],
                None => self.complain(&format!("does not say {word:?} in its place among {words:?}")),
            }
        }
        self
    }

    /// Requires an end within this time: a user waits for the message.
    pub fn within(self, limit: Duration) -> Self {
        if self.took > limit {
            self.complain(&format!("took {:?}, more than {limit:?}", self.took));
        }
        self
    }

    /// The output without surrounding white space.
    pub fn trimmed(&self) -> &str {
        self.text.trim()
    }

    fn complain(&self, why: &str) -> ! {
        panic!("{why}\n$ {}\n{}", self.what, self.text)
    }
}
