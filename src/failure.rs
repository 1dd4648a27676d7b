//! How a run ends badly: which exit code an error gets.
//!
//! What went wrong is said by the errors themselves.

use std::process::ExitCode;

use tagship_core::explain::Explain;
use tagship_core::signature::CheckError;
use tagship_core::sys::SysError;

/// The kinds of failure that callers of the program can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The host refused, rolled back or failed.
    HostSaidNo = 1,
    /// The inputs or the configuration are wrong.
    Usage = 2,
    /// The image could not be built.
    Build = 3,
    /// The registry could not be reached, or refused.
    Registry = 4,
    /// Signing or verification failed.
    Signing = 5,
    /// No host there, or no answer in time.
    Handoff = 6,
    /// All was done, and what came of it could not be written: the step's outputs, or the log.
    Untold = 7,
    /// The run was interrupted: 128 and the number of SIGTERM, as shells have it.
    Interrupted = 143,
}

/// An error and the exit code it leads to.
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What went wrong.
    pub error: Box<dyn Explain + Send + Sync>,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(code: Code, error: impl Explain + Send + Sync + 'static) -> Failure {
        Failure { code, error: Box::new(error) }
    }
}

impl Code {
    /// Of signatures that could not be had, or do not count.
    #[must_use]
    pub fn of_check(error: &CheckError) -> Code {
        match error {
            CheckError::Fetch(_) => Code::Registry,
            CheckError::Verify(_) | CheckError::Unread { .. } => Code::Signing,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code as u8)
    }
}

/// What goes wrong with the process itself, whatever it was to do.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Secrets would not have been safe.
    #[error("cannot make this process safe for secrets")]
    Secrets(#[source] SysError),
    /// No threads.
    #[error("cannot start the program's threads")]
    Runtime(#[source] std::io::Error),
    /// Later steps of the workflow would not know what was done.
    #[error("cannot write the step's outputs")]
    Outputs(#[source] std::io::Error),
    /// Nobody knows what was done.
    #[error("cannot write to standard output")]
    Log(#[source] std::io::Error),
}

impl Explain for ProcessError {
    fn kind(&self) -> &'static str {
        match self {
            ProcessError::Secrets(_) => "unsafe-process",
            ProcessError::Runtime(_) => "no-threads",
            ProcessError::Outputs(_) => "outputs-unwritten",
            ProcessError::Log(_) => "log-unwritten",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ProcessError::Secrets(_) | ProcessError::Runtime(_) => None,
            ProcessError::Outputs(_) => Some(
                "nothing that was done is undone; mend the file that GITHUB_OUTPUT or FORGEJO_OUTPUT names (is its disk \
                 full?), and run it again: what is there already is not made again"
                    .to_owned(),
            ),
            ProcessError::Log(_) => {
                Some("nothing that was done is undone; send the output to where it can be written".to_owned())
            }
        }
    }
}
