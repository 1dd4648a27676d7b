//! The companion killed at each place of a deploy, and the power cut in each of its phases.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::process::ExitCode;

use tagship_tests::crash::{self, Attempt, Cut, Cuts, Ground};
use tagship_tests::{Host, Scenario, suite_on};

fn main() -> ExitCode {
    suite_on(2, || crash::boot("crash"), SCENARIOS)
}

const SCENARIOS: &[Scenario] = &[
    // Two halves, since each takes as long as all the others.
    ("h11_killed_at_each_odd_place_of_a_deploy", |host| killed_at_each_place_of_a_deploy(host, 1)),
    ("h11_killed_at_each_even_place_of_a_deploy", |host| killed_at_each_place_of_a_deploy(host, 2)),
    ("h11_killed_at_each_place_of_a_rollback", killed_at_each_place_of_a_rollback),
    ("h11_killed_at_each_odd_place_of_a_recovery", |host| killed_at_each_place_of_a_recovery(host, 1)),
    ("h11_killed_at_each_even_place_of_a_recovery", |host| killed_at_each_place_of_a_recovery(host, 2)),
    ("a_rollback_by_hand_killed_at_each_place", a_rollback_by_hand_killed_at_each_place),
    ("h16_the_power_fails_in_each_phase", the_power_fails_in_each_phase),
    ("the_action_is_killed_at_each_place", the_action_is_killed_at_each_place),
];

/// A deploy passes more places than this, unless the failpoints are not there at all.
const FEWEST: u32 = 50;

fn killed_at_each_place_of_a_deploy(host: &Host, first: u32) {
    let ground = Ground::prepare(host);
    let cuts = cut_from(first, 2, |at| ground.attempt(ground.other(), Some((Cut::Kill, &*at.to_string()))));
    assert!(cuts.len() as u32 * 2 > FEWEST, "only {} cuts", cuts.len());
    // Both ends are seen: what was cut off goes back, and from the proof on it stays.
    let answered = |word: &str| cuts.iter().any(|attempt| attempt.answer.starts_with(word));
    assert!(answered("ok ") && answered("fail "), "{cuts:#?}");
}

fn killed_at_each_place_of_a_rollback(host: &Host) {
    let ground = Ground::prepare(host);
    let whole = ground.attempt("bad", None).answered("fail ");
    let first = whole.place("Place(Back");
    let cuts = cut_from(first, 1, |at| ground.attempt("bad", Some((Cut::Kill, &*at.to_string()))).answered("fail "));
    assert!(cuts.len() > 15, "only {} cuts", cuts.len());
}

/// The run that ends what was cut off is killed as well, and the one after it ends both.
fn killed_at_each_place_of_a_recovery(host: &Host, first: u32) {
    let ground = Ground::prepare(host);
    // In the second group: the way back is as long as it gets.
    let deploy = Some((Cut::Kill, "begins Probe(Forward, 2)"));
    let cuts = cut_from(first, 2, |at| {
        let recovery = Some(&*at.to_string());
        let other = ground.other();
        ground.attempt(other, Cuts { deploy, recovery, ..Cuts::default() }).answered("fail ")
    });
    assert!(cuts.len() > 10, "only {} cuts", cuts.len());
}

fn a_rollback_by_hand_killed_at_each_place(host: &Host) {
    let ground = Ground::prepare(host);
    ground.attempt(ground.other(), None).answered("ok ");
    let cuts = (1..).take_while(|at| ground.roll_back(*at)).count();
    assert!(cuts > 20, "only {cuts} cuts");
}

/// Cuts off one attempt after the other, until one ends before the place of its cut.
fn cut_from(first: u32, step: usize, attempt: impl Fn(u32) -> Attempt) -> Vec<Attempt> {
    (first..).step_by(step).map(attempt).take_while(|attempt| attempt.cut).collect()
}

fn the_power_fails_in_each_phase(host: &Host) {
    let ground = Ground::prepare(host);
    for (phase, place, ends) in [
        ("pulling", "begins Pull", "interrupted"),
        ("preparing", "begins RunOnce", "interrupted"),
        ("the first group", "begins Restart(Forward, 1)", "interrupted"),
        ("the second group", "begins Probe(Forward, 2)", "interrupted"),
        ("rolling back", "begins Place(Back", "interrupted"),
        ("proven", "adds to history.jsonl", "deployed"),
    ] {
        let version = if phase == "rolling back" { "bad" } else { ground.other() };
        let attempt = ground.attempt(version, Some((Cut::Power, place)));
        assert!(attempt.cut, "{phase}: {:#?}", attempt.passed);
        assert!(attempt.answer.contains(&format!("Outcome: {ends}\n")), "{phase}: {}", attempt.answer);
        host.app("systemctl --user is-active tagship-recover@demo").ok();
        // Not by its unit: where a program has ended when the journal looks, the entry names none.
        let names = host.root("journalctl --boot --identifier tagship-host --output cat --no-pager").ok();
        // Before any service is started its name stands for what was proven; where none had moved there is nothing to do.
        let moved = names.text.contains("stands for image");
        assert_eq!(moved, !matches!(phase, "pulling" | "proven"), "{phase}: {}", names.text);
        names_before_services(host, phase);
    }
    // Killed at boot as well, at each name: the companion's own run puts everything back all the same.
    for service in ["demo-web", "demo-worker", "demo-beat"] {
        let moves = format!("moves localhost/demo:{service}");
        let (deploy, at_boot) = (Some((Cut::Power, "begins Probe(Forward, 2)")), Some(&*moves));
        let attempt = ground.attempt(ground.other(), Cuts { deploy, at_boot, ..Cuts::default() });
        assert!(attempt.cut && attempt.answer.contains("Outcome: interrupted\n"), "{moves}: {attempt:#?}");
        host.app("systemctl --user is-active tagship-recover@demo").ok();
    }
}

/// Requires that no service began to start before the names were back: none ran what was not proven, not for a moment.
fn names_before_services(host: &Host, phase: &str) {
    // Both clocks are the kernel's. The first message of this boot that a unit starts has the id SD_MESSAGE_UNIT_STARTING.
    let back = host.app("systemctl --user show -P ActiveEnterTimestampMonotonic tagship-recover@demo").ok();
    let back: u64 = back.trimmed().parse().unwrap();
    let starts = host.root(
        "for service in demo-web demo-worker demo-beat; do
           journalctl --boot USER_UNIT=$service.service MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5 -o json --no-pager |
             head -n 1 | jq -r .__MONOTONIC_TIMESTAMP
         done",
    );
    let starts: Vec<u64> = starts.ok().text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(starts.len() == 3 && back > 0, "{phase}: {starts:?}");
    assert!(starts.iter().all(|start| *start > back), "{phase}: the names were back at {back}, the starts: {starts:?}");
}

/// Whoever runs the job again gets the release that the first run began, or one that was finished meanwhile.
fn the_action_is_killed_at_each_place(host: &Host) {
    let ground = Ground::prepare(host);
    let places = ground.release(&host.next_version(), None).passed;
    for place in ["begins build", "has done promote", "puts deploy-request", "has put deploy-request", "puts /v2/"] {
        assert!(places.iter().any(|passed| passed.starts_with(place)), "{place}: {places:#?}");
    }
    for (at, place) in (1..).zip(&places) {
        let tag = host.next_version();
        let killed = ground.release(&tag, Some(at));
        killed.ran.exits(137);
        let again = ground.release(&tag, None);
        let again = again.ran.ok();
        assert!(again.text.contains("deployed") || again.text.contains("unchanged"), "{place}: {}", again.text);
        assert_eq!(host.digest("stable"), host.digest(&tag), "{place}");
        ground.runs(&tag);
    }
}
