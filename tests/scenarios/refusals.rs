//! What must never run: each is refused with its own message, before any pull, with no service touched.

use std::sync::atomic::{AtomicU32, Ordering};

use tagship_tests::{Host, IMAGE, Ran};

use tagship_tests::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("unsigned_image", unsigned_image),
    ("image_signed_by_another_key", image_signed_by_another_key),
    ("another_keys_release_is_red_with_the_hosts_reason", another_keys_release_is_red_with_the_hosts_reason),
    ("payload_changed_in_the_registry", payload_changed_in_the_registry),
    ("statement_changed_in_the_registry", statement_changed_in_the_registry),
    ("image_signed_for_another_repository", image_signed_for_another_repository),
    ("signature_lifted_from_another_image", signature_lifted_from_another_image),
    ("bundle_lifted_from_another_image", bundle_lifted_from_another_image),
    ("tag_that_was_not_signed_with_the_digest", tag_that_was_not_signed_with_the_digest),
    ("digest_that_the_registry_does_not_hold", digest_that_the_registry_does_not_hold),
    ("request_for_another_image", request_for_another_image),
];

/// Shell functions that speak to the registry as its client `ci` does.
const REGISTRY: &str = r#"
set -eu
. ~/ci.env
accept='Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json'
api() { path=$1; shift; curl -fsS -u "ci:$TAGSHIP_REGISTRY_TOKEN" "$@" "https://registry.test:5000/v2/$path"; }
get() { api "chris/$1/manifests/$2" -H "$accept"; }
put() { api "chris/$1/manifests/$2" -X PUT -H "Content-Type: $(jq -r .mediaType "$3")" --data-binary "@$3"; }
mount() { for b in $(jq -r '.config.digest, .layers[].digest' "$3"); do api "chris/$2/blobs/uploads/?mount=$b&from=chris/$1" -X POST -o /dev/null; done; }
"#;

fn unsigned_image(host: &Host) {
    let tag = pushed(host, "");
    let digest = host.digest(&tag).unwrap();
    refused(host, &tag, &digest, "no-signature");
    // The action finds it out by itself, too, and asks nobody.
    host.release().of(&tag).steps("deploy").run().exits(5).says("it is not signed").says("hint:");
}

fn image_signed_by_another_key(host: &Host) {
    let tag = pushed(host, "");
    let digest = host.digest(&tag).unwrap();
    sign_with_another_key(host, &digest);
    refused(host, &tag, &digest, "foreign-signature");
}

fn another_keys_release_is_red_with_the_hosts_reason(host: &Host) {
    let before = host.baseline();
    host.key_pair("thief");
    host.release().with_key("thief").run().exits(1).says("foreign-signature").says("refused");
    assert_eq!(before, host.state());
}

fn payload_changed_in_the_registry(host: &Host) {
    let tag = signed_alone(host, "sig");
    let digest = host.digest(&tag).unwrap();
    // The copy in the manifest itself goes first: while it is there, and right, the blob is not asked for.
    let layer = host.app(&format!(
        "{REGISTRY} m=$(mktemp); tag={}; get demo $tag | jq 'del(.layers[0].data)' >$m; put demo $tag $m
         jq -r '.layers[0].digest' $m",
        signature_tag(&digest)
    ));
    let layer = layer.ok();
    change_blob(host, layer.trimmed(), "s/cosign container image/cosign container imagE/");
    refused(host, &tag, &digest, "tampered-payload");
}

fn statement_changed_in_the_registry(host: &Host) {
    let tag = signed_alone(host, "bundle");
    let digest = host.digest(&tag).unwrap();
    let bundle = host.app(&format!(
        "{REGISTRY} m=$(get demo {} | jq -r '.manifests[0].digest'); get demo $m | jq -r '.layers[0].digest'",
        referrers_tag(&digest)
    ));
    change_blob(host, bundle.ok().trimmed(), "s/\"payload\":\"ey/\"payload\":\"eY/");
    refused(host, &tag, &digest, "tampered-payload");
}

/// Changes what the registry has on its disk, and does not tell it.
fn change_blob(host: &Host, digest: &str, edit: &str) {
    let hex = digest.trim_start_matches("sha256:");
    let blob = format!("/var/lib/registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    host.root(&format!("before=$(md5sum <{blob}); sed -i '{edit}' {blob}; test \"$before\" != \"$(md5sum <{blob})\""))
        .ok();
}

fn image_signed_for_another_repository(host: &Host) {
    let tag = signed_alone(host, "sig");
    let digest = host.digest(&tag).unwrap();
    // The same bytes signed, with the right key, under another repository's name; then moved over with the signature.
    let other = format!(
        "{REGISTRY}
        m=$(mktemp -d); get demo {digest} >$m/i; mount demo other $m/i; put other {digest} $m/i
        api chris/demo/manifests/{signature} -X DELETE || true
        cosign sign --yes --tlog-upload=false --key ~/cosign.key registry.test:5000/chris/other@{digest} </dev/null
        get other {signature} >$m/s; mount other demo $m/s; put demo {signature} $m/s",
        signature = signature_tag(&digest)
    );
    host.app(&with_push_rights(&other)).ok();
    refused(host, &tag, &digest, "other-repository");
}

fn signature_lifted_from_another_image(host: &Host) {
    lifted(host, signature_tag);
}

fn bundle_lifted_from_another_image(host: &Host) {
    lifted(host, referrers_tag);
}

/// What is under a signed image's tag is put under that of an unsigned one.
fn lifted(host: &Host, tag_of: fn(&str) -> String) {
    let good = released_elsewhere(host);
    let bad = pushed(host, "");
    let (from, to) = (host.digest(&good).unwrap(), host.digest(&bad).unwrap());
    host.app(&format!("{REGISTRY} m=$(mktemp); get demo {} >$m; put demo {} $m", tag_of(&from), tag_of(&to))).ok();
    refused(host, &bad, &to, "other-digest");
}

fn tag_that_was_not_signed_with_the_digest(host: &Host) {
    let tag = released_elsewhere(host);
    let digest = host.digest(&tag).unwrap();
    refused(host, "v9.9.9", &digest, "tag-mismatch").says(&tag);
}

fn digest_that_the_registry_does_not_hold(host: &Host) {
    let tag = host.next_version();
    refused(host, &tag, &format!("sha256:{}", "0".repeat(64)), "no-signature");
}

fn request_for_another_image(host: &Host) {
    let before = host.baseline();
    let id = ulid::Ulid::generate();
    host.app(&format!(
        "cd ~/tagship/demo && printf '%s\\n' v1.0.0 'Request: {id}' 'Image: registry.test:5000/chris/other' 'Digest: sha256:{}' >.new && mv .new deploy-request.{id}",
        "0".repeat(64)
    ))
    .ok();
    host.answer(&format!("~/tagship/demo/deploy-status.{id}")).ok().says("Outcome: refused");
    assert_eq!(before, host.state());
}

/// Asks for the digest under the tag and requires a refusal of this kind that pulled and touched nothing.
fn refused(host: &Host, tag: &str, digest: &str, kind: &str) -> Ran {
    let before = host.baseline();
    // Built on this very host, the image could be in the store already: a pull would not show.
    host.app(&format!("podman rmi --force {IMAGE}:{tag} {IMAGE}@{digest} 2>/dev/null || true"));
    let held = host.images("--quiet");
    let ran = host
        .ask(tag, digest)
        .ok()
        .says(&format!("fail {tag}"))
        .says("Outcome: refused")
        .says(&format!("Kind: {kind}"))
        .says("Reason: ");
    assert_eq!(held, host.images("--quiet"), "something was pulled");
    assert_eq!(before, host.state(), "something was touched");
    ran
}

/// Builds and pushes a new version, unsigned.
fn pushed(host: &Host, flags: &str) -> String {
    static SALT: AtomicU32 = AtomicU32::new(0);
    host.baseline();
    let tag = host.next_version();
    let salt = SALT.fetch_add(1, Ordering::Relaxed);
    host.app(&format!(
        "d=$(mktemp -d) && printf 'FROM localhost/base:1\\nRUN echo {salt} >/salt\\n' >$d/Containerfile &&
         podman build --quiet --format docker {flags} -t {IMAGE}:{tag} $d && podman push --quiet --authfile ~/ci-auth.json {IMAGE}:{tag}"
    ))
    .ok();
    tag
}

/// Builds, pushes and signs a new version, and asks nobody to deploy it.
fn released_elsewhere(host: &Host) -> String {
    host.baseline();
    host.release().signed().tag
}

/// As [`released_elsewhere`], signed in one format alone.
fn signed_alone(host: &Host, format: &str) -> String {
    host.baseline();
    host.release().flag("signature-formats", format).signed().tag
}

fn sign_with_another_key(host: &Host, digest: &str) {
    host.app(&with_push_rights(&format!(
        "cd $(mktemp -d) && COSIGN_PASSWORD=x cosign generate-key-pair && COSIGN_PASSWORD=x cosign sign --yes --tlog-upload=false --key cosign.key {IMAGE}@{digest}"
    )))
    .ok();
}

fn with_push_rights(script: &str) -> String {
    format!(
        "export DOCKER_CONFIG=$(mktemp -d); cp ~/ci-auth.json $DOCKER_CONFIG/config.json; . ~/ci.env; export COSIGN_PASSWORD=$TAGSHIP_KEY_PASSWORD\n{script}"
    )
}

fn signature_tag(digest: &str) -> String {
    format!("{}.sig", referrers_tag(digest))
}

fn referrers_tag(digest: &str) -> String {
    digest.replace(':', "-")
}
