//! Releases by the workflow of `examples/`, run by a real runner in the host's rootless Podman: what a user of the
//! forge pushes, and what the job's log then says.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::ExitCode;

use tagship_tests::{Host, Ran, suite};

fn main() -> ExitCode {
    suite(
        boot,
        &[
            ("a_pushed_tag_is_released_and_the_job_is_green", green),
            ("a_rollback_started_in_the_forge_goes_back_and_the_moving_tag_follows", back),
            ("a_broken_healthcheck_makes_the_job_red_with_the_hosts_reason", red),
            ("a_job_without_the_mount_is_told_so", without_mount),
        ],
    )
}

/// A host with the stack, the runner, and the action's image built from the programs under test.
fn boot() -> Host {
    let host = Host::boot("runner");
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let action = tempfile::tempdir().unwrap();
    let copy = |from: &Path, name: &str| {
        std::fs::copy(from, action.path().join(name)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    };
    copy(&project.join("action.yml"), "action.yml");
    copy(&programs().join("tagship"), "tagship");
    copy(Path::new("/etc/ssl/certs/ca-certificates.crt"), "ca-certificates.crt");
    // The released image, but with the binary built already: a compiler's image cannot be had without a network.
    let image = "FROM scratch\nCOPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt\nCOPY tagship /tagship\nENTRYPOINT [\"/tagship\"]\n";
    std::fs::write(action.path().join("Containerfile"), image).unwrap();
    host.tool("runner", &["setup", host.name(), "--action", action.path().to_str().unwrap()]).ok();
    host
}

/// Where the static programs lie.
fn programs() -> std::path::PathBuf {
    std::env::var_os("TAGSHIP_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/x86_64-unknown-linux-musl/release"),
        Into::into,
    )
}

fn push(host: &Host, tag: &str) -> Ran {
    let ran = host.tool("runner", &["push", host.name(), tag]);
    let secrets =
        host.app(". ~/ci.env; printf '%s\\n%s\\n' \"$TAGSHIP_KEY_PASSWORD\" \"$TAGSHIP_REGISTRY_TOKEN\"").ok();
    let key = host.app("sed -n 2p ~/cosign.key").ok();
    let login = host.app(". ~/ci.env; printf 'ci:%s' \"$TAGSHIP_REGISTRY_TOKEN\" | base64 -w0").ok();
    for secret in secrets.trimmed().lines().chain([key.trimmed(), login.trimmed()]) {
        assert!(!ran.text.contains(secret), "the job's log holds a secret\n{}", ran.text);
    }
    ran
}

fn green(host: &Host) {
    let ran = push(host, "v0.1.0").ok();
    let ran = ran
        .says_in_order(&[
            "::group::preflight",
            "::group::build",
            "::group::push",
            "::group::sign",
            "::group::deploy",
            "::group::promote",
            "released",
        ])
        .says("demo-web")
        .says("healthy");
    assert_eq!(host.digest("v0.1.0"), host.state().healthy().moving, "{}", ran.text);
    let commit = host.app("git -C ~/src/demo rev-parse --short=7 HEAD").ok();
    host.app("podman inspect --format '{{.Config.Env}}' demo-web").ok().says(commit.trimmed());
}

fn back(host: &Host) {
    push(host, "v0.5.0").ok();
    let older = host.state().healthy();
    let newer = push(host, "v0.6.0").ok();
    assert_ne!(older.image(), host.state().healthy().image(), "{}", newer.text);
    let ran = host.tool("runner", &["back", host.name(), "v0.5.0"]).ok();
    ran.says_in_order(&["::group::preflight", "::group::deploy v0.5.0, going back", "::group::promote"])
        .never_says("::group::build");
    // The same digest as ever, so its signature is where it was.
    let after = host.state().healthy();
    assert_eq!((older.image(), &older.moving), (after.image(), &after.moving));
    push(host, "v0.6.0").exits(1).says("held");
    let missing = host.tool("runner", &["back", host.name(), "v7.7.7"]);
    assert_ne!(missing.code, 0, "{}", missing.text);
    missing.says("v7.7.7");
    assert_eq!(after, host.state());
}

fn red(host: &Host) {
    let before = host.baseline();
    host.app("cd ~/src/demo && cp health /tmp/health && printf '#!/bin/sh\\necho database is gone; exit 1\\n' >health")
        .ok();
    let ran = push(host, "v0.9.0");
    host.app("cp /tmp/health ~/src/demo/health").ok();
    assert_ne!(ran.code, 0, "{}", ran.text);
    ran.says("rolled-back").says("database is gone");
    let after = host.state().healthy();
    assert_eq!((before.image(), before.moving.clone()), (after.image(), after.moving.clone()));
}

fn without_mount(host: &Host) {
    let before = host.baseline();
    host.app("cd ~/src/demo && cp .forgejo/workflows/release.yml /tmp/release.yml && sed -i '/:\\/data$/d' .forgejo/workflows/release.yml").ok();
    let ran = push(host, "v0.9.1");
    host.app("cp /tmp/release.yml ~/src/demo/.forgejo/workflows/release.yml").ok();
    assert_ne!(ran.code, 0, "{}", ran.text);
    ran.says("valid_volumes");
    assert_eq!(before, host.state());
}
