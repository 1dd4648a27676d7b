//! Places where a test ends or holds the program, to see what the next run makes of it. Compiled in with the feature
//! `failpoints` alone, which nobody ships: without it each is an empty function.
//!
//! The environment variable `TAGSHIP_FAILPOINTS` names a file. Each place that is passed adds its name, as a line, to
//! that file with `.passed` behind its name. What the file's first line says is done at one place, that of a number,
//! counted from 1 in this process, or the first whose name begins so; and once: the line is removed first, so that the
//! next run does what the next line says, and with the last line the file, so that it passes.
//!
//! | content | effect |
//! | --- | --- |
//! | `kill N`, `kill NAME` | the process is killed (SIGKILL) |
//! | `hold N`, `hold NAME` | it stands still for ever; a file with `.held` behind its name appears |
//!
//! A test in the same process has its own thread's places told to it by `watch`, and can do there what others would do
//! in that moment, or end the work by unwinding.

/// Marks a place: `what` is about to be done, or has been, to `which`, which nobody formats here.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_what: &str, _which: impl std::fmt::Display) {}

#[cfg(feature = "failpoints")]
pub use armed::{pass, unwatch, watch};

#[cfg(feature = "failpoints")]
mod armed {
    use std::cell::Cell;
    use std::ffi::OsString;
    use std::fmt::Display;
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// How many places this process has passed.
    static PASSED: AtomicU32 = AtomicU32::new(0);

    type Watcher = Box<dyn FnMut(&str)>;

    thread_local! {
        static WATCHER: Cell<Option<Watcher>> = const { Cell::new(None) };
    }

    /// Calls `watcher` with the name of each place that this thread passes, from now on.
    pub fn watch(watcher: impl FnMut(&str) + 'static) {
        WATCHER.set(Some(Box::new(watcher)));
    }

    /// Ends that.
    pub fn unwatch() {
        WATCHER.take();
    }

    /// Marks a place: `what` is about to be done, or has been, to `which`.
    // A tool of tests has files of its own, and no reader to whom it could report an error.
    #[allow(clippy::disallowed_methods)]
    pub fn pass(what: &str, which: impl Display) {
        // Not there while it is called: what it does itself passes places, too.
        if let Some(mut watcher) = WATCHER.take() {
            watcher(&format!("{what} {which}"));
            WATCHER.set(Some(watcher));
        }
        let Some(file) = std::env::var_os("TAGSHIP_FAILPOINTS") else { return };
        let place = format!("{what} {which}");
        let number = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        if let Ok(mut passed) = File::options().create(true).append(true).open(beside(&file, ".passed")) {
            let _ = passed.write_all(format!("{place}\n").as_bytes());
        }
        let order = fs::read_to_string(&file).unwrap_or_default();
        let (order, later) = order.split_once('\n').unwrap_or((&order, ""));
        let Some((effect, at)) = order.split_once(' ') else { return };
        let here = match at.parse::<u32>() {
            Ok(at) => at == number,
            Err(_) => place.starts_with(at),
        };
        // The one that removes it does it.
        if !here || fs::remove_file(&file).is_err() {
            return;
        }
        if !later.is_empty() && fs::write(&file, later).is_err() {
            return;
        }
        match effect {
            "kill" => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
            "hold" => drop(File::create(beside(&file, ".held"))),
            _ => return,
        }
        loop {
            std::thread::park();
        }
    }

    fn beside(file: &OsString, ending: &str) -> PathBuf {
        let mut path = file.clone();
        path.push(ending);
        path.into()
    }
}

#[cfg(test)]
mod tests {
    /// What nobody may format.
    struct Untold;

    impl std::fmt::Display for Untold {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("formatted")
        }
    }

    #[test]
    fn nothing_is_formatted_unless_a_test_asks() {
        super::pass("begins", Untold);
    }
}
