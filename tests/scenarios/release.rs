//! A release that goes well, and what the registry, the host and the log then say.

use tagship_tests::{Host, IMAGE};

use tagship_tests::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("release_reaches_every_service", release_reaches_every_service),
    ("h12_the_registrys_digest_is_signed", h12_the_registrys_digest_is_signed),
    ("release_again_is_unchanged", release_again_is_unchanged),
    ("version_tag_with_other_content_is_refused", version_tag_with_other_content_is_refused),
    ("h14_an_old_workflow_run_again_is_refused", h14_an_old_workflow_run_again),
    ("secrets_stay_out_of_log_and_files", secrets_stay_out_of_log_and_files),
    ("outputs_are_written_for_the_next_step", outputs_are_written_for_the_next_step),
    ("reboot_keeps_what_was_deployed", reboot_keeps_what_was_deployed),
];

fn release_reaches_every_service(host: &Host) {
    let before = host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok().says_in_order(&["build", "push", "sign", "deploy", "promote", "deployed"]);

    let after = host.state().healthy();
    assert_ne!(before.image(), after.image(), "the services run what they ran before");
    assert_eq!(host.digest(&tag), after.moving, "both tags name one digest");
    let digest = after.moving.clone().unwrap();
    // The running image is the one that the registry holds under the signed digest.
    host.app(&format!("podman image inspect --format '{{{{json .RepoDigests}}}}' {}", after.image()))
        .ok()
        .says(&digest);
    // Docker's format kept the healthcheck.
    host.app(&format!("podman image inspect --format '{{{{json .HealthCheck}}}}' {}", after.image()))
        .ok()
        .says("/usr/bin/health");
    host.app("tagship-host status demo").ok().says(&tag).says(&digest["sha256:".len()..][..12]);
}

fn h12_the_registrys_digest_is_signed(host: &Host) {
    host.baseline();
    let release = host.release().steps("build,push,sign");
    let tag = release.tag();
    let digests =
        format!("podman image inspect --format '{{{{range .RepoDigests}}}}{{{{.}}}} {{{{end}}}}' {IMAGE}:{tag}");
    // The engine compresses the layers anew when it pushes, so what it called the image before is no digest of the registry.
    host.release().of(&tag).steps("build").run().ok();
    let local = host.app(&digests).ok();
    release.run().ok();
    let digest = host.digest(&tag).expect("the pushed version");
    assert!(!local.text.contains(&digest), "the registry's digest was known before the push: {}", local.text);
    let own: Vec<&str> =
        local.text.split_whitespace().filter_map(|name| name.rsplit_once('@')).map(|(_, digest)| digest).collect();
    assert!(!own.is_empty(), "the engine kept no digest of its own");
    let signature = |digest: &str| {
        host.app(&format!("skopeo inspect --raw docker://{IMAGE}:{}.sig", digest.replace(':', "-"))).code == 0
    };
    assert!(signature(&digest));
    assert!(own.iter().all(|own| !signature(own)), "{own:?}");
    // What is signed can be pulled by just that digest.
    host.app(&format!("skopeo inspect --raw docker://{IMAGE}@{digest} >/dev/null && podman pull -q {IMAGE}@{digest}"))
        .ok();
}

fn release_again_is_unchanged(host: &Host) {
    host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    let before = host.state().healthy();
    // A re-run of the same workflow: nothing is built, nothing restarts, the job is green.
    host.release().of(&tag).run().ok().says("unchanged");
    assert_eq!(before, host.state());
}

fn version_tag_with_other_content_is_refused(host: &Host) {
    let before = host.baseline();
    let taken = host.next_version();
    host.app(&format!("skopeo copy --quiet --authfile ~/ci-auth.json docker://{IMAGE}:stable docker://{IMAGE}:{taken}-other && podman tag localhost/base:1 {IMAGE}:{taken} && podman push --quiet --authfile ~/ci-auth.json {IMAGE}:{taken}")).ok();
    let held = host.digest(&taken);
    host.release().of(&taken).run().exits(4).says(&taken).says("hint:");
    assert_eq!(held, host.digest(&taken));
    assert_eq!(before, host.state());
}

fn h14_an_old_workflow_run_again(host: &Host) {
    host.baseline();
    let older = host.release();
    let tag = older.tag();
    older.run().ok();
    host.release().run().ok();
    let before = host.state().healthy();
    host.release()
        .of(&tag)
        .run()
        .exits(1)
        .says("downgrade")
        .says(&format!("`tagship-host rollback demo {tag}`"))
        .says("a rollback request signed");
    assert_eq!(before, host.state());
}

fn secrets_stay_out_of_log_and_files(host: &Host) {
    host.baseline();
    let secrets =
        host.app(". ~/ci.env; printf '%s\\n%s\\n' \"$TAGSHIP_KEY_PASSWORD\" \"$TAGSHIP_REGISTRY_TOKEN\"").ok();
    let ran = host.release().run().ok();
    for secret in secrets.trimmed().lines() {
        assert!(secret.len() >= 8, "a secret worth looking for");
        assert!(!ran.text.contains(secret), "the log holds a secret");
        let found = host.root(&format!(
            "grep -rlF --exclude=ci.env --exclude=ci-auth.json -e '{secret}' /home/app/tagship /home/app/.local/state /tmp /run/user/1000 2>/dev/null"
        ));
        assert!(found.trimmed().is_empty(), "a secret was left in {}", found.text);
    }
}

fn outputs_are_written_for_the_next_step(host: &Host) {
    host.baseline();
    let release = host.release().env("GITHUB_OUTPUT", "/tmp/outputs").edit("rm -f /tmp/outputs; touch /tmp/outputs");
    let tag = release.tag();
    release.run().ok();
    let digest = host.digest(&tag).unwrap();
    host.app("cat /tmp/outputs")
        .ok()
        .says(&format!("digest={digest}"))
        .says(&format!("tag={tag}"))
        .says("outcome=deployed")
        .says("previous-digest=sha256:");
}

fn reboot_keeps_what_was_deployed(host: &Host) {
    let before = host.baseline();
    host.reboot();
    let names = before.services.keys().map(|name| format!("{name}.service")).collect::<Vec<_>>().join(" ");
    host.app(&format!("systemctl --user start {names}")).ok();
    assert_eq!(before.image(), host.state().image());
    // The path unit came back with the host.
    host.release().run().ok();
}
