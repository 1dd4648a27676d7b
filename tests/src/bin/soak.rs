//! Deploys and releases that are cut off at random, by seed: `tests/soak` says how to run it.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use fastrand::Rng;
use tagship_tests::crash::{self, Cut, Ground};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((first, count)) = seeds(&arguments) else {
        eprintln!("usage: tests/soak [--seeds N] [--from SEED]");
        return ExitCode::from(2);
    };
    let host = crash::boot("soak");
    let ground = Ground::prepare(&host);
    let places = places(&ground);
    println!("{places} places");
    for seed in first..first.saturating_add(count) {
        let plan = Plan::of(seed, places);
        println!("seed {seed}: {plan:?}");
        if catch_unwind(AssertUnwindSafe(|| plan.run(&ground))).is_err() {
            println!("seed {seed} failed; again with: tests/soak --from {seed} --seeds 1");
            return ExitCode::FAILURE;
        }
    }
    println!("{count} seeds, 0 failed");
    ExitCode::SUCCESS
}

/// The first seed and how many there are, if the arguments say that and nothing else.
fn seeds(arguments: &[String]) -> Option<(u64, u64)> {
    let (mut first, mut count) = (0, 100);
    for pair in arguments.chunks(2) {
        let [flag, number] = pair else { return None };
        match flag.as_str() {
            "--from" => first = number.parse().ok()?,
            "--seeds" => count = number.parse().ok()?,
            _ => return None,
        }
    }
    Some((first, count))
}

/// A little more than the longest deploy passes, one that is rolled back: so each of its places can be drawn, and some
/// deploys are not cut off at all. A round number, since a seed means the same only with the same one.
fn places(ground: &Ground<'_>) -> u32 {
    let passed = ground.attempt("bad", None).passed.len();
    u32::try_from(passed.next_multiple_of(10) + 10).expect("few places")
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
    fn of(seed: u64, places: u32) -> Self {
        let mut random = Rng::with_seed(seed);
        match random.u32(0..10) {
            0 | 1 => Self::Release { at: random.u32(1..30) },
            kind => {
                let cut = if kind == 2 { Cut::Power } else { Cut::Kill };
                Self::Deploy { healthy: random.u32(0..3) > 0, cut: Some((cut, random.u32(1..=places))) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_flag_of_it_is_refused() {
        for (line, expected) in [
            ("", Some((0, 100))),
            ("--seeds 5", Some((0, 5))),
            ("--from 7 --seeds 1", Some((7, 1))),
            ("--seed 5", None),
            ("--from", None),
            ("--from x", None),
            ("5", None),
            ("--seeds 5 6", None),
        ] {
            let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(seeds(&arguments), expected, "{line:?}");
        }
    }
}
