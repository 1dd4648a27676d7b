//! What the benchmark measures from within the test host, beside the very processes that it measures: how long a command
//! takes from its start to its end and how much memory it had at most, and how long the arithmetic of a key's password
//! takes by itself.
//!
//!   bench-inside run COMMAND [ARGUMENT…]    prints microseconds and KiB; fails as the command does
//!   bench-inside scrypt                     prints microseconds
//!
//! Static and made with the programs' own settings, so that it runs in the host and its scrypt is theirs. Which numbers
//! are compared is the benchmark's to know.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["scrypt"] => println!("{}", scrypt().as_micros()),
        ["run", program, arguments @ ..] => {
            let (took, memory) = run(program, arguments);
            println!("{} {memory}", took.as_micros());
        }
        _ => panic!("bench-inside run COMMAND [ARGUMENT…] | bench-inside scrypt"),
    }
}

/// A command's wall time, and its largest resident set in KiB. What it says goes to standard error.
fn run(program: &str, arguments: &[&str]) -> (Duration, i64) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(std::io::stderr());
    let begun = Instant::now();
    let status = command.status().unwrap();
    let took = begun.elapsed();
    assert!(status.success(), "{program}: {status}");
    // The command is the only child that was waited for.
    (took, getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss())
}

/// The time of scrypt alone at the cost that cosign writes into a key: N = 2^16, r = 8, p = 1.
fn scrypt() -> Duration {
    let parameters = scrypt::Params::new(16, 8, 1).unwrap();
    let mut key = [0; 32];
    let begun = Instant::now();
    scrypt::scrypt(b"correct horse", &[7; 32], &parameters, &mut key).unwrap();
    std::hint::black_box(key);
    begun.elapsed()
}
