//! The values that requests, answers and log lines are made of: each a bounded, single line of text.
//!
//! What a key is called, and which keys a file has, is not known here.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text;

/// Why a value is not what its key wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Nothing there.
    #[error("empty")]
    Empty,
    /// More bytes than the given limit.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// A control or another hidden character, or white space at an end.
    #[error("not plain text on one line")]
    NotPlain,
    /// The words say what is wanted.
    #[error("not {0}")]
    Not(&'static str),
}

/// One line of text for people: nothing hidden in it, bounded.
///
/// It may still begin like a workflow command; whoever shows it escapes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Line(String);

impl Line {
    /// The longest line, in bytes.
    pub const LIMIT: usize = 2000;

    /// A line out of any text: hidden characters become spaces, what is too long is cut.
    #[must_use]
    pub fn lossy(text: &str) -> Line {
        let mut line: String =
            text.chars().map(|c| if text::is_plain(c.encode_utf8(&mut [0; 4])) { c } else { ' ' }).collect();
        if line.len() > Line::LIMIT {
            let room = Line::LIMIT - '…'.len_utf8();
            line.truncate((0..=room).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0));
            line.push('…');
        }
        Line(line.trim().to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Line {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Line, FieldError> {
        if text.len() > Line::LIMIT {
            return Err(FieldError::TooLong(Line::LIMIT));
        }
        if text.trim() != text || !text::is_plain(text) {
            return Err(FieldError::NotPlain);
        }
        Ok(Line(text.to_owned()))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A stable word for programs: `[a-z0-9-]`, at most 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(String);

impl Word {
    const LIMIT: usize = 64;

    /// A word out of any text, such as the name of an error's kind: letters become lower case, what does not belong
    /// becomes a dash, and nothing becomes `unknown`.
    #[must_use]
    pub fn lossy(text: &str) -> Word {
        let word: String = text
            .chars()
            .take(Word::LIMIT)
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .collect();
        Word(if word.is_empty() { "unknown".to_owned() } else { word })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Word {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Word, FieldError> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match text.len() {
            0 => Err(FieldError::Empty),
            1..=Word::LIMIT if text.bytes().all(good) => Ok(Word(text.to_owned())),
            1..=Word::LIMIT => Err(FieldError::Not("a word of a-z, 0-9 and -")),
            _ => Err(FieldError::TooLong(Word::LIMIT)),
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Names one boot of one machine: the kernel's random UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootId(String);

impl BootId {
    /// The boot that this process runs in.
    ///
    /// # Errors
    /// If the kernel's file cannot be read, or holds no UUID.
    pub fn current() -> std::io::Result<BootId> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        text.trim_end().parse().map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
    }
}

impl FromStr for BootId {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<BootId, FieldError> {
        let good = |(at, byte): (usize, u8)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        if text.len() == 36 && text.bytes().enumerate().all(good) {
            Ok(BootId(text.to_owned()))
        } else {
            Err(FieldError::Not("a boot id (a UUID in lower case)"))
        }
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The full hash of a git commit, SHA-1 or SHA-256, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commit(String);

impl FromStr for Commit {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Commit, FieldError> {
        if matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Commit(text.to_owned()))
        } else {
            Err(FieldError::Not("a full commit hash (40 or 64 hexadecimal digits in lower case)"))
        }
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The web address of a workflow's run. It is shown, never fetched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunUrl(String);

impl RunUrl {
    const LIMIT: usize = 1024;
}

impl FromStr for RunUrl {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<RunUrl, FieldError> {
        if text.len() > RunUrl::LIMIT {
            return Err(FieldError::TooLong(RunUrl::LIMIT));
        }
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
        if rest.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FieldError::Not("an http or https address of printable ASCII"));
        }
        Ok(RunUrl(text.to_owned()))
    }
}

impl fmt::Display for RunUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A moment in RFC 3339 (section 5.6), in UTC and with a `Z`: `2026-02-03T04:05:06Z`, or with a fraction.
///
/// # Errors
/// For any other form, and for a moment that does not exist.
pub fn utc(text: &str) -> Result<Timestamp, FieldError> {
    const NOT: FieldError = FieldError::Not("a time in UTC such as 2026-02-03T04:05:06Z");
    // The library's parser also takes spaces, other zones and annotations.
    let good = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        19 => byte == b'.',
        _ => byte.is_ascii_digit(),
    };
    let digits = text.strip_suffix('Z').ok_or(NOT)?;
    if !matches!(digits.len(), 19 | 21..=29) || !digits.bytes().enumerate().all(good) {
        return Err(NOT);
    }
    text.parse().map_err(|_| NOT)
}

macro_rules! as_json_string {
    ($($kind:ty),*) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$kind, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_json_string!(Line, Word, BootId, Commit, RunUrl);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_with_a_defect_are_refused() {
        let long = "a".repeat(3000);
        for (defect, refused) in [
            ("line with a newline", "a\nb".parse::<Line>().is_err()),
            ("line with a carriage return", "a\rb".parse::<Line>().is_err()),
            ("line with an escape", "a\u{1b}[2J".parse::<Line>().is_err()),
            ("line with a C1 control", "a\u{9b}2J".parse::<Line>().is_err()),
            ("line that turns the direction", "a\u{202e}b".parse::<Line>().is_err()),
            ("line with a space before it", " a".parse::<Line>().is_err()),
            ("line too long", long.parse::<Line>().is_err()),
            ("word empty", "".parse::<Word>().is_err()),
            ("word with upper case", "Refused".parse::<Word>().is_err()),
            ("word with a space", "a b".parse::<Word>().is_err()),
            ("word too long", long.parse::<Word>().is_err()),
            ("boot id in upper case", "0A0A0A0A-0000-4000-8000-000000000000".parse::<BootId>().is_err()),
            ("boot id without dashes", "0a0a0a0a000040008000000000000000".parse::<BootId>().is_err()),
            ("boot id too long", "0a0a0a0a-0000-4000-8000-0000000000000".parse::<BootId>().is_err()),
            ("commit abbreviated", "0a0a0a0".parse::<Commit>().is_err()),
            ("commit in upper case", "A".repeat(40).parse::<Commit>().is_err()),
            ("commit with another letter", "g".repeat(40).parse::<Commit>().is_err()),
            ("run of another scheme", "javascript:alert(1)".parse::<RunUrl>().is_err()),
            ("run without an address", "https://".parse::<RunUrl>().is_err()),
            ("run with a space", "https://forge/a b".parse::<RunUrl>().is_err()),
            ("run not in ASCII", "https://förge/".parse::<RunUrl>().is_err()),
            ("run too long", format!("https://{long}").parse::<RunUrl>().is_err()),
            ("time with a space", utc("2026-02-03 04:05:06Z").is_err()),
            ("time in another zone", utc("2026-02-03T04:05:06+01:00").is_err()),
            ("time with a lower-case z", utc("2026-02-03T04:05:06z").is_err()),
            ("time with a zone's name", utc("2026-02-03T04:05:06Z[UTC]").is_err()),
            ("time without seconds", utc("2026-02-03T04:05Z").is_err()),
            ("time without a fraction after the point", utc("2026-02-03T04:05:06.Z").is_err()),
            ("time with ten digits of fraction", utc("2026-02-03T04:05:06.0123456789Z").is_err()),
            ("time on a day that is not", utc("2026-02-30T04:05:06Z").is_err()),
            ("time of nothing", utc("").is_err()),
        ] {
            assert!(refused, "{defect}");
        }
    }

    #[test]
    fn good_values_come_back_as_they_were() {
        let boot = "0a0a0a0a-0000-4000-8000-00000000000f";
        assert_eq!(boot.parse::<BootId>().unwrap().to_string(), boot);
        assert_eq!(utc("2026-02-03T04:05:06.5Z").unwrap().to_string(), "2026-02-03T04:05:06.5Z");
        assert_eq!("".parse::<Line>().unwrap(), Line::default());
        assert!("a".repeat(64).parse::<Commit>().is_ok());
    }

    #[test]
    fn words_are_made_of_anything() {
        assert_eq!(Word::lossy("Not Found!").as_str(), "not-found-");
        assert_eq!(Word::lossy("").as_str(), "unknown");
    }

    proptest! {
        #[test]
        fn lossy_values_are_always_good(text in ".{0,3000}") {
            let line = Line::lossy(&text);
            prop_assert_eq!(line.as_str().parse::<Line>().unwrap(), line);
            let word = Word::lossy(&text);
            prop_assert_eq!(word.as_str().parse::<Word>().unwrap(), word);
        }
    }
}
