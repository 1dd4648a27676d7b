//! A registry and an engine that fail, and a disk that is too small: each has its name in the answer, and nothing that
//! runs is worse for it.

use std::time::Duration;

use tagship_tests::{Fault, Host, IMAGE, Mend, Proxy, Ran, Scenario};

use super::{Version, Versions, amid, any_order, shell, slow, unknown};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("fault_registry_fails_where_signatures_are_read", fault_registry_fails_where_signatures_are_read),
    ("fault_registry_fails_where_the_image_is_pulled", fault_registry_fails_where_the_image_is_pulled),
    ("fault_registry_stalls_in_the_pull", fault_registry_stalls_in_the_pull),
    ("fault_no_room_for_the_image", fault_no_room_for_the_image),
    ("fault_engine_hangs_before_a_deploy", fault_engine_hangs_before_a_deploy),
    ("fault_engine_hangs_in_the_middle", fault_engine_hangs_in_the_middle),
    ("fault_engine_is_gone_in_the_middle", fault_engine_is_gone_in_the_middle),
    ("fault_engine_dies_in_the_middle", fault_engine_dies_in_the_middle),
];

/// The registry's own address, behind what speaks TLS for it.
const REGISTRY: &str = "127.0.0.1:5001";

/// A registry that does this to every request whose first line has `only` in it.
fn registry<'a>(host: &'a Host, only: &str, fault: &Fault) -> (Proxy, Mend<'a>) {
    let proxy = Proxy::start_always(host, env!("CARGO_BIN_EXE_fault-proxy"), REGISTRY, only, fault);
    let point = |to: &str| {
        format!(
            "sed -i 's#proxy_pass http://[^;]*;#proxy_pass http://{to};#' /etc/nginx/conf.d/registry.conf; systemctl reset-failed nginx; systemctl restart nginx"
        )
    };
    let mend = host.changed_by_root(&point(proxy.address()), &point(REGISTRY));
    (proxy, mend)
}

/// Asks for a version of a registry that does this to each such request, which must have come, and mends it.
fn asked_amid(host: &Host, (only, fault): (&str, &Fault), version: &Version, within: Duration) -> Ran {
    let (proxy, registry) = registry(host, only, fault);
    let answer = host.ask(&version.tag, &version.digest).ok().within(within);
    drop(registry);
    let seen = proxy.end();
    assert!(seen.iter().any(|line| line.starts_with(&fault.to_string())), "{fault} was never made: {seen:#?}");
    answer
}

fn fault_registry_fails_where_signatures_are_read(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let other = Versions::of(host).other(host);
    for (fault, kind) in [
        (Fault::Stall, "registry-timeout"),
        (Fault::Status(500), "registry-error"),
        (Fault::CutAnswer, "registry-interrupted"),
        (Fault::alter("digest", 20), "registry-corrupt"),
    ] {
        asked_amid(host, ("/manifests/sha256-", &fault), &other, Duration::from_secs(60))
            .says("Outcome: refused")
            .says(&format!("Kind: {kind}\n"))
            .says("Reason: ");
        assert_eq!(before, host.state(), "{fault}");
    }
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

fn fault_registry_fails_where_the_image_is_pulled(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    for (only, fault) in [
        ("/blobs/", Fault::Status(500)),
        ("/blobs/", Fault::CutAnswer),
        ("/blobs/", Fault::Alter { after: String::new(), at: 20 }),
        ("/manifests/sha256:", Fault::alter("digest", 20)),
    ] {
        let other = unknown(host);
        asked_amid(host, (only, &fault), &other, Duration::from_secs(100))
            .says("Outcome: failed")
            .says("Kind: pull")
            .says("Service: demo-web untouched");
        assert_eq!(before, host.state(), "{only} {fault}");
    }
    // It is no image's fault.
    let other = Versions::of(host).other(host);
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

fn fault_registry_stalls_in_the_pull(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let other = unknown(host);
    {
        let _short =
            host.configured("sed -i 's/^health:.*/health: {timeout: 5s}/; s/^budget:.*/budget: 12s/' demo.yaml");
        asked_amid(host, ("/blobs/", &Fault::Stall), &other, Duration::from_secs(60))
            .says("Outcome: failed")
            .says("Kind: budget")
            .says("Service: demo-web untouched");
    }
    assert_eq!(before, host.state());
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

fn fault_no_room_for_the_image(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let other = unknown(host);
    {
        let _reserve = host.configured("echo 'reserve-space: 8000T' >>demo.yaml");
        host.ask(&other.tag, &other.digest)
            .ok()
            .says("Outcome: refused")
            .says("Kind: no-space")
            .says("there is no room for the image")
            .says("`reserve-space` keeps 8000.0 TiB");
        assert_eq!(before, host.state());
        // Of what is in the store nothing is fetched.
        let present = Versions::of(host).good.into_iter().find(|version| version.digest != other.digest).unwrap();
        host.app(&format!("podman pull -q {IMAGE}@{}", present.digest)).ok();
        host.ask(&present.tag, &present.digest).ok().says("ok ");
    }
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

/// The engine's process, started if it was not.
const ENGINE: &str = "curl -s --unix-socket $XDG_RUNTIME_DIR/podman/podman.sock http://engine/_ping >/dev/null
    engine=$(systemctl --user show -p MainPID --value podman.service); ";

fn fault_engine_hangs_before_a_deploy(host: &Host) {
    let before = host.baseline();
    let _order = any_order(host);
    let other = Versions::of(host).other(host);
    {
        let _hangs = host.changed(
            &format!("{ENGINE} kill -STOP $engine"),
            "kill -CONT $(systemctl --user show -p MainPID --value podman.service)",
        );
        host.ask(&other.tag, &other.digest)
            .ok()
            .within(Duration::from_secs(30))
            .says("Outcome: refused")
            .says("Kind: engine-not-running")
            .says("does not answer");
    }
    assert_eq!(before, host.state());
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

/// Deploys, does this in the middle of a restart, undoes it once the way back has begun, and requires that everything
/// came back and that no image was blamed.
fn goes_back_and_blames_nobody(host: &Host, act: &str, undo: &str, kind: &str) {
    let before = host.baseline();
    let (_order, slow) = (any_order(host), slow(host));
    let other = Versions::of(host).other(host);
    let _impatient =
        host.configured("sed -i 's/^health:.*/health: {timeout: 10s}/; s/^budget:.*/budget: 90s/' demo.yaml");
    let act = format!("{act}; told $request 'going back'; {undo}");
    amid(host, &other, &act).ok().says("Outcome: rolled-back").says(&format!("Kind: {kind}"));
    assert_eq!(before.image(), host.state().healthy().image());
    drop(slow);
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

fn fault_engine_hangs_in_the_middle(host: &Host) {
    let undo = "kill -CONT $engine";
    goes_back_and_blames_nobody(host, &format!("{ENGINE} kill -STOP $engine"), undo, "engine-unreachable");
}

fn fault_engine_is_gone_in_the_middle(host: &Host) {
    let act = "systemctl --user stop podman.socket podman.service";
    goes_back_and_blames_nobody(host, act, "systemctl --user start podman.socket", "engine-unreachable");
}

fn fault_engine_dies_in_the_middle(host: &Host) {
    let before = host.baseline();
    let (_order, _slow) = (any_order(host), slow(host));
    let other = Versions::of(host).other(host);
    // Its socket starts it again.
    amid(host, &other, &format!("{ENGINE} kill -KILL $engine")).ok().says("Outcome: deployed");
    assert_ne!(before.image(), host.state().healthy().image());
    shell(host, "systemctl --user is-active podman.socket").ok();
}
