//! The answer: how a request ended, and why.
//!
//! Bytes to types and back, nothing else. The first line alone (`ok TAG` or `fail TAG`) is what shell requesters read,
//! and all that a shell host may write.

#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fields::{self, FieldError, Line, Word};
use super::form::{Form, FormError};
use super::names::RequestId;
use crate::explain::Explain;
use crate::reference::{Digest, Tag};

/// The largest answer, in bytes.
pub const LIMIT: usize = 64 * 1024;

/// The most services that one answer lists.
const MOST_SERVICES: usize = 200;

/// What stands in the first line for a request without a tag.
const INVALID: &str = "invalid";

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The image runs, and is healthy.
    Deployed,
    /// It ran already.
    Unchanged,
    /// It failed, and every service is back on what it ran before.
    RolledBack,
    /// Nothing was touched.
    Refused,
    /// It failed, and not everything is as it was before.
    Failed,
    /// A newer request was taken instead; nothing was touched.
    Superseded,
    /// The companion was stopped in the middle; what it found afterwards is in the reason.
    Interrupted,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 7] = [
        Outcome::Deployed,
        Outcome::Unchanged,
        Outcome::RolledBack,
        Outcome::Refused,
        Outcome::Failed,
        Outcome::Superseded,
        Outcome::Interrupted,
    ];

    /// Whether what was asked for is what runs now: `ok` in the first line, `fail` otherwise.
    #[must_use]
    pub fn is_ok(self) -> bool {
        matches!(self, Outcome::Deployed | Outcome::Unchanged)
    }

    /// The word in the answer.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Deployed => "deployed",
            Outcome::Unchanged => "unchanged",
            Outcome::RolledBack => "rolled-back",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Superseded => "superseded",
            Outcome::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Outcome, FieldError> {
        Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(FieldError::Not("a known outcome"))
    }
}

/// The first line of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstLine {
    /// `ok` or `fail`.
    pub ok: bool,
    /// The tag that was asked for. `invalid` for a request without one.
    pub tag: Tag,
}

impl FirstLine {
    /// Reads the first line of an answer, whatever follows it. A last line may lack its end, as `printf` leaves it.
    ///
    /// # Errors
    /// If it is neither `ok TAG` nor `fail TAG`.
    pub fn parse(bytes: &[u8]) -> Result<FirstLine, StatusError> {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        str::from_utf8(first).ok().and_then(FirstLine::of).ok_or(StatusError::FirstLine)
    }

    fn of(line: &str) -> Option<FirstLine> {
        let (word, tag) = line.split_once(' ')?;
        let ok = match word {
            "ok" => true,
            "fail" => false,
            _ => return None,
        };
        Some(FirstLine { ok, tag: tag.parse().ok()? })
    }
}

/// How one service fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, without `.service`.
    pub name: Line,
    /// A stable word: `untouched`, `deployed`, `placed`, `restored`, `stopped` or `broken` (docs/handoff.md).
    pub state: Word,
    /// What else there is to say. May be empty.
    pub detail: Line,
}

impl Service {
    /// Whether the deploy left it with nothing that it can be started with: `stopped`, or `broken`.
    pub fn is_down(&self) -> bool {
        matches!(self.state.as_str(), "stopped" | "broken")
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The tag that was asked for; `None` if the request had none that could be read.
    pub tag: Option<Tag>,
    /// Which request it answers; `None` for the plain form.
    pub request: Option<RequestId>,
    /// How it ended.
    pub outcome: Outcome,
    /// A stable word that says why, for programs.
    pub kind: Word,
    /// Why, for people.
    pub reason: Line,
    /// What was to be deployed, once known.
    pub digest: Option<Digest>,
    /// What ran before.
    pub previous_digest: Option<Digest>,
    /// When the companion began with it.
    pub started: Option<Timestamp>,
    /// When it was done.
    pub finished: Option<Timestamp>,
    /// The services, in the order in which they were deployed.
    pub services: Vec<Service>,
}

/// Why bytes are no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// Not even the form.
    #[error("the answer cannot be read")]
    Form(#[from] FormError),
    /// Neither `ok TAG` nor `fail TAG`.
    #[error("the answer's first line is neither `ok TAG` nor `fail TAG`")]
    FirstLine,
    /// A key for the second time.
    #[error("the answer has the key {0} twice")]
    Twice(&'static str),
    /// A key that has to be there.
    #[error("the answer lacks the key {0}")]
    Missing(&'static str),
    /// A value that its key cannot have.
    #[error("the answer's {key} is {why}")]
    Value {
        /// Whose value.
        key: &'static str,
        /// What it is, or is not.
        why: Line,
    },
    /// `ok` with an outcome that is none, or the other way round.
    #[error("the answer's first line and its outcome contradict each other")]
    Contradiction,
}

impl Explain for StatusError {
    fn kind(&self) -> &'static str {
        "status-invalid"
    }
}

impl Status {
    /// An answer of which only the outcome and the reason are known.
    #[must_use]
    pub fn new(outcome: Outcome, kind: &str, reason: &str) -> Status {
        Status {
            tag: None,
            request: None,
            outcome,
            kind: Word::lossy(kind),
            reason: Line::lossy(reason),
            digest: None,
            previous_digest: None,
            started: None,
            finished: None,
            services: Vec::new(),
        }
    }

    /// The answer's bytes. Services beyond the two hundredth are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let word = if self.outcome.is_ok() { "ok" } else { "fail" };
        let mut text = match &self.tag {
            Some(tag) => format!("{word} {tag}\n"),
            None => format!("{word} {INVALID}\n"),
        };
        let mut field = |key: &str, value: &dyn fmt::Display| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}: {value}");
        };
        if let Some(request) = &self.request {
            field("Request", request);
        }
        field("Outcome", &self.outcome);
        field("Kind", &self.kind);
        field("Reason", &self.reason);
        if let Some(digest) = &self.digest {
            field("Digest", digest);
        }
        if let Some(digest) = &self.previous_digest {
            field("Previous-Digest", digest);
        }
        if let Some(started) = &self.started {
            field("Started", started);
        }
        if let Some(finished) = &self.finished {
            field("Finished", finished);
        }
        for Service { name, state, detail } in self.services.iter().take(MOST_SERVICES) {
            let space = if detail.is_empty() { "" } else { " " };
            field("Service", &format_args!("{name} {state}{space}{detail}"));
        }
        text.into_bytes()
    }

    /// Reads an answer. Keys of later versions are passed over: an answer that is there must not be lost.
    ///
    /// # Errors
    /// For anything that is no well-formed answer, with the first defect found.
    pub fn parse(bytes: &[u8]) -> Result<Status, StatusError> {
        let form = Form::parse(bytes, LIMIT)?;
        let FirstLine { ok, tag } = FirstLine::of(form.first).ok_or(StatusError::FirstLine)?;
        let mut request = None;
        let mut outcome = None;
        let mut kind = None;
        let mut reason = None;
        let mut digest = None;
        let mut previous_digest = None;
        let mut started = None;
        let mut finished = None;
        let mut services = Vec::new();
        for field in &form.fields {
            let value = field.value;
            match field.key {
                "Request" => set(&mut request, "Request", value.parse())?,
                "Outcome" => set(&mut outcome, "Outcome", value.parse())?,
                "Kind" => set(&mut kind, "Kind", value.parse())?,
                "Reason" => set(&mut reason, "Reason", value.parse())?,
                "Digest" => set(&mut digest, "Digest", value.parse())?,
                "Previous-Digest" => set(&mut previous_digest, "Previous-Digest", value.parse())?,
                "Started" => set(&mut started, "Started", fields::utc(value))?,
                "Finished" => set(&mut finished, "Finished", fields::utc(value))?,
                "Service" if services.len() == MOST_SERVICES => {
                    return Err(StatusError::Value { key: "Service", why: Line::lossy("there too often") });
                }
                "Service" => services.push(service(value).map_err(|error| bad("Service", &error))?),
                _ => {}
            }
        }
        let outcome: Outcome = outcome.ok_or(StatusError::Missing("Outcome"))?;
        if outcome.is_ok() != ok {
            return Err(StatusError::Contradiction);
        }
        Ok(Status {
            tag: Some(tag),
            request,
            outcome,
            kind: kind.ok_or(StatusError::Missing("Kind"))?,
            reason: reason.ok_or(StatusError::Missing("Reason"))?,
            digest,
            previous_digest,
            started,
            finished,
            services,
        })
    }
}

fn service(value: &str) -> Result<Service, FieldError> {
    let mut parts = value.splitn(3, ' ');
    let name: Line = parts.next().unwrap_or_default().parse()?;
    if name.is_empty() {
        return Err(FieldError::Empty);
    }
    let state = parts.next().unwrap_or_default().parse()?;
    let detail = parts.next().unwrap_or_default().parse()?;
    Ok(Service { name, state, detail })
}

fn set<T, E: fmt::Display>(slot: &mut Option<T>, key: &'static str, value: Result<T, E>) -> Result<(), StatusError> {
    if slot.is_some() {
        return Err(StatusError::Twice(key));
    }
    *slot = Some(value.map_err(|error| bad(key, &error))?);
    Ok(())
}

fn bad(key: &'static str, error: &dyn fmt::Display) -> StatusError {
    StatusError::Value { key, why: Line::lossy(&error.to_string()) }
}
