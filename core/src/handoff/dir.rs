//! The hand-off directory: putting, answering, claiming and withdrawing files in it.
//!
//! Everything is relative to one open directory, so nothing that happens to its path matters any more. No link is
//! followed, nothing is opened for writing but files made here, and every change of a name is one rename: a reader
//! never sees half a file, and of several that want the same file exactly one gets it. What the files hold is not
//! known here.

mod error;
mod read;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::failpoint;

use super::names::{ASIDE, Name, WITHDRAWN_PREFIX, WRITING_PREFIX};

pub use error::DirError;
pub use read::{Opened, Owners, ReadError, Stamp};

/// How often an operation is tried anew when somebody keeps planting things in its way.
const TRIES: usize = 8;

/// Files are readable for every user that can reach the directory: action and companion may be different ones, and
/// nothing secret is ever in them. The directory's own mode says who can reach it.
const FILE_MODE: u32 = 0o644;

/// One open hand-off directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// A request that this process took out of the directory's sight: from now on nobody else's.
#[derive(Debug)]
pub struct Claim {
    /// The dot name that it has now.
    pub name: OsString,
    /// What its name stood for.
    pub was: Name,
}

impl Dir {
    /// Opens a directory. Its own path may lead through links: it comes from a person, not from the directory.
    ///
    /// # Errors
    /// If it cannot be opened, or is no directory.
    pub fn open(path: &Path) -> Result<Dir, DirError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Dir { fd, path: path.to_owned() }),
            Err(errno) => Err(DirError::Open { path: path.to_owned(), source: errno.into() }),
        }
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whom the directory belongs to.
    ///
    /// # Errors
    /// If the file system does not tell.
    pub fn owner(&self) -> Result<u32, DirError> {
        let stat = rustix::fs::fstat(&self.fd).map_err(self.failed("look at", OsStr::new(".")))?;
        Ok(stat.st_uid)
    }

    /// All names in it, in no order.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn names(&self) -> Result<Vec<OsString>, DirError> {
        let here = OsStr::new(".");
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(self.failed("list", here))? {
            let name = entry.map_err(self.failed("list", here))?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Makes sure that a file can be put here: writes one under a random dot name, syncs it and removes it again. It
    /// is a block of usual size, for which a full disk has no room.
    ///
    /// # Errors
    /// If it cannot be written or removed.
    pub fn check_writable(&self) -> Result<(), DirError> {
        let written = self.write(&[b'\n'; 4096]);
        written
            .and_then(|(name, _)| rustix::fs::unlinkat(&self.fd, &*name, AtFlags::empty()))
            .map_err(|errno| DirError::Unwritable { path: self.path.clone(), source: errno.into() })
    }

    /// Puts a whole file at a name that must be free, and makes sure that it is on the disk. The stamp tells the file
    /// apart from any that others put at the same name later.
    ///
    /// # Errors
    /// If the name is taken, or anything about writing fails. Then nothing is left behind.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<Stamp, DirError> {
        let name = self.entry(name)?;
        failpoint::pass("puts", name.display());
        let (temporary, stamp) = self.write(bytes).map_err(self.failed("write", name))?;
        let put = self.rename_free(&temporary, name);
        // Gone after the rename, unless a file system without exclusive renames made a link instead.
        self.unlink(&temporary);
        put.and_then(|()| self.sync()).map_err(self.failed("put", name))?;
        failpoint::pass("has put", name.display());
        Ok(stamp)
    }

    /// Puts a whole file at a name, instead of whatever is there, and makes sure that it is on the disk. A link at the
    /// name is replaced, not followed; a directory is moved out of the way.
    ///
    /// # Errors
    /// If anything about writing fails. Then what was at the name is still there.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<Stamp, DirError> {
        let name = self.entry(name)?;
        failpoint::pass("writes", name.display());
        let (temporary, stamp) = self.write(bytes).map_err(self.failed("write", name))?;
        let mut replaced = rustix::fs::renameat(&self.fd, &*temporary, &self.fd, name);
        for _ in 0..TRIES {
            if replaced != Err(Errno::ISDIR) {
                break;
            }
            self.discard(name)?;
            replaced = rustix::fs::renameat(&self.fd, &*temporary, &self.fd, name);
        }
        // Renaming onto another link to the same file does nothing and says nothing.
        self.unlink(&temporary);
        replaced.and_then(|()| self.sync()).map_err(self.failed("replace", name))?;
        failpoint::pass("has written", name.display());
        Ok(stamp)
    }

    /// Creates an empty file to append to, instead of whatever is at its name.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(&self, name: &str) -> Result<File, DirError> {
        let name = self.entry(name)?;
        let mut created = self.create_new(name, OFlags::APPEND);
        for _ in 0..TRIES {
            match created {
                Err(Errno::EXIST) => self.discard(name)?,
                _ => break,
            }
            created = self.create_new(name, OFlags::APPEND);
        }
        created.map_err(self.failed("create", name))
    }

    /// Takes back a file that was put here. `false` if somebody claimed or replaced it: then it is not touched.
    ///
    /// # Errors
    /// If the directory cannot be changed.
    pub fn withdraw(&self, name: &str, put: &Stamp) -> Result<bool, DirError> {
        let name = self.entry(name)?;
        let away = random_name(WITHDRAWN_PREFIX).map_err(self.failed("withdraw", name))?;
        match self.rename_free(name, &away) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(self.failed("withdraw", name)(errno)),
        }
        if self.stat(&away).is_ok_and(|stat| Stamp::of(&stat) == *put) {
            self.discard(&away)?;
            return Ok(true);
        }
        // Somebody else's request came to the name in the meantime: it goes back, unless a still newer one is there,
        // which would have replaced it anyway.
        match self.rename_free(&away, name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::EXIST) => self.discard(&away)?,
            Err(errno) => return Err(self.failed("put back", name)(errno)),
        }
        Ok(false)
    }

    /// Claims what is at a name, whatever type of file it is: a rename to a random name, which exactly one of several
    /// claimers and withdrawers achieves. `None` if nothing is there, or if the name stands for no request.
    ///
    /// # Errors
    /// If the directory cannot be changed.
    pub fn claim(&self, name: &OsStr) -> Result<Option<Claim>, DirError> {
        let was = Name::of(name.as_bytes());
        let Some(prefix) = was.claim_prefix() else { return Ok(None) };
        for _ in 0..TRIES {
            let claimed = random_name(&prefix).map_err(self.failed("claim", name))?;
            match self.rename_free(name, &claimed) {
                Ok(()) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(self.failed("claim", name)(errno)),
            }
            match self.stat(&claimed) {
                // A rename between two links to one file does nothing. Nobody can have made a link at a name just
                // drawn at random, but whoever can guess it shall not make us read a file that is still in its place.
                Ok(stat) if self.stat(name).is_ok_and(|old| Stamp::of(&old) == Stamp::of(&stat)) => {
                    self.unlink(&claimed);
                }
                Ok(_) => {
                    failpoint::pass("claimed", name.display());
                    return Ok(Some(Claim { name: claimed, was }));
                }
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(self.failed("claim", name)(errno)),
            }
        }
        Err(self.failed("claim", name)(Errno::BUSY))
    }

    /// Opens a file for reading if it is a regular file of an accepted owner. Never blocks, follows no link. `None` if
    /// nothing is there.
    ///
    /// # Errors
    /// If something else is there, or if it cannot be opened.
    pub fn open_file(&self, name: &OsStr, owners: &Owners) -> Result<Option<Opened>, ReadError> {
        read::open(self, name, owners)
    }

    /// Removes what is at a name. What cannot be removed, a directory with something in it, is moved to
    /// `.tagship-aside`, where nothing looks at it again. Nothing there is fine, too.
    ///
    /// # Errors
    /// If the directory cannot be changed.
    pub fn discard(&self, name: &OsStr) -> Result<(), DirError> {
        failpoint::pass("discards", name.display());
        let Err(errno) = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) else { return Ok(()) };
        match errno {
            Errno::NOENT => Ok(()),
            Errno::ISDIR => match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(_) => self.move_aside(name),
            },
            errno => Err(self.failed("remove", name)(errno)),
        }
    }

    /// Whether a file that was put here is still at its name, unchanged.
    #[must_use]
    pub fn holds(&self, name: &OsStr, put: &Stamp) -> bool {
        self.stat(name).is_ok_and(|stat| Stamp::of(&stat) == *put)
    }

    /// When what is at a name was last written, whatever type of file it is. `None` if nothing is there.
    ///
    /// # Errors
    /// If the file system does not tell.
    pub fn modified(&self, name: &OsStr) -> Result<Option<Timestamp>, DirError> {
        match self.stat(name) {
            Ok(stat) => Ok(Some(Stamp::of(&stat).modified())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("look at", name)(errno)),
        }
    }

    /// What is at a name, without following a link.
    pub(super) fn stat(&self, name: &OsStr) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn move_aside(&self, name: &OsStr) -> Result<(), DirError> {
        let random = random_name("").map_err(self.failed("move aside", name))?;
        let moved = self
            .aside()
            .and_then(|aside| rustix::fs::renameat_with(&self.fd, name, aside, &*random, RenameFlags::NOREPLACE));
        match moved {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // A directory changes its parent only with the right to write in it. Beside the fixed place it needs none.
            Err(_) => {
                let beside = random_name(&format!("{ASIDE}.")).map_err(self.failed("move aside", name))?;
                match rustix::fs::renameat(&self.fd, name, &self.fd, &*beside) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(self.failed("move aside", name)(errno)),
                }
            }
        }
    }

    fn aside(&self) -> Result<OwnedFd, Errno> {
        match rustix::fs::mkdirat(&self.fd, ASIDE, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, ASIDE, flags, Mode::empty())
    }

    /// Writes a file under a random dot name and syncs it.
    fn write(&self, bytes: &[u8]) -> Result<(OsString, Stamp), Errno> {
        let name = random_name(WRITING_PREFIX)?;
        let mut file = self.create_new(&name, OFlags::empty())?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|()| rustix::fs::fstat(&file));
        match written {
            Ok(stat) => Ok((name, Stamp::of(&stat))),
            Err(errno) => {
                self.unlink(&name);
                Err(errno)
            }
        }
    }

    fn create_new(&self, name: &OsStr, more: OFlags) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
        let mode = Mode::from_raw_mode(FILE_MODE);
        let fd = rustix::fs::openat(&self.fd, name, flags, mode)?;
        // The umask may have taken bits away. A file system without modes has nothing to set.
        let _ = rustix::fs::fchmod(&fd, mode);
        Ok(File::from(fd))
    }

    /// Renames to a name that must be free.
    fn rename_free(&self, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            // NFS and some FUSE file systems have no such rename.
            Err(Errno::INVAL | Errno::NOSYS) => self.rename_by_link(from, to),
            result => result,
        }
    }

    /// Renames to a name that must be free, where there is no rename that makes sure of that. A link does, for files;
    /// anything else is only ever renamed to a random name, at which nothing is.
    fn rename_by_link(&self, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        match rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty()) {
            // Whoever removes the old name has the file; of several that linked it, that is one.
            Ok(()) => rustix::fs::unlinkat(&self.fd, from, AtFlags::empty()).inspect_err(|_| self.unlink(to)),
            Err(errno @ (Errno::EXIST | Errno::NOENT)) => Err(errno),
            Err(_) if matches!(self.stat(to), Err(Errno::NOENT)) => rustix::fs::renameat(&self.fd, from, &self.fd, to),
            Err(_) => Err(Errno::EXIST),
        }
    }

    /// A name that stays in the directory.
    fn entry<'a>(&self, name: &'a str) -> Result<&'a OsStr, DirError> {
        let name = OsStr::new(name);
        if name.is_empty() || name == "." || name == ".." || name.as_bytes().contains(&b'/') {
            return Err(self.failed("use the name", name)(Errno::INVAL));
        }
        Ok(name)
    }

    fn failed(&self, operation: &'static str, name: &OsStr) -> impl Fn(Errno) -> DirError {
        move |errno| DirError::File {
            operation,
            name: name.to_owned(),
            directory: self.path.clone(),
            source: errno.into(),
        }
    }

    fn unlink(&self, name: &OsStr) {
        // Usually gone already; if not, it is a leftover that the companion sweeps.
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
    }

    fn sync(&self) -> Result<(), Errno> {
        match rustix::fs::fsync(&self.fd) {
            // Some file systems cannot sync directories, and do it unasked.
            Err(Errno::INVAL) => Ok(()),
            result => result,
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A name that nobody can guess: 128 random bits in hexadecimal.
fn random_name(prefix: &str) -> Result<OsString, Errno> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
    let mut name = prefix.to_owned();
    name.extend(
        random.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|half| char::from_digit(half.into(), 16)),
    );
    Ok(name.into())
}
