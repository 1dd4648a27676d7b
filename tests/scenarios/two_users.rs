//! examples/two-users/README.md, executed on a host of its own: the runner's user shares a directory with the
//! application's, and nothing else.

use tagship_tests::{Host, IMAGE, Ran, Scenario, quoted};

pub(crate) const SCENARIOS: &[Scenario] = &[("a_runner_of_another_user_can_ask_and_nothing_else", another_user)];

const GUIDE: &str = include_str!("../../examples/two-users/README.md");

/// Runs a shell script as the runner's user, with its session.
fn ci(host: &Host, script: &str) -> Ran {
    let script = quoted(script);
    host.root(&format!(
        "cd /home/ci; uid=$(id -u ci); env --ignore-environment HOME=/home/ci USER=ci LOGNAME=ci PATH=/usr/local/bin:/usr/bin:/bin \
         XDG_RUNTIME_DIR=/run/user/$uid DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$uid/bus \
         setpriv --reuid ci --regid ci --init-groups -- bash -c {script}"
    ))
}

/// Does what the guide says, block by block.
fn follow(host: &Host) {
    // In each pair the second is what a fence encloses.
    for (at, block) in GUIDE.split("```").enumerate().filter(|(at, _)| at % 2 == 1) {
        let (place, text) = block.split_once('\n').unwrap_or_else(|| panic!("block {at} is empty"));
        match place {
            "sh root" => {
                host.root(text).ok();
                // Its session is there once its manager is.
                host.root("! id ci >/dev/null 2>&1 || systemctl start user@$(id -u ci).service").ok();
            }
            "sh app" => drop(host.app(text).ok()),
            "sh ci" => drop(ci(host, text).ok()),
            "yaml" => {
                let uid = host.root("id -u ci").ok();
                let text = text.replace("1001", uid.trimmed());
                host.app(&format!("cat >>~/.config/tagship/demo.yaml <<'EOF'\n{text}EOF")).ok();
            }
            "ini tagship@demo.path" => {
                let directory = "~/.config/systemd/user/tagship@demo.path.d";
                host.app(&format!("mkdir -p {directory}; cat >{directory}/override.conf <<'EOF'\n{text}EOF")).ok();
            }
            // What the job below is given, as the runner would.
            "yaml runner" | "yaml workflow" => assert!(text.contains("- /srv/tagship/demo"), "{text}"),
            other => panic!("a block of {other:?}"),
        }
    }
}

/// A job of the runner's: a container of its own Podman, with the shared directory, the tool and what else is named.
fn job(host: &Host, more: &str, script: &str) -> Ran {
    let script = quoted(script);
    ci(
        host,
        &format!(
            "podman run --rm --network host --volume /etc/hosts:/etc/hosts:ro --volume /srv/tagship/demo:/data \
             --volume /usr/local/bin/tagship:/usr/bin/tagship:ro {more} localhost/base:1 sh -euc {script}"
        ),
    )
}

fn another_user(_: &Host) {
    let host = &Host::boot("two-users");
    let before = host.baseline();
    follow(host);
    // What the forge gives to the job, and what a checkout leaves.
    host.app("podman save --quiet --output ~/base.tar localhost/base:1").ok();
    host.root(
        "cp -r /home/app/src/demo /home/ci/demo; cp /home/app/ci.env /home/app/ca.pem /home/app/base.tar /home/ci; chown -R ci: /home/ci
         sed -i 's#--handoff [^ ]*#--handoff /data --ca /job/ca.pem#; s#--handoff\\\\ [^ ]*#--handoff\\\\ /data\\\\ --ca\\\\ /job/ca.pem#' /home/ci/ci.env",
    )
    .ok();
    ci(host, "podman load --quiet --input ~/base.tar").ok();
    let release = host.release();
    let tag = release.tag();
    drop(release);
    let socket = "--volume $XDG_RUNTIME_DIR/podman/podman.sock:/var/run/docker.sock --volume ~/:/job";
    let script = |tag: &str, flags: &str| {
        format!(
            "cd /job/demo; . /job/ci.env; export TAGSHIP_KEY TAGSHIP_KEY_PASSWORD TAGSHIP_REGISTRY_TOKEN
             tagship release --image {IMAGE} --tag {tag} $TAGSHIP_FLAGS {flags}"
        )
    };
    // As before: the whole release, in the job's log.
    let ran = job(host, socket, &script(&tag, "")).ok();
    ran.says_in_order(&[
        "build",
        "push",
        "sign",
        "the host has claimed the request",
        "demo-web",
        "deployed",
        "promote",
    ]);
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    assert_eq!(host.digest(&tag), after.moving);
    // By hand, too, and what fails is told as well.
    let asked = ci(host, &format!("echo {tag} >/srv/tagship/demo/deploy-trigger"));
    asked.ok();
    host.answer("/srv/tagship/demo/deploy-status").ok().says(&format!("ok {tag}"));
    let bad = host.next_version();
    ci(host, "printf '#!/bin/sh\\necho database is gone; exit 1\\n' >~/demo/health").ok();
    job(host, socket, &script(&bad, "")).exits(1).says("rolled-back").says("database is gone");
    assert_eq!(after.image(), host.state().healthy().image());

    // Nothing else of the application's.
    let held = host.state();
    let root = "--privileged --user 0";
    let theirs = host.app("podman inspect --format '{{.State.Pid}}' demo-web").ok();
    for (more, attempt) in [
        ("--volume /run/user:/users", "ls -d /users/1000; ls /users/1000".to_owned()),
        ("--volume /home:/homes", "ls -d /homes/app; ls /homes/app".to_owned()),
        ("--pid host", format!("ls -d /proc/{pid}; kill -9 {pid}", pid = theirs.trimmed())),
        ("", "ls -d /data/deploy-host; chown 0 /data/deploy-host".to_owned()),
    ] {
        // It is there, and out of reach.
        job(host, &format!("{root} {more}"), &attempt).exits(1).denied();
    }
    for attempt in [
        "podman --url unix:///run/user/1000/podman/podman.sock ps",
        "ls /home/app",
        "cat /home/app/.config/tagship/demo.yaml",
        "systemctl --user --machine app@ restart demo-web",
    ] {
        ci(host, attempt).denied();
    }
    // What it tags and prunes is its own.
    ci(host, "podman tag localhost/base:1 localhost/demo:demo-web; podman image prune --all --force >/dev/null; ! podman image exists localhost/demo:demo-flower").ok();
    host.app("systemctl --user restart demo-web").ok();
    host.checked(&["demo-web"]);
    assert_eq!(held.image(), host.state().healthy().image());
    // Who is not on the list is told so, and who is nobody there does not even get in.
    let unlisted = host.configured("sed -i '/^requesters:/d' demo.yaml");
    // Whose requests count is read once in a run, and an answer that is there already is not waited for.
    host.at_rest();
    host.app("rm /srv/tagship/demo/deploy-status").ok();
    ci(host, &format!("echo {tag} >/srv/tagship/demo/deploy-trigger")).ok();
    let answer = host.answer("/srv/tagship/demo/deploy-status").ok();
    answer.says("foreign-owner").says("`requesters`");
    drop(unlisted);
    host.root(
        "setpriv --reuid nobody --regid nogroup --clear-groups -- sh -c 'echo v1 >/srv/tagship/demo/deploy-trigger'",
    )
    .exits(2)
    .says("Permission denied");
}
