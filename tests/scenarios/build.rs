//! The build as Docker's users know it, through a real engine.

use tagship_tests::{Host, IMAGE, Scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("context_arrives_as_it_is_without_what_is_ignored", context_arrives_as_it_is),
    ("unchanged_tree_hits_the_layer_cache", unchanged_tree_hits_the_layer_cache),
    ("private_base_image_is_pulled_with_the_given_login", private_base_image),
    ("arguments_labels_and_target_reach_the_image", arguments_labels_and_target),
    ("large_context_is_streamed", large_context_is_streamed),
];

/// Builds in a context made by `script`, and returns the image's tag.
fn built(host: &Host, script: &str, flags: &[(&str, &str)]) -> String {
    let mut release = host.release().steps("build").edit("rm -rf -- * .containerignore").edit(script);
    for (name, value) in flags {
        release = release.flag(name, value);
    }
    let tag = release.tag();
    release.run().ok();
    tag
}

fn context_arrives_as_it_is(host: &Host) {
    let tag = built(
        host,
        r"mkdir -p src/deep docs; echo x >src/run; chmod 751 src/run; ln -s ../nowhere src/link; echo x >src/deep/a.log
          echo x >docs/keep.md; echo x >docs/drop.md; echo x >.env; echo x >'with space'; mkfifo pipe
          printf '**/*.log\ndocs/*.md\n!docs/keep.md\n.env\n' >.containerignore
          printf 'FROM localhost/base:1\nCOPY . /context\n' >Containerfile",
        &[],
    );
    let found = host.app(&format!("podman run --rm {IMAGE}:{tag} find /context -printf '%P %m %l\\n' 2>/dev/null || podman run --rm {IMAGE}:{tag} sh -c 'cd /context; find . | sort; stat -c %a src/run; readlink src/link'")).ok();
    let found = found.says("src/run").says("751").says("../nowhere").says("docs/keep.md").says("with space");
    found.never_says("a.log").never_says("drop.md").never_says(".env").never_says("pipe");
}

fn unchanged_tree_hits_the_layer_cache(host: &Host) {
    let script = "date +%N >salt; printf 'FROM localhost/base:1\\nCOPY salt /salt\\nRUN cat /proc/sys/kernel/random/uuid >/when\\n' >Containerfile";
    let first = built(host, &format!("{script}; cp salt Containerfile ~"), &[]);
    let again = built(host, "cp ~/salt ~/Containerfile .", &[]);
    let when = |tag: &str| host.app(&format!("podman run --rm {IMAGE}:{tag} cat /when")).ok().text;
    assert_eq!(when(&first), when(&again), "the same tree was built anew");
    let other = built(host, "cp ~/Containerfile .; echo other >salt", &[]);
    assert_ne!(when(&first), when(&other));
}

fn private_base_image(host: &Host) {
    let base = "registry.test:5000/chris/private-base";
    host.app(&format!(
        "podman tag localhost/base:1 {base}:1 && podman push --quiet --authfile ~/ci-auth.json {base}:1 && podman rmi {base}:1 && mv ~/.config/containers/auth.json ~/away.json"
    ))
    .ok();
    let source = format!("printf 'FROM {base}:1\\nRUN true\\n' >Containerfile");
    let without = host
        .release()
        .steps("build")
        .edit("rm -rf -- *")
        .edit(&source)
        .edit("TAGSHIP_FLAGS=; unset TAGSHIP_REGISTRY_TOKEN")
        .run();
    let with = host
        .release()
        .steps("build")
        .edit("rm -rf -- *")
        .edit(&source)
        .flag("registry-auth-file", "~/ci-auth.json")
        .edit("TAGSHIP_FLAGS=; unset TAGSHIP_REGISTRY_TOKEN")
        .run();
    host.app("mv ~/away.json ~/.config/containers/auth.json").ok();
    without.exits(3).says("chris/private-base").says("hint:");
    with.ok();
}

fn arguments_labels_and_target(host: &Host) {
    let commit = "4567def89012345678901234567890123456789a";
    let release = host.release().steps("build").env("GITHUB_SHA", commit).env("GITHUB_SERVER_URL", "https://forge.test").env("GITHUB_REPOSITORY", "chris/demo")
        .edit("rm -rf -- *; printf 'FROM localhost/base:1 AS one\\nARG GIT_HASH\\nARG COLOUR\\nRUN echo $GIT_HASH $COLOUR >/said\\nFROM one AS two\\nRUN false\\n' >Containerfile")
        .flag("target", "one").flag("build-args", "COLOUR=green").flag("labels", "team=demo");
    let tag = release.tag();
    release.run().ok();
    host.app(&format!("podman run --rm {IMAGE}:{tag} cat /said")).ok().says("4567def green");
    host.app(&format!("podman image inspect --format '{{{{json .Labels}}}}' {IMAGE}:{tag}"))
        .ok()
        .says(&format!("\"org.opencontainers.image.revision\":\"{commit}\""))
        .says(&format!("\"org.opencontainers.image.version\":\"{tag}\""))
        .says("\"org.opencontainers.image.source\":\"https://forge.test/chris/demo\"")
        .says("\"org.opencontainers.image.created\":\"20")
        .says("\"team\":\"demo\"");
}

fn large_context_is_streamed(host: &Host) {
    // Half the context's size is more memory than the program may have.
    let tag = built(
        host,
        "head -c 300M /dev/zero >big; printf 'FROM localhost/base:1\\nCOPY big /big\\n' >Containerfile; ulimit -v 150000",
        &[],
    );
    host.app(&format!("podman run --rm {IMAGE}:{tag} stat -c %s /big; podman rmi {IMAGE}:{tag}"))
        .ok()
        .says("314572800");
}
