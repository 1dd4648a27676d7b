//! Releases recorded in a real transparency log: Rekor on Trillian, inside the test host.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod log_faults;

use std::process::ExitCode;

use tagship_tests::{Host, IMAGE, Ran, Release, Scenario, suite};

fn main() -> ExitCode {
    suite(boot, &[SCENARIOS, log_faults::SCENARIOS].concat())
}

const SCENARIOS: &[Scenario] = &[
    ("cosign_finds_the_entry_of_a_release", cosign_finds_the_entry_of_a_release),
    ("the_host_requires_the_log", the_host_requires_the_log),
    ("h25_a_log_that_is_down_is_named_and_nothing_is_deployed", a_log_that_is_down_is_named),
    ("h25_verifying_needs_no_log", h25_verifying_needs_no_log),
    ("a_policy_asks_for_the_log_as_well", a_policy_asks_for_the_log),
];

/// Where the log listens in the host, and its public key.
const URL: &str = "http://127.0.0.1:3000";
const KEY: &str = "/etc/containers/rekor.pub";

fn boot() -> Host {
    let host = Host::boot("log");
    host.tool("rekor", &["up", host.name()]).ok().says(URL);
    host.app(&format!(
        "sed -i 's#rekor: \"off\"#rekor: required\\n  rekor-keys: [{KEY}]#' ~/.config/tagship/demo.yaml"
    ))
    .ok();
    host
}

fn recorded(release: Release<'_>) -> Release<'_> {
    release
        .edit("TAGSHIP_FLAGS=${TAGSHIP_FLAGS/--tlog false/--tlog true}")
        // The commit lets a later run know its own image again.
        .env("GITHUB_SHA", "4567def89012345678901234567890123456789a")
        .flag("rekor-url", URL)
        .flag("rekor-public-key", KEY)
}

fn cosign_finds_the_entry_of_a_release(host: &Host) {
    let release = recorded(host.release());
    let tag = release.tag();
    release.run().ok().says("log");
    assert_eq!(host.digest(&tag), host.state().healthy().moving);
    host.app(&format!("SIGSTORE_REKOR_PUBLIC_KEY={KEY} cosign verify --rekor-url {URL} --key /etc/containers/cosign-app.pub {IMAGE}:{tag}"))
        .ok()
        .says("Existence of the claims in the transparency log was verified");
}

fn the_host_requires_the_log(host: &Host) {
    recorded(host.release()).run().ok();
    let before = host.state().healthy();
    host.release().run().exits(1).says("log-missing");
    assert_eq!(before, host.state());
}

fn a_log_that_is_down_is_named(host: &Host) {
    recorded(host.release()).run().ok();
    let before = host.state().healthy();
    host.tool("rekor", &["stop", host.name()]).ok();
    let release = recorded(host.release());
    let tag = release.tag();
    let ran = release.run();
    host.tool("rekor", &["up", host.name()]).ok();
    ran.exits(5).says(URL).says("hint:");
    assert_eq!(before, host.state());
    // Run again with the log back, the same version goes through.
    recorded(host.release().of(&tag)).run().ok();
}

fn h25_verifying_needs_no_log(host: &Host) {
    let release = recorded(host.release()).steps("build,push,sign");
    let tag = release.tag();
    release.run().ok();
    let digest = host.digest(&tag).unwrap();
    host.tool("rekor", &["stop", host.name()]).ok();
    let answer = host.ask(&tag, &digest);
    host.tool("rekor", &["up", host.name()]).ok();
    answer.ok().says("Outcome: deployed");
}

/// A user without files of Podman's, now and again when this is dropped; his configuration is then as it was.
struct Bare<'a>(&'a Host);

impl Bare<'_> {
    fn clear(&self) -> Ran {
        self.0.app("rm -rf ~/.config/containers/policy.json ~/.config/containers/registries.d; test ! -e ~/demo.saved || mv ~/demo.saved ~/.config/tagship/demo.yaml")
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn a_policy_asks_for_the_log(host: &Host) {
    let bare = Bare(host);
    recorded(host.release()).run().ok();
    let recorded = host.digest("stable").unwrap();
    host.app("tagship-host policy demo --write").ok().says("rekorPublicKeyPath").says("podman refuses").says("wrote");
    let unrecorded = host.release().steps("build,push,sign");
    let tag = unrecorded.tag();
    unrecorded.run().ok();
    let unrecorded = host.digest(&tag).unwrap();
    let pull = |digest: &str| host.app(&format!("podman pull --quiet {IMAGE}@{digest}"));
    let (taken, refused) = (pull(&recorded), pull(&unrecorded));
    bare.clear().ok();
    taken.ok();
    refused.exits(125).says("missing dev.sigstore.cosign/bundle annotation");

    // Without a key in the configuration it is the public log that must know the signature; Podman gets its key.
    host.app("cp ~/.config/tagship/demo.yaml ~/demo.saved; sed -i '/rekor-keys/d' ~/.config/tagship/demo.yaml").ok();
    let ran = host.app("tagship-host policy demo --write");
    host.app("test ! -e ~/.config/containers/policy.json").ok();
    ran.exits(1)
        .says("rekorPublicKeyData")
        .says("RekorSET")
        .says("hint: another log recorded it")
        .says("nothing was written");
}
