//! Scenarios on a real host: systemd, rootless Podman, a registry with TLS and passwords, cosign.
//!
//! Two hosts serve them side by side, one scenario at a time each; each scenario starts from a proven state and mends
//! what it broke.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bounds;
mod build;
mod clear_errors;
mod hazards;
mod interop;
mod keys;
mod operate;
mod parties;
mod plain;
mod policy;
mod refusals;
mod release;
mod rollback;
mod rotation;
mod two_users;

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
            bounds::SCENARIOS,
            rollback::SCENARIOS,
            operate::SCENARIOS,
            parties::SCENARIOS,
            plain::SCENARIOS,
            policy::SCENARIOS,
            clear_errors::SCENARIOS,
            keys::SCENARIOS,
            rotation::SCENARIOS,
            two_users::SCENARIOS,
            hazards::action::SCENARIOS,
            hazards::amid::SCENARIOS,
            hazards::answers::SCENARIOS,
            hazards::burst::SCENARIOS,
            hazards::companion::SCENARIOS,
            hazards::durable::SCENARIOS,
            hazards::directory::SCENARIOS,
            hazards::faults::SCENARIOS,
            hazards::health::SCENARIOS,
            hazards::images::SCENARIOS,
            hazards::outages::SCENARIOS,
            hazards::systemd::SCENARIOS,
            hazards::units::SCENARIOS,
            hazards::versions::SCENARIOS,
        ]
        .concat(),
    )
}
