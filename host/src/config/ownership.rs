//! Whether a file is in root's hands alone, and its content if so.
//!
//! The app's user can write the configuration, and a compromised build job can write what the user can. A trusted key
//! must therefore lie where neither can: the file, every directory above it and every link on the way belong to root
//! and nobody else may write them. Then nobody else can change the answer between this check and the reading, either.

use std::{
    collections::VecDeque,
    fmt, fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use tagship_core::explain::Explain;

use super::shell_word;

/// The largest file read: a public key has 200 bytes, an administrator's file a few hundred.
const LARGEST: u64 = 64 * 1024;
/// The bit of directories in which all may write, and each remove their own alone.
const STICKY: u32 = 0o1000;
/// Where a key may be copied to: a directory that need not exist, so that no link of the same name is in the way.
const KEYS: &str = "/etc/tagship/keys";
/// As many links on the way as Linux follows itself (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The content of a file that only root could have written.
#[derive(Clone, PartialEq, Eq)]
pub struct RootFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A file that is not in root's hands alone, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// A relative path means another file in another directory.
    #[error("{path} is not an absolute path")]
    Relative {
        /// The path as configured.
        path: PathBuf,
    },
    /// The file or something above it belongs to another user.
    #[error("the {what} {at} belongs to uid {owner}, not to root")]
    Owner {
        /// The path as configured.
        path: PathBuf,
        /// What is not root's.
        what: What,
        /// Where it is.
        at: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Whether its mode is wrong as well.
        writable: bool,
    },
    /// The file or a directory above it can be written by others than root: by its mode, in whose group bits an access
    /// control list's mask shows.
    #[error("the {what} {at} can be written by others than root (mode {mode:04o})")]
    Writable {
        /// The path as configured.
        path: PathBuf,
        /// What they can write.
        what: What,
        /// Where it is.
        at: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The path does not end at a regular file.
    #[error("{at} is no regular file")]
    NotAFile {
        /// What the path leads to.
        at: PathBuf,
    },
    /// The path does not end at a directory.
    #[error("{at} is no directory")]
    NotADirectory {
        /// What the path leads to.
        at: PathBuf,
    },
    /// A directory on the way that this user may not enter.
    #[error("this user may not enter the directory {at}")]
    Closed {
        /// The path as configured.
        path: PathBuf,
        /// The directory.
        at: PathBuf,
    },
    /// Links that lead in a circle, or through too many others.
    #[error("{path} leads through more than {MOST_LINKS} links")]
    Links {
        /// The path as configured.
        path: PathBuf,
    },
    /// A file that is far too large to be what it should be.
    #[error("{at} is larger than {LARGEST} bytes")]
    TooLarge {
        /// The file.
        at: PathBuf,
    },
    /// The file system refused.
    #[error("cannot read {at}")]
    Io {
        /// The file, directory or link.
        at: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What is in the wrong hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The file itself, or what is there instead.
    File,
    /// A directory on the way to it.
    Directory,
    /// A link on the way to it.
    Link,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
        })
    }
}

impl Explain for OwnershipError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Owner { .. } | Self::Writable { .. } => "not-root-owned",
            _ => "key-file",
        }
    }

    fn hint(&self) -> Option<String> {
        self.remedy(true)
    }
}

impl OwnershipError {
    /// How to mend it. `movable`: the file may as well lie elsewhere.
    pub(super) fn remedy(&self, movable: bool) -> Option<String> {
        match self {
            Self::Relative { .. } => Some("write the path in full, from /".into()),
            // Inside a user namespace that does not map root, its files show up as the overflow uid.
            Self::Owner { owner: 65534, .. } => Some(
                "if root owns it outside, the unit runs in a user namespace: remove ProtectSystem=, ProtectHome=, \
                 PrivateTmp=, ReadOnlyPaths= and the like from its drop-ins"
                    .into(),
            ),
            Self::Owner { what: What::File, at, writable, .. } => Some(format!(
                "look at what is in it, for its owner could change it until now; then {}",
                give_to_root(at, *writable)
            )),
            Self::Owner { what: What::Link, at, .. } => Some(format!("`sudo chown -h root:root {}`", shell_word(at))),
            // Then it would be no better there.
            Self::Owner { what: What::Directory, at, writable, .. } if Path::new(KEYS).starts_with(at) => {
                Some(give_to_root(at, *writable))
            }
            // Outside /etc a directory may be somebody's home, or hold what he needs.
            Self::Owner { what: What::Directory, path, at, writable, .. } => match (movable, at.starts_with("/etc")) {
                (true, true) => Some(format!(
                    "{}; or, if {} is there for keys alone, {}",
                    copy(path),
                    at.display(),
                    give_to_root(at, *writable)
                )),
                (true, false) => Some(copy(path)),
                (false, true) => Some(give_to_root(at, *writable)),
                (false, false) => Some(format!("have no link on the way to {} lead out of /etc", path.display())),
            },
            // /tmp and its like are meant to be written by all.
            Self::Writable { path, mode, .. } if mode & STICKY != 0 && movable => Some(copy(path)),
            Self::Writable { at, .. } => Some(format!("`sudo chmod go-w {}`", shell_word(at))),
            Self::Io { source, at } if source.kind() == io::ErrorKind::NotFound && !movable => {
                Some(format!("a link leads to {}, which is not there: remove it", at.display()))
            }
            Self::Io { source, at } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("copy the public key there: `sudo install -m 644 cosign.pub {}`", shell_word(at)))
            }
            // A private key is meant to be closed to others, and must stay so.
            Self::Io { source, at } if source.kind() == io::ErrorKind::PermissionDenied && movable => Some(format!(
                "the app's user must be able to read the public key: copy it there anew, `sudo install -m 644 cosign.pub \
                 {}`; if what is there is a private key, take it away from this machine",
                shell_word(at)
            )),
            Self::Io { source, at } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("let the app's user read it: `sudo chmod a+r {}`", shell_word(at)))
            }
            Self::Closed { path, .. } if movable => Some(copy(path)),
            Self::Closed { at, .. } => {
                Some(format!("let the app's user enter it: `sudo chmod a+x {}`", shell_word(at)))
            }
            Self::NotAFile { .. } if movable => Some("name the file that holds the public key".into()),
            Self::NotAFile { .. } => Some("put a regular file there, or take it away".into()),
            Self::NotADirectory { .. } => Some("make it a directory of root's, or take it away".into()),
            _ => None,
        }
    }
}

/// The commands that put something into root's hands alone.
fn give_to_root(at: &Path, writable: bool) -> String {
    let at = shell_word(at);
    let mode = if writable { format!(" && sudo chmod go-w {at}") } else { String::new() };
    format!("`sudo chown root:root {at}{mode}`")
}

/// What to do where the directory may stay as it is, and a home directory must.
fn copy(path: &Path) -> String {
    format!(
        "copy the public key to where only root writes, and name it there: `sudo install -D -m 644 -t {KEYS} {}`",
        shell_word(path)
    )
}

impl RootFile {
    /// Reads the file if it and all that leads to it is in root's hands alone.
    pub fn read(path: &Path) -> Result<Self, OwnershipError> {
        let end = walk_to_file(path, &RealFiles)?;
        let io = |source| OwnershipError::Io { at: end.clone(), source };
        let mut bytes = Vec::new();
        fs::File::open(&end).map_err(io)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > LARGEST {
            return Err(OwnershipError::TooLarge { at: end });
        }
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// The path as configured.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A file for tests, which cannot make root's.
    #[cfg(test)]
    pub(crate) fn for_test(path: &str, bytes: &[u8]) -> Self {
        Self { path: path.into(), bytes: bytes.to_owned() }
    }
}

impl fmt::Debug for RootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootFile({})", self.path.display())
    }
}

/// Checks that a directory, if there is one, and all that leads to it is in root's hands alone: whoever could take a file
/// out of it would lift what that says.
pub(super) fn check_directory(path: &Path) -> Result<(), OwnershipError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => walk_to_directory(path, &RealFiles),
    }
}

/// What the walk asks about one name, without following it.
#[derive(Debug, Clone)]
enum Kind {
    Directory,
    File,
    Link(PathBuf),
    Other,
}

#[derive(Debug, Clone)]
struct Entry {
    kind: Kind,
    owner: u32,
    mode: u32,
}

/// The file system as the walk sees it, so that its rules can be tested without being root.
trait Files {
    fn entry(&self, path: &Path) -> io::Result<Entry>;
}

struct RealFiles;

impl Files for RealFiles {
    fn entry(&self, path: &Path) -> io::Result<Entry> {
        let found = fs::symlink_metadata(path)?;
        let kind = if found.is_symlink() {
            Kind::Link(fs::read_link(path)?)
        } else if found.is_dir() {
            Kind::Directory
        } else if found.is_file() {
            Kind::File
        } else {
            Kind::Other
        };
        Ok(Entry { kind, owner: found.uid(), mode: found.mode() & 0o7777 })
    }
}

fn walk_to_file(path: &Path, files: &dyn Files) -> Result<PathBuf, OwnershipError> {
    match walk(path, files)? {
        (at, Kind::File) => Ok(at),
        (at, _) => Err(OwnershipError::NotAFile { at }),
    }
}

fn walk_to_directory(path: &Path, files: &dyn Files) -> Result<(), OwnershipError> {
    match walk(path, files)? {
        (_, Kind::Directory) => Ok(()),
        (at, _) => Err(OwnershipError::NotADirectory { at }),
    }
}

/// Follows the path name by name as the kernel does, checking each, and returns where it ends, free of links, and at what:
/// a file or a directory.
fn walk(path: &Path, files: &dyn Files) -> Result<(PathBuf, Kind), OwnershipError> {
    if !path.is_absolute() {
        return Err(OwnershipError::Relative { path: path.to_owned() });
    }
    let mut at = PathBuf::from("/");
    let check = |at: &Path| check(path, at, files);
    check(&at)?;
    let mut names: VecDeque<PathBuf> = names(path).collect();
    let mut links = 0;
    let mut end = Kind::Directory;
    while let Some(name) = names.pop_front() {
        if name == Path::new("..") {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        match check(&here)? {
            Kind::Directory => at = here,
            Kind::File if names.is_empty() => {
                at = here;
                end = Kind::File;
            }
            Kind::File | Kind::Other => return Err(OwnershipError::NotAFile { at: here }),
            Kind::Link(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(OwnershipError::Links { path: path.to_owned() });
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                for part in self::names(&target).collect::<Vec<_>>().into_iter().rev() {
                    names.push_front(part);
                }
            }
        }
    }
    Ok((at, end))
}

fn names(path: &Path) -> impl Iterator<Item = PathBuf> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn check(path: &Path, at: &Path, files: &dyn Files) -> Result<Kind, OwnershipError> {
    let entry = files.entry(at).map_err(|source| match (source.kind(), at.parent()) {
        // To ask about a name takes leave to enter its directory, and no other.
        (io::ErrorKind::PermissionDenied, Some(above)) => {
            OwnershipError::Closed { path: path.to_owned(), at: above.to_owned() }
        }
        _ => OwnershipError::Io { at: at.to_owned(), source },
    })?;
    let what = match entry.kind {
        Kind::Directory => What::Directory,
        Kind::Link(_) => What::Link,
        Kind::File => What::File,
        Kind::Other => return Err(OwnershipError::NotAFile { at: at.to_owned() }),
    };
    // A link's own mode is always 0777 and means nothing. The sticky bit is no excuse for a directory: it does not keep
    // others from making the file before root does.
    let writable = what != What::Link && entry.mode & 0o022 != 0;
    if entry.owner != 0 {
        let owner = entry.owner;
        return Err(OwnershipError::Owner { path: path.to_owned(), what, at: at.to_owned(), owner, writable });
    }
    if writable {
        return Err(OwnershipError::Writable { path: path.to_owned(), what, at: at.to_owned(), mode: entry.mode });
    }
    Ok(entry.kind)
}

#[cfg(test)]
mod tests;
