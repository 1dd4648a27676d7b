//! Harness of the scenarios that run on a real host: a test host with the demo stack, commands run in it, and what
//! they said. Scenarios live in `scenarios/`; what a scenario proves does not belong here.
//!
//! Assertions panic with the whole output of the command they speak of: a failed scenario must explain itself.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[cfg(feature = "crash")]
pub mod crash;
mod fault;
#[cfg(test)]
mod hazards;
mod host;
mod image;
mod mend;
mod proxy;
mod ran;
mod release;
#[cfg(feature = "secrets")]
pub mod secrets;
mod shell;
mod state;
mod suite;

pub use fault::Fault;
pub use host::{Host, IMAGE, SERVED, SERVICES};
pub use image::Image;
pub use mend::Mend;
pub use proxy::Proxy;
pub use ran::Ran;
pub use release::{Release, Version};
pub use shell::quoted;
pub use state::{Service, State};
pub use suite::{Scenario, suite, suite_on};
