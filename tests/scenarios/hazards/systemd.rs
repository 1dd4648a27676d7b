//! The service manager's jobs, bus and very process, changed under a deploy.

use tagship_tests::{Host, Scenario};

use super::{Versions, amid, any_order, slow, slow_by};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h41_a_cancelled_job_is_no_success", h41_a_cancelled_job_is_no_success),
    ("h41_a_manager_that_reloads_and_restarts_is_asked_anew", h41_a_manager_that_reloads_and_restarts),
    ("h41_a_bus_that_drops_is_never_waited_for", h41_a_bus_that_drops_is_never_waited_for),
];

fn h41_a_cancelled_job_is_no_success(host: &Host) {
    let before = host.baseline();
    let (_order, _slow) = (any_order(host), slow_by(host, 4));
    let started = "timeout 20 bash -c 'until [[ $(systemctl --user show -p SubState --value demo-worker) == start-pre ]]; do :; done'";
    for act in [
        // In its place comes a job to stop it.
        "systemctl --user stop demo-worker || true",
        // The service goes on starting all the same.
        "systemctl --user cancel $(systemctl --user list-jobs --plain --no-legend demo-worker.service | cut -d ' ' -f 1)",
    ] {
        // A version of its own: this failure speaks against it.
        let version = host.release().signed();
        amid(host, &version, &format!("{started}; {act}"))
            .ok()
            .says("Outcome: rolled-back")
            .says("Kind: service-start")
            .says("demo-worker.service did not restart: systemd says `canceled`");
        assert_eq!(before.image(), host.state().healthy().image(), "{act}");
    }
}

fn h41_a_manager_that_reloads_and_restarts(host: &Host) {
    let before = host.baseline();
    let (_order, _slow) = (any_order(host), slow(host));
    // Podman, too, waits for jobs of the manager, to remove a container's timer: when it is never told of the job's end,
    // it hangs, until systemd kills it after 90 s. That is waited for like any restart, but not so long here.
    let _impatient = host.changed(
        r"mkdir -p ~/.config/systemd/user/demo-.service.d
        printf '[Service]\nTimeoutStopSec=5\n' >~/.config/systemd/user/demo-.service.d/impatient.conf
        systemctl --user daemon-reload",
        "rm -r ~/.config/systemd/user/demo-.service.d; systemctl --user daemon-reload",
    );
    let other = Versions::of(host).other(host);
    // Several times, so that calls come while it is away; between two of them it is there.
    let again = "systemctl --user daemon-reload
        for _ in {1..4}; do
            systemctl --user daemon-reexec; until systemctl --user show --property Version >/dev/null 2>&1; do :; done
        done";
    amid(host, &other, again).ok().says("Outcome: deployed");
    assert_ne!(before.image(), host.state().healthy().image());
}

fn h41_a_bus_that_drops_is_never_waited_for(host: &Host) {
    let before = host.baseline();
    let (_order, _slow) = (any_order(host), slow(host));
    // Restarted, not killed: systemd then starts it at once, while after a kill it may take 90 s to notice its own need of it.
    // How the restart ended cannot be told any more; the bus that comes back is there for going back.
    let other = Versions::of(host).other(host);
    amid(host, &other, "systemctl --user restart dbus.service")
        .ok()
        .says("Outcome: rolled-back")
        .says("Kind: services-lost");
    assert_eq!(before.image(), host.state().healthy().image());
}
