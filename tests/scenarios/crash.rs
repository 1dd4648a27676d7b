//! The companion killed at each place of a deploy, and the power cut in each of its phases.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::process::ExitCode;

use tagship_tests::crash::{self, Attempt, Cut, Ground};
use tagship_tests::{Host, Scenario, suite_on};

fn main() -> ExitCode {
    suite_on(2, || crash::boot("crash"), SCENARIOS)
}

const SCENARIOS: &[Scenario] = &[
    // Two halves, since each takes as long as all the others.
    ("killed_at_each_odd_place_of_a_deploy", |host| killed_at_each_place_of_a_deploy(host, 1)),
    ("killed_at_each_even_place_of_a_deploy", |host| killed_at_each_place_of_a_deploy(host, 2)),
    ("killed_at_each_place_of_a_rollback", killed_at_each_place_of_a_rollback),
    ("the_power_fails_in_each_phase", the_power_fails_in_each_phase),
    ("the_action_is_killed_around_each_step", the_action_is_killed_around_each_step),
];

/// A deploy passes more places than this, unless the failpoints are not there at all.
const FEWEST: u32 = 50;

fn killed_at_each_place_of_a_deploy(host: &Host, first: u32) {
    let ground = Ground::prepare(host);
    let cuts = cut_from(first, 2, |at| ground.attempt(ground.other(), Some((Cut::Kill, &at.to_string()))));
    assert!(cuts.len() as u32 * 2 > FEWEST, "only {} cuts", cuts.len());
    // Both ends are seen: what was cut off goes back, and from the proof on it stays.
    let answered = |word: &str| cuts.iter().any(|attempt| attempt.answer.starts_with(word));
    assert!(answered("ok ") && answered("fail "), "{cuts:#?}");
}

fn killed_at_each_place_of_a_rollback(host: &Host) {
    let ground = Ground::prepare(host);
    let whole = ground.attempt("bad", None).answered("fail ");
    let first = whole.place("Place(Back");
    let cuts = cut_from(first, 1, |at| ground.attempt("bad", Some((Cut::Kill, &at.to_string()))).answered("fail "));
    assert!(cuts.len() > 15, "only {} cuts", cuts.len());
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
    }
}

/// Whoever runs the job again gets the release that the first run began, or one that was finished meanwhile.
fn the_action_is_killed_around_each_step(host: &Host) {
    let ground = Ground::prepare(host);
    let places = ground.release(&host.next_version(), None).passed;
    let steps = ["build", "push", "sign", "deploy", "promote"];
    let around = |place: &str| {
        let step = place.strip_prefix("begins ").or_else(|| place.strip_prefix("has done "));
        step.is_some_and(|step| steps.contains(&step)) || place.starts_with("has put deploy-request")
    };
    let cuts: Vec<_> = (1..).zip(&places).filter(|(_, place)| around(place)).collect();
    assert_eq!(cuts.len(), 2 * steps.len() + 1, "{places:#?}");
    for (at, place) in cuts {
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
