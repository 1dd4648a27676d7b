//! Why the command could not do its work, and what to try.

use std::{io, path::PathBuf};

use tagship_core::{explain::Explain, handoff::dir::DirError};

use crate::{config::ConfigError, inbox::InboxError, state_dir::StateError};

/// Why the command could not do its work. What becomes of a request is no such error.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration, and nobody was there to be answered.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The hand-off directory or its ledger.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The hand-off directory cannot be made.
    #[error("cannot create the hand-off directory {path}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not tell about this boot.
    #[error("cannot find out about this boot")]
    Boot(#[source] io::Error),
}

impl Explain for CommandError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Config(error) => error.kind(),
            Self::State(error) => error.kind(),
            Self::Inbox(error) => error.kind(),
            Self::Create { .. } => "handoff-create",
            Self::Boot(_) => "boot-id",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::State(error) => error.hint(),
            Self::Inbox(error) => error.hint(),
            Self::Create { path, source } => Some(match source.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    format!("{} or what is above it is no directory: move that away, or set `handoff`", path.display())
                }
                _ => format!("create {} and give it to the app's user, or set `handoff`", path.display()),
            }),
            Self::Boot(_) => Some("/proc must be mounted".into()),
        }
    }
}

impl From<DirError> for CommandError {
    fn from(error: DirError) -> Self {
        Self::Inbox(error.into())
    }
}
