//! The plain form, against counterparts that are shell: a requester, and a bridge of path unit and deploy script.

use tagship_tests::Host;

use tagship_tests::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("shell_requester_is_served", shell_requester_is_served),
    ("h03_what_is_no_tag_is_refused_in_both_forms", h03_what_is_no_tag_is_refused_in_both_forms),
    ("action_releases_through_a_shell_bridge", action_releases_through_a_shell_bridge),
    ("action_puts_the_moving_tag_back_when_the_bridge_fails", action_puts_the_moving_tag_back_when_the_bridge_fails),
];

/// What a shell pipeline does to ask, waiting for the companion's run instead of polling.
fn ask(host: &Host, content: &str) -> String {
    host.app(&format!(
        "cd ~/tagship/demo && rm -f deploy-status && printf -- '{content}' >deploy-trigger && systemctl --user start tagship@demo.service && head -n 1 deploy-status"
    ))
    .ok()
    .trimmed()
    .to_owned()
}

fn shell_requester_is_served(host: &Host) {
    let before = host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.steps("build,push,sign").run().ok();
    assert_eq!(ask(host, &format!("{tag}\\n")), format!("ok {tag}"));
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    // The moving tag is the requester's to move; the next release of the action does.
    assert_eq!(before.moving, after.moving);
    host.release().run().ok();
}

fn h03_what_is_no_tag_is_refused_in_both_forms(host: &Host) {
    let before = host.baseline();
    for content in ["", "bad\\nok pwn\\n", "-x", "../../etc/passwd", "v1 v2", "v1\\033[2J"] {
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
