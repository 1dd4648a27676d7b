//! Why Podman's policy could not be made, written or proven, and what to try.

use std::{io, path::PathBuf};

use tagship_core::{explain::Explain, reference::Repository};

use super::{attachments, document, judge::Unproven};
use crate::verify::Denied;

/// What went wrong. Whatever it is, the files are as they were, but for [`PolicyError::NotRestored`].
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or directory of Podman's cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// policy.json has another form than Podman's.
    #[error("cannot add to {path}")]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: document::Fault,
    },
    /// registries.d has another form than Podman's.
    #[error("cannot add to {path}")]
    Registries {
        /// The directory.
        path: PathBuf,
        /// What is wrong in it.
        #[source]
        source: attachments::Fault,
    },
    /// A file changed between being read and being written.
    #[error("{path} has changed since it was read")]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no image that a check could be made with.
    #[error("there is no image of {image} to check the policy with: none was proven here, and no moving tag names one")]
    NothingSigned {
        /// The repository.
        image: Repository,
    },
    /// The registry could not be asked for an image to check with.
    #[error("cannot find an image to check the policy with")]
    Registry(#[source] Box<Denied>),
    /// The check needs room of its own.
    #[error("cannot prepare the check in {path}")]
    Stage {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Podman cannot be run.
    #[error("cannot run podman")]
    Run(#[source] io::Error),
    /// Podman does not say where its images are.
    #[error("podman info says nothing that can be used: {0}")]
    Info(String),
    /// A pull that does not end.
    #[error("podman did not end its pull of {image} within {minutes} minutes")]
    Endless {
        /// Of what.
        image: String,
        /// How long it was given.
        minutes: u64,
    },
    /// Somebody wants the program to end.
    #[error("interrupted")]
    Interrupted,
    /// Podman does not do with the new files what it should. They were never written.
    #[error("the check failed, and nothing was written")]
    Unproven(#[source] Unproven),
    /// What was written did not prove itself, and is taken back.
    #[error("the check failed after the files were written; all of them are as they were before")]
    Restored(#[source] Box<PolicyError>),
    /// What was written did not prove itself, and could not be taken back.
    #[error("the check failed after the files were written ({why}), and not all could be put back: {left}")]
    NotRestored {
        /// Why it failed.
        why: String,
        /// What could not be undone.
        left: String,
    },
}

impl PolicyError {
    /// Whether it is the host's configuration that has to change before anything can be done.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::NotUnderstood { .. } | Self::Registries { .. })
    }
}

impl From<Unproven> for PolicyError {
    fn from(error: Unproven) -> Self {
        Self::Unproven(error)
    }
}

impl Explain for PolicyError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::NotUnderstood { .. } | Self::Registries { .. } => "policy-invalid",
            Self::Changed { .. } => "policy-changed",
            Self::Write { .. } => "policy-write",
            Self::NothingSigned { .. } => "policy-unchecked",
            Self::Registry(denied) => denied.kind(),
            Self::Stage { .. } | Self::Run(_) | Self::Info(_) => "podman",
            Self::Endless { .. } => "timeout",
            Self::Interrupted => "interrupted",
            Self::Unproven(unproven) => unproven.kind(),
            Self::Restored(error) => error.kind(),
            Self::NotRestored { .. } => "policy-half-written",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, path } | Self::Write { source, path } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("let this user have {}, or run it as who owns it", path.display()))
            }
            Self::Read { .. } | Self::Write { .. } => None,
            Self::NotUnderstood { .. } => {
                Some("Podman would not read it either, or reads it in a way that is not known here: mend it first; containers-policy.json(5)".into())
            }
            Self::Registries { source: attachments::Fault::Form { scope, .. }, .. } => {
                Some(format!("add `use-sigstore-attachments: true` to what it says of {scope}, and run this again"))
            }
            Self::Registries { .. } => Some("mend it first: Podman reads all files there or none; containers-registries.d(5)".into()),
            Self::Changed { .. } => Some("run it again".into()),
            Self::NothingSigned { .. } => {
                Some("release a signed image first, or write without the check: `--write --no-check`".into())
            }
            Self::Registry(denied) => denied.hint(),
            Self::Stage { .. } => Some("the check pulls into a directory of its own, beside Podman's store".into()),
            Self::Run(source) if source.kind() == io::ErrorKind::NotFound => {
                Some("install podman, or have it in PATH: its service alone does not tell which policy it reads".into())
            }
            Self::Run(_) | Self::Info(_) => Some("`podman info` must work for this user".into()),
            Self::Endless { .. } => Some("pull it by hand and see where it stays".into()),
            Self::Interrupted => None,
            Self::Unproven(unproven) => unproven.hint(),
            Self::Restored(error) => error.hint(),
            Self::NotRestored { .. } => Some("put these back by hand: `tagship-host policy APP` shows what Podman reads now".into()),
        }
    }
}
