//! The engine's side of a target: libFuzzer calls it with whatever reaches new code. `tests/fuzz/run` starts this.
#![no_main]

use std::sync::OnceLock;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// Names the target; the command line is libFuzzer's own.
const TARGET: &str = "TAGSHIP_FUZZ_TARGET";

/// How many seconds of processor time there are; without it there is no end. libFuzzer itself counts by the clock, which
/// goes on while others compute.
const SECONDS: &str = "TAGSHIP_FUZZ_SECONDS";

type Run = fn(&[u8]) -> bool;

fn run() -> Option<Run> {
    static RUN: OnceLock<Option<Run>> = OnceLock::new();
    *RUN.get_or_init(|| {
        if let Ok(seconds) = std::env::var(SECONDS) {
            assert!(end_after(&seconds).is_some(), "{SECONDS} is no number of seconds, or there are no timers");
        }
        match std::env::var(TARGET).ok()?.as_str() {
            "planted" => Some(planted),
            name => Some(tagship_fuzz::target(name)?.run),
        }
    })
}

/// Has the engine told to end, by the signal that it knows for that, after so much processor time from now.
fn end_after(seconds: &str) -> Option<()> {
    let end = Expiration::OneShot(TimeSpec::new(seconds.parse().ok()?, 0));
    let signal = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGUSR1, si_value: 0 });
    let mut timer = Timer::new(ClockId::CLOCK_PROCESS_CPUTIME_ID, signal).ok()?;
    timer.set(end, TimerSetTimeFlags::empty()).ok()?;
    // Dropped, it would never go off.
    std::mem::forget(timer);
    Some(())
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
