//! What is on disk before a deploy's first effect, and the one thing made from it: what may be put back.
//!
//! Where and how it is written is `crate::journal`'s business.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tagship_core::{
    explain::Explain,
    reference::{Digest, Repository, Tag},
};

use super::{
    outcome::Failure,
    values::{ContainerId, ImageId, LocalName},
};
use crate::config::ServiceName;

/// A deploy under way, as it stands on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// What is being put in place.
    pub goal: RecordedGoal,
    /// Every one-shot unit and service, in the configured order: the one-shots first.
    pub services: Vec<Recorded>,
    /// How the services were grouped: indices into `services`.
    pub groups: Vec<Vec<usize>>,
    /// How far it has come.
    pub phase: Phase,
    /// What was pulled for it, once it was: a recovery must not take the word of what runs by then.
    #[serde(default)]
    pub image: Option<ImageId>,
}

/// What a deploy was about, as far as a recovery must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedGoal {
    /// A new image.
    Deploy {
        /// Where from.
        repository: Repository,
        /// Which.
        digest: Digest,
        /// Under which tag it was asked for.
        tag: Tag,
    },
    /// What a journal entry allows to put back, by the operator's word.
    PutBack,
}

/// How far a deploy has come. Each is written before the first effect that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The image is being pulled; no name has moved.
    Pulling,
    /// One-shot units run; no service was touched.
    Preparing,
    /// The names and services of this group, by its index, are being replaced; later groups are untouched.
    Replacing(usize),
    /// It failed, and what was touched is being put back.
    RollingBack {
        /// Why.
        cause: Failure,
    },
    /// All of it runs and is proven; only the answer is missing.
    Proven,
}

/// One service as it was before the first effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its name.
    pub name: ServiceName,
    /// What it is in this deploy.
    pub role: Role,
    /// The name in the local store that its unit runs.
    pub local: LocalName,
    /// What it was doing.
    pub was: Was,
    /// systemd's word on its enablement: `generated`, `enabled`, `masked`…
    pub enablement: String,
    /// Its unit says how to check its health, whatever the image says.
    pub own_healthcheck: bool,
    /// Its container then, if it ran.
    pub container: Option<ContainerId>,
    /// The image that it ran, or that its name stood for if it did not run; none where there was no image.
    pub image: Option<ImageId>,
    /// That image was proven by a key that is revoked by now: it is never put back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// What a unit is in a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A service: restarted, proven, put back.
    Service,
    /// A one-shot unit of `before`: run once with the new image; never on the way back.
    OneShot,
}

/// What a service was doing before the first effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Was {
    /// It ran, and nothing spoke against its health.
    Running,
    /// It failed, or ran unhealthily: should it do so again after a rollback, the rollback is not to blame.
    Failing,
    /// It was stopped, with an image to run: it stays stopped.
    Stopped,
    /// There was no image for it to run: it is started, and stopped again if that fails.
    Absent,
}

/// Leave to put back exactly this image under exactly this service's name, offline, whoever signed it.
///
/// Made only from an [`InFlight`], which is written before the first effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restorable {
    service: ServiceName,
    local: LocalName,
    image: ImageId,
}

impl Restorable {
    /// Whose image it is.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The local name that is to stand for it again.
    pub fn local(&self) -> &LocalName {
        &self.local
    }

    /// The image.
    pub fn image(&self) -> &ImageId {
        &self.image
    }
}

impl InFlight {
    /// What may be put back for one of the recorded services; none where there was nothing, or where it is revoked.
    pub fn restorable(&self, service: &ServiceName) -> Option<Restorable> {
        self.services.iter().find(|recorded| recorded.name == *service)?.restorable()
    }

    /// Takes the way back to these images. What runs them goes on until something else is put in its place.
    pub(super) fn revoke(&mut self, images: &BTreeSet<ImageId>) {
        for recorded in &mut self.services {
            recorded.revoked |= recorded.image.as_ref().is_some_and(|image| images.contains(image));
        }
    }
}

impl Recorded {
    /// What may be put back for this service; none where there was nothing, or where it is revoked.
    pub(super) fn restorable(&self) -> Option<Restorable> {
        let image = self.image.clone().filter(|_| !self.revoked)?;
        Some(Restorable { service: self.name.clone(), local: self.local.clone(), image })
    }
}

/// Where the entry is kept. `save` returns once the entry would survive a power cut.
pub trait Journal: Send {
    /// Replaces the entry under way.
    fn save(&mut self, entry: &InFlight) -> Result<(), Box<dyn Explain + Send + Sync>>;
}
