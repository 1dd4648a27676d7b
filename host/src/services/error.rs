//! Why the service manager did not do what it was asked for, and what to try. How it is asked is `services`'.

use std::io;

use tagship_core::explain::Explain;

use super::manager::is_away;

/// What went wrong with the service manager.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// There is no bus to ask at.
    #[error("cannot reach the user's service manager at {address}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why not.
        source: zbus::Error,
    },
    /// The manager did not do what it was asked for.
    #[error("cannot {action} {unit}")]
    Call {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// Why not.
        source: zbus::Error,
    },
    /// The job ended, but not well.
    #[error("{unit} did not {action}: systemd says `{result}`{detail}")]
    Job {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// The job's result: `failed`, `canceled`, `timeout`, `dependency`…
        result: String,
        /// The service's own result, with a comma in front; empty if there is none.
        detail: String,
    },
    /// The manager is there, and does not answer.
    #[error("the service manager, which was to {action} {unit}, does not answer")]
    Silent {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
    },
    /// The connection ended while a job was under way.
    #[error("the connection to the service manager was lost while it was to {action} {unit}")]
    Lost {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
    },
}

impl ServicesError {
    /// What became of a call. Its connection may break in the very moment of it, or the manager leave the bus and stay
    /// away: that is lost like what breaks while a job is waited for.
    pub(super) fn of_call(action: &'static str, unit: &str, source: zbus::Error) -> Self {
        let unit = unit.to_owned();
        match &source {
            zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut => Self::Silent { action, unit },
            zbus::Error::InputOutput(_) => Self::Lost { action, unit },
            error if is_away(error) => Self::Lost { action, unit },
            _ => Self::Call { action, unit, source },
        }
    }
}

impl Explain for ServicesError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "services-unreachable",
            Self::Call { .. } => "services-call",
            Self::Job { .. } => "service-start",
            Self::Silent { .. } => "services-silent",
            Self::Lost { .. } => "services-lost",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "run it as the app's user in a user session: `loginctl enable-linger USER`, the package \
                 dbus-user-session, and XDG_RUNTIME_DIR set to /run/user/UID"
                    .into(),
            ),
            Self::Call { unit, .. } | Self::Job { unit, .. } => {
                Some(format!("`systemctl --user status {unit}` and `journalctl --user -u {unit}` say more"))
            }
            Self::Silent { unit, .. } | Self::Lost { unit, .. } => {
                Some(format!("`systemctl --user status {unit}` shows whether it answers again"))
            }
        }
    }
}
