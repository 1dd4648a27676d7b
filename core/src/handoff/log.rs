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
