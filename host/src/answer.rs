//! What the companion writes into the hand-off directory: answers, logs, and what it tells about itself.
//!
//! Everything is written whole or appended by line, and instead of whatever somebody planted at the name. When and what
//! to answer is decided elsewhere.

use std::{
    fs::File,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tagship_core::handoff::{
    dir::{Dir, DirError},
    fields::{Line, Word},
    host::HostFile,
    log::LogLine,
    names::{self, Name, RequestId},
    status::Status,
};

/// How long answers and logs stay for whoever still wants to read them.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The log of one request, appended to by whoever works on it. A clone writes to the same log.
///
/// The plain form has none: then nothing is written.
#[derive(Debug, Clone)]
pub struct Progress {
    file: Option<Arc<File>>,
    phase: Arc<Mutex<Word>>,
}

impl Progress {
    /// Creates the log of a full request, instead of whatever is at its name. That it is there shows the claim.
    pub fn create(dir: &Dir, id: RequestId) -> Result<Progress, DirError> {
        let file = dir.create(&id.log_name())?;
        let progress = Progress { file: Some(Arc::new(file)), ..Progress::none() };
        progress.beat();
        Ok(progress)
    }

    /// A log that goes nowhere.
    pub fn none() -> Progress {
        Progress { file: None, phase: Arc::new(Mutex::new(Word::lossy("claim"))) }
    }

    /// Tells the requester that something happened: a line for each line of `text`.
    ///
    /// The host's own journal is where things are kept, so a log that cannot be written stops nothing.
    pub fn tell(&self, phase: &str, service: Option<&str>, event: &str, text: &str) {
        let phase = Word::lossy(phase);
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&phase);
        let mut texts = text.lines();
        let mut text = texts.next().unwrap_or_default();
        loop {
            self.write(&LogLine {
                time: Timestamp::now(),
                phase: phase.clone(),
                service: service.map(Line::lossy),
                event: Word::lossy(event),
                text: Line::lossy(text),
            });
            match texts.next() {
                Some(next) => text = next,
                None => break,
            }
        }
    }

    /// Shows that the companion is alive.
    pub fn beat(&self) {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.write(&LogLine::heartbeat(Timestamp::now(), phase));
    }

    fn write(&self, line: &LogLine) {
        if let Some(file) = &self.file {
            // One write to a file opened for appending: lines of several writers do not mix.
            let _ = file.as_ref().write_all(&line.encode());
        }
    }
}

/// Writes the answer of a full request to its own name, of a plain one to the shared name.
pub(crate) fn write(dir: &Dir, status: &Status) -> Result<(), DirError> {
    let name = status.request.map_or_else(|| names::STATUS.to_owned(), RequestId::status_name);
    dir.replace(&name, &status.encode()).map(|_| ())
}

/// Writes `deploy-host`.
pub fn announce(dir: &Dir, host: &HostFile) -> Result<(), DirError> {
    dir.replace(names::HOST, &host.encode()).map(|_| ())
}

/// Removes answers, logs and leftovers of interrupted writers that are older than seven days.
///
/// Goes on after a failure, and returns the first one.
pub fn sweep(dir: &Dir, now: Timestamp) -> Result<(), DirError> {
    let oldest = now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    let mut first = Ok(());
    for name in dir.names()? {
        let ours = matches!(Name::of(name.as_encoded_bytes()), Name::Log(_) | Name::Answer(_) | Name::Leftover);
        if ours && dir.modified(&name)?.is_some_and(|modified| modified < oldest) {
            first = first.and(dir.discard(&name));
        }
    }
    first
}
