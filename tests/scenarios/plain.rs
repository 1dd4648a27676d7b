//! The plain form, against counterparts that are shell: a requester, and a bridge of path unit and deploy script.

use tagship_tests::{Host, IMAGE, SERVICES, Scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("shell_requester_is_served", shell_requester_is_served),
    ("h03_what_is_no_tag_is_refused_in_both_forms", h03_what_is_no_tag_is_refused_in_both_forms),
    ("action_releases_through_a_shell_bridge", action_releases_through_a_shell_bridge),
    ("action_puts_the_moving_tag_back_when_the_bridge_fails", action_puts_the_moving_tag_back_when_the_bridge_fails),
    ("a_moving_tag_that_was_put_back_takes_the_host_back_where_it_may", moving_tag_put_back),
    ("one_shared_name_for_all_services_still_works", one_shared_name),
];

/// The first line of the answer to what a shell pipeline asks.
fn ask(host: &Host, content: &str) -> String {
    host.ask_plainly(content).ok().text.lines().next().unwrap_or_default().to_owned()
}

fn shell_requester_is_served(host: &Host) {
    let before = host.baseline();
    let tag = host.release().signed().tag;
    assert_eq!(ask(host, &format!("{tag}\n")), format!("ok {tag}"));
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    // The moving tag is the requester's to move; the next release of the action does.
    assert_eq!(before.moving, after.moving);
    host.release().run().ok();
}

fn h03_what_is_no_tag_is_refused_in_both_forms(host: &Host) {
    let before = host.baseline();
    for content in ["", "bad\nok pwn\n", "-x", "../../etc/passwd", "v1 v2", "v1\u{1b}[2J"] {
        assert_eq!(ask(host, content), "fail invalid", "{content:?}");
        host.app("grep ^ok ~/tagship/demo/deploy-status").exits(1);
    }
    let digest = before.moving.clone().unwrap();
    // A request that is answered at once has no log.
    host.ask("bad\nok pwn", &digest).exits(1).says("fail bad").says("Kind: request-invalid").never_says("\nok pwn\n");
    // The action does not even ask.
    host.release().of("$'bad\\nok pwn'").steps("deploy").run().exits(2).says("error: tag is");
    assert_eq!(before, host.state());
    host.release().run().ok();
}

fn action_releases_through_a_shell_bridge(host: &Host) {
    host.baseline();
    with_bridge(host, "true", |host| {
        let release = host.release().flag("handoff", "~/bridge").flag("handoff-form", "plain");
        let tag = release.tag();
        release.run().ok().says_in_order(&["promote", "deploy"]);
        assert_eq!(host.digest(&tag), host.digest("stable"));
        host.app("cat ~/bridge/deployed").ok().says(&tag);
    });
}

fn action_puts_the_moving_tag_back_when_the_bridge_fails(host: &Host) {
    let before = host.baseline();
    with_bridge(host, "false", |host| {
        host.release().flag("handoff", "~/bridge").flag("handoff-form", "plain").run().exits(1).says("stable");
        assert_eq!(before.moving, host.digest("stable"));
    });
}

/// Runs `body` beside a bridge made of a path unit and a shell script, as people wrote them before tagship.
fn with_bridge(host: &Host, deploy: &str, body: impl FnOnce(&Host)) {
    host.app(&format!(
        r#"mkdir -p ~/bridge ~/.config/systemd/user && cd ~/.config/systemd/user
cat >~/bridge/answer <<'S'
#!/bin/bash
cd ~/bridge || exit 1
tag=$(<deploy-trigger)
rm -f deploy-trigger deploy-status
echo "$tag" >>deployed
if {deploy}; then echo "ok $tag"; else echo "fail $tag"; fi >.status
mv .status deploy-status
S
chmod +x ~/bridge/answer
printf '[Path]\nPathExists=%%h/bridge/deploy-trigger\n' >bridge.path
printf '[Service]\nType=oneshot\nExecStart=%%h/bridge/answer\n' >bridge.service
systemctl --user daemon-reload && systemctl --user start bridge.path"#
    ))
    .ok();
    body(host);
    host.app("systemctl --user stop bridge.path; rm -r ~/bridge ~/.config/systemd/user/bridge.*; systemctl --user daemon-reload").ok();
}

/// The way back that shell pipelines have: pull the older version, tag it, push it as the moving tag, write the trigger.
fn moving_tag_put_back(host: &Host) {
    host.baseline();
    let older = host.release();
    let older_tag = older.tag();
    older.run().ok();
    let before = host.state().healthy();
    let newer = host.release();
    let tag = newer.tag();
    newer.run().ok();
    let after = host.state().healthy();
    let put_back = |version: &str| {
        host.app(&format!(
            "podman pull --quiet {IMAGE}:{version} && podman tag {IMAGE}:{version} {IMAGE}:stable &&
             podman push --quiet --authfile ~/ci-auth.json {IMAGE}:stable"
        ))
        .ok()
    };
    put_back(&older_tag);
    assert_eq!(host.digest("stable"), before.moving, "Podman pushed what it had pulled under another digest");
    // By default the host does not follow, and says how it is done.
    ask(host, &older_tag);
    host.app("cat ~/tagship/demo/deploy-status").ok().says("Kind: downgrade").says("tagship-host rollback");
    assert_eq!(after.services, host.state().services);
    let _follows = host.configured(r"sed -i 's/^verify:/verify:\n  downgrade: moving-tag/' demo.yaml");
    assert_eq!(ask(host, &older_tag), format!("ok {older_tag}"));
    assert_eq!(before.image(), host.state().healthy().image());
    // Only what the moving tag names: a trigger alone takes nobody anywhere, and so does the version that was left.
    ask(host, &tag);
    host.app("cat ~/tagship/demo/deploy-status").ok().says("Kind: held");
    put_back(&tag);
    assert_eq!(ask(host, "stable"), "ok stable");
    assert_eq!(after.image(), host.state().healthy().image());
}

/// All Quadlets run the registry's moving tag, as before there were local names.
fn one_shared_name(host: &Host) {
    let before = host.baseline();
    let services = SERVICES.join(" ");
    let (units, drop_ins) = ("~/.config/containers/systemd", "~/.config/systemd/user");
    let guard = include_str!("../../examples/quadlets/guard.conf");
    let shared = host.changed(
        &format!(
            "cp -r {units} ~/quadlets; cd {units}; podman tag {image} {IMAGE}:stable
             for s in {services}; do
               sed -i 's#^Image=.*#Image={IMAGE}:stable#; s#^Pull=.*#Pull=missing#' $s.container
               mkdir -p {drop_ins}/$s.service.d; cat >{drop_ins}/$s.service.d/guard.conf <<'EOF'\n{guard}\nEOF
             done
             systemctl --user daemon-reload; systemctl --user restart {services}",
            image = before.image()
        ),
        &format!(
            "rm -r {units}; mv ~/quadlets {units}; for s in {services}; do rm {drop_ins}/$s.service.d/guard.conf; done
             image=$(podman image inspect --format '{{{{.Id}}}}' {IMAGE}:stable)
             for s in {services}; do podman tag $image localhost/demo:$s; done
             systemctl --user daemon-reload; systemctl --user reset-failed {services}; systemctl --user restart {services}"
        ),
    );
    host.checked(&SERVICES);
    let _config = host.configured("sed -i '/^local-image:/d' demo.yaml");
    let release = host.release();
    let tag = release.tag();
    release.run().ok().says("has Pull=missing").says("use Pull=never");
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    host.app(&format!("podman image inspect --format '{{{{.Id}}}}' {IMAGE}:stable")).ok().says(after.image());
    // A failing one comes back as a whole, and the shared name with it.
    host.release().unhealthy().run().exits(1).says("rolled-back");
    assert_eq!(after.image(), host.state().healthy().image());
    // What any build on this host can do to the shared name: the guard starts nothing of it.
    {
        let _moved = host.changed(
            &format!("printf 'FROM localhost/base:1\\nRUN echo built >/x\\n' | podman build -q --format docker -t {IMAGE}:stable -"),
            &format!(
                "podman tag {} {IMAGE}:stable; systemctl --user reset-failed demo-flower; systemctl --user restart demo-flower",
                after.image()
            ),
        );
        host.app("systemctl --user restart demo-flower").exits(1);
        host.root("journalctl --sync").ok();
        host.app("journalctl --user -u demo-flower -n 30 -o cat --no-pager").ok().says("demo-flower is not started");
    }
    host.checked(&["demo-flower"]);
    host.app("tagship-host status demo").ok().says(&tag);
    drop(shared);
}
