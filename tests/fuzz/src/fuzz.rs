//! The engine's side of a target: libFuzzer calls it with whatever reaches new code. `tests/fuzz/run` starts this.
#![no_main]

use std::sync::OnceLock;

/// Names the target; the command line is libFuzzer's own.
const TARGET: &str = "TAGSHIP_FUZZ_TARGET";

type Run = fn(&[u8]) -> bool;

fn run() -> Option<Run> {
    static RUN: OnceLock<Option<Run>> = OnceLock::new();
    *RUN.get_or_init(|| match std::env::var(TARGET).ok()?.as_str() {
        "planted" => Some(planted),
        name => Some(tagship_fuzz::target(name)?.run),
    })
}

/// Not a target, but the engine's own test: a defect behind a number, a text and a sum, which only those find who see
/// what is compared and which bytes got further than others. One input in 2^120 has it.
fn planted(bytes: &[u8]) -> bool {
    let Some((number, rest)) = bytes.split_first_chunk() else { return false };
    if u32::from_be_bytes(*number) != 0x5eed_7a65 {
        return false;
    }
    let Some(rest) = rest.strip_prefix(b"tagship: ") else { return false };
    let [a, b, ..] = rest else { return false };
    assert!(u16::from(*a) * 3 != u16::from(*b) + 200, "the planted defect");
    true
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let run = run();
    assert!(run.is_some(), "{TARGET} does not name a target");
    if let Some(run) = run {
        run(bytes);
    }
});
