//! Why there is no verdict of the host.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tagship_core::explain::Explain;
use tagship_core::handoff::dir::{DirError, ReadError};
use tagship_core::handoff::host::HostFileError;
use tagship_core::handoff::request::RequestError;
use tagship_core::handoff::status::StatusError;
use tagship_core::text;

use crate::failure::Code;
use crate::signing::key::SigningKeyError;

/// Why there is no verdict of the host.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The directory cannot be used.
    #[error("cannot hand off")]
    Directory(#[source] DirError),
    /// The directory is there, but it is the container's own.
    #[error("the hand-off directory {} is not mounted from the host", text::path(.0))]
    NotMounted(PathBuf),
    /// It cannot be told whether the directory is a mount.
    #[error("cannot find out whether the hand-off directory is mounted from the host")]
    Mounts(#[source] io::Error),
    /// No companion has ever run there.
    #[error("no companion has run in the hand-off directory {}: there is no deploy-host", text::path(.0))]
    NoCompanion(PathBuf),
    /// What the companion tells about itself cannot be read.
    #[error("cannot read what the companion tells about itself")]
    HostFile(#[source] ReadError),
    /// What the companion tells about itself cannot be understood.
    #[error("cannot work with this host's companion")]
    Companion(#[source] HostFileError),
    /// The request would be refused as invalid.
    #[error("cannot make a request out of these inputs")]
    Request(#[source] RequestError),
    /// The request cannot be signed.
    #[error("cannot sign the request")]
    Sign(#[source] SigningKeyError),
    /// Nobody took the request, which was withdrawn.
    #[error("no companion claimed the request within {} s; it was withdrawn, and nothing was deployed", .0.as_secs())]
    Unclaimed(Duration),
    /// The directory became unusable after the request was put there.
    #[error("lost the hand-off directory while waiting for the host")]
    Waiting(#[source] DirError),
    /// The companion claimed the request and then fell silent.
    #[error("the companion claimed the request, and then showed no life for {} s{}", silence.as_secs(), because(reason))]
    Silent {
        /// For how long.
        silence: Duration,
        /// Why it could not be heard, if something stands in its place.
        reason: Option<ReadError>,
    },
    /// No answer within the time that the caller gave.
    #[error("no answer of the host within {} s; {}", after.as_secs(), fate(*claimed))]
    TimedOut {
        /// The time.
        after: Duration,
        /// Whether the request was claimed. If not, it was withdrawn.
        claimed: bool,
    },
    /// A signal ended the waiting.
    #[error("interrupted while waiting for the host; {}", fate(*claimed))]
    Interrupted {
        /// Whether the request was claimed. If not, it was withdrawn.
        claimed: bool,
    },
    /// The answer is none.
    #[error("cannot understand the host's answer")]
    Answer(#[source] StatusError),
    /// The answer is about something else.
    #[error("the answer under this request's name is about another {0}")]
    OtherAnswer(&'static str),
}

fn because(reason: &Option<ReadError>) -> String {
    reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
}

fn fate(claimed: bool) -> &'static str {
    if claimed {
        "the request was claimed: the host goes on with it, and `tagship-host status` there tells how it ends"
    } else {
        "the request was not claimed and is withdrawn: nothing was deployed"
    }
}

impl DeployError {
    /// Whether the host may have acted on the request. `false` is certain: nothing was deployed for it.
    #[must_use]
    pub fn may_be_claimed(&self) -> bool {
        match self {
            DeployError::TimedOut { claimed, .. } | DeployError::Interrupted { claimed } => *claimed,
            DeployError::Silent { .. }
            | DeployError::Waiting(_)
            | DeployError::Answer(_)
            | DeployError::OtherAnswer(_) => true,
            _ => false,
        }
    }

    /// The exit code it leads to.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            DeployError::Sign(_) => Code::Signing,
            DeployError::Interrupted { .. } => Code::Interrupted,
            _ => Code::Handoff,
        }
    }
}

impl Explain for DeployError {
    fn kind(&self) -> &'static str {
        match self {
            DeployError::Directory(source) | DeployError::Waiting(source) => source.kind(),
            DeployError::NotMounted(_) => "handoff-not-mounted",
            DeployError::Mounts(_) => "handoff-mounts-unknown",
            DeployError::NoCompanion(_) => "no-companion",
            DeployError::HostFile(source) => source.kind(),
            DeployError::Companion(source) => source.kind(),
            DeployError::Request(source) => source.kind(),
            DeployError::Sign(source) => source.kind(),
            DeployError::Unclaimed(_) => "unclaimed",
            DeployError::Silent { .. } => "host-silent",
            DeployError::TimedOut { .. } => "timed-out",
            DeployError::Interrupted { .. } => "interrupted",
            DeployError::Answer(source) => source.kind(),
            DeployError::OtherAnswer(_) => "answer-foreign",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            DeployError::Directory(source) | DeployError::Waiting(source) => return source.hint(),
            DeployError::HostFile(source) => return source.hint(),
            DeployError::Companion(source) => return source.hint(),
            DeployError::Request(source) => return source.hint(),
            DeployError::Sign(source) => return source.hint(),
            DeployError::Answer(source) => return source.hint(),
            DeployError::NotMounted(path) => {
                return Some(format!(
                    "name the host's directory in the job's `container.volumes` (such as \
                     /home/app/tagship/app:{}) and in `valid_volumes` of the runner's configuration; the runner leaves \
                     out a volume that is not valid, and says so only in its own log",
                    text::path(path)
                ));
            }
            DeployError::NoCompanion(_) => {
                "check that this is the directory the host's configuration names as `handoff`, and that \
                 `systemctl --user start tagship@APP.service` has run there once"
            }
            DeployError::Unclaimed(_) | DeployError::TimedOut { claimed: false, .. } => {
                "on the host, look at `systemctl --user status tagship@APP.path tagship@APP.service`"
            }
            DeployError::Silent { .. } | DeployError::TimedOut { claimed: true, .. } => {
                "on the host, look at `tagship-host status APP` and `journalctl --user -u tagship@APP.service`"
            }
            DeployError::Mounts(_) | DeployError::Interrupted { .. } | DeployError::OtherAnswer(_) => return None,
        };
        Some(hint.to_owned())
    }
}
