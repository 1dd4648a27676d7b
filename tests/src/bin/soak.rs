//! Deploys and releases that are cut off at random, by seed: `tests/soak` says how to run it.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use fastrand::Rng;
use tagship_tests::crash::{self, Cut, Ground};

/// A little more than a deploy passes, so that some are not cut off at all.
const PLACES: u32 = 70;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, otherwise: u64| {
        let at = arguments.iter().position(|word| word == name);
        at.map_or(otherwise, |at| arguments.get(at + 1).and_then(|n| n.parse().ok()).expect("a number after the flag"))
    };
    let (first, count) = (number("--from", 0), number("--seeds", 100));
    let host = crash::boot("soak");
    let ground = Ground::prepare(&host);
    for seed in first..first.saturating_add(count) {
        let plan = Plan::of(seed);
        println!("seed {seed}: {plan:?}");
        if catch_unwind(AssertUnwindSafe(|| plan.run(&ground))).is_err() {
            println!("seed {seed} failed; again with: tests/soak --from {seed} --seeds 1");
            return ExitCode::FAILURE;
        }
    }
    println!("{count} seeds, 0 failed");
    ExitCode::SUCCESS
}

/// What a seed does.
#[derive(Debug)]
enum Plan {
    /// A deploy is cut off.
    Deploy { healthy: bool, cut: Option<(Cut, u32)> },
    /// A release is killed, and run again.
    Release { at: u32 },
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        match random.u32(0..10) {
            0 | 1 => Self::Release { at: random.u32(1..30) },
            kind => {
                let cut = if kind == 2 { Cut::Power } else { Cut::Kill };
                Self::Deploy { healthy: random.u32(0..3) > 0, cut: Some((cut, random.u32(1..=PLACES))) }
            }
        }
    }

    fn run(&self, ground: &Ground<'_>) {
        match *self {
            Self::Deploy { healthy, cut } => {
                let place = cut.map(|(cut, at)| (cut, at.to_string()));
                let cut = place.as_ref().map(|(cut, at)| (*cut, at.as_str()));
                let attempt = ground.attempt(if healthy { ground.other() } else { "bad" }, cut);
                assert!(healthy || !attempt.answer.starts_with("ok "), "{}", attempt.answer);
            }
            Self::Release { at } => {
                let tag = ground.next_version();
                let killed = ground.release(&tag, Some(at)).ran;
                assert!(matches!(killed.code, 0 | 137), "{}", killed.text);
                ground.release(&tag, None).ran.ok();
                ground.runs(&tag);
            }
        }
    }
}
