//! tagship beside the shell pipeline it replaces: the same work on the same host in the same run, in turn, as medians
//! and ratios. Absolute times are this machine's; only the ratios are worth repeating.
//!
//! Prints a table; with `--readme` also puts it into the project's README. It measures and never judges: whether a
//! ratio reaches its goal stands in the table.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tagship_tests::{Host, IMAGE, Ran};

/// The rows: name, what the shell does, and the ratio to reach.
const ROWS: [(&str, &str, f64); 7] = [
    ("build", "`docker build`", 1.05),
    ("push, both tags", "two `docker push`", 0.8),
    ("sign", "`skopeo inspect`, `cosign sign`", 0.5),
    ("resolve and verify", "`skopeo inspect`, `cosign verify`", 0.15),
    ("deploy on the host", "the deploy script", 0.45),
    ("hand-off as CI sees it", "trigger file, polled every 5 s", 0.35),
    ("whole release", "all of these", 0.45),
];

/// The row of an application that takes its time to get healthy, and the ratio to reach. Podman asks at its start, and
/// then every 30 s.
const SLOW: (&str, &str, f64) = ("deploy, healthy after 3 s", "the deploy script, by Podman's timer", 0.25);

/// The registry that is behind the one that everybody uses, in clear.
const BARE: &str = "localhost:5001/bare/demo";

/// Signatures and verifications by each side after each release, and runs of scrypt alone.
const CHECKS: usize = 5;

/// The part that measures from within the host, as `tests/bench/run` makes it.
const INSIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-musl/release/bench-inside");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments
        .iter()
        .position(|word| word == "--rounds")
        .map_or(5, |at| arguments.get(at + 1).and_then(|n| n.parse().ok()).expect("--rounds takes a number"));
    let host = Host::boot("bench");
    prepare(&host);
    host.install(Path::new(INSIDE), "/usr/local/bin/bench-inside");
    let mut times = Times::default();
    // A first release of each, unmeasured: layers, caches and services are warm afterwards.
    shell(&host, 0, &mut Times::default());
    tagship(&host, 0, &mut Times::default());
    for round in 1..=rounds {
        shell(&host, round, &mut times);
        tagship(&host, round, &mut times);
        slow(&host, round, &mut times);
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
    cosign_verify: Command,
    tagship_verify: Command,
    /// The same in a registry that asks for no password and speaks no TLS: what is left is the programs' own.
    cosign_verify_bare: Command,
    tagship_verify_bare: Command,
    guard: Command,
    scrypt: Vec<Duration>,
    /// What was tagship's own of each deploy, by its trace.
    own: Vec<Duration>,
}

/// What a command took each time that it was run.
#[derive(Default)]
struct Command {
    times: Vec<Duration>,
    /// The largest resident set of each run, in KiB.
    memory: Vec<f64>,
}

impl Times {
    fn table(&self, rounds: u32) -> String {
        let mut text =
            "| step | the shell's | shell | tagship | ratio | goal |\n| --- | --- | --- | --- | --- | --- |\n"
                .to_owned();
        for (row, means, goal) in ROWS.into_iter().chain([SLOW]) {
            let (shell, tagship) = (median(&self.shell[row]), median(&self.tagship[row]));
            let ratio = tagship.as_secs_f64() / shell.as_secs_f64();
            let reached = reached(ratio, goal);
            let _ = writeln!(
                text,
                "| {row} | {means} | {} | {} | {ratio:.2} | ≤ {goal}{reached} |",
                seconds(shell),
                seconds(tagship)
            );
        }
        let (own, deploy) = (median(&self.own), median(&self.tagship["deploy on the host"]));
        let _ = writeln!(
            text,
            "| own share of a deploy | | | {} | {:.2} of it | ≤ 100 ms{} |",
            seconds(own),
            own.as_secs_f64() / deploy.as_secs_f64(),
            reached(own.as_secs_f64(), 0.1),
        );
        text.push_str(&self.verification());
        let (scrypt, sign) = (median(&self.scrypt), median(&self.tagship["sign"]));
        let beyond = (sign.as_secs_f64() - scrypt.as_secs_f64()) * 1000.0;
        let _ = writeln!(
            text,
            "| sign, beyond the key's scrypt | scrypt alone | {} | {} | {beyond:+.0} ms | ≤ +80 ms{} |",
            seconds(scrypt),
            seconds(sign),
            reached(beyond, 80.0),
        );
        let _ = write!(
            text,
            "\nMedians of {rounds} releases of each, in turn, on one test host with two cores: a registry with TLS and a password on the same host, a 2 MB image with a healthcheck, four services that take one second to stop, no transparency log. tagship's times include its settle window of 0.5 s. The application that is healthy after 3 s has a healthcheck every 30 s. The own share is a deploy from the program's start to its end less all that it waits for: registry, engine, systemd, health and settle window, by its own trace (`--trace`). Signing: after each release {CHECKS} further images by each, built and pushed, and signed for the first time; scrypt by itself, as cosign's keys ask for it (N = 2^16, r = 8), after each of tagship's. The rows of verification and guard: after each release {CHECKS} verifications of one signed digest by each, in turn, timed from start to end of the program, with the largest resident set of any of them; the same in the same registry by a way on which it asks for no password and speaks no TLS; as many checks of a service as the guard makes. The command: `tests/bench/run --readme`."
        );
        text
    }

    /// The rows of `tagship verify` beside `cosign verify`, time and memory, and of the guard, which has nothing beside it.
    fn verification(&self) -> String {
        let row = |name: &str, cosign: &Command, tagship: &Command| {
            let (cosign, tagship) = (median(&cosign.times), median(&tagship.times));
            let ratio = tagship.as_secs_f64() / cosign.as_secs_f64();
            let (cosign, tagship, reached) = (seconds(cosign), seconds(tagship), reached(ratio, 0.1));
            format!("| {name} | `cosign verify` | {cosign} | {tagship} | {ratio:.2} | ≤ 0.1{reached} |\n")
        };
        let (cosign, tagship) = (self.cosign_verify.peak(), self.tagship_verify.peak());
        let guard = median(&self.guard.times);
        [
            row("verify a digest", &self.cosign_verify, &self.tagship_verify),
            row("the same, no TLS and no password", &self.cosign_verify_bare, &self.tagship_verify_bare),
            format!(
                "| verify, peak memory | `cosign verify` | {cosign:.1} MiB | {tagship:.1} MiB | {:.2} | ≤ 20 MiB{} |\n",
                tagship / cosign,
                reached(tagship, 20.0)
            ),
            format!(
                "| guard, at each start of a service | | | {} | | ≤ 15 ms{} |\n",
                seconds(guard),
                reached(guard.as_secs_f64(), 0.015)
            ),
        ]
        .concat()
    }
}

impl Command {
    /// Runs a command line in the host. What it took comes first, before what it said itself.
    fn run(&mut self, host: &Host, line: &str) {
        let ran = host.app(&format!("bench-inside run {line}")).ok();
        let took = ran.text.lines().next().and_then(|line| line.split_once(' ')).expect("microseconds and KiB");
        self.times.push(Duration::from_micros(took.0.parse().unwrap()));
        self.memory.push(took.1.parse().unwrap());
    }

    /// In MiB.
    fn peak(&self) -> f64 {
        self.memory.iter().copied().fold(0.0, f64::max) / 1024.0
    }
}

/// What is said behind a goal that was not reached.
fn reached(figure: f64, goal: f64) -> &'static str {
    if figure > goal { ", missed" } else { "" }
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_millis(20) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else if time < Duration::from_secs(1) {
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
        let took = timed(host, &format!("~/peer/{script} {tag}"));
        whole += took;
        // The release's own signature is part of the whole; the row is of those below.
        if row != "sign" {
            times.shell.entry(row).or_default().push(took);
        }
    }
    times.shell.entry("whole release").or_default().push(whole);
    times.shell.entry("resolve and verify").or_default().push(timed(host, "~/peer/verify"));
    for check in 1..=CHECKS {
        let tag = format!("v1.0.{round}-{check}");
        host.app(&format!("~/peer/build {tag} && ~/peer/push {tag}")).ok();
        times.shell.entry("sign").or_default().push(timed(host, &format!("~/peer/sign {tag}")));
    }
    let deploy = host.app("cat ~/peer/data/took").ok();
    times.shell.entry("deploy on the host").or_default().push(Duration::from_millis(deploy.trimmed().parse().unwrap()));
}

/// The same by tagship. The whole release and signing are timed from outside, as one command each; the steps of the
/// release and of the companion by what they say themselves, in the job's log and in the companion's.
fn tagship(host: &Host, round: u32, times: &mut Times) {
    let mut add = |row, took| times.tagship.entry(row).or_default().push(took);
    let tag = format!("v1.{round}.0");
    let release = |tag: &str, more: &str| {
        format!("cd ~/build; . ~/ci.env; tagship release --image {IMAGE} --tag {tag} $TAGSHIP_FLAGS {more}")
    };
    host.app(&format!("rm -rf ~/build; cp -a ~/src/demo ~/build; echo tagship-{tag} >~/build/version")).ok();
    add("whole release", timed(host, &release(&tag, "")));
    let summary = host.app("cat ~/timed.log").ok().text;
    add("build", step(&summary, "build"));
    add("push, both tags", step(&summary, "push") + step(&summary, "promote"));
    add("hand-off as CI sees it", step(&summary, "deploy"));

    let log = last(host).says(&tag);
    add("resolve and verify", event(&log.text, "verified").duration_since(event(&log.text, "claimed")).unsigned_abs());
    add("deploy on the host", deploy(&log.text));
    // The trace comes after the answer, at the end of the run: a start of the unit waits for that.
    let own = host.app("systemctl --user start tagship@demo; jq .otherData.own_us ~/trace.json").ok();
    times.own.push(Duration::from_micros(own.trimmed().parse().unwrap()));

    // The first signature of each image, as the shell's are.
    let next = format!("v1.{round}.1");
    for check in 1..=CHECKS {
        let tag = if check == 1 { next.clone() } else { format!("{next}-{check}") };
        host.app(&format!("echo tagship-{tag} >~/build/version")).ok();
        host.app(&release(&tag, "--steps build,push")).ok();
        add("sign", timed(host, &release(&tag, "--steps sign")));
        let scrypt = host.app("bench-inside scrypt").ok();
        times.scrypt.push(Duration::from_micros(scrypt.trimmed().parse().unwrap()));
    }

    let digest = host.digest(&next).expect("the signed image");
    let key = "/etc/containers/cosign-app.pub";
    host.app(&format!(
        ". ~/ci.env; unset TAGSHIP_REGISTRY_TOKEN; skopeo copy --quiet --preserve-digests --authfile ~/ci-auth.json --dest-tls-verify=false \
             docker://{IMAGE}@{digest} docker://{BARE}:{next}
         tagship sign --image {BARE} --tag {next} --tlog false"
    ))
    .ok();
    for _ in 0..CHECKS {
        let cosign = format!("cosign verify --insecure-ignore-tlog=true --key {key} {BARE}@{digest}");
        times.cosign_verify_bare.run(host, &cosign);
        let tagship = format!("tagship verify --tlog false --public-key {key} --image {BARE} --digest {digest}");
        times.tagship_verify_bare.run(host, &tagship);
        times.guard.run(host, "tagship-host guard demo demo-web");
        let cosign = format!("cosign verify --insecure-ignore-tlog=true --key {key} {IMAGE}@{digest}");
        times.cosign_verify.run(host, &cosign);
        let tagship = format!("tagship verify --tlog false --public-key {key} --image {IMAGE} --digest {digest}");
        times.tagship_verify.run(host, &tagship);
    }
}

/// A deploy by each of an application that is healthy three seconds after its start.
fn slow(host: &Host, round: u32, times: &mut Times) {
    let row = SLOW.0;
    host.app(&format!("SLOW=1 ~/peer/build v2.0.{round} && ~/peer/push v2.0.{round} && ~/peer/sign v2.0.{round}")).ok();
    host.app(&format!("~/peer/handoff v2.0.{round}")).ok();
    let took = host.app("cat ~/peer/data/took").ok();
    times.shell.entry(row).or_default().push(Duration::from_millis(took.trimmed().parse().unwrap()));

    let tag = format!("v1.{round}.2");
    host.app(&format!("rm -rf ~/build; cp -a ~/src/demo ~/build; cd ~/build; ~/peer/slow; echo tagship-{tag} >version; . ~/ci.env; tagship release --image {IMAGE} --tag {tag} $TAGSHIP_FLAGS")).ok();
    times.tagship.entry(row).or_default().push(deploy(&last(host).says(&tag).text));
}

/// The log and the answer of the last request.
fn last(host: &Host) -> Ran {
    host.app("cd ~/tagship/demo && cat \"$(ls -t deploy-log.* | head -n 1)\" && cat \"$(ls -t deploy-status.* | head -n 1)\"").ok()
}

/// How long a deploy took, by its answer.
fn deploy(answer: &str) -> Duration {
    let field = |name: &str| {
        let value = answer.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name}in {answer}")).parse::<Timestamp>().unwrap()
    };
    field("Finished: ").duration_since(field("Started: ")).unsigned_abs()
}

/// How long a script takes in the host; what it says is kept in `~/timed.log`.
fn timed(host: &Host, script: &str) -> Duration {
    let ran = host.app(&format!(
        "start=${{EPOCHREALTIME/./}}\n({script}) >~/timed.log 2>&1 || {{ cat ~/timed.log >&2; exit 1; }}\necho $((${{EPOCHREALTIME/./}} - start))"
    ));
    Duration::from_micros(ran.ok().trimmed().parse().unwrap())
}

/// A step's time in the release's last lines: `time  preflight 268 ms, build 364 ms, …; 2.3 s in all`.
fn step(summary: &str, name: &str) -> Duration {
    let line = summary.lines().rev().find(|line| line.trim_start().starts_with("time ")).expect("a summary");
    let mut words = line.split([' ', ',', ';']).skip_while(|word| *word != name).skip(1);
    let number: f64 = words.next().unwrap().parse().unwrap();
    Duration::from_secs_f64(if words.next() == Some("ms") { number / 1000.0 } else { number })
}

/// When the companion's log tells an event.
fn event(log: &str, name: &str) -> Timestamp {
    let line = log.lines().find(|line| line.contains(&format!("\"event\":\"{name}\""))).expect("the event");
    line.split('"').nth(3).unwrap().parse().unwrap()
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
