//! Other programs of the field accept what tagship signs, and tagship keeps what they signed.

use tagship_tests::{Host, IMAGE};

use tagship_tests::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("cosign_verifies_a_release", cosign_verifies_a_release),
    ("podman_pulls_a_release_under_policy_and_refuses_an_unsigned_image", podman_policy),
    ("signatures_of_others_are_kept", signatures_of_others_are_kept),
    ("both_labels_of_encrypted_keys_sign", both_labels_of_encrypted_keys_sign),
    ("cosign_signs_with_a_key_of_keygen", cosign_signs_with_a_key_of_keygen),
];

/// cosign without the log: the stack has none.
const VERIFY: &str = "cosign verify --insecure-ignore-tlog=true --key";

fn cosign_verifies_a_release(host: &Host) {
    host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    host.app(&format!("{VERIFY} /etc/containers/cosign-app.pub -a tag={tag} -a repository={IMAGE} {IMAGE}:{tag}"))
        .ok()
        .says("docker-manifest-digest");
}

fn podman_policy(host: &Host) {
    host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    host.root("mkdir -p /etc/containers/registries.d; printf 'docker:\\n  registry.test:5000/chris/demo:\\n    use-sigstore-attachments: true\\n' >/etc/containers/registries.d/demo.yaml").ok();
    let policy = "printf '{\"default\":[{\"type\":\"reject\"}],\"transports\":{\"docker\":{\"registry.test:5000/chris/demo\":[{\"type\":\"sigstoreSigned\",\"keyPath\":\"/etc/containers/cosign-app.pub\",\"signedIdentity\":{\"type\":\"matchRepository\"}}]}}}' >~/policy.json";
    host.app(policy).ok();
    let pull = |tag: &str| host.app(&format!("podman pull --quiet --signature-policy ~/policy.json {IMAGE}:{tag}"));
    pull(&tag).ok();
    let unsigned = host.next_version();
    host.app(&format!("podman tag localhost/base:1 {IMAGE}:{unsigned} && podman push --quiet --authfile ~/ci-auth.json {IMAGE}:{unsigned}")).ok();
    pull(&unsigned).exits(125).says("no signature exists");
    host.root("rm /etc/containers/registries.d/demo.yaml").ok();
}

fn signatures_of_others_are_kept(host: &Host) {
    host.baseline();
    let release = host.release().steps("build,push");
    let tag = release.tag();
    release.run().ok();
    let digest = host.digest(&tag).unwrap();
    host.app(&format!(
        "export DOCKER_CONFIG=$(mktemp -d); cp ~/ci-auth.json $DOCKER_CONFIG/config.json; rm -f ~/other.*; cd; COSIGN_PASSWORD=x cosign generate-key-pair --output-key-prefix other &&
         COSIGN_PASSWORD=x cosign sign --yes --tlog-upload=false --key other.key {IMAGE}@{digest}"
    ))
    .ok();
    host.release().of(&tag).steps("sign,deploy,promote").run().ok();
    for key in ["~/other.pub", "/etc/containers/cosign-app.pub"] {
        host.app(&format!("{VERIFY} {key} {IMAGE}@{digest}")).ok();
    }
}

fn both_labels_of_encrypted_keys_sign(host: &Host) {
    host.baseline();
    for label in ["SIGSTORE", "COSIGN"] {
        let key = format!("\"$(sed 's/ENCRYPTED [A-Z]* PRIVATE/ENCRYPTED {label} PRIVATE/' ~/cosign.key)\"");
        host.release().env("TAGSHIP_KEY", &key).run().ok();
    }
}

fn cosign_signs_with_a_key_of_keygen(host: &Host) {
    let tag = host.next_version();
    host.app(&format!(
        "export DOCKER_CONFIG=$(mktemp -d); cp ~/ci-auth.json $DOCKER_CONFIG/config.json; cd $(mktemp -d)
         TAGSHIP_KEY_PASSWORD=correct-horse tagship keygen --output mine
         podman tag localhost/base:1 {IMAGE}:{tag} && podman push --quiet --authfile ~/ci-auth.json {IMAGE}:{tag}
         export COSIGN_PASSWORD=correct-horse
         cosign public-key --key mine.key | diff - mine.pub
         cosign sign --yes --tlog-upload=false --key mine.key {IMAGE}:{tag}
         {VERIFY} mine.pub {IMAGE}:{tag}"
    ))
    .ok();
}
