//! Runs scenarios, one at a time on each host, with the words and flags of cargo's own tests.

use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};

use crate::Host;

/// A scenario: its name and what it does to the host.
pub type Scenario = (&'static str, fn(&Host));

/// Boots a host, runs the scenarios that the command line asks for, and takes the host down.
pub fn suite(boot: fn() -> Host, scenarios: &[Scenario]) -> ExitCode {
    suite_on(&[boot], scenarios)
}

/// The same on several hosts side by side: a scenario waits for systemd and Podman most of its time. Which host a
/// scenario gets is left to chance; one that no scenario needs is not booted.
pub fn suite_on(boots: &[fn() -> Host], scenarios: &[Scenario]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let threads = arguments.test_threads.unwrap_or(boots.len()).clamp(1, boots.len());
    arguments.test_threads = Some(threads);
    let hosts = Arc::new(Hosts {
        free: Mutex::new(boots.iter().rev().take(threads).map(|boot| Place::Vacant(*boot)).collect()),
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

/// The hosts that no scenario is on.
struct Hosts {
    free: Mutex<Vec<Place>>,
    changed: Condvar,
}

enum Place {
    /// Not booted yet.
    Vacant(fn() -> Host),
    Booted(Host),
}

/// A host that is given back when its scenario ends, well or not; also when it could not be booted.
struct Borrowed<'a> {
    hosts: &'a Hosts,
    place: Option<Place>,
}

impl Hosts {
    fn borrow(&self) -> Borrowed<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.changed.wait_while(free, |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
        // Booted ones were given back last, so they are taken first.
        Borrowed { hosts: self, place: free.pop() }
    }
}

impl Borrowed<'_> {
    fn host(&mut self) -> &Host {
        if let Some(Place::Vacant(boot)) = self.place {
            self.place = Some(Place::Booted(boot()));
        }
        match &self.place {
            Some(Place::Booted(host)) => host,
            _ => panic!("borrowed without a host"),
        }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.hosts.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.place.take());
        self.hosts.changed.notify_one();
    }
}
