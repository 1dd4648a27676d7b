//! What counts as healthy, and what a service that is not costs the others.

use std::time::Duration;

use tagship_tests::{Host, SERVICES, Scenario, Version};

use super::{Versions, amid, any_order, shell, slow};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h17_the_first_bad_service_ends_it_for_all", h17_the_first_bad_service_ends_it),
    ("h19_an_image_without_a_healthcheck_is_judged_at_once", h19_without_a_healthcheck),
    ("h20_a_service_that_was_healthy_once_must_stay_so", h20_healthy_once_must_stay_so),
];

fn h17_the_first_bad_service_ends_it(host: &Host) {
    let before = host.baseline();
    let versions = Versions::of(host);
    let _order = any_order(host);
    let bad = &versions.bad[2];
    host.ask(&bad.tag, &bad.digest)
        .ok()
        .says("Outcome: rolled-back")
        .says("Kind: container-exited")
        .says("Service: demo-web restored")
        .says("Service: demo-flower untouched");
    let after = host.state().healthy();
    assert_eq!(before.image(), after.image());
    // Those whose turn had not come are the same containers still.
    for name in &SERVICES[1..] {
        assert_eq!(before.services[*name], after.services[*name], "{name}");
    }
}

fn h19_without_a_healthcheck(host: &Host) {
    let before = host.baseline();
    let ran = shell(host, "echo $version").ok();
    let Version { tag, digest } = host.release().edit("sed -i /HEALTHCHECK/d Containerfile").signed();
    let refused = {
        let _refuse = host.configured("sed -i 's/^health:.*/health: {missing: refuse}/' demo.yaml");
        host.ask(&tag, &digest)
    };
    refused.ok().says("fail ").says("Kind: no-healthcheck").says("demo-web untouched");
    assert_eq!(before, host.state());
    // By default it is healthy if it runs. It takes no longer than with a healthcheck, let alone the timeout of two minutes.
    let _long = host.configured("sed -i 's/^health:.*/health: {timeout: 120s}/' demo.yaml");
    host.ask(&tag, &digest).ok().says("Outcome: deployed").within(Duration::from_secs(100));
    let after = host.state();
    assert_ne!(before.image(), after.image());
    assert!(after.services.values().all(|service| service.health.is_empty()), "{after:#?}");
    host.app(&format!("tagship-host rollback demo {}", ran.trimmed())).ok();
    assert_eq!(before.image(), host.state().healthy().image());
}

fn h20_healthy_once_must_stay_so(host: &Host) {
    let before = host.baseline();
    // All have been healthy, and one of them ends before the others count as settled.
    let _window = host.configured("sed -i 's/^health:.*/health: {timeout: 10s, settle: 10s}/' demo.yaml");
    let tag = host.release().signed().tag;
    let job = host.release().of(&tag).steps("deploy,promote").background("~/job.log");
    host.app(&format!(
        "{job}
         for service in demo-worker demo-beat demo-flower; do
           timeout 120 grep -q -m 1 \"$service: is healthy\" < <(tail -n +1 -F ~/job.log 2>/dev/null) || exit
         done
         podman kill --signal TERM demo-flower
         code=0; wait $job || code=$?; cat ~/job.log; rm ~/job.log; exit $code"
    ))
    .exits(1)
    .says("rolled-back")
    .says("demo-flower")
    .says("settle: demo-flower: the container of demo-flower exited");
    let after = host.state().healthy();
    assert_eq!((before.image(), &before.moving), (after.image(), &after.moving));
    // A unit that runs something else than what was verified is refused by name, before anything is touched.
    let _order = any_order(host);
    let other = Versions::of(host).other(host);
    {
        // Podman is asked as well, since names can move in the instant of a start.
        let _slow = slow(host);
        amid(host, &other, &format!("podman tag {} localhost/demo:demo-worker", before.image()))
            .ok()
            .says("Outcome: rolled-back")
            .says("Kind: container-image")
            .says("demo-worker");
    }
    let after = host.state().healthy();
    assert_eq!(before.image(), after.image());
    let _pinned = host.changed(
        "podman tag localhost/demo:demo-flower localhost/demo:pinned
         sed -i 's/^Image=.*/Image=localhost\\/demo:pinned/' ~/.config/containers/systemd/demo-flower.container; systemctl --user daemon-reload",
        "sed -i 's/^Image=.*/Image=localhost\\/demo:demo-flower/' ~/.config/containers/systemd/demo-flower.container; systemctl --user daemon-reload
         podman untag localhost/demo:pinned localhost/demo:pinned",
    );
    host.ask(&other.tag, &other.digest).ok().says("Outcome: refused").says("Kind: service-image").says("demo-flower");
    assert_eq!(after, host.state());
}
