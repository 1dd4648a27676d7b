//! What the inbox keeps on disk about each request, and the trait by which it does.
//!
//! Where and how it is kept is that of `requests`.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tagship_core::{
    handoff::{names::RequestId, status::Status},
    reference::Tag,
};

use crate::state_dir::StateError;

/// One claimed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The request's identifier. A plain request gets one from the inbox.
    pub id: RequestId,
    /// When it was claimed.
    pub claimed: Timestamp,
    /// What came.
    pub form: EntryForm,
    /// How far it is.
    pub stage: Stage,
    /// The hand-off directory that it came from, and is answered in, whatever is configured by then. None is the present
    /// one: so it was before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff: Option<PathBuf>,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryForm {
    /// The full form: the request's own text, which a signature may cover.
    Full {
        /// The text.
        text: String,
    },
    /// The plain form.
    Plain {
        /// The tag asked for.
        tag: Tag,
        /// When the file was last written.
        written: Timestamp,
        /// The name that the file had once it was claimed.
        claim: String,
    },
}

/// How far a request is. It only ever moves forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing was done for it yet.
    Waiting,
    /// Its deploy began.
    Begun,
    /// This is its answer, which may not have been written yet.
    Decided(Box<Status>),
}

/// Keeps entries on disk. When a method returns, the change survives a crash.
pub trait Ledger: Send + Sync {
    /// Whether a request was ever put here, closed or not. Identifiers may be forgotten once their requests are so old
    /// that they would be refused anyway.
    fn knows(&self, id: RequestId) -> Result<bool, StateError>;

    /// All entries that are not closed.
    fn open_entries(&self) -> Result<Vec<Entry>, StateError>;

    /// Puts an entry, or replaces the one with its identifier.
    fn put(&self, entry: &Entry) -> Result<(), StateError>;

    /// Notes that a signed rollback request is made use of, before anything is done for it: it stays known until its
    /// Not-After has passed, however many others come after it. Its signature was verified, so nobody without the key
    /// makes this grow.
    fn spend(&self, id: RequestId, not_after: Timestamp) -> Result<(), StateError>;

    /// Closes an entry: its answer was written. The identifier stays known, also if there never was an entry.
    fn close(&self, id: RequestId) -> Result<(), StateError>;
}
