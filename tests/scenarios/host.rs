//! Scenarios on a real host: systemd, rootless Podman, a registry with TLS and passwords, cosign.
//!
//! Two hosts serve them side by side, one scenario at a time each; each scenario starts from a proven state and mends
//! what it broke.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod build;
mod clear_errors;
mod hazards;
mod interop;
mod keys;
mod operate;
mod plain;
mod policy;
mod refusals;
mod release;
mod rollback;
mod rotation;

use std::process::ExitCode;

use tagship_tests::{Host, suite_on};

fn main() -> ExitCode {
    suite_on(
        2,
        || Host::boot("scenarios"),
        &[
            release::SCENARIOS,
            build::SCENARIOS,
            interop::SCENARIOS,
            refusals::SCENARIOS,
            rollback::SCENARIOS,
            operate::SCENARIOS,
            plain::SCENARIOS,
            policy::SCENARIOS,
            clear_errors::SCENARIOS,
            keys::SCENARIOS,
            rotation::SCENARIOS,
            hazards::action::SCENARIOS,
            hazards::amid::SCENARIOS,
            hazards::answers::SCENARIOS,
            hazards::burst::SCENARIOS,
            hazards::companion::SCENARIOS,
            hazards::directory::SCENARIOS,
            hazards::faults::SCENARIOS,
            hazards::health::SCENARIOS,
            hazards::images::SCENARIOS,
            hazards::outages::SCENARIOS,
            hazards::systemd::SCENARIOS,
            hazards::units::SCENARIOS,
        ]
        .concat(),
    )
}
