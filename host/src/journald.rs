//! What the system's journal was told of this app's verdicts, read back.
//!
//! `journalctl` is the only stable reader of the journal: its file format has no library without C.

use std::{io, process::Stdio, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tagship_core::{explain::Explain, reference::Digest};
use tokio::{process::Command, time::timeout};

use crate::{config::App, history::Verdict};

/// How many entries are read, the newest ones.
pub const ENTRIES: usize = 1000;

/// The longest that reading may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournaldError {
    /// journalctl could not be run to its end.
    #[error("cannot read the system's journal with journalctl")]
    Run {
        /// Of which app.
        app: App,
        /// Why not.
        source: io::Error,
    },
    /// It ended with an error, as where this user may not read the journal.
    #[error("journalctl cannot read the system's journal: {words}")]
    Refused {
        /// Of which app.
        app: App,
        /// Its own words.
        words: String,
    },
}

impl Explain for JournaldError {
    fn kind(&self) -> &'static str {
        "journald"
    }

    fn hint(&self) -> Option<String> {
        let (Self::Run { app, .. } | Self::Refused { app, .. }) = self;
        Some(format!("`journalctl TAGSHIP_APP={app}` as this user must work"))
    }
}

/// A verdict as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Noted {
    /// When.
    pub time: Timestamp,
    /// The tag asked for.
    pub tag: Option<String>,
    /// The request; none if the operator asked.
    pub request: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// Why: the stable word.
    pub kind: String,
    /// Who asked.
    pub by: String,
    /// The image.
    pub digest: Option<Digest>,
    /// When work on it began: with this, no two verdicts are the same.
    pub started: Option<String>,
}

impl Noted {
    /// What the journal is told of a verdict.
    pub fn of(verdict: &Verdict) -> Self {
        let status = &verdict.status;
        Self {
            time: verdict.time,
            tag: status.tag.as_ref().map(ToString::to_string),
            request: status.request.map(|id| id.to_string()),
            outcome: status.outcome.to_string(),
            kind: status.kind.to_string(),
            by: verdict.by.to_string(),
            digest: status.digest,
            started: status.started.map(|started| started.to_string()),
        }
    }

    /// Equal for what is the same verdict, wherever it stands: all but its time, since the journal hears of it a moment
    /// later, and of one that was cut off between the two it hears twice.
    pub(crate) fn key(&self) -> String {
        let Self { time: _, tag, request, outcome, kind, by, digest, started } = self;
        format!("{tag:?} {request:?} {outcome} {kind} {by} {digest:?} {started:?}")
    }
}

/// An entry, as journalctl writes it; fields of entries that somebody else made may be anything.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time: String,
    #[serde(rename = "TAGSHIP_TAG")]
    tag: Option<String>,
    #[serde(rename = "TAGSHIP_REQUEST")]
    request: Option<String>,
    #[serde(rename = "TAGSHIP_OUTCOME")]
    outcome: String,
    #[serde(rename = "TAGSHIP_KIND")]
    kind: String,
    #[serde(rename = "TAGSHIP_BY")]
    by: String,
    #[serde(rename = "TAGSHIP_DIGEST")]
    digest: Option<Digest>,
    #[serde(rename = "TAGSHIP_STARTED")]
    started: Option<String>,
}

/// The newest verdicts that this user's companion told the journal, the oldest first.
pub async fn verdicts(app: &App) -> Result<Vec<Noted>, JournaldError> {
    let uid = rustix::process::geteuid().as_raw();
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=json", "--lines", &ENTRIES.to_string()]);
    command.args([format!("TAGSHIP_APP={app}"), format!("_UID={uid}"), "SYSLOG_IDENTIFIER=tagship-host".to_owned()]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let slow = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()));
    let output = timeout(PATIENCE, output).await.map_err(slow).and_then(|output| output);
    let output = output.map_err(|source| JournaldError::Run { app: app.clone(), source })?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect();
        return Err(JournaldError::Refused { app: app.clone(), words });
    }
    Ok(parse(&output.stdout))
}

fn parse(journal: &[u8]) -> Vec<Noted> {
    let entries = journal.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Entry>(line).ok());
    let told = entries.filter_map(|Entry { time, tag, request, outcome, kind, by, digest, started }| {
        let time = Timestamp::from_microsecond(time.parse().ok()?).ok()?;
        Some(Noted { time, tag, request, outcome, kind, by, digest, started })
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use tagship_core::handoff::{
        names::RequestId,
        status::{Outcome, Status},
    };

    use super::*;
    use crate::{history::By, report};

    /// The fields of a message to the journal, as journalctl shows them.
    fn shown(mut message: &[u8]) -> serde_json::Value {
        let mut entry = serde_json::json!({ "__REALTIME_TIMESTAMP": "0" });
        while let Some(end) = message.iter().position(|byte| *byte == b'\n') {
            let (name, rest) = message.split_at(end);
            let size = u64::from_le_bytes(rest[1..9].try_into().unwrap()) as usize;
            entry[String::from_utf8_lossy(name).as_ref()] = String::from_utf8_lossy(&rest[9..9 + size]).into();
            message = &rest[10 + size..];
        }
        entry
    }

    #[test]
    fn what_the_journal_is_told_is_read_back() {
        let status = Status {
            tag: Some("v1.0.0".parse().unwrap()),
            request: Some(RequestId::generate()),
            digest: Some(Digest::of(b"image")),
            started: Some(Timestamp::from_microsecond(1_700_000_000_123_456).unwrap()),
            ..Status::new(Outcome::RolledBack, "unhealthy", "web is unhealthy")
        };
        for by in [By::Request, By::Operator, By::Companion] {
            let verdict = Verdict { time: Timestamp::UNIX_EPOCH, by, status: status.clone() };
            let message = report::fields(&"app".parse().unwrap(), &verdict, "line", report::Urgency::Warning);
            assert_eq!(parse(shown(&message).to_string().as_bytes()), [Noted::of(&verdict)]);
        }
    }

    #[test]
    fn the_hint_names_the_app() {
        let error = JournaldError::Refused { app: "demo".parse().unwrap(), words: "no".into() };
        assert_eq!(error.hint().unwrap(), "`journalctl TAGSHIP_APP=demo` as this user must work");
    }

    #[test]
    fn entries_of_other_shapes_are_passed_over() {
        let journal = br#"{"__REALTIME_TIMESTAMP":"1700000000000000","TAGSHIP_OUTCOME":"refused","TAGSHIP_KIND":"held","TAGSHIP_BY":"request","TAGSHIP_TAG":"v1"}
{"__REALTIME_TIMESTAMP":"soon","TAGSHIP_OUTCOME":"refused","TAGSHIP_KIND":"held","TAGSHIP_BY":"request"}
{"__REALTIME_TIMESTAMP":"1700000000000000","TAGSHIP_OUTCOME":[1,2],"TAGSHIP_KIND":"held","TAGSHIP_BY":"request"}
{"MESSAGE":"something else"}
not json
"#;
        let told = parse(journal);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].kind.as_str(), told[0].tag.as_deref()), ("held", Some("v1")));
        assert_eq!(told[0].time.as_second(), 1_700_000_000);
    }
}
