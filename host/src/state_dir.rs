//! The app's state directory: where it is, who may use it at a time, and how a file in it is read and replaced.
//!
//! What the files mean belongs to `journal`, `history` and `trust`. Nothing here is ever in the hand-off directory.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Serialize, de::DeserializeOwned};
use tagship_core::{explain::Explain, failpoint};

use crate::config::App;

/// The largest state file that is read back. The journal of a few hundred waiting requests of 4 KiB each fits.
const LARGEST: u64 = 8 * 1024 * 1024;

/// One app's private directory below `$XDG_STATE_HOME/tagship`.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// The right to act for an app; released when dropped, and by the kernel when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A state directory or file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Neither `XDG_STATE_HOME` nor `HOME` says where state belongs.
    #[error("no place for state: neither XDG_STATE_HOME nor HOME is an absolute path")]
    NoHome,
    /// The directory belongs to somebody else.
    #[error("the state directory {path} belongs to uid {owner}, not to uid {me}")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this program.
        me: u32,
    },
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done: `read`, `write`, `lock`, `create`.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file's content is not what this program writes.
    #[error("the state file {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A file larger than any that this program writes.
    #[error("the state file {path} is larger than {LARGEST} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl Explain for StateError {
    fn kind(&self) -> &'static str {
        match self {
            Self::NoHome | Self::Foreign { .. } => "state-place",
            Self::Io { .. } => "state-io",
            Self::Damaged { .. } | Self::TooLarge { .. } => "state-damaged",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoHome => Some("run it as the app's user, in a login session or a user unit".into()),
            Self::Foreign { path, .. } => Some(format!("run it as the owner of {}", path.display())),
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("make room on the disk; `podman system df` shows what images take".into())
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some(format!("make {} writable for the app's user", path.display()))
                }
                _ => None,
            },
            Self::Damaged { path, .. } | Self::TooLarge { path } => Some(format!(
                "if a newer tagship-host wrote {0}, install that one again; else restore it from a backup, or move it away: \
                 the highest version is then taken from what runs, or else from the next good deploy",
                path.display()
            )),
        }
    }
}

impl StateDir {
    /// Opens the app's directory below `$XDG_STATE_HOME/tagship`, or `~/.local/state/tagship`; makes it if it is not
    /// there.
    pub fn open(app: &App) -> Result<Self, StateError> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .ok_or(StateError::NoHome)?;
        Self::at(base.join("tagship").join(app.as_str()))
    }

    /// Opens this very directory; makes it, readable for its owner alone, if it is not there.
    pub fn at(path: PathBuf) -> Result<Self, StateError> {
        let io = |action| {
            let path = path.clone();
            move |source| StateError::Io { action, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io("create"))?;
        let owner = fs::metadata(&path).map_err(io("read"))?.uid();
        let me = rustix::process::geteuid().as_raw();
        if owner != me {
            return Err(StateError::Foreign { path, owner, me });
        }
        Ok(Self { path })
    }

    /// Where the file of this name is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Waits until nobody else acts for the app.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let (file, path) = self.lock_file()?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(StateError::Io { action: "lock", path, source: error.into() }),
            }
        }
    }

    /// Takes the lock only if nobody has it.
    pub fn try_lock(&self) -> Result<Option<Lock>, StateError> {
        let (file, path) = self.lock_file()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(StateError::Io { action: "lock", path, source: error.into() }),
        }
    }

    /// Whether somebody acts for the app now. Asked by a shared lock, which keeps others that ask from nothing, and
    /// whoever wants to act only for the moment that the question takes.
    pub fn is_locked(&self) -> Result<bool, StateError> {
        let (file, path) = self.lock_file()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(StateError::Io { action: "lock", path, source: error.into() }),
        }
    }

    fn lock_file(&self) -> Result<(File, PathBuf), StateError> {
        let path = self.file("lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        match opened {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(StateError::Io { action: "open", path, source }),
        }
    }

    /// Reads a file whole; none if it is not there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.file(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { action: "read", path, source }),
        };
        let mut bytes = Vec::new();
        match file.take(LARGEST + 1).read_to_end(&mut bytes) {
            Err(source) => Err(StateError::Io { action: "read", path, source }),
            Ok(read) if read as u64 > LARGEST => Err(StateError::TooLarge { path }),
            Ok(_) => Ok(Some(bytes)),
        }
    }

    /// Reads the last lines of a file of lines, at most 4 MiB of them; nothing if it is not there.
    pub fn read_end(&self, name: &str) -> Result<Vec<u8>, StateError> {
        let path = self.file(name);
        match read_end(&path, LARGEST / 2) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(StateError::Io { action: "read", path, source }),
            Ok(bytes) => Ok(bytes),
        }
    }

    /// Reads what [`write_json`](Self::write_json) wrote; none if it is not there.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| StateError::Damaged { path: self.file(name), source })
    }

    /// Replaces a file whole: after a crash, at any moment, it holds the old content or the new one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.file(name);
        failpoint::pass("writes", name);
        replace(&path, bytes).map_err(|source| StateError::Io { action: "write", path, source })?;
        failpoint::pass("has written", name);
        Ok(())
    }

    /// The same with a value as JSON.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let bytes =
            serde_json::to_vec_pretty(value).map_err(|source| StateError::Damaged { path: self.file(name), source })?;
        self.write(name, &bytes)
    }

    /// Adds one line to a file of lines and waits until the disk has it. Of a file that has grown beyond 8 MiB the older
    /// half is dropped.
    ///
    /// A crash can leave half a line at the end; the next one then starts on a line of its own.
    pub fn append(&self, name: &str, line: &str) -> Result<(), StateError> {
        let path = self.file(name);
        failpoint::pass("adds to", name);
        let appended = append(&path, line).and_then(|length| match length > LARGEST {
            true => replace(&path, &read_end(&path, LARGEST / 2)?),
            false => Ok(()),
        });
        appended.map_err(|source| StateError::Io { action: "write", path, source })
    }
}

/// Puts a file in another's place, whole or not at all, and waits until the disk has it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}

fn read_end(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let cut = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(cut))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    // What the cut left of a line is none.
    let start =
        if cut == 0 { 0 } else { bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1) };
    Ok(bytes.split_off(start))
}

/// How long the file is then, in bytes.
fn append(path: &Path, line: &str) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;

    let mut file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
    let mut last = *b"\n";
    if let Some(end) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, end)?;
    }
    let broken = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{broken}{line}\n").as_bytes())?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A state directory for one test.
    pub(crate) fn fresh() -> (tempfile::TempDir, StateDir) {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::at(temp.path().join("deep/app")).unwrap();
        (temp, state)
    }

    #[test]
    fn the_directory_is_for_its_owner_alone() {
        let (_temp, state) = fresh();
        assert_eq!(fs::metadata(&state.path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_is_left_beside_it() {
        let (_temp, state) = fresh();
        assert_eq!(state.read_json::<Vec<u8>>("numbers").unwrap(), None);
        state.write_json("numbers", &[1, 2]).unwrap();
        state.write_json("numbers", &[3]).unwrap();
        assert_eq!(state.read_json::<Vec<u8>>("numbers").unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(&state.path).unwrap().count(), 1);
    }

    #[test]
    fn a_cut_file_is_damaged_not_absent() {
        let (_temp, state) = fresh();
        fs::write(state.file("numbers"), "[1, ").unwrap();
        assert_eq!(state.read_json::<Vec<u8>>("numbers").unwrap_err().kind(), "state-damaged");
    }

    #[test]
    fn a_file_of_lines_loses_its_older_half_when_it_is_large() {
        let (_temp, state) = fresh();
        let line = |number: usize| format!("{number:0>1000}");
        let lines: String = (0..LARGEST as usize / 1001).map(|number| line(number) + "\n").collect();
        fs::write(state.file("lines"), &lines).unwrap();
        let last = lines.lines().count();
        for number in last..last + 2 {
            state.append("lines", &line(number)).unwrap();
        }
        let left = String::from_utf8(state.read("lines").unwrap().unwrap()).unwrap();
        assert!(left.len() as u64 <= LARGEST / 2 + 2048, "{}", left.len());
        assert!(left.lines().rev().zip((0..last + 2).rev()).all(|(kept, number)| kept == line(number)));
        assert!(left.lines().count() > 4000);
    }

    #[test]
    fn an_endless_file_is_refused() {
        let (_temp, state) = fresh();
        File::create(state.file("numbers")).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(state.read("numbers"), Err(StateError::TooLarge { .. })));
    }

    #[test]
    fn only_one_holds_the_lock() {
        let (_temp, state) = fresh();
        let held = state.lock().unwrap();
        assert!(state.try_lock().unwrap().is_none());
        assert!(state.is_locked().unwrap());
        drop(held);
        assert!(!state.is_locked().unwrap());
        assert!(state.try_lock().unwrap().is_some());
    }

    #[test]
    fn the_end_of_a_file_is_whole_lines() {
        let (_temp, state) = fresh();
        assert_eq!(state.read_end("lines").unwrap(), b"");
        for line in ["one", "two", "three"] {
            state.append("lines", line).unwrap();
        }
        assert_eq!(state.read_end("lines").unwrap(), b"one\ntwo\nthree\n");
        let end = |most| read_end(&state.file("lines"), most).unwrap();
        assert_eq!(end(14), b"one\ntwo\nthree\n");
        assert_eq!(end(13), b"two\nthree\n");
        assert_eq!(end(6), b"");
        assert_eq!(end(7), b"three\n");
    }

    #[test]
    fn half_a_line_at_the_end_spoils_no_other() {
        let (_temp, state) = fresh();
        state.append("lines", "one").unwrap();
        fs::write(state.file("lines"), "one\ntw").unwrap();
        state.append("lines", "three").unwrap();
        assert_eq!(state.read("lines").unwrap().unwrap(), b"one\ntw\nthree\n");
    }
}
