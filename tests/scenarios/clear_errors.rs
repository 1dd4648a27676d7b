//! What goes wrong around a release: a clear message with a hint, within seconds, nothing changed.

use std::time::Duration;

use tagship_tests::{Host, Mend, Release, Scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("registry_down", registry_down),
    ("wrong_registry_password", wrong_registry_password),
    ("credentials_that_may_not_push", credentials_that_may_not_push),
    ("unknown_certificate_authority", unknown_certificate_authority),
    ("engine_socket_missing", engine_socket_missing),
    ("handoff_directory_missing", handoff_directory_missing),
    ("handoff_not_mounted", handoff_not_mounted),
    ("no_companion_there", no_companion_there),
    ("a_companion_that_does_not_run", a_companion_that_does_not_run),
    ("a_companion_that_hangs_after_its_claim", a_companion_that_hangs_after_its_claim),
    ("wrong_key_password", wrong_key_password),
    ("containerfile_that_fails", containerfile_that_fails),
    ("bad_yaml", bad_yaml),
    ("unknown_key_in_the_yaml", unknown_key_in_the_yaml),
    ("service_that_does_not_exist", service_that_does_not_exist),
    ("key_that_the_user_owns", key_that_the_user_owns),
];

/// How long a user waits for a message that needs no slow work.
const SOON: Duration = Duration::from_secs(20);

fn registry_down(host: &Host) {
    let before = host.baseline();
    let down = host.without_registry();
    host.release().run().exits(4).within(SOON).says("registry.test:5000").says("hint:");
    drop(down);
    assert_eq!(before, host.state());
}

fn wrong_registry_password(host: &Host) {
    fails(host, 4, &["registry.test:5000", "hint:"], |r| r.env("TAGSHIP_REGISTRY_TOKEN", "not-the-password"));
}

fn credentials_that_may_not_push(host: &Host) {
    fails(host, 4, &["push", "hint:"], |r| r.edit(". ~/host.env").flag("registry-user", "host"));
}

fn unknown_certificate_authority(host: &Host) {
    // As in a container image that carries only the public authorities.
    fails(host, 4, &["certificate", "ca"], |r| {
        r.env("SSL_CERT_FILE", "/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt")
            .env("SSL_CERT_DIR", "/nonexistent")
    });
}

fn engine_socket_missing(host: &Host) {
    fails(host, 3, &["socket", "hint:"], |r| r.env("DOCKER_HOST", "unix:///run/user/1000/nothing.sock"));
}

fn handoff_directory_missing(host: &Host) {
    fails(host, 6, &["/home/app/nowhere", "hint:"], |r| r.flag("handoff", "/home/app/nowhere"));
}

fn handoff_not_mounted(host: &Host) {
    // As the runner starts it: a folder that the image made is not the host's.
    let before = host.baseline();
    host.app(". ~/ci.env; cd ~/src/demo; mkdir -p /tmp/data; export INPUT_IMAGE=registry.test:5000/chris/demo INPUT_TAG=v0.3.0 INPUT_HANDOFF=/tmp/data INPUT_TLOG=false; env \"INPUT_REGISTRY-USER=ci\" tagship action")
        .exits(6)
        .within(SOON)
        .says("mount")
        .says("valid_volumes");
    assert_eq!(before, host.state());
}

fn no_companion_there(host: &Host) {
    fails(host, 6, &["companion", "hint:"], |r| r.edit("mkdir -p /tmp/empty").flag("handoff", "/tmp/empty"));
}

fn a_companion_that_does_not_run(host: &Host) {
    let before = host.baseline();
    let _stopped = stopped(host, "tagship@demo.path tagship@demo.timer");
    let ran = deploy_again(host).run().exits(6).within(Duration::from_secs(45)).says("no companion").says("hint:");
    // It is given the time that a busy host needs.
    assert!(ran.took > Duration::from_secs(28), "{:?}", ran.took);
    host.app("! ls ~/tagship/demo/deploy-request.* 2>/dev/null").ok();
    assert_eq!(before, host.state());
}

fn a_companion_that_hangs_after_its_claim(host: &Host) {
    let before = host.baseline();
    // It stops itself when it begins with something, which it has claimed by then: while that unit starts, and not while
    // the manager is being asked to start one, whose answer would be late afterwards. The unit waits for that.
    // The first service, beside which nothing is waited for: a stopped clock makes no other one late.
    let directory = "~/.config/systemd/user/demo-web.service.d";
    let _waits = host.changed(
        &format!(
            "mkfifo ~/go; mkdir -p {directory}; printf '[Service]\\nExecStartPre=/bin/sh -c \"read _ <%%h/go\"\\n' >{directory}/waits.conf
             systemctl --user daemon-reload"
        ),
        &format!(
            "rm -r {directory}; systemctl --user daemon-reload; timeout 1 sh -c 'echo >~/go' || true; rm ~/go"
        ),
    );
    let kill = "systemctl --user kill --kill-whom=main -s";
    let tag = host.release().signed().tag;
    let job = host.release().of(&tag).steps("deploy,promote").background("~/job.log");
    {
        let _goes_on = host.changed("true", &format!("{kill} CONT tagship@demo.service || true"));
        host.app(&format!(
            "{job}
             timeout 60 grep -q -m 1 'demo-web.*restarts with image' < <(tail -n +1 -F ~/job.log 2>/dev/null) || exit
             timeout 20 bash -c 'until [[ $(systemctl --user show -p SubState --value demo-web) == start-pre ]]; do sleep 0.02; done' || exit
             {kill} STOP tagship@demo.service; echo >~/go
             code=0; wait $job || code=$?; cat ~/job.log; rm ~/job.log; exit $code"
        ))
        .exits(6)
        .within(Duration::from_secs(60))
        .says("claimed the request, and then showed no life")
        .says("hint:");
    }
    // Once it goes on it ends what it began, and the job that runs again is green.
    host.app("timeout 60 systemctl --user start tagship@demo.service").ok();
    host.release().of(&tag).run().ok().says("unchanged");
    assert_ne!(before.image(), host.state().healthy().image());
}

/// With these units stopped, and no run of the companion under way that they started before.
fn stopped<'a>(host: &'a Host, units: &str) -> Mend<'a> {
    let mend = host.changed(&format!("systemctl --user stop {units}"), &format!("systemctl --user start {units}"));
    host.at_rest();
    mend
}

/// Asks for what runs already, and for nothing else.
fn deploy_again(host: &Host) -> Release<'_> {
    let version = host.app("jq -r .running.tag ~/tagship/demo/deploy-host").ok();
    host.release().of(version.trimmed()).steps("deploy")
}

fn wrong_key_password(host: &Host) {
    fails(host, 5, &["password", "hint:"], |r| r.env("TAGSHIP_KEY_PASSWORD", "wrong-password"));
}

fn containerfile_that_fails(host: &Host) {
    fails(host, 3, &["no such app-server", "RUN"], |r| {
        r.edit("echo 'RUN echo no such app-server; exit 7' >>Containerfile")
    });
}

fn bad_yaml(host: &Host) {
    with_configuration(host, "keep-images: [1\n", &["demo.yaml:"]);
}

fn unknown_key_in_the_yaml(host: &Host) {
    with_configuration(host, "helth: {timeout: 5s}\n", &["helth", "demo.yaml"]);
}

fn service_that_does_not_exist(host: &Host) {
    with_configuration_edit(host, "sed -i 's/demo-worker/demo-wroker/' demo.yaml", &["demo-wroker"]);
}

fn key_that_the_user_owns(host: &Host) {
    with_configuration_edit(
        host,
        "cp /etc/containers/cosign-app.pub ~/mine.pub; sed -i 's#/etc/containers/cosign-app.pub#/home/app/mine.pub#' demo.yaml",
        &["/home/app/mine.pub", "root"],
    );
}

/// A release with this fault ends with this code and these words, soon, and changes nothing.
fn fails<'a>(host: &'a Host, code: i32, words: &[&str], fault: impl FnOnce(Release<'a>) -> Release<'a>) {
    let before = host.baseline();
    let release = fault(host.release());
    let tag = release.tag();
    let mut ran = release.run().exits(code).within(SOON);
    for word in words {
        ran = ran.says(word);
    }
    assert_eq!(before, host.state());
    assert_eq!(host.digest(&tag), None, "the version was pushed");
}

fn with_configuration(host: &Host, added: &str, words: &[&str]) {
    with_configuration_edit(host, &format!("printf '{added}' >>demo.yaml"), words);
}

/// With the companion's configuration changed like this, the release is red with these words and nothing is touched.
fn with_configuration_edit(host: &Host, edit: &str, words: &[&str]) {
    let before = host.baseline();
    let tag = host.release().signed().tag;
    let asked = || host.release().of(&tag).steps("deploy,promote").run();
    {
        // A run that finds nothing to do but a faulty configuration fails, and is not started again for ten seconds.
        let _no_other = stopped(host, "tagship@demo.timer");
        let _faulty = host.configured(edit);
        let mut ran = asked().exits(1).within(SOON).says("refused");
        for word in words {
            ran = ran.says(word);
        }
        assert_eq!(before, host.state());
    }
    // Mended, it works: nothing was left behind.
    asked().ok();
}
