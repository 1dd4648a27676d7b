//! What a bug says when it ends the program: where it is, and nothing of what was being worked on.
//!
//! Rust's own message holds the panic's words, and these may quote anything: text that is cut at a wrong place is shown
//! whole, and so is a value that was not what somebody expected.

use std::io::Write as _;
use std::panic::{Location, PanicHookInfo};

/// Has panics say no more than their place, on standard error: standard output may be in use by what panics. The release
/// build then ends the process with SIGABRT.
pub fn withhold_panics() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        // No place is left to say that this could not be said.
        let _ = std::io::stderr().write_all(message(info.location()).as_bytes());
    }));
}

fn message(place: Option<&Location<'_>>) -> String {
    let place = place.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!(
        "error: tagship stopped at {place}: this is a bug in it\n\
         hint: the bug's own words are withheld, since they may hold a secret; please report the place\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_and_nothing_else() {
        let here = Location::caller();
        let text = message(Some(here));
        assert!(text.contains("src/log/panic.rs:"), "{text}");
        assert!(message(None).ends_with('\n'));
    }
}
