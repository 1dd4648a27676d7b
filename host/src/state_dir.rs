//! The app's state directory: where it is, who may use it at a time, and how a file in it is read and replaced.
//!
//! What the files mean belongs to `journal`, `history` and `trust`. Nothing here is ever in the hand-off directory.

mod error;
mod file;

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Serialize, de::DeserializeOwned};
use tagship_core::failpoint;

use crate::config::App;
use error::failed;
use file::{append, directory_of, open, read_end, sync};

pub use error::StateError;
pub(crate) use file::replace;

/// The largest state file that is written, and read back. The largest of them is `trust.json`: twenty proven versions with
/// 256 KiB of evidence each, which JSON may make twice as much, would be 10 MiB. So `history` keeps fewer where they are
/// that large.
pub(crate) const LARGEST: u64 = 8 * 1024 * 1024;

/// How long the question takes whether the lock is held, and how many such times it may be asked in a row: a tenth of a
/// second in all. There is no event for the end of one that also tells a question from a deploy.
const QUESTION: Duration = Duration::from_millis(5);
const QUESTIONS: u32 = 20;

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
        // What is made here outlasts a crash only once each directory above knows of it.
        let new: Vec<_> = path.ancestors().take_while(|ancestor| !ancestor.exists()).map(Path::to_owned).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io("create"))?;
        new.iter().try_for_each(|made| sync(directory_of(made))).map_err(io("create"))?;
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
                Err(Errno::INTR) => {}
                Err(error) => return Err(StateError::Io { action: "lock", path, source: error.into() }),
            }
        }
    }

    /// Takes the lock only if nobody has it. Whoever asks [whether it is held](Self::is_locked) has it for a moment, which
    /// is waited for.
    pub fn try_lock(&self) -> Result<Option<Lock>, StateError> {
        self.try_lock_with(|| thread::sleep(QUESTION))
    }

    fn try_lock_with(&self, mut pause: impl FnMut()) -> Result<Option<Lock>, StateError> {
        let (file, path) = self.lock_file()?;
        let mut questions = 0..QUESTIONS;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(Errno::WOULDBLOCK) if questions.next().is_some() => pause(),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(StateError::Io { action: "lock", path, source: error.into() }),
            }
        }
    }

    /// Whether somebody acts for the app now. Asked by a shared lock, which keeps others that ask from nothing, and
    /// whoever wants to act only for the moment that the question takes.
    pub fn is_locked(&self) -> Result<bool, StateError> {
        let (file, path) = self.lock_file()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(StateError::Io { action: "lock", path, source: error.into() }),
        }
    }

    /// Whether somebody acts for another app of this user now. Where that cannot be told, somebody does.
    pub fn others_at_work(&self) -> bool {
        let Some(Ok(beside)) = self.path.parent().map(fs::read_dir) else { return true };
        let others = beside.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| *path != self.path);
        let locked = |path: PathBuf| match path.join("lock").exists() {
            true => Self { path }.is_locked().unwrap_or(true),
            false => false,
        };
        others.into_iter().any(locked)
    }

    fn lock_file(&self) -> Result<(File, PathBuf), StateError> {
        let path = self.file("lock");
        let opened = open(&path, OpenOptions::new().create(true).truncate(false).write(true).mode(0o600));
        match opened {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(failed("open", path, source)),
        }
    }

    /// Reads a file whole; none if it is not there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.file(name);
        let file = match open(&path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", path, source)),
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
            Err(source) => Err(failed("read", path, source)),
            Ok(bytes) => Ok(bytes),
        }
    }

    /// Reads what [`write_json`](Self::write_json) wrote; none if it is not there.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| StateError::Damaged { path: self.file(name), source })
    }

    /// Replaces a file whole: after a crash, at any moment, it holds the old content or the new one. What could not be
    /// read back is not written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.file(name);
        if bytes.len() as u64 > LARGEST {
            return Err(StateError::WouldBeTooLarge { path });
        }
        failpoint::pass("writes", name);
        replace(&path, bytes).map_err(|source| StateError::Io { action: "write", path, source })?;
        failpoint::pass("has written", name);
        Ok(())
    }

    /// The same with a value as JSON.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let bytes = json(value).map_err(|source| StateError::Damaged { path: self.file(name), source })?;
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
        appended.map_err(|source| failed("write", path, source))
    }
}

/// A value as its file holds it.
pub(crate) fn json<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(value)
}

#[cfg(test)]
pub(crate) mod tests;
