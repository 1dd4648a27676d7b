//! Runs scenarios one after another on one host, with the words and flags of cargo's own tests.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::Host;

/// A scenario: its name and what it does to the host.
pub type Scenario = (&'static str, fn(&Host));

/// Boots a host, runs the scenarios that the command line asks for, and takes the host down.
pub fn suite(boot: fn() -> Host, scenarios: &[Scenario]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One host, one thing at a time.
    arguments.test_threads = Some(1);
    let host = (!arguments.list).then(|| Arc::new(boot()));
    let trials = scenarios.iter().map(|(name, scenario)| trial(host.clone(), name, *scenario)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(host);
    conclusion.exit_code()
}

fn trial(host: Option<Arc<Host>>, name: &str, scenario: fn(&Host)) -> Trial {
    Trial::test(name, move || {
        scenario(host.as_deref().ok_or("no host was booted")?);
        Ok(())
    })
}
