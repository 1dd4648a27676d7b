//! Why a service may not start, and what to try.

use tagship_core::explain::Explain;

use super::{Silence, Unit, Wanted};
use crate::{
    config::{App, ServiceName},
    deploy::ImageId,
    state_dir::StateError,
};

/// A service that may not start. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The app has no unit of this name.
    #[error("{app} has no service {service}")]
    NoSuchUnit {
        /// The app.
        app: App,
        /// What it was asked about.
        service: ServiceName,
        /// What it has.
        known: Vec<ServiceName>,
    },
    /// The configuration does not say what the service runs.
    #[error("there is no local name for {service} to run")]
    Nameless {
        /// The service.
        service: ServiceName,
    },
    /// What the service may run cannot be read.
    #[error("{service} is not started: what it may run is not known")]
    State {
        /// The service.
        service: ServiceName,
        /// Why not.
        source: StateError,
    },
    /// The image store does not say what the service would run.
    #[error("{service} is not started: what it would run is not known")]
    Silent {
        /// The service.
        service: ServiceName,
        /// Why not.
        source: Silence,
    },
    /// The name that the service runs is not there.
    #[error("{} is not started: no image is called {}{}", .unit.service, .unit.name, instead(.wanted, "; it should be"))]
    Gone {
        /// What does not start.
        unit: Box<Unit>,
        /// What that should stand for.
        wanted: Wanted,
        /// The last deploy left the service with nothing to start.
        left_down: bool,
    },
    /// The name stands for an image that the app's state does not name.
    #[error("{} is not started: {} stands for image {}{}", .unit.service, .unit.name, .image.short(),
        instead(.wanted, ", and should stand for"))]
    Foreign {
        /// What does not start.
        unit: Box<Unit>,
        /// What that stands for.
        image: ImageId,
        /// What it should stand for.
        wanted: Wanted,
    },
    /// The name stands for the image of a deploy that was cut off, is going back, or has not come to this service yet.
    #[error("{} is not started: {} stands for image {}, of a deploy that has not proven it",
        .unit.service, .unit.name, .image.short())]
    Unproven {
        /// What does not start.
        unit: Box<Unit>,
        /// What that stands for.
        image: ImageId,
    },
}

impl Explain for GuardError {
    fn kind(&self) -> &'static str {
        match self {
            Self::NoSuchUnit { .. } => "service-unknown",
            Self::Nameless { .. } => "local-name",
            Self::State { source, .. } => source.kind(),
            Self::Silent { .. } => "engine-unreachable",
            Self::Gone { .. } => "guard-gone",
            Self::Foreign { .. } => "guard-foreign",
            Self::Unproven { .. } => "guard-unproven",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchUnit { app, known, .. } => {
                let known: Vec<&str> = known.iter().map(ServiceName::as_str).collect();
                format!("its units are {}: correct `services` of {app}, or the drop-in that asks", known.join(", "))
            }
            Self::Nameless { .. } => "set `local-image`, or a `moving-tag`, in the app's configuration".into(),
            Self::State { source, .. } => {
                source.hint().unwrap_or_else(|| "the app's user must be able to read that file".to_owned())
            }
            Self::Silent { .. } => {
                "`podman image ls` as the app's user must work; `systemctl --user restart podman.socket` is quicker to ask"
                    .into()
            }
            Self::Gone { unit, left_down: true, .. } => format!(
                "the last deploy left it with nothing to start, and where the key of what ran before is revoked it took the name away: \
                 `tagship-host history {}` says why; the next good deploy brings a name",
                unit.app
            ),
            Self::Gone { unit, wanted, .. } => {
                format!("{}; then look for what removes images, as `podman image prune --all` does", mend(unit, wanted))
            }
            Self::Foreign { unit, wanted, .. } => {
                format!("{}; then look for what moves the name: a build, a pull, a `podman tag`", mend(unit, wanted))
            }
            Self::Unproven { unit, .. } => {
                format!("`systemctl --user start tagship@{}` ends that deploy, and starts what may run", unit.app)
            }
        })
    }
}

impl GuardError {
    /// The drop-in or the configuration is wrong, whatever the image.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::NoSuchUnit { .. } | Self::Nameless { .. })
    }
}

/// What the name should stand for, as the end of a sentence.
fn instead(Wanted { image, version }: &Wanted, words: &str) -> String {
    match (image, version) {
        (Some(image), Some(version)) => format!("{words} {version}, image {}", image.short()),
        (Some(image), None) => format!("{words} image {}, which ran before", image.short()),
        (None, _) => ", and nothing is known here that it should be".to_owned(),
    }
}

/// How the name comes to stand for what it should.
fn mend(Unit { app, name, .. }: &Unit, Wanted { image, version }: &Wanted) -> String {
    match (image, version) {
        (Some(image), Some(version)) => format!(
            "`podman tag {} {name}` mends the name; where that image is gone, `tagship-host rollback {app} {version}` \
             brings it back",
            image.short()
        ),
        (Some(image), None) => format!("`podman tag {} {name}` mends the name", image.short()),
        (None, _) => format!("`tagship-host status {app}` says what is under way"),
    }
}
