//! The companion as systemd runs it: where a deploy's time goes, what its units forbid, and what a stop in the middle does.

use std::time::Duration;

use serde_json::Value;
use tagship_tests::{Host, Mend, SERVICES, Scenario};

use super::{Version, Versions, amid, any_order, id, shell, slow, slow_by};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_trace_shows_where_a_deploys_time_goes", a_trace_shows_where_a_deploys_time_goes),
    ("the_units_are_as_hard_as_the_manual_says", the_units_are_as_hard_as_the_manual_says),
    ("the_units_timeout_follows_the_budget", the_units_timeout_follows_the_budget),
    ("two_that_meet_act_one_after_the_other", two_that_meet),
    ("stopped_in_the_middle_it_puts_everything_back_and_answers", stopped_in_the_middle),
    ("a_rollback_by_hand_that_is_interrupted_is_undone", a_rollback_that_is_interrupted),
    ("a_reboot_in_the_middle_is_ended_after_it", a_reboot_in_the_middle),
];

/// A setting for the companion's unit.
fn with_setting<'a>(host: &'a Host, setting: &str) -> Mend<'a> {
    let directory = "~/.config/systemd/user/tagship@demo.service.d";
    host.changed(
        &format!("mkdir -p {directory}; printf '[Service]\\n{setting}\\n' >{directory}/set.conf; systemctl --user daemon-reload"),
        &format!("rm -r {directory}; systemctl --user daemon-reload"),
    )
}

fn a_trace_shows_where_a_deploys_time_goes(host: &Host) {
    host.baseline();
    let (_order, versions) = (any_order(host), Versions::of(host));
    let _trace = with_setting(host, "Environment=TAGSHIP_TRACE=%%h/trace.json");
    let _file = host.changed("rm -f ~/trace.json", "rm -f ~/trace.json");
    traced(host, &versions.other(host));
    let text = host.app("cat ~/trace.json").ok().text;
    // A run that had nothing to do leaves it as it is.
    host.app("systemctl --user start tagship@demo").ok();
    assert_eq!(host.app("cat ~/trace.json").ok().text, text);
    // The operator has one, too; one that cannot be written costs nothing but a word.
    let back = host.app("tagship-host rollback demo --trace ~/trace.json && jq .otherData.own_us ~/trace.json").ok();
    back.says("the trace is in ").says("tagship's own");
    let again = format!("tagship-host rollback demo {} --trace /proc/trace.json", versions.other(host).tag);
    host.app(&again).ok().says("cannot write the trace to /proc/trace.json");
}

/// Deploys this version, and requires its trace to be what there was.
fn traced(host: &Host, version: &Version) {
    host.ask(&version.tag, &version.digest).ok().says("Outcome: deployed");
    let text = host.app("cat ~/trace.json").ok().text;
    let trace: Value = serde_json::from_str(&text).unwrap();
    let sum =
        |name: &str| trace["otherData"][format!("{name}_us")].as_u64().unwrap_or_else(|| panic!("{name}: {text}"));
    let events: Vec<&Value> = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X").collect();
    let spans = |category: &str| -> Vec<(u64, u64)> {
        let some = events.iter().filter(|event| event["cat"] == category);
        some.map(|event| (event["ts"].as_u64().unwrap(), event["dur"].as_u64().unwrap())).collect()
    };
    let mut waited = Vec::new();
    for category in ["registry", "engine", "systemd", "wait", "settle"] {
        let spans = spans(category);
        assert!(!spans.is_empty(), "no {category}: {text}");
        assert_eq!(sum(category), covered(spans.clone()), "{category}: {text}");
        waited.extend(spans);
    }
    assert_eq!(spans("whole"), [(0, sum("whole"))]);
    assert!(waited.iter().all(|(begun, lasted)| begun + lasted <= sum("whole")), "{text}");
    assert_eq!(sum("own") + covered(waited), sum("whole"), "{text}");
    assert!(sum("settle") >= 500_000, "the settle window: {text}");
    for service in SERVICES {
        for name in [format!("inspect {service}"), format!("restart {service}"), format!("health of {service}")] {
            assert_eq!(events.iter().filter(|event| event["name"] == *name).count(), 1, "{name}: {text}");
        }
    }
    // The first group is found healthy before the second one begins, whose services restart side by side.
    let span = |name: &str| {
        let event = events.iter().find(|event| event["name"] == name).unwrap();
        let begun = event["ts"].as_u64().unwrap();
        (begun, begun + event["dur"].as_u64().unwrap())
    };
    let restarts = ["demo-worker", "demo-beat", "demo-flower"].map(|service| span(&format!("restart {service}")));
    let begun = restarts.map(|(begun, _)| begun);
    let first_end = restarts.into_iter().map(|(_, ended)| ended).min();
    assert!(begun.iter().all(|begun| *begun >= span("health of demo-web").1), "{text}");
    assert!(begun.into_iter().max() < first_end, "{text}");
}

/// How much time these spans cover: counted by their edges, another way than the program's.
fn covered(spans: Vec<(u64, u64)>) -> u64 {
    let mut edges: Vec<(u64, i32)> =
        spans.iter().flat_map(|(begun, lasted)| [(*begun, 1), (begun + lasted, -1)]).collect();
    edges.sort_unstable();
    let (mut depth, mut sum) = (0, 0);
    for pair in edges.windows(2) {
        depth += pair[0].1;
        sum += if depth > 0 { pair[1].0 - pair[0].0 } else { 0 };
    }
    sum
}

/// The operator goes back while a request is being deployed, and somebody starts the companion by hand: both wait, and
/// each acts on what it finds once it may.
fn two_that_meet(host: &Host) {
    let before = host.baseline();
    let (_order, other) = (any_order(host), Versions::of(host).other(host));
    let _slow = slow(host);
    let _logs = host.changed("rm -f ~/back.log ~/second.log", "rm -f ~/back.log ~/second.log");
    let run = |command: &str, log: &str| format!("{{ tagship-host {command}; echo code $?; }} >{log} 2>&1 & ");
    let both = [run("rollback demo $version", "~/back.log"), run("deploy demo", "~/second.log")].concat();
    amid(host, &other, &both).says("Outcome: deployed");
    let ended = host.app("for log in ~/back.log ~/second.log; do timeout 60 grep -q -m 1 '^code ' < <(tail -n +1 -F $log 2>/dev/null); cat $log; done");
    let ended = ended.ok();
    assert_eq!(
        ended.text.matches("another tagship-host works for this app; waiting for it to end").count(),
        2,
        "{}",
        ended.text
    );
    assert_eq!(ended.text.matches("code 0").count(), 2, "{}", ended.text);
    // What the request asked for was deployed first, and then gone back from.
    let verdicts = host
        .app("tagship-host history demo --json | jq -r '.verdicts[1,0] | \"\\(.by) \\(.outcome) \\(.digest)\"'")
        .ok();
    let [asked, back] = verdicts.text.lines().collect::<Vec<_>>()[..] else { panic!("{}", verdicts.text) };
    assert_eq!(asked, format!("request deployed {}", other.digest));
    assert!(back.starts_with("operator deployed "), "{back}");
    assert_eq!(before.image(), host.state().healthy().image());
}

fn the_units_are_as_hard_as_the_manual_says(host: &Host) {
    const MANUAL: &str = include_str!("../../../docs/host.md");
    host.baseline();
    let version = host.app("systemd-analyze --version | head -n 1").ok();
    assert!(MANUAL.contains(&format!("systemd {}", version.trimmed().split(' ').nth(1).unwrap())), "{}", version.text);
    for unit in ["tagship@", "tagship-recover@"] {
        let row = MANUAL.lines().find(|line| line.starts_with(&format!("| `{unit}APP.service` | ")));
        let told = row.unwrap_or_else(|| panic!("no row for {unit}")).split('|').nth(2).unwrap().trim();
        let found = host.app(&format!(
            "systemd-analyze --user security --no-pager {unit}demo.service | sed -n 's/^.*Overall exposure level for .*: \\([0-9.]*\\) .*/\\1/p'"
        ));
        assert_eq!(found.ok().trimmed(), told, "{unit}");
    }
    // What is forbidden is forbidden by the kernel, and root's files are still root's.
    let probe = "(unshare --user true; stat -c %%%%U /etc/containers/cosign-app.pub) >%%h/probed 2>&1";
    let _probe = with_setting(host, &format!("ExecStart=\\nExecStart=/bin/sh -c \"{probe}\""));
    let _file = host.changed("rm -f ~/probed", "rm -f ~/probed");
    host.at_rest();
    let probed = host.app("systemctl --user start tagship@demo && cat ~/probed").ok();
    probed.says_in_order(&["Operation not permitted", "root\n"]);
}

fn the_units_timeout_follows_the_budget(host: &Host) {
    let before = host.baseline();
    let (_order, _slow, other) = (any_order(host), slow(host), Versions::of(host).other(host));
    // Shorter than any deploy of it.
    let _short = with_setting(host, "TimeoutStartSec=1500ms\\nTimeoutStopSec=100ms");
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
    assert_ne!(before.image(), host.state().healthy().image());
}

fn stopped_in_the_middle(host: &Host) {
    let before = host.baseline();
    let (_order, _slow, versions) = (any_order(host), slow_by(host, 6), Versions::of(host));
    // Going back takes longer than the unit's own patience.
    let _short = with_setting(host, "TimeoutStopSec=4s");
    let (other, bad) = (versions.other(host), &versions.bad[1]);
    let (first, second) = (id(), id());
    // Another one waits for its turn meanwhile. It is told at once, too, and nothing is begun for it.
    let answers = shell(
        host,
        &format!(
            "put {first} {} {}; told {first} '\"demo-worker\",\"event\":\"restart\"'
             put {second} {} {}; await '[ -e deploy-log.{second} ]'
             systemctl --user stop tagship@demo.service
             systemctl --user show -p Result,ActiveState tagship@demo.service; cat deploy-status.{first} deploy-status.{second}",
            other.tag, other.digest, bad.tag, bad.digest
        ),
    )
    .ok();
    answers
        .says("Result=success")
        .says("Kind: interrupted")
        .says("Service: demo-web restored")
        .says("Service: demo-worker restored")
        .says("Service: demo-flower restored")
        .says("before anything was touched")
        .within(Duration::from_secs(90));
    assert_eq!(before.image(), host.state().healthy().image());
    host.app("jq -e '. == null' ~/.local/state/tagship/demo/journal.json; tagship-host status demo")
        .ok()
        .says("interrupted");
    // Neither was to blame, and both can be asked for again.
    host.ask(&other.tag, &other.digest).ok().says("Outcome: deployed");
}

fn a_rollback_that_is_interrupted(host: &Host) {
    host.baseline();
    host.release().run().ok();
    let before = host.state().healthy();
    let _slow = slow(host);
    let _file = host.changed("rm -f ~/said", "rm -f ~/said");
    host.app(
        ": >~/said; tagship-host rollback demo 2>>~/said & pid=$!
         timeout 30 grep -q -m 1 'demo-worker: restarts' < <(tail --pid=$pid -n +1 -F ~/said 2>/dev/null)
         kill -INT $pid; wait $pid; code=$?; cat ~/said; exit $code",
    )
    .exits(1)
    .says("told to stop")
    .says("interrupted");
    assert_eq!(before.image(), host.state().healthy().image());
    // Nothing is held by a rollback that did not come to pass.
    host.app("tagship-host status demo").ok().never_says("held");
}

fn a_reboot_in_the_middle(host: &Host) {
    let before = host.baseline();
    let request = id();
    {
        let (_order, _slow, other) = (any_order(host), slow(host), Versions::of(host).other(host));
        shell(
            host,
            &format!(
                "put {request} {} {}; told {request} '\"demo-worker\",\"event\":\"restart\"'",
                other.tag, other.digest
            ),
        )
        .ok();
        host.reboot();
    }
    // Nothing can be restarted while everything ends: it is left as a crash would leave it, and the boot's run answers.
    let answer =
        shell(host, &format!("await '[ -e deploy-status.{request} ]'; served; cat deploy-status.{request}")).ok();
    answer.says("Outcome: interrupted").says("Service: demo-web restored").never_says("broken");
    host.root("journalctl --boot=-1 --identifier tagship-host --output cat --no-pager || journalctl --identifier tagship-host --output cat --no-pager")
        .ok()
        .says("told to stop with the whole session");
    let services = SERVICES.join(" ");
    host.app(&format!("systemctl --user start {services} && timeout 60 podman wait --condition healthy {services}"))
        .ok();
    assert_eq!(before.image(), host.state().healthy().image());
}
