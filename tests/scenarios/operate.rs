//! The operator's commands, and requests that meet each other.

use tagship_tests::{Host, IMAGE};

use tagship_tests::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("rollback_by_hand_and_forward_again", rollback_by_hand_and_forward_again),
    ("status_tells_what_runs", status_tells_what_runs),
    ("history_is_compared_with_the_journal", history_is_compared_with_the_journal),
    ("verify_checks_as_the_host_does", verify_checks_as_the_host_does),
    ("h01_two_requests_each_get_their_own_verdict", h01_two_requests_each_get_their_own_verdict),
];

fn rollback_by_hand_and_forward_again(host: &Host) {
    let before = host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    let newer = host.state().healthy();
    host.app("tagship-host rollback demo").ok();
    assert_eq!(before.image(), host.state().healthy().image(), "not what ran before");
    // CI is told, too.
    host.app(&format!("jq -r .running.tag ~/tagship/demo/deploy-host; ! grep -q '{tag}' ~/tagship/demo/deploy-host"))
        .ok();
    // The bad version is held: re-running its workflow does not bring it back.
    host.release().of(&tag).run().exits(1).says("held");
    // By its name the operator gets it back.
    host.app(&format!("tagship-host rollback demo {tag}")).ok().says(&tag);
    assert_eq!(newer.image(), host.state().healthy().image());
    host.app("tagship-host rollback demo v77.0.0").exits(1).says("v77.0.0").says("hint:");
}

fn status_tells_what_runs(host: &Host) {
    host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    host.app("tagship-host status demo").ok().says(&tag).says("demo-web").says("demo-flower").says("healthy");
    for command in ["status demo", "status demo --json", "rollback demo --list", "policy demo"] {
        host.app(&format!("tagship-host {command} >/dev/full")).exits(1).says("cannot write to standard output");
    }
    host.app("tagship-host status nothing-of-this-name").exits(2).says("nothing-of-this-name").says("hint:");
}

fn history_is_compared_with_the_journal(host: &Host) {
    host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    let shown = host.app("tagship-host history demo").ok();
    shown.never_says("only in").says_in_order(&["TIME", "OUTCOME", &tag, "deployed", "request"]);
    let json = host.app("tagship-host history demo --json | jq -r '.verdicts[0].tag, .compared'").ok();
    json.says(&tag).says("true");
    // The app's user can rewrite the file, and not what the journal was told.
    let file = "~/.local/state/tagship/demo/history.jsonl";
    host.app(&format!("cp {file} /tmp/history; sed -i '$d' {file}")).ok();
    host.app("tagship-host history demo").exits(1).says("only in the system's journal").says(&tag);
    host.app(&format!("sed 's/\"deployed\"/\"failed\"/g' /tmp/history >{file}")).ok();
    host.app("tagship-host history demo").exits(1).says("only in the file").says("failed");
    host.app(&format!("cp /tmp/history {file}; rm /tmp/history")).ok();
    host.app("tagship-host history demo").ok();
}

fn verify_checks_as_the_host_does(host: &Host) {
    host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    let verify = |tag: &str, key: &str| {
        host.app(&format!(
            ". ~/ci.env; tagship verify --image {IMAGE} --tag {tag} --public-key {key} --tlog false --registry-user ci"
        ))
    };
    verify(&tag, "/etc/containers/cosign-app.pub").ok().says(&tag);
    verify(&tag, "\"$(cat /etc/containers/cosign-app.pub)\"").ok().says(&tag);
    verify(&tag, "/etc/containers/cosign-app.pub >/dev/full").exits(7).says("cannot write to standard output");
    host.app("cd; rm -f stranger.*; TAGSHIP_KEY_PASSWORD=long-enough tagship keygen --output stranger").ok();
    verify(&tag, "~/stranger.pub").exits(5).says("hint:");
}

fn h01_two_requests_each_get_their_own_verdict(host: &Host) {
    let before = host.baseline();
    let bad = host.release().unhealthy();
    let good = host.release();
    let (bad, good, good_tag) = (bad.script(), good.script(), good.tag());
    // Both jobs at once, on one host: the verdict of one must not reach the other.
    let ran = host.app(&format!(
        "(bash -c '{}' >/tmp/bad.log 2>&1; echo $? >/tmp/bad.code) & (bash -c '{}' >/tmp/good.log 2>&1; echo $? >/tmp/good.code) & wait
         echo bad $(cat /tmp/bad.code) good $(cat /tmp/good.code); tail -n 5 /tmp/bad.log /tmp/good.log",
        bad.replace('\'', "'\\''"),
        good.replace('\'', "'\\''")
    ));
    ran.ok().says("bad 1 good 0");
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    assert_eq!(host.digest(&good_tag), after.moving);
}
