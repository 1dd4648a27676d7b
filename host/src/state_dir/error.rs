//! What can be wrong with an app's state, and what to try.

use std::{
    io,
    path::{Path, PathBuf},
};

use tagship_core::explain::Explain;

use super::{LARGEST, file::NotAFile};

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
    /// Something else is in a file's place.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// Where the file should be.
        path: PathBuf,
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
    /// What was to be written could not be read back. The file is as it was.
    #[error("the state file {path} would be larger than {LARGEST} bytes")]
    WouldBeTooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl Explain for StateError {
    fn kind(&self) -> &'static str {
        match self {
            Self::NoHome | Self::Foreign { .. } => "state-place",
            Self::Io { .. } | Self::NotAFile { .. } | Self::WouldBeTooLarge { .. } => "state-io",
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
                    Some(format!("the app's user must be able to read and write {}", path.display()))
                }
                _ => None,
            },
            Self::NotAFile { path } => Some(format!("look at what it is, and move it away: {}", without(path))),
            Self::WouldBeTooLarge { .. } => Some("that is a mistake in tagship; report it".into()),
            Self::Damaged { path, .. } | Self::TooLarge { path } => Some(format!(
                "if a newer tagship-host wrote {}, install that one again; else restore it from a backup, or move it away: {}",
                path.display(),
                without(path)
            )),
        }
    }
}

impl StateError {
    /// The same once more, for one more that has to be told of it.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::NoHome => Self::NoHome,
            Self::Foreign { path, owner, me } => Self::Foreign { path: path.clone(), owner: *owner, me: *me },
            Self::Io { action, path, source } => {
                Self::Io { action, path: path.clone(), source: io::Error::new(source.kind(), source.to_string()) }
            }
            Self::NotAFile { path } => Self::NotAFile { path: path.clone() },
            Self::Damaged { path, source } => {
                Self::Damaged { path: path.clone(), source: serde::de::Error::custom(source) }
            }
            Self::TooLarge { path } => Self::TooLarge { path: path.clone() },
            Self::WouldBeTooLarge { path } => Self::WouldBeTooLarge { path: path.clone() },
        }
    }
}

/// What it means to go on without a state file.
fn without(path: &Path) -> &'static str {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("journal.json") => "what a deploy left in the middle is then not put back",
        Some("requests.json") => "requests that it holds are then never answered",
        Some("seen") => "a request that somebody puts again is then taken for a new one",
        Some("history.jsonl") => "how earlier deploys ended is then in the system's journal alone",
        Some("lock") => "it holds nothing, and is made anew",
        Some("spent") => "a rollback request that was used can then be used again, until its Not-After",
        _ => "the highest version is then taken from what runs, or else from the next good deploy",
    }
}

/// What went wrong with a file, or what is in its place.
pub(super) fn failed(action: &'static str, path: PathBuf, source: io::Error) -> StateError {
    match source.get_ref().is_some_and(|error| error.is::<NotAFile>()) {
        true => StateError::NotAFile { path },
        false => StateError::Io { action, path, source },
    }
}
