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
        if seen.lines.is_empty()
            && !seen.more
            && let Some(now) = dir.open_file(self.name.as_ref(), &self.owners)?
            && !self.open.as_ref().is_some_and(|open| open.stamp.same_file(&now.stamp))
        {
            self.open = Some(now);
            self.unfinished.clear();
            self.skipping = false;
            seen = self.read()?;
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::handoff::fields::{Line, Word};

    fn line(text: &str) -> LogLine {
        LogLine {
            time: jiff::Timestamp::UNIX_EPOCH,
            phase: Word::lossy("pull"),
            service: None,
            event: Word::lossy("layer"),
            text: Line::lossy(text),
        }
    }

    fn place() -> (tempfile::TempDir, Dir, RequestId, Follower) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let id = RequestId::generate();
        let follower = Follower::new(id, Owners::own_and(&[]));
        (temp, dir, id, follower)
    }

    fn texts(follower: &mut Follower, dir: &Dir) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let seen = follower.look(dir).unwrap();
            texts.extend(seen.lines.iter().map(|line| line.text.to_string()));
            if !seen.more {
                return texts;
            }
        }
    }

    #[test]
    fn lines_are_seen_once_they_are_whole() {
        let (_temp, dir, id, mut follower) = place();
        assert!(texts(&mut follower, &dir).is_empty());
        assert!(!follower.exists());
        let mut log = dir.create(&id.log_name()).unwrap();
        assert!(texts(&mut follower, &dir).is_empty());
        assert!(follower.exists());
        log.write_all(&line("one").encode()).unwrap();
        assert_eq!(texts(&mut follower, &dir), ["one"]);
        let two = line("two").encode();
        let (start, end) = two.split_at(two.len() / 2);
        log.write_all(start).unwrap();
        assert!(texts(&mut follower, &dir).is_empty());
        log.write_all(end).unwrap();
        log.write_all(&line("three").encode()).unwrap();
        assert_eq!(texts(&mut follower, &dir), ["two", "three"]);
    }

    #[test]
    fn a_new_log_at_the_name_is_read_from_its_beginning() {
        let (_temp, dir, id, mut follower) = place();
        let mut log = dir.create(&id.log_name()).unwrap();
        log.write_all(&line("one").encode()).unwrap();
        log.write_all(b"half a li").unwrap();
        assert_eq!(texts(&mut follower, &dir), ["one"]);
        let mut log = dir.create(&id.log_name()).unwrap();
        log.write_all(&line("two").encode()).unwrap();
        assert_eq!(texts(&mut follower, &dir), ["two"]);
    }

    #[test]
    fn rubbish_is_passed_over() {
        let (_temp, dir, id, mut follower) = place();
        let mut log = dir.create(&id.log_name()).unwrap();
        log.write_all(b"no JSON\n\xff\xfe\n\n").unwrap();
        log.write_all(&vec![b'x'; 5 * LINE_LIMIT]).unwrap();
        log.write_all(b"\n").unwrap();
        log.write_all(&line("after").encode()).unwrap();
        assert_eq!(texts(&mut follower, &dir), ["after"]);
    }

    #[test]
    fn endless_lines_and_logs_cost_no_memory() {
        let (_temp, dir, id, mut follower) = place();
        let mut log = dir.create(&id.log_name()).unwrap();
        let many: Vec<u8> = line(&"x".repeat(1000)).encode().repeat(1024);
        for _ in 0..12 {
            log.write_all(&many).unwrap();
        }
        log.write_all(&LogLine::heartbeat(jiff::Timestamp::UNIX_EPOCH, Word::lossy("pull")).encode()).unwrap();
        let seen = texts(&mut follower, &dir);
        assert!(seen.len() < 9 * 1024, "{} lines", seen.len());
        assert_eq!(seen.last().unwrap(), "", "the sign of life is still seen");
        assert!(follower.unfinished.capacity() < 4 * CHUNK);
    }

    #[test]
    fn what_is_planted_at_the_name_is_neither_followed_nor_waited_for() {
        for plant in ["FIFO", "link", "directory"] {
            let (temp, dir, id, mut follower) = place();
            let at = temp.path().join(id.log_name());
            match plant {
                "FIFO" => rustix::fs::mkfifoat(&dir, &*id.log_name(), rustix::fs::Mode::from_raw_mode(0o600)).unwrap(),
                "link" => std::os::unix::fs::symlink("/proc/self/environ", &at).unwrap(),
                _ => std::fs::create_dir(&at).unwrap(),
            }
            assert!(matches!(follower.look(&dir), Err(ReadError::NotAFile { .. })), "{plant}");
            let mut log = dir.create(&id.log_name()).unwrap();
            log.write_all(&line("one").encode()).unwrap();
            assert_eq!(texts(&mut follower, &dir), ["one"], "{plant}");
        }
    }
}
