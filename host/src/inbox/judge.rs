//! What a claimed file asks for, whether it asks too late, and which of several goes first.
//!
//! Pure: bytes and times in, verdicts out. Signatures, versions already deployed and everything else about trust come
//! later.

use std::{cmp::Ordering, time::Duration};

use jiff::Timestamp;
use tagship_core::{
    explain::{self, Explain},
    handoff::{
        fields::BootId,
        names::RequestId,
        request::{self, Received},
        status::{Outcome, Status},
    },
    reference::Tag,
};

use super::Arrival;
use crate::trust::order::newer_request;

/// The largest plain request, in bytes: a tag has at most 128, and may end its line.
pub(super) const TRIGGER_LIMIT: usize = 129;

/// How far ahead the Not-After of a rollback request may lie: the longest budget, by which requesters set it, and an hour
/// for clocks that differ. Each that was used is remembered until then, and one that leaked is dead after it.
const ROLLBACK_AHEAD: Duration = Duration::from_secs(25 * 60 * 60);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The full form.
    Full(Box<Received>),
    /// The plain form.
    Plain {
        /// The tag asked for.
        tag: Tag,
        /// When the file was last written.
        written: Timestamp,
    },
}

/// A claimed file that is no request.
#[derive(Debug)]
pub(super) struct Invalid {
    /// Whom to answer, as far as that can be told.
    pub(super) id: Option<RequestId>,
    pub(super) status: Box<Status>,
}

/// The moment and the machine that requests are held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present<'a> {
    pub(super) now: Timestamp,
    pub(super) boot: &'a BootId,
    pub(super) booted: Timestamp,
    pub(super) budget: Duration,
}

impl Asked {
    /// The tag asked for.
    pub fn tag(&self) -> &Tag {
        match self {
            Asked::Full(received) => &received.request.tag,
            Asked::Plain { tag, .. } => tag,
        }
    }

    /// Whether an older version than the present one is meant.
    pub fn is_rollback(&self) -> bool {
        matches!(self, Asked::Full(received) if received.request.rollback)
    }

    /// Why the request must not begin any more, if so.
    pub(super) fn stale(&self, present: &Present<'_>) -> Option<Status> {
        let (latest, rebooted) = match self {
            Asked::Full(received) => (received.request.not_after, received.request.boot != *present.boot),
            Asked::Plain { written, .. } => {
                (written.saturating_add(present.budget).unwrap_or(Timestamp::MAX), *written < present.booted)
            }
        };
        if rebooted {
            let reason = "the request was made before the host's last boot; nothing was deployed, request it anew";
            return Some(Status::new(Outcome::Refused, "before-boot", reason));
        }
        if present.now > latest {
            let reason = format!(
                "the deploy was to begin before {latest:.0}, and it is {:.0}; nothing was deployed, request it anew",
                present.now
            );
            return Some(Status::new(Outcome::Refused, "too-late", &reason));
        }
        let ahead = present.now.saturating_add(ROLLBACK_AHEAD).unwrap_or(Timestamp::MAX);
        if self.is_rollback() && latest > ahead {
            let reason = format!(
                "a rollback is to begin within {} hours, and this request lasts until {latest:.0}; nothing was deployed, \
                 request it anew with an earlier Not-After",
                ROLLBACK_AHEAD.as_secs() / 3600
            );
            return Some(Status::new(Outcome::Refused, "too-long", &reason));
        }
        None
    }
}

/// Which of two waiting requests is deployed: the newer version, else the newer request.
pub(super) fn order(a: (&Tag, RequestId), b: (&Tag, RequestId)) -> Ordering {
    newer_request(a.0, b.0).then(a.1.cmp(&b.1))
}

/// Reads a full request. `named` is the identifier in its file's name.
pub(super) fn full(named: Option<RequestId>, bytes: &[u8]) -> Result<Received, Invalid> {
    let invalid = |kind: &str, reason: &str| {
        let salvaged = request::salvage(bytes);
        // Whoever made the name waits for an answer under it, if the file itself names nobody.
        invalid(salvaged.id.or(named), salvaged.tag, kind, reason)
    };
    let received = Received::parse(bytes).map_err(|error| invalid(error.kind(), &told(&error)))?;
    if named != Some(received.request.id) {
        return Err(invalid("request-name", "the request's file is not named after the identifier in it"));
    }
    Ok(received)
}

/// Reads a plain request: a tag, with or without the end of its line, and nothing else.
pub(super) fn plain(bytes: &[u8]) -> Result<Tag, Invalid> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let reason = if line.is_empty() { "the request is empty" } else { "the request is not one image tag" };
        invalid(None, None, "request-invalid", reason)
    })
}

/// A file that cannot be read at all.
pub(super) fn unreadable(named: Option<RequestId>, error: &impl Explain) -> Invalid {
    invalid(named, None, error.kind(), &told(error))
}

/// Says no to an older request.
pub(super) fn superseded(by: &Arrival) -> Status {
    let named = match by.asked {
        Asked::Full(_) => format!(" ({})", by.id()),
        Asked::Plain { .. } => String::new(),
    };
    let tag = by.tag();
    let reason = format!("a request for {tag}{named} came before this one could begin; nothing was done for this one");
    Status::new(Outcome::Superseded, "superseded", &reason)
}

/// An error as an answer's reason.
pub(super) fn told(error: &impl Explain) -> String {
    let mut reason = explain::chain(error);
    if let Some(hint) = error.hint() {
        reason.push_str("; hint: ");
        reason.push_str(&hint);
    }
    reason
}

fn invalid(id: Option<RequestId>, tag: Option<Tag>, kind: &str, reason: &str) -> Invalid {
    let status = Status { tag, request: id, ..Status::new(Outcome::Refused, kind, reason) };
    Invalid { id, status: Box::new(status) }
}
