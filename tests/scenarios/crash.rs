//! The companion killed at each place of a deploy, and the power cut in each of its phases.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::process::ExitCode;

use tagship_tests::crash::{Cut, Ground};
use tagship_tests::{Host, Scenario, suite_on};

fn main() -> ExitCode {
    suite_on(&[|| Host::boot("crash"), || Host::boot("crash-2")], SCENARIOS)
}

const SCENARIOS: &[Scenario] = &[
    ("killed_at_each_place_of_a_deploy", killed_at_each_place_of_a_deploy),
    ("killed_at_each_place_of_a_rollback", killed_at_each_place_of_a_rollback),
];

fn killed_at_each_place_of_a_deploy(host: &Host) {
    let ground = Ground::prepare(host);
    for at in 1.. {
        let attempt = ground.attempt(ground.other(), Some((Cut::Kill, at)));
        println!(
            "{at}: {:?} -> {}",
            attempt.passed.get(at as usize - 1),
            attempt.answer.lines().take(4).collect::<Vec<_>>().join(" | ")
        );
        if !attempt.cut {
            assert!(at > 30, "only {} places: {:#?}", at - 1, attempt.passed);
            break;
        }
    }
}

fn killed_at_each_place_of_a_rollback(host: &Host) {
    let ground = Ground::prepare(host);
    let whole = ground.attempt("bad", None).answered("fail ");
    let first = whole.passed.iter().position(|place| place.contains("Back")).expect("a way back") as u32 + 1;
    for at in first.. {
        let attempt = ground.attempt("bad", Some((Cut::Kill, at)));
        println!(
            "{at}: {:?} -> {}",
            attempt.passed.get(at as usize - 1),
            attempt.answer.lines().take(4).collect::<Vec<_>>().join(" | ")
        );
        if !attempt.cut {
            break;
        }
    }
}
