//! One deploy: what is verified is pulled, named, restarted and proven, or what was there before is put back.
//!
//! [`deploy()`], [`put_back`] and [`recover`] are the ways in; [`names_back`] is the part of the last that cannot wait.
//! Decisions are made in `plan` and `state`, which are pure; `run` and `world` perform them through the traits of
//! `ports`. Who may ask for what was decided before: a [`Candidate`] holds the proof.

mod contents;
mod names;
mod outcome;
mod plan;
mod ports;
mod record;
mod run;
mod space;
mod state;
mod values;
mod world;

pub(crate) use plan::{check_loaded, local_name};

pub use contents::{Contents, Described, architecture};
pub use names::{NameBack, StandsFor, has_moved, names_back};
pub use outcome::{Ended, Failure, Left, ServiceEnd, Verdict};
pub use ports::{
    ContainerFacts, Containers, HealthState, Leave, News, Part, Proof, Pulled, Report, Store, UnitFacts, Units, Wanted,
};
pub use record::{InFlight, Journal, Phase, Recorded, RecordedGoal, Restorable, Role, Was};
pub use run::{Candidate, Ground, deploy, put_back, recover};
pub use space::Room;
pub use values::{ContainerId, IdError, ImageId, LocalName};
