//! What changes in the middle of a deploy, services that behave badly, and clocks that jump.

use std::time::Duration;

use tagship_tests::{Host, Scenario};

use super::{Versions, amid, any_order, id, shell, slow, slow_by};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("fault_configuration_and_program_vanish_in_the_middle", fault_configuration_and_program_vanish),
    ("fault_state_cannot_be_written_in_the_middle", fault_state_cannot_be_written_in_the_middle),
    ("fault_service_exits_well_at_once", fault_service_exits_well_at_once),
    ("fault_service_flaps", fault_service_flaps),
    ("fault_service_ignores_sigterm", fault_service_ignores_sigterm),
    ("a_way_back_that_fails_is_loud", a_way_back_that_fails_is_loud),
    ("fault_clock_went_back", fault_clock_went_back),
    ("fault_clock_went_forward", fault_clock_went_forward),
    ("fault_request_of_another_time", fault_request_of_another_time),
];

fn fault_configuration_and_program_vanish(host: &Host) {
    let before = host.baseline();
    let (_order, slow) = (any_order(host), slow(host));
    let other = Versions::of(host).other(host);
    let _mended = host.changed(
        "cp ~/.config/tagship/demo.yaml ~/good.yaml; cp ~/.local/bin/tagship-host ~/good",
        "mv ~/good.yaml ~/.config/tagship/demo.yaml; mv ~/good ~/.local/bin/tagship-host; systemctl --user restart tagship@demo.path",
    );
    // What was begun goes on with what it was begun with.
    amid(host, &other, "echo 'keep-images: [1' >>~/.config/tagship/demo.yaml; rm ~/.local/bin/tagship-host")
        .ok()
        .says("Outcome: deployed");
    assert_ne!(before.image(), host.state().healthy().image());
    drop(slow);
    // Who asks next is told what is broken as soon as there is somebody to tell.
    let request = id();
    shell(
        host,
        &format!(
            "cp ~/good ~/.local/bin/tagship-host; put {request} $version $running; await '[ -e deploy-status.{request} ]'
             cat deploy-status.{request}"
        ),
    )
    .ok()
    .says("Outcome: refused")
    .says("Kind: config-invalid");
}

fn fault_state_cannot_be_written_in_the_middle(host: &Host) {
    let before = host.baseline();
    let (_order, _slow) = (any_order(host), slow(host));
    let other = Versions::of(host).other(host);
    let state = "~/.local/state/tagship/demo";
    let locked = host.changed("true", &format!("chmod 700 {state}"));
    amid(host, &other, &format!("chmod 500 {state}")).ok().says("Outcome: rolled-back").says("Kind: state-io");
    assert_eq!(before.image(), host.state().healthy().image());
    // That run still tries to note how it ended.
    host.app("timeout 60 systemctl --user start tagship@demo.service || true").ok();
    drop(locked);
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

fn fault_service_exits_well_at_once(host: &Host) {
    let before = host.baseline();
    host.release()
        .edit("printf '#!/bin/sh\\necho nothing to do\\n' >app")
        .run()
        .exits(1)
        .says("rolled-back")
        .says("the container of demo-web exited with 0")
        .says("nothing to do");
    assert_eq!(before.image(), host.state().healthy().image());
}

fn fault_service_flaps(host: &Host) {
    let before = host.baseline();
    // Healthy each time, and each time for a moment only.
    let _window = host.configured("sed -i 's/^health:.*/health: {timeout: 10s, settle: 2s}/' demo.yaml");
    let _restarts = host.changed(
        "mkdir -p ~/.config/systemd/user/demo-flower.service.d
         printf '[Service]\\nRestart=always\\nRestartSec=100ms\\n[Unit]\\nStartLimitIntervalSec=0\\n' >~/.config/systemd/user/demo-flower.service.d/flap.conf
         systemctl --user daemon-reload",
        "rm -r ~/.config/systemd/user/demo-flower.service.d; systemctl --user daemon-reload",
    );
    host.release()
        .edit(r#"sed -i '2i [ "$ROLE" != flower ] || { touch /tmp/beat; sleep 1; exit 7; }' app"#)
        .run()
        .exits(1)
        .says("rolled-back")
        .says("demo-flower");
    let after = host.state().healthy();
    assert_eq!((before.image(), &before.moving), (after.image(), &after.moving));
}

fn fault_service_ignores_sigterm(host: &Host) {
    host.baseline();
    // As many programs without a handler do as PID 1; Podman kills it after ten seconds.
    host.release()
        .edit(r#"sed -i '2i [ "$ROLE" != worker ] || { touch /tmp/beat; trap "" TERM INT; while :; do sleep 1; done; }' app"#)
        .run()
        .ok();
    let stubborn = host.state().healthy();
    host.release().run().ok().within(Duration::from_secs(120));
    assert_ne!(stubborn.image(), host.state().healthy().image());
}

fn a_way_back_that_fails_is_loud(host: &Host) {
    let before = host.baseline();
    let directory = "~/.config/systemd/user/demo-worker.service.d";
    // Neither the new image nor the old one starts while the file is there.
    let broken = host.changed(
        &format!(
            "mkdir -p {directory}; printf '[Service]\\nExecStartPre=/bin/sleep 3\\nExecStartPre=/usr/bin/test ! -e %%h/broken\\n' >{directory}/broken.conf
             systemctl --user daemon-reload"
        ),
        &format!(
            "rm -rf ~/broken {directory}; systemctl --user daemon-reload
             systemctl --user reset-failed demo-worker; systemctl --user restart demo-worker"
        ),
    );
    let release = host.release();
    let tag = release.tag();
    // From when the new image's start is under way.
    let broken_amid = |job: &str, and: &str| {
        host.app(&format!(
            "{job}
             timeout 60 grep -q -m 1 'demo-worker.*restarts with image' < <(tail -n +1 -F ~/job.log 2>/dev/null); touch ~/broken
             code=0; wait $job || code=$?; cat ~/job.log {and}; rm ~/job.log; exit $code"
        ))
        .exits(1)
    };
    broken_amid(
        &release.background("~/job.log"),
        "~/tagship/demo/deploy-status.$(sed -n 's/^.*(request \\(.*\\))$/\\1/p' ~/job.log)",
    )
    .says("Outcome: failed")
    .says("going back failed, too")
    .says("Service: demo-worker broken");
    let after = host.state();
    for (name, was) in before.services.iter().filter(|(name, _)| *name != "demo-worker") {
        let is = &after.services[name];
        assert_eq!((&was.image, "healthy"), (&is.image, is.health.as_str()), "{name}");
    }
    assert_eq!(before.moving, after.moving);
    // Who looks for errors only sees it.
    host.root(&format!("journalctl --sync; journalctl -p err TAGSHIP_APP=demo TAGSHIP_TAG={tag} -o cat --no-pager"))
        .ok()
        .says(&format!("demo: {tag} failed: "))
        .says("going back failed, too");
    // As loud where the operator began it.
    host.app("rm ~/broken; systemctl --user reset-failed demo-worker; systemctl --user restart demo-worker").ok();
    let other = Versions::of(host).other(host).tag;
    let since = host.root("date '+%F %T.%N'").ok();
    broken_amid(&format!(": >~/job.log; tagship-host rollback demo {other} >>~/job.log 2>&1 & job=$!"), "")
        .says("going back failed, too");
    host.root(&format!(
        "journalctl --sync; journalctl -p err --since '{}' TAGSHIP_APP=demo TAGSHIP_TAG={other} TAGSHIP_BY=operator -o cat --no-pager",
        since.trimmed()
    ))
    .ok()
    .says(&format!("demo: {other} failed: "));
    drop(broken);
    host.release().run().ok();
    assert_ne!(before.image(), host.state().healthy().image());
}

fn fault_clock_went_back(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    // What the host's files look like when the clock was set back: proofs and names of kept images lie ahead.
    let state = "~/.local/state/tagship/demo";
    let _mended = host.changed(
        &format!(
            "cp {state}/trust.json ~/trust.json
             jq '.proven[].at |= \"2099-01-01T00:00:00Z\"' ~/trust.json >~/ahead.json; cat ~/ahead.json >{state}/trust.json
             podman tag {0} localhost/tagship/demo:20990101T000000.000Z-{1}",
            before.image(),
            &before.image()[..12]
        ),
        "podman images --format '{{.Repository}}:{{.Tag}}' --filter reference=localhost/tagship/demo | grep :2099 |
         while read -r name; do podman untag $name $name; done; rm -f ~/trust.json ~/ahead.json",
    );
    host.release().run().ok();
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    // The newest deploy has the newest name, and what it replaced is what is gone back to.
    // The filter finds images, each of which is shown by all its names.
    let newest = "podman images --no-trunc --format '{{.Repository}} {{.Tag}} {{.Id}}' --filter reference=localhost/tagship/demo |
                  grep ^localhost/tagship/demo | sort | tail -n 1";
    host.app(newest).ok().says(after.image());
    host.app("tagship-host rollback demo").ok();
    assert_eq!(before.image(), host.state().healthy().image());
}

fn fault_clock_went_forward(host: &Host) {
    let before = host.baseline();
    let ran = shell(host, "echo $version").ok();
    let (_order, slow) = (any_order(host), slow_by(host, 6));
    let other = Versions::of(host).other(host);
    // The clock of a namespace cannot be set; but a jump by ten days is, for everything that was written before it, as if it
    // had been written ten days earlier: answers, the log, the journal, and the names of the images that are kept.
    let aged = "touch -d '-10 days' deploy-* ~/.local/state/tagship/demo/*
        old=$(date -u -d '-10 days' +%Y%m%dT%H%M%S.000Z)
        podman images --format '{{.Repository}}:{{.Tag}}' --filter reference=localhost/tagship/demo | grep ^localhost/tagship/ | while read -r name; do
          podman tag $name localhost/tagship/demo:$old-${name##*-}; podman untag $name $name
        done";
    let earlier = id();
    shell(
        host,
        &format!("put {earlier} $version $running; served deploy-status.{earlier}; [ -e deploy-status.{earlier} ]"),
    )
    .ok();
    let answer = amid(host, &other, aged).ok().says("Outcome: deployed");
    drop(slow);
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    // What is too old now is swept away, and that is not this answer.
    let request = answer.text.lines().find_map(|line| line.strip_prefix("Request: ")).unwrap();
    shell(host, &format!("served; [ ! -e deploy-status.{earlier} ]; cat deploy-status.{request}"))
        .ok()
        .says("Outcome: deployed");
    // However old its name, what was replaced is still there. By its version: it may be the newer one of the two.
    host.app(&format!("tagship-host rollback demo {}", ran.trimmed())).ok();
    assert_eq!(before.image(), host.state().healthy().image());
}

fn fault_request_of_another_time(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    // A plain request carries no time but its file's; the next one replaces its answer.
    for (written, answer) in
        [("1970-01-02", "Kind: before-boot"), ("2099-01-01", "Outcome: unchanged"), ("now", "Outcome: unchanged")]
    {
        shell(
            host,
            &format!(
                "rm -f deploy-status; echo $version >.new; touch -d {written} .new; mv .new deploy-trigger
                 await '[ -e deploy-status ]'; cat deploy-status"
            ),
        )
        .ok()
        .says(answer);
    }
    // A full one carries its own, and the boot that it was made in.
    for (change, kind) in [
        ("s/^Not-After: .*/Not-After: 1970-01-02T00:00:00Z/", "too-late"),
        ("s/^Boot: .*/Boot: 00000000-0000-4000-8000-000000000000/", "before-boot"),
    ] {
        let request = id();
        shell(
            host,
            &format!(
                "full {request} $version $running | sed '{change}' >.new; mv -n .new deploy-request.{request}
                 await '[ -e deploy-status.{request} ]'; cat deploy-status.{request}"
            ),
        )
        .ok()
        .says("Outcome: refused")
        .says(&format!("Kind: {kind}"));
    }
    assert_eq!(before, host.state());
}
