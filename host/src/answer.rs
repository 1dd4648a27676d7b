//! What the companion writes into the hand-off directory: answers, logs, and what it tells about itself.
//!
//! Everything is written whole or appended by line, and instead of whatever somebody planted at the name. When and what
//! to answer is decided elsewhere.

use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tagship_core::{
    handoff::{
        VERSION,
        dir::{Dir, DirError, Opened, Owners},
        fields::{BootId, Line, Word},
        host::{self, HostFile, Running},
        log::LogLine,
        names::{self, Name, RequestId},
        request,
        status::{self, Status},
    },
    signature::Rekor,
};

use crate::{config::Settings, trust::Release};

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

/// Writes `deploy-host`, what the companion tells about itself, if it is not there already. Whether it is another
/// companion, boot or configuration than the last time.
pub fn announce(dir: &Dir, settings: &Settings, running: Option<&Release>) -> Result<bool, DirError> {
    let boot = match BootId::current() {
        Ok(boot) => boot,
        Err(error) => {
            tracing::warn!("deploy-host stays as it is: cannot find out about this boot: {error}");
            return Ok(false);
        }
    };
    let told = HostFile {
        protocol: VERSION,
        request_keys: request::KEYS.into_iter().map(Line::lossy).collect(),
        companion: Line::lossy(env!("CARGO_PKG_VERSION")),
        image: settings.image.clone(),
        budget_seconds: settings.budget.as_secs(),
        boot,
        log_required: settings.verify.rekor == Rekor::Required,
        running: running.map(|release| Running { tag: Some(release.tag.clone()), digest: release.digest }),
    };
    let there = dir.open_file(names::HOST.as_ref(), &Owners::own_and(&[]));
    let there = there.ok().flatten().and_then(|opened: Opened| opened.read(host::LIMIT).ok());
    if there.as_ref() == Some(&told.encode()) {
        return Ok(false);
    }
    dir.replace(names::HOST, &told.encode())?;
    // What runs changes with every deploy, which has told of it by itself.
    let known = there.and_then(|bytes| HostFile::parse(&bytes).ok());
    Ok(known.is_none_or(|known| HostFile { running: told.running.clone(), ..known } != told))
}

/// Whether this user's answer to a request is there. What cannot be read is none.
pub fn is_there(dir: &Dir, id: RequestId) -> bool {
    let opened = dir.open_file(OsStr::new(&id.status_name()), &Owners::own_and(&[]));
    let bytes = opened.ok().flatten().and_then(|opened| opened.read(status::LIMIT).ok());
    bytes.and_then(|bytes| Status::parse(&bytes).ok()).is_some_and(|status| status.request == Some(id))
}

/// Removes answers, logs and leftovers of interrupted writers that are older than seven days.
///
/// Goes on after a failure, and returns the first one.
pub fn sweep(dir: &Dir, now: Timestamp) -> Result<(), DirError> {
    let oldest = now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    let mut first = Ok(());
    for name in dir.names()? {
        let ours = matches!(Name::of(name.as_encoded_bytes()), Name::Log(_) | Name::Answer(_) | Name::Leftover);
        if !ours {
            continue;
        }
        first = first.and(match dir.modified(&name) {
            Ok(Some(modified)) if modified < oldest => dir.discard(&name),
            modified => modified.map(drop),
        });
    }
    first
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rustix::fs::{AtFlags, Timespec, Timestamps};
    use tagship_core::handoff::status::Outcome;

    use super::*;

    fn place() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        (temp, dir)
    }

    fn lines(path: &Path) -> Vec<LogLine> {
        fs::read(path).unwrap().split(|byte| *byte == b'\n').filter_map(LogLine::parse).collect()
    }

    #[test]
    fn a_log_tells_everything_in_order_and_beats_in_its_phase() {
        let (temp, dir) = place();
        let id = RequestId::generate();
        let progress = Progress::create(&dir, id).unwrap();
        progress.tell("pull", None, "layer", "");
        progress.clone().tell("Health!", Some("web"), "un healthy", "one\ntwo\u{1b}[2J");
        progress.beat();
        let lines = lines(&temp.path().join(id.log_name()));
        let shown: Vec<_> =
            lines.iter().map(|line| (line.phase.as_str(), line.event.as_str(), line.text.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("claim", "heartbeat", ""),
                ("pull", "layer", ""),
                ("health-", "un-healthy", "one"),
                ("health-", "un-healthy", "two [2J"),
                ("health-", "heartbeat", ""),
            ]
        );
        Progress::none().tell("pull", None, "layer", "goes nowhere");
    }

    #[test]
    fn answers_go_to_their_own_names() {
        let (temp, dir) = place();
        let id = RequestId::generate();
        let status = Status::new(Outcome::Refused, "kind", "reason");
        write(&dir, &Status { request: Some(id), ..status.clone() }).unwrap();
        assert!(temp.path().join(id.status_name()).exists());
        assert!(!temp.path().join(names::STATUS).exists());
        write(&dir, &status).unwrap();
        assert_eq!(fs::read(temp.path().join(names::STATUS)).unwrap(), status.encode());
    }

    #[test]
    fn old_answers_and_logs_go_and_nothing_else_does() {
        let (temp, dir) = place();
        let id = RequestId::generate();
        let now = Timestamp::now();
        let age = |name: &str, days: i64| {
            let time = Timespec { tv_sec: now.as_second() - days * 24 * 60 * 60, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        };
        let old = [id.log_name(), id.status_name(), ".tagship-writing.0".to_owned(), "deploy-log.x".to_owned()];
        let kept = [names::STATUS, names::TRIGGER, names::HOST, "config.yml", "deploy-request.x"];
        for name in old.iter().map(String::as_str).chain(kept) {
            fs::write(temp.path().join(name), "x").unwrap();
            age(name, 8);
        }
        std::os::unix::fs::symlink("/etc/passwd", temp.path().join("deploy-status.link")).unwrap();
        age("deploy-status.link", 8);
        let young = RequestId::generate().status_name();
        fs::write(temp.path().join(&young), "x").unwrap();
        age(&young, 6);
        sweep(&dir, now).unwrap();
        let mut left: Vec<_> = dir.names().unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
        left.sort();
        let mut expected: Vec<_> = kept.map(str::to_owned).into_iter().chain([young]).collect();
        expected.sort();
        assert_eq!(left, expected);
    }
}
