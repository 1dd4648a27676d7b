//! The operator's commands, and requests that meet each other.

use tagship_tests::{Host, IMAGE};

use tagship_tests::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("h28_going_back_pushes_nothing", h28_going_back_pushes_nothing),
    ("status_tells_what_runs", status_tells_what_runs),
    ("the_mark_is_shown_set_and_told", the_mark),
    ("history_is_compared_with_the_journal", history_is_compared_with_the_journal),
    ("verify_checks_as_the_host_does", verify_checks_as_the_host_does),
    ("h01_two_requests_each_get_their_own_verdict", h01_two_requests_each_get_their_own_verdict),
];

fn h28_going_back_pushes_nothing(host: &Host) {
    host.baseline();
    let (older, newer) = (host.release(), host.release());
    let (older_tag, tag) = (older.tag(), newer.tag());
    older.run().ok();
    let before = host.state().healthy();
    newer.run().ok();
    let newer = host.state().healthy();
    let log = "/var/log/nginx/registry.log";
    host.root(&format!("wc -l <{log} >/tmp/lines")).ok();
    let written =
        || host.root(&format!("tail -n +$(($(cat /tmp/lines) + 1)) {log} | grep -oE '(PUT|POST|PATCH|DELETE) [^ ]*'"));
    host.app("tagship-host rollback demo").ok();
    assert_eq!(before.image(), host.state().healthy().image(), "not what ran before");
    assert_eq!(written().text, "");
    // CI is told, too.
    host.app(&format!("jq -r .running.tag ~/tagship/demo/deploy-host; ! grep -q '{tag}' ~/tagship/demo/deploy-host"))
        .ok();
    // The bad version is held: re-running its workflow does not bring it back.
    host.release().of(&tag).run().exits(1).says("held");
    // By its name the operator gets it back.
    host.app(&format!("tagship-host rollback demo {tag}")).ok().says(&tag);
    assert_eq!(newer.image(), host.state().healthy().image());
    host.app("tagship-host rollback demo v77.0.0").exits(1).says("v77.0.0").says("hint:");
    // The system's journal has it, too, as the operator's.
    let told = ["APP", "TAG", "OUTCOME", "BY"].map(|field| format!(".TAGSHIP_{field}")).join(",");
    host.root("journalctl --sync").ok();
    host.app(&format!("journalctl TAGSHIP_APP=demo -n 1 -o json | jq -j '[{told}]|join(\" \")'"))
        .ok()
        .says("demo v77.0.0 refused operator");
    // From CI the moving tag follows, by the bytes that were signed, and nothing else is written.
    host.root(&format!("wc -l <{log} >/tmp/lines")).ok();
    let back = host.release().of(&older_tag).flag("rollback", "true").run().ok();
    let back = back.says_in_order(&["going back", "the host says ok", "promote"]).never_says("::group::build");
    let after = host.state().healthy();
    assert_eq!((before.image(), &before.moving), (after.image(), &after.moving), "{}", back.text);
    let uploads = written();
    let puts: Vec<&str> = uploads.text.lines().filter(|line| !line.contains("/blobs/uploads/")).collect();
    assert_eq!(puts, ["PUT /v2/chris/demo/manifests/stable"], "{}", uploads.text);
    host.release().of(&tag).run().exits(1).says("held");
    host.app(&format!("tagship-host rollback demo {tag}")).ok();
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

fn the_mark(host: &Host) {
    host.baseline();
    let (older, newer) = (host.release(), host.release());
    let (old, new) = (older.tag(), newer.tag());
    older.run().ok();
    newer.run().ok();
    let before = host.state().healthy();
    let shown = |words: &[&str]| host.app("tagship-host mark demo").ok().says_in_order(words);
    shown(&["mark", &new, "runs", &new, "held", "no"]);
    host.app("tagship-host rollback demo --list").ok().says(&new).says(&old);
    for (to, from, held) in [(&old, &new, "yes"), (&new, &old, "no")] {
        host.app(&format!("tagship-host mark demo --set {to}")).ok().says(to);
        shown(&["mark", to, "runs", &new, "held", held]);
        host.root(&format!(
            "journalctl --sync; journalctl -o json -n 1 TAGSHIP_APP=demo TAGSHIP_BY=operator TAGSHIP_MARK={to} | jq -r .TAGSHIP_PREVIOUS_MARK"
        ))
        .ok()
        .says(from);
    }
    host.app("tagship-host mark demo --set v77.0.0").exits(1).says("v77.0.0").says("hint:");
    shown(&["mark", &new]);
    assert_eq!(before, host.state(), "nothing is deployed by it");
}

fn history_is_compared_with_the_journal(host: &Host) {
    host.baseline();
    let release = host.release();
    let tag = release.tag();
    release.run().ok();
    host.root("journalctl --sync").ok();
    let shown = host.app("tagship-host history demo").ok();
    shown.never_says("only in").says_in_order(&["TIME", "OUTCOME", &tag, "deployed", "request"]);
    let json = host.app("tagship-host history demo --json | jq -r '.verdicts[0].tag, .compared'").ok();
    json.says(&tag).says("true");
    // The app's user can rewrite the file, and not what the journal was told.
    let file = "~/.local/state/tagship/demo/history.jsonl";
    host.app(&format!("cp {file} /tmp/history; sed -i '$d' {file}")).ok();
    host.app("tagship-host history demo").exits(1).says("only in the system's journal").says(&tag);
    host.app(&format!("sed '$s/\"deployed\"/\"failed\"/g' /tmp/history >{file}")).ok();
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
    host.key_pair("stranger");
    verify(&tag, "~/stranger.pub").exits(5).says("hint:");
}

fn h01_two_requests_each_get_their_own_verdict(host: &Host) {
    let before = host.baseline();
    // Built beforehand, so that one asks while the other one is under way.
    let [bad_tag, good_tag] = [host.release().unhealthy(), host.release()].map(|release| release.signed().tag);
    let [bad, good] = [&bad_tag, &good_tag].map(|tag| host.release().of(tag).steps("deploy,promote"));
    // Both at once, on one host: the verdict of one must not reach the other.
    let ran = host.app(&format!(
        "cd /tmp; : >bad.log
         ({}; echo code $?) >>bad.log 2>&1 & timeout 60 grep -q -m 1 'restarts with image' < <(tail -n +1 -F bad.log) || exit
         ({}; echo code $?) >good.log 2>&1; wait %1
         answer() {{ grep -l \"^[a-z]* $1\\$\" ~/tagship/demo/deploy-status.*; }}
         log=$(answer {good_tag} | sed s/status/log/)
         [[ $(date -d \"$(head -n 1 $log | jq -r .time)\" +%s%N) -lt $(stat -c %.9Y $(answer {bad_tag}) | tr -d .) ]] ||
             {{ echo they did not meet; exit 1; }}
         cat bad.log; echo the other; cat good.log",
        bad.command(),
        good.command()
    ));
    let ran = ran.ok();
    let (bad, good) = ran.text.split_once("the other\n").unwrap();
    assert!(bad.contains("rolled-back") && bad.contains("code 1\n") && !bad.contains("deployed"), "{}", ran.text);
    assert!(good.contains("deployed") && good.contains("code 0\n") && !good.contains("rolled-back"), "{}", ran.text);
    assert!(bad.contains(&bad_tag) && good.contains(&good_tag), "{}", ran.text);
    let after = host.state().healthy();
    assert_ne!(before.image(), after.image());
    assert_eq!(host.digest(&good_tag), after.moving);
}
