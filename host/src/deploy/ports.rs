//! What a deploy needs from the world, in its own words. The adapters are `crate::{services, images, health}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::{Duration, SystemTime},
};

use tagship_core::{
    explain::Explain,
    reference::{Digest, Repository},
    signature::Verified,
};

use super::{
    outcome::Failure,
    record::Restorable,
    space::Room,
    values::{ContainerId, ImageId, LocalName},
};
use crate::config::{Missing, ServiceName};

/// The user's service manager.
pub trait Units: Sync {
    /// What went wrong.
    type Error: Explain + Send + Sync + 'static;

    /// What the manager knows about a unit. An unknown unit is no error: [`UnitFacts::load`] says so.
    fn inspect(&self, service: &ServiceName) -> impl Future<Output = Result<UnitFacts, Self::Error>> + Send;

    /// Restarts a unit, or starts it, and returns once the job has ended well.
    fn restart(&self, service: &ServiceName) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Stops a unit and returns once it has stopped.
    fn stop(&self, service: &ServiceName) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The unit's last log lines, those since then if that is known, oldest first; empty where there is no log to read.
    fn tail(&self, service: &ServiceName, since: Option<SystemTime>) -> impl Future<Output = Vec<String>> + Send;
}

/// What the service manager knows about a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitFacts {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`…
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`…
    pub active: String,
    /// `running`, `auto-restart`, `dead`…
    pub sub: String,
    /// `generated`, `enabled`, `masked`…
    pub enablement: String,
    /// The unit's file on disk is newer than what the manager runs.
    pub needs_reload: bool,
    /// A job for it is waiting or running.
    pub job: bool,
    /// The command that starts it, word by word.
    pub command: Vec<String>,
    /// The command that makes the pod that it runs in, word by word; empty if it runs in none.
    pub pod: Vec<String>,
    /// Units that are restarted or stopped together with this one.
    pub coupled: Vec<String>,
    /// What each of those that are up takes along in turn, and so on, by their names.
    pub beyond: BTreeMap<String, Vec<String>>,
}

/// The local image store.
pub trait Store: Sync {
    /// What went wrong.
    type Error: Explain + Send + Sync + 'static;

    /// Where a pull puts its bytes, and how much room there is.
    fn rooms(&self) -> impl Future<Output = Result<Vec<Room>, Self::Error>> + Send;

    /// The layers that are there, by the digests of what they unpack to.
    fn layers(&self) -> impl Future<Output = Result<BTreeSet<Digest>, Self::Error>> + Send;

    /// Fetches exactly the verified digest, unless it is there already, and checks that the store now has it.
    /// `progress` takes a line from time to time.
    fn pull(
        &self,
        verified: &Verified,
        progress: &(dyn Fn(&str) + Sync),
    ) -> impl Future<Output = Result<Pulled, Self::Error>> + Send;

    /// The image that a local name stands for.
    fn resolve(&self, name: &LocalName) -> impl Future<Output = Result<Option<ImageId>, Self::Error>> + Send;

    /// Whether an image is in the store.
    fn has(&self, image: &ImageId) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// The digests under which an image is known to be of this repository; none if it is of another, or of none.
    fn digests(
        &self,
        image: &ImageId,
        of: &Repository,
    ) -> impl Future<Output = Result<Vec<Digest>, Self::Error>> + Send;

    /// Gives an image a name of its own, so that pruning spares it although its other names move on.
    fn keep(&self, image: &ImageId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes a local name stand for an image.
    fn place(&self, leave: Leave<'_>, name: &LocalName) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Takes a local name away; that it was not there is no error.
    fn forget(&self, name: &LocalName) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// By what right a local name is moved. There is no third way.
#[derive(Debug, Clone, Copy)]
pub enum Leave<'a> {
    /// It was verified.
    Verified(&'a Pulled),
    /// It stood there before.
    Restorable(&'a Restorable),
}

impl Leave<'_> {
    /// The image that the name may stand for.
    pub fn image(&self) -> &ImageId {
        match self {
            Self::Verified(pulled) => pulled.image(),
            Self::Restorable(restorable) => restorable.image(),
        }
    }
}

/// A verified image in the local store. Made only from a [`Verified`].
#[derive(Debug, Clone)]
pub struct Pulled {
    image: ImageId,
    healthcheck: bool,
}

impl Pulled {
    /// What the store calls the verified digest.
    pub fn new(_of: &Verified, image: ImageId, healthcheck: bool) -> Self {
        Self { image, healthcheck }
    }

    /// The image's local id.
    pub fn image(&self) -> &ImageId {
        &self.image
    }

    /// The image says how to check its health.
    pub fn has_healthcheck(&self) -> bool {
        self.healthcheck
    }
}

/// The running containers.
pub trait Containers: Sync {
    /// What went wrong.
    type Error: Explain + Send + Sync + 'static;

    /// The container that a unit runs now, if any.
    fn find(&self, service: &ServiceName) -> impl Future<Output = Result<Option<ContainerFacts>, Self::Error>> + Send;

    /// Waits until the unit's container, which must run `image`, is healthy; fails at once where that can no longer
    /// come. Wears out none of the container's own retries.
    fn prove(&self, want: Wanted<'_>) -> impl Future<Output = Result<Proof, Failure>> + Send;

    /// Returns once the window has passed and nothing has changed; fails at once when something does.
    fn hold(&self, proofs: &[Proof], window: Duration) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What is to be proven of a service's container.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose.
    pub service: &'a ServiceName,
    /// It must run exactly this.
    pub image: &'a ImageId,
    /// It must not be this one any more: the container from before the restart.
    pub not: Option<&'a ContainerId>,
    /// When its restart was begun: what ended before is none of it.
    pub since: SystemTime,
    /// The longest wait.
    pub timeout: Duration,
    /// What it means if it has no healthcheck.
    pub missing: Missing,
}

/// A container as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Which.
    pub id: ContainerId,
    /// What it runs.
    pub image: ImageId,
    /// It runs.
    pub running: bool,
    /// How often the engine has restarted it.
    pub restarts: u64,
    /// What its own healthcheck says.
    pub health: HealthState,
}

/// What a container's own healthcheck says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// It has none.
    None,
    /// It has not said anything yet.
    Starting,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

impl HealthState {
    /// Nothing speaks against the container: it is healthy, or nothing says.
    pub fn is_well(self) -> bool {
        matches!(self, Self::None | Self::Healthy)
    }
}

/// A container that was found healthy, or at least running, on the right image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Whose.
    pub service: ServiceName,
    /// Which container.
    pub container: ContainerId,
    /// What it runs.
    pub image: ImageId,
    /// How often the engine had restarted it by then.
    pub restarts: u64,
    /// It has a healthcheck, and that passed; otherwise it runs, and no more is known.
    pub checked: bool,
}

/// Who is told what goes on: the hand-off's log and the system journal.
pub trait Report: Sync {
    /// One thing that happened.
    fn tell(&self, news: News<'_>);
}

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
pub struct News<'a> {
    /// In which part of a deploy.
    pub phase: Part,
    /// To whom.
    pub service: Option<&'a ServiceName>,
    /// What: a stable word.
    pub event: &'a str,
    /// The same for a reader; may hold a container's own words, to be escaped where they are shown.
    pub text: &'a str,
    /// How long it took.
    pub took: Option<Duration>,
}

/// The parts of a deploy, as its readers see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Looking at what is there.
    Inspect,
    /// Fetching the image.
    Pull,
    /// Running the one-shot units.
    Prepare,
    /// Moving names and restarting services.
    Restart,
    /// Asking for health.
    Health,
    /// Watching the whole set.
    Settle,
    /// Putting back what was there.
    Rollback,
    /// Removing old images.
    Prune,
}

impl Part {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Pull => "pull",
            Self::Prepare => "prepare",
            Self::Restart => "restart",
            Self::Health => "health",
            Self::Settle => "settle",
            Self::Rollback => "rollback",
            Self::Prune => "prune",
        }
    }
}
