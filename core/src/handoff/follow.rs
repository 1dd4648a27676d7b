//! Following `deploy-log.ULID` while the companion writes it.
//!
//! Reads what is there and returns: waiting is the watch's work, and printing the caller's.

use std::io::Read as _;

use super::dir::{Dir, Opened, Owners, ReadError};
use super::log::{LINE_LIMIT, LogLine};
use super::names::RequestId;

/// The most that is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// Beyond so many bytes of one log only signs of life are taken from it: nobody reads more, and a runner keeps it all.
const LOG_LIMIT: u64 = 8 * 1024 * 1024;

/// A log that is followed from its beginning.
#[derive(Debug)]
pub struct Follower {
    name: String,
    owners: Owners,
    open: Option<Opened>,
    unfinished: Vec<u8>,
    skipping: bool,
    taken: u64,
}

/// What a look at the log found.
#[derive(Debug, Default)]
pub struct Seen {
    /// New lines, in order.
    pub lines: Vec<LogLine>,
    /// Whether there may be more at once.
    pub more: bool,
}

impl Follower {
    /// Follows the log of a request, if it is one of these users'.
    #[must_use]
    pub fn new(id: RequestId, owners: Owners) -> Follower {
        Follower { name: id.log_name(), owners, open: None, unfinished: Vec::new(), skipping: false, taken: 0 }
    }

    /// Whether the log was there at any time: the request was claimed.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.open.is_some()
    }

    /// Reads what was added since the last look. A companion that starts anew writes a new log: that is read from its
    /// beginning.
    ///
    /// # Errors
    /// If what is at the name is not a regular file of the right owner, or cannot be read.
    pub fn look(&mut self, dir: &Dir) -> Result<Seen, ReadError> {
        let mut seen = self.read()?;
        if seen.lines.is_empty() && !seen.more {
            if let Some(now) = dir.open_file(self.name.as_ref(), &self.owners)? {
                if !self.open.as_ref().is_some_and(|open| open.stamp.same_file(&now.stamp)) {
                    self.open = Some(now);
                    self.unfinished.clear();
                    self.skipping = false;
                    seen = self.read()?;
                }
            }
        }
        Ok(seen)
    }

    fn read(&mut self) -> Result<Seen, ReadError> {
        let Some(open) = &self.open else { return Ok(Seen::default()) };
        let mut chunk = Vec::new();
        let bound = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        (&open.file)
            .take(bound)
            .read_to_end(&mut chunk)
            .map_err(|source| ReadError::Io { name: self.name.clone().into(), source })?;
        self.taken = self.taken.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        let mut lines = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.unfinished.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.unfinished.pop();
                let line = if self.skipping { None } else { LogLine::parse(&self.unfinished) };
                lines.extend(line.filter(|line| self.taken <= LOG_LIMIT || line.is_heartbeat()));
                self.unfinished.clear();
                self.skipping = false;
            } else if self.unfinished.len() > LINE_LIMIT {
                self.unfinished.clear();
                self.skipping = true;
            }
        }
        Ok(Seen { lines, more: chunk.len() == CHUNK })
    }
}
