//! tagship beside the shell pipeline it replaces: the same work on the same host in the same run, in turn, as medians
//! and ratios. Absolute times are this machine's; only the ratios are worth repeating.
//!
//! Prints a table; with `--readme` also puts it into the project's README. It measures and never judges: whether a
//! ratio reaches its goal stands in the table.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tagship_tests::{Host, IMAGE};

/// The rows: name, what the shell does, and the ratio to reach.
const ROWS: [(&str, &str, f64); 7] = [
    ("build", "`docker build`", 1.05),
    ("push, both tags", "two `docker push`", 0.8),
    ("sign", "`skopeo inspect`, `cosign sign`", 0.5),
    ("resolve and verify", "`skopeo inspect`, `cosign verify`", 0.15),
    ("deploy on the host", "a script", 0.45),
    ("hand-off as CI sees it", "trigger file, polled every 5 s", 0.35),
    ("whole release", "all of these", 0.45),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments
        .iter()
        .position(|word| word == "--rounds")
        .map_or(5, |at| arguments.get(at + 1).and_then(|n| n.parse().ok()).expect("--rounds takes a number"));
    let host = Host::boot("bench");
    prepare(&host);
    let mut times = Times::default();
    // A first release of each, unmeasured: layers, caches and services are warm afterwards.
    shell(&host, 0, &mut Times::default());
    tagship(&host, 0, &mut Times::default());
    for round in 1..=rounds {
        shell(&host, round, &mut times);
        tagship(&host, round, &mut times);
    }
    let table = times.table(rounds);
    println!("{table}");
    if arguments.iter().any(|word| word == "--readme") {
        into_readme(&table);
    }
}

/// Durations by row, the shell's and tagship's.
#[derive(Default)]
struct Times {
    shell: BTreeMap<&'static str, Vec<Duration>>,
    tagship: BTreeMap<&'static str, Vec<Duration>>,
}

impl Times {
    fn table(&self, rounds: u32) -> String {
        let mut text =
            "| step | the shell's | shell | tagship | ratio | goal |\n| --- | --- | --- | --- | --- | --- |\n"
                .to_owned();
        for (row, means, goal) in ROWS {
            let (shell, tagship) = (median(&self.shell[row]), median(&self.tagship[row]));
            let ratio = tagship.as_secs_f64() / shell.as_secs_f64();
            let _ = writeln!(
                text,
                "| {row} | {means} | {} | {} | {ratio:.2} | ≤ {goal} |",
                seconds(shell),
                seconds(tagship)
            );
        }
        let _ = write!(
            text,
            "\nMedians of {rounds} releases of each, in turn, on one test host with two cores: a registry with TLS and a password on the same host, a 2 MB image with a healthcheck, four services that take one second to stop, no transparency log. tagship's times include its settle window of 0.5 s. The command: `tests/bench/run --readme`."
        );
        text
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// One release by the shell, as a user writes it into a workflow.
fn shell(host: &Host, round: u32, times: &mut Times) {
    let tag = format!("v1.0.{round}");
    let mut whole = Duration::ZERO;
    for (row, script) in
        [("build", "build"), ("push, both tags", "push"), ("sign", "sign"), ("hand-off as CI sees it", "handoff")]
    {
        let ran = host.app(&format!("~/peer/{script} {tag}")).ok();
        whole += ran.took;
        times.shell.entry(row).or_default().push(ran.took);
    }
    times.shell.entry("whole release").or_default().push(whole);
    let verify = host.app("~/peer/verify").ok().took;
    times.shell.entry("resolve and verify").or_default().push(verify);
    let deploy = host.app("cat ~/peer/data/took").ok();
    times.shell.entry("deploy on the host").or_default().push(Duration::from_millis(deploy.trimmed().parse().unwrap()));
}

/// The same by tagship: once as a whole, once step by step.
fn tagship(host: &Host, round: u32, times: &mut Times) {
    let mut add = |row, took| times.tagship.entry(row).or_default().push(took);
    let release = |part: &str, tag: &str| {
        host.app(&format!(
            ". ~/ci.env; rm -rf ~/work; cp -a ~/src/demo ~/work; cd ~/work; echo tagship-{tag} >version; tagship release {part} --image {IMAGE} --tag {tag} $TAGSHIP_FLAGS"
        ))
        .ok()
        .took
    };
    add("whole release", release("", &format!("v1.{round}.0")));

    let tag = format!("v1.{round}.1");
    add("build", release("--steps build", &tag));
    let push = release("--steps push", &tag);
    add("sign", release("--steps sign", &tag));
    add("hand-off as CI sees it", release("--steps deploy", &tag));
    add("push, both tags", push + release("--steps promote", &tag));
    let verify = host.app(&format!(
        "tagship verify --image {IMAGE} --tag {tag} --public-key /etc/containers/cosign-app.pub --tlog false"
    ));
    add("resolve and verify", verify.ok().took);
    let status: serde_json::Value =
        serde_json::from_str(&host.app("tagship-host status demo --json").ok().text).unwrap();
    let time = |key: &str| status["last"][key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    add("deploy on the host", (time("finished") - time("started")).try_into().unwrap());
}

/// The two sides on one host: the same application, whose stop takes one second, and the shell's own pipeline.
fn prepare(host: &Host) {
    host.app(include_str!("peer.sh")).ok();
}

fn into_readme(table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once("<!-- bench -->\n").expect("the README has a place for the table");
    let (_, after) = rest.split_once("<!-- end -->\n").expect("the README's table has an end");
    std::fs::write(path, format!("{before}<!-- bench -->\n{table}\n<!-- end -->\n{after}")).unwrap();
}
