//! Reading what others put into the directory: regular files of accepted owners, bounded, without blocking.
//!
//! What is in the files is not known here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};

use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Dir;
use crate::explain::Explain;
use crate::handoff::names::{self, Name};

/// Whose files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owners {
    /// Everybody's.
    Anyone,
    /// Those of these users.
    Only(Vec<u32>),
}

impl Owners {
    /// This process's own user, and the given ones.
    #[must_use]
    pub fn own_and(others: &[u32]) -> Owners {
        let own = rustix::process::geteuid().as_raw();
        Owners::Only(std::iter::once(own).chain(others.iter().copied()).collect())
    }

    fn accepts(&self, uid: u32) -> bool {
        match self {
            Owners::Anyone => true,
            Owners::Only(uids) => uids.contains(&uid),
        }
    }
}

/// Tells one content of one file from others that come to the same name: inode, size and time of the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    // The fields' types differ between architectures.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)]
    pub(super) fn of(stat: &Stat) -> Stamp {
        Stamp {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            seconds: stat.st_mtime as i64,
            nanoseconds: stat.st_mtime_nsec as i64,
        }
    }

    /// Whether both are of the same file, whatever is in it now.
    #[must_use]
    pub fn same_file(&self, other: &Stamp) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// When it was last written.
    #[must_use]
    pub fn modified(&self) -> Timestamp {
        let nanoseconds = i32::try_from(self.nanoseconds).unwrap_or(0);
        // A time out of range can only be a lie, and the oldest time is the one that grants least.
        Timestamp::new(self.seconds, nanoseconds).unwrap_or(Timestamp::MIN)
    }
}

/// A regular file of an accepted owner, open for reading.
#[derive(Debug)]
pub struct Opened {
    /// The file, at its start.
    pub file: File,
    /// Whose it is.
    pub owner: u32,
    /// What it was when it was opened.
    pub stamp: Stamp,
    name: OsString,
}

/// Why something that is there is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no regular file.
    #[error("{} is {found}, not a regular file", name.display())]
    NotAFile {
        /// Its name.
        name: OsString,
        /// What it is.
        found: &'static str,
    },
    /// It is somebody's whose files are not accepted.
    #[error("{} belongs to user {uid}, whose files are not accepted", name.display())]
    Owner {
        /// Its name.
        name: OsString,
        /// Whose it is.
        uid: u32,
    },
    /// More bytes than anything sane has.
    #[error("{} is larger than {limit} bytes", name.display())]
    TooLarge {
        /// Its name.
        name: OsString,
        /// The most that would have been read.
        limit: usize,
    },
    /// The file system says no.
    #[error("cannot read {} in the hand-off directory", name.display())]
    Io {
        /// Its name.
        name: OsString,
        /// Why.
        source: io::Error,
    },
}

impl Explain for ReadError {
    fn kind(&self) -> &'static str {
        match self {
            ReadError::NotAFile { .. } => "not-a-file",
            ReadError::Owner { .. } => "foreign-owner",
            ReadError::TooLarge { .. } => "too-large",
            ReadError::Io { .. } => "unreadable",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ReadError::Owner { uid, .. } => {
                Some(format!("if user {uid} may request deploys, add it to `requesters` in the host's configuration"))
            }
            _ => None,
        }
    }
}

impl Opened {
    /// Reads the file from where it stands, if it is no larger than `limit` bytes.
    ///
    /// # Errors
    /// If it is larger, or cannot be read.
    pub fn read(&self, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        // One byte more tells a file that is too large. What the file's size claims is not relied on.
        let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        (&self.file)
            .take(bound)
            .read_to_end(&mut bytes)
            .map_err(|source| ReadError::Io { name: self.name.clone(), source })?;
        if bytes.len() > limit {
            return Err(ReadError::TooLarge { name: self.name.clone(), limit });
        }
        Ok(bytes)
    }

    /// What the file is now: it may have been written since it was opened.
    ///
    /// # Errors
    /// If the file system does not tell.
    pub fn stamp_now(&self) -> Result<Stamp, ReadError> {
        match rustix::fs::fstat(&self.file) {
            Ok(stat) => Ok(Stamp::of(&stat)),
            Err(errno) => Err(ReadError::Io { name: self.name.clone(), source: errno.into() }),
        }
    }
}

pub(super) fn open(dir: &Dir, name: &OsStr, owners: &Owners) -> Result<Option<Opened>, ReadError> {
    let shown = shown(name);
    let failed = |errno: Errno| ReadError::Io { name: shown.clone(), source: errno.into() };
    // Looked at first, so that nothing but a regular file is opened at all: opening is an effect on some other kinds.
    match dir.stat(name) {
        Ok(stat) => require_file(&stat, &shown)?,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    }
    // Without waiting: it may have become a FIFO by now, or somebody may hold a lease on it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(ReadError::NotAFile { name: shown, found: "a symbolic link" }),
        Err(errno) => return Err(failed(errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    require_file(&stat, &shown)?;
    if !owners.accepts(stat.st_uid) {
        return Err(ReadError::Owner { name: shown, uid: stat.st_uid });
    }
    Ok(Some(Opened { file: File::from(fd), owner: stat.st_uid, stamp: Stamp::of(&stat), name: shown }))
}

/// The name that a reader knows a file by: a claimed request's is the one that its requester wrote.
fn shown(name: &OsStr) -> OsString {
    match Name::of(name.as_encoded_bytes()) {
        Name::ClaimedTrigger => names::TRIGGER.into(),
        Name::ClaimedRequest(Some(id)) => id.request_name().into(),
        _ => name.to_owned(),
    }
}

fn require_file(stat: &Stat, name: &OsStr) -> Result<(), ReadError> {
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        _ => "a device",
    };
    Err(ReadError::NotAFile { name: name.to_owned(), found })
}
