//! Why something in the hand-off directory did not work.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::explain::Explain;
use crate::text;

/// Why something in the directory did not work. What is in files that others put there is no such error.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// The directory itself.
    #[error("cannot open the hand-off directory {}", text::path(path))]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be put into it.
    #[error("cannot write in the hand-off directory {}", text::path(path))]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it.
    #[error("cannot {operation} {} in the hand-off directory {}", text::escape(&name.to_string_lossy()), text::path(directory))]
    File {
        /// What was to be done.
        operation: &'static str,
        /// To what.
        name: OsString,
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Explain for DirError {
    fn kind(&self) -> &'static str {
        match Errno::from_io_error(self.cause()) {
            Some(Errno::NOENT | Errno::NOTDIR) if matches!(self, DirError::Open { .. }) => "handoff-missing",
            Some(Errno::ACCESS | Errno::PERM) => "handoff-denied",
            Some(Errno::NOSPC | Errno::DQUOT) => "handoff-full",
            Some(Errno::ROFS) => "handoff-read-only",
            _ => "handoff-failed",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self.kind() {
            "handoff-missing" => "create the directory on the host, and mount it where this program looks for it",
            "handoff-denied" => "the directory has to be writable for the user that this program runs as",
            "handoff-full" => "free space on the file system of the hand-off directory",
            "handoff-read-only" => "mount the hand-off directory read-write",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl DirError {
    fn cause(&self) -> &io::Error {
        match self {
            DirError::Open { source, .. } | DirError::Unwritable { source, .. } | DirError::File { source, .. } => {
                source
            }
        }
    }
}
