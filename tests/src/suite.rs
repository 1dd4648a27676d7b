//! Runs scenarios, one at a time on each host, with the words and flags of cargo's own tests.

use std::iter;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};

use crate::Host;

/// A scenario: its name and what it does to the host.
pub type Scenario = (&'static str, fn(&Host));

/// Boots a host, runs the scenarios that the command line asks for, and takes the host down.
pub fn suite(boot: fn() -> Host, scenarios: &[Scenario]) -> ExitCode {
    suite_on(1, boot, scenarios)
}

/// The same on several hosts side by side, or as many as `--test-threads` says: a scenario waits for systemd and Podman
/// most of its time. Which host a scenario gets is left to chance; one that no scenario needs is not booted.
pub fn suite_on(count: usize, boot: fn() -> Host, scenarios: &[Scenario]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let count = arguments.test_threads.unwrap_or(count).max(1);
    arguments.test_threads = Some(count);
    let hosts = Arc::new(Hosts {
        boot,
        free: Mutex::new(iter::repeat_with(|| None).take(count).collect()),
        changed: Condvar::new(),
    });
    let trials = scenarios.iter().map(|(name, scenario)| trial(Arc::clone(&hosts), name, *scenario)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(hosts);
    conclusion.exit_code()
}

fn trial(hosts: Arc<Hosts>, name: &str, scenario: fn(&Host)) -> Trial {
    Trial::test(name, move || {
        let mut borrowed = hosts.borrow();
        scenario(borrowed.host());
        Ok(())
    })
}

/// The hosts that no scenario is on, and those that are not booted yet.
struct Hosts {
    boot: fn() -> Host,
    free: Mutex<Vec<Option<Host>>>,
    changed: Condvar,
}

/// A host that is given back when its scenario ends, well or not; also when it could not be booted.
struct Borrowed<'a> {
    hosts: &'a Hosts,
    host: Option<Host>,
}

impl Hosts {
    fn borrow(&self) -> Borrowed<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.changed.wait_while(free, |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
        // Booted ones were given back last, so they are taken first.
        Borrowed { hosts: self, host: free.pop().flatten() }
    }
}

impl Borrowed<'_> {
    fn host(&mut self) -> &Host {
        self.host.get_or_insert_with(self.hosts.boot)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.hosts.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.host.take());
        self.hosts.changed.notify_one();
    }
}
