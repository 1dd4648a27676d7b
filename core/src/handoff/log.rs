//! One line of `deploy-log.ULID`: JSON, written by the companion while it works, followed by the action.
//!
//! Bytes to types and back, nothing else. The texts come from containers and engines: whoever shows them escapes them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fields::{Line, Word};

/// The longest line, in bytes: a text of 2,000 bytes may grow sixfold when JSON escapes it.
pub const LINE_LIMIT: usize = 16 * 1024;

/// The event of a line that says only that the companion is alive.
const HEARTBEAT: &str = "heartbeat";

/// Something that happened during a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub time: Timestamp,
    /// In which part of the deploy: a stable word such as `claim`, `verify`, `pull`.
    pub phase: Word,
    /// To which service, if to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Line>,
    /// What: a stable word such as `restarted`, `healthy`.
    pub event: Word,
    /// In words, for people. May be empty.
    #[serde(default, skip_serializing_if = "Line::is_empty")]
    pub text: Line,
}

impl LogLine {
    /// A sign of life.
    #[must_use]
    pub fn heartbeat(time: Timestamp, phase: Word) -> LogLine {
        LogLine { time, phase, service: None, event: Word::lossy(HEARTBEAT), text: Line::default() }
    }

    /// Whether it is only a sign of life.
    #[must_use]
    pub fn is_heartbeat(&self) -> bool {
        self.event.as_str() == HEARTBEAT
    }

    /// The line with its end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Strings and a time: there is nothing in it that JSON cannot hold.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a line without its end. `None` for anything else: a log is for people, and one odd line spoils no deploy.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<LogLine> {
        if bytes.len() > LINE_LIMIT {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> LogLine {
        LogLine {
            time: "2026-02-03T04:05:06Z".parse().unwrap(),
            phase: Word::lossy("health"),
            service: Some(Line::lossy("web")),
            event: Word::lossy("healthy"),
            text: Line::lossy("after 1.2 s"),
        }
    }

    #[test]
    fn a_line_is_json_and_comes_back() {
        let bytes = line().encode();
        let text = r#"{"time":"2026-02-03T04:05:06Z","phase":"health","service":"web","event":"healthy","text":"after 1.2 s"}"#;
        assert_eq!(String::from_utf8_lossy(&bytes), format!("{text}\n"));
        assert_eq!(LogLine::parse(text.as_bytes()), Some(line()));
        let beat = LogLine::heartbeat(line().time, Word::lossy("health"));
        assert!(LogLine::parse(beat.encode().trim_ascii_end()).unwrap().is_heartbeat());
        assert!(!line().is_heartbeat());
    }

    #[test]
    fn keys_of_later_versions_are_passed_over() {
        let text = br#"{"time":"2026-02-03T04:05:06Z","phase":"pull","event":"layer","bytes":7}"#;
        assert_eq!(LogLine::parse(text).unwrap().service, None);
    }

    #[test]
    fn lines_with_a_defect_are_none() {
        for (defect, text) in [
            ("empty", ""),
            ("not JSON", "web healthy"),
            ("half a line", r#"{"time":"2026-02-03T04:05:06Z","phase":"pu"#),
            ("two lines", "{}\n{}"),
            ("a number", "7"),
            ("no time", r#"{"phase":"pull","event":"layer"}"#),
            ("no phase", r#"{"time":"2026-02-03T04:05:06Z","event":"layer"}"#),
            ("no event", r#"{"time":"2026-02-03T04:05:06Z","phase":"pull"}"#),
            ("a key twice", r#"{"time":"2026-02-03T04:05:06Z","phase":"a","phase":"b","event":"c"}"#),
            ("a phase that is no word", r#"{"time":"2026-02-03T04:05:06Z","phase":"::group::","event":"c"}"#),
            ("an escape sequence", r#"{"time":"2026-02-03T04:05:06Z","phase":"a","event":"c","text":"\u001b[2J"}"#),
            ("a line feed", r#"{"time":"2026-02-03T04:05:06Z","phase":"a","event":"c","text":"a\n::error::b"}"#),
        ] {
            assert_eq!(LogLine::parse(text.as_bytes()), None, "{defect}");
        }
        assert_eq!(LogLine::parse(&vec![b' '; LINE_LIMIT + 1]), None, "too long");
    }

    proptest! {
        #[test]
        fn every_line_fits_and_comes_back(text in ".{0,2500}") {
            let line = LogLine { text: Line::lossy(&text), service: None, ..line() };
            let bytes = line.encode();
            prop_assert!(bytes.len() <= LINE_LIMIT);
            prop_assert_eq!(LogLine::parse(bytes.trim_ascii_end()), Some(line));
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = LogLine::parse(&bytes);
        }
    }
}
