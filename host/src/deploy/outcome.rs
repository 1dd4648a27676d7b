//! How a deploy ends, and how anything in it fails: what the answer, the history and the journal are written from.
//!
//! Nothing here decides; `state` does.

use serde::{Deserialize, Serialize};
use tagship_core::explain::{Explain, chain};

use super::{record::Role, values::ImageId};
use crate::config::ServiceName;

/// What a deploy, a rollback by hand or a recovery came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The one word.
    pub verdict: Verdict,
    /// Why it is not what was asked for; none after success.
    pub cause: Option<Failure>,
    /// What went wrong while going back, one entry a service; only with [`Verdict::Failed`].
    pub broken: Vec<Failure>,
    /// The local image id of what was deployed, once it was known.
    pub image: Option<ImageId>,
    /// What each service and one-shot unit was left as, in the configured order; empty if nothing was looked at.
    pub services: Vec<ServiceEnd>,
}

impl Ended {
    /// What may not be done here: nothing was touched, or even looked at.
    pub fn refused(failure: Failure) -> Self {
        let (broken, services) = (Vec::new(), Vec::new());
        Self { verdict: Verdict::Refused, cause: Some(failure), broken, image: None, services }
    }
}

/// The end of a deploy in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything runs what was asked for, proven.
    Deployed,
    /// It did not work, and every service runs what it ran before, proven.
    RolledBack,
    /// It did not work: either nothing was touched, or going back did not work either. `broken` tells them apart.
    Failed,
    /// It may not be done here; nothing was touched.
    Refused,
    /// An earlier run ended in the middle; every service runs what it ran before, proven.
    Interrupted,
}

/// What one service was left as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEnd {
    /// Which.
    pub name: ServiceName,
    /// A service or a one-shot unit.
    pub role: Role,
    /// In which state.
    pub state: Left,
    /// It was found running and has no healthcheck.
    pub unchecked: bool,
    /// The image that its name stands for now, if known.
    pub image: Option<ImageId>,
}

/// The state in which a service was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    /// Never restarted: it runs, or rests, as before.
    Untouched,
    /// Runs the new image, proven.
    Deployed,
    /// Its name stands for the new image; it was stopped before and still is. A one-shot unit ends so, too.
    Placed,
    /// Runs the image it ran before, proven.
    Restored,
    /// Stopped, with nothing to go back to: nothing was there before, or what was is revoked.
    Stopped,
    /// Not what it should be.
    Broken,
}

/// Why something did not work, ready for every reader.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// A stable word.
    pub kind: String,
    /// Whose fault it is, if it is a service's.
    pub service: Option<ServiceName>,
    /// What was being done, to what, and why it failed: one sentence.
    pub reason: String,
    /// What to try.
    pub hint: Option<String>,
    /// The container's last lines, as it wrote them: to be escaped where they are shown.
    #[serde(default)]
    pub tail: Vec<String>,
}

impl Failure {
    /// A failure of this kind, nobody's in particular.
    pub fn new(kind: &str, reason: impl Into<String>) -> Self {
        Self { kind: kind.into(), service: None, reason: reason.into(), hint: None, tail: Vec::new() }
    }

    /// The same, with what an error knows about itself.
    pub fn of(error: &dyn Explain) -> Self {
        Self { kind: error.kind().into(), service: None, reason: chain(error), hint: error.hint(), tail: Vec::new() }
    }

    /// The engine or the service manager is away: nothing speaks against an image, and the same may work later.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "engine-unreachable" | "engine-not-running" | "services-unreachable" | "services-silent" | "services-lost"
        )
    }

    /// Why, with what to try behind it.
    pub(crate) fn words(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        format!("{}{hint}", self.reason)
    }

    /// The same, as this service's.
    pub fn at(mut self, service: &ServiceName) -> Self {
        self.service = Some(service.clone());
        self
    }

    /// The same, with what to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with the container's last lines.
    pub fn tail(mut self, lines: Vec<String>) -> Self {
        self.tail = lines;
        self
    }
}
