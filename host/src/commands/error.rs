//! Why a command was not done, with which exit code, and what to try: each error speaks for itself.

use std::process::ExitCode;

use tagship_core::explain::Explain;

use crate::{
    config::ConfigError,
    deploy_command::CommandError,
    journald::JournaldError,
    operate::{guard::GuardError, mark::MarkError, policy::PolicyError, rollback},
    report::Unwritten,
    state_dir::StateError,
};

/// A command that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The work that waited could not be done.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// There is nothing to go back to.
    #[error(transparent)]
    NothingEarlier(#[from] rollback::NothingEarlier),
    /// A service may not start.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The mark was not set.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// The system's journal could not be read.
    #[error(transparent)]
    Journald(#[from] JournaldError),
    /// Podman's policy could not be made or proven.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// What was asked for could not be shown.
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    /// What is known cannot be written down.
    #[error("cannot write the status as JSON")]
    Json(#[source] serde_json::Error),
}

impl Error {
    /// 2 for usage and configuration, 1 for everything else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Command(CommandError::Config(_)) => ExitCode::from(2),
            Self::Policy(error) if error.is_configuration() => ExitCode::from(2),
            Self::Guard(error) if error.is_configuration() => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        CommandError::from(error).into()
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        CommandError::from(error).into()
    }
}

impl Explain for Error {
    fn kind(&self) -> &'static str {
        match self {
            Self::Command(error) => error.kind(),
            Self::NothingEarlier(error) => error.kind(),
            Self::Guard(error) => error.kind(),
            Self::Mark(error) => error.kind(),
            Self::Policy(error) => error.kind(),
            Self::Journald(error) => error.kind(),
            Self::Unwritten(error) => error.kind(),
            Self::Json(_) => "json",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Command(error) => error.hint(),
            Self::NothingEarlier(error) => error.hint(),
            Self::Guard(error) => error.hint(),
            Self::Mark(error) => error.hint(),
            Self::Policy(error) => error.hint(),
            Self::Journald(error) => error.hint(),
            Self::Unwritten(error) => error.hint(),
            Self::Json(_) => None,
        }
    }
}
