//! What a person reads: groups, lines, outputs and the final summary; never a secret.
//!
//! The only module that prints. Everything goes to standard output, because Forgejo shows standard error out of
//! order, and every line ends with a newline, because the runner loses a last line without one. Nothing here decides
//! anything.

mod files;
mod hide;
mod panic;
mod summary;

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tagship_core::explain::{self, Explain};
use tagship_core::text;

use hide::Hidden;

pub use files::RunnerFiles;
pub use panic::withhold_panics;
pub use summary::Summary;

/// Forgejo cuts a log line at 64 KiB; longer ones are cut here, where the cut can be shown.
const LONGEST_LINE: usize = 60 * 1024;

/// How the log is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For a runner: `::group::` lines fold.
    Runner,
    /// For a person at a terminal.
    Terminal,
    /// For a file or a pipe: as for a terminal, without colour.
    Plain,
}

impl Style {
    /// The style for the tool's standard output: colour on a terminal only, and not with `NO_COLOR` (no-color.org).
    #[must_use]
    pub fn for_tool(no_color: bool) -> Style {
        if !no_color && io::stdout().is_terminal() { Style::Terminal } else { Style::Plain }
    }
}

/// The log of one run. Shared by reference between concurrent tasks; lines never mix.
pub struct Log {
    style: Style,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    group: Option<Group>,
    hidden: Hidden,
    /// Why a line could not be written, the first time.
    failed: Option<io::Error>,
}

struct Group {
    began: Instant,
}

impl Log {
    /// A log on standard output.
    #[must_use]
    pub fn stdout(style: Style) -> Log {
        Log::to(style, Box::new(io::stdout()))
    }

    fn to(style: Style, out: Box<dyn Write + Send>) -> Log {
        Log { style, state: Mutex::new(State { out, group: None, hidden: Hidden::new(), failed: None }) }
    }

    /// Opens a group with a heading. An open one is closed first: groups do not nest in Forgejo.
    pub fn begin(&self, title: &str) {
        let mut state = self.lock();
        self.close(&mut state);
        let title = state.hidden.redact(&text::escape(title)).into_owned();
        let line = match self.style {
            Style::Runner => format!("::group::{title}"),
            Style::Terminal => format!("\x1b[1m{title}\x1b[0m"),
            Style::Plain => title,
        };
        state.write(&line);
        state.group = Some(Group { began: Instant::now() });
    }

    /// Closes the open group, if any, and tells how long it was open.
    pub fn end(&self) -> Duration {
        let mut state = self.lock();
        self.close(&mut state)
    }

    /// A line of our own.
    pub fn say(&self, line: &str) {
        self.lines("", line);
    }

    /// Words of somebody else (an engine, a host, a container), escaped, a line for each of theirs.
    pub fn quote(&self, words: &str) {
        self.lines("| ", words);
    }

    /// Something that went well but that the reader should know about.
    pub fn warn(&self, line: &str) {
        self.lines(if self.style == Style::Terminal { "\x1b[33mwarning:\x1b[0m " } else { "warning: " }, line);
    }

    /// Closes the open group and shows why the run failed, and what to try.
    pub fn error(&self, error: &dyn Explain) {
        self.end();
        let label = if self.style == Style::Terminal { "\x1b[1;31merror:\x1b[0m " } else { "error: " };
        self.lines(label, &explain::chain(error));
        if let Some(hint) = error.hint() {
            self.lines("hint: ", &hint);
        }
    }

    /// Shows `***` in the place of a secret from now on, of each of its lines and of its base64, whoever says it.
    pub fn hide(&self, secret: &str) {
        self.lock().hidden.add(secret);
    }

    /// Why something could not be written, if that happened. Who no longer reads wants no more: a closed pipe is none.
    pub fn failed(&self) -> Option<io::Error> {
        self.lock().failed.take().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }

    /// Says on standard error what went wrong, where the log could not be written.
    pub fn last_words(&self, error: &dyn Explain) {
        // No place is left to say that this could not be said.
        let _ = io::stderr().write_all(self.in_plain(error).as_bytes());
    }

    /// An error as lines of text, without what is hidden.
    fn in_plain(&self, error: &dyn Explain) -> String {
        let state = self.lock();
        let said = format!("error: {}", explain::chain(error));
        let hint = error.hint().map(|hint| format!("hint: {hint}")).unwrap_or_default();
        let lines = said.lines().chain(hint.lines());
        lines.map(|line| format!("{}\n", state.hidden.redact(&text::escape(line)))).collect()
    }

    /// Shows the final summary.
    pub fn summary(&self, summary: &Summary) {
        self.end();
        for (position, line) in summary.lines().iter().enumerate() {
            let mut state = self.lock();
            let line = state.hidden.redact(&text::escape(line)).into_owned();
            let bold = position == 0 && self.style == Style::Terminal;
            state.write(&if bold { format!("\x1b[1m{line}\x1b[0m") } else { line });
        }
    }

    fn lines(&self, label: &str, words: &str) {
        let mut state = self.lock();
        // Outside of the runner a group is shown by indenting what is in it.
        let indent = if state.group.is_some() && self.style != Style::Runner { "  " } else { "" };
        for line in words.lines() {
            let mut line = state.hidden.redact(&text::escape(line)).into_owned();
            if line.len() > LONGEST_LINE {
                let cut = (0..=LONGEST_LINE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
                line.truncate(cut);
                line.push_str(" … (cut)");
            }
            state.write(&format!("{indent}{label}{line}"));
        }
    }

    fn close(&self, state: &mut State) -> Duration {
        let Some(group) = state.group.take() else { return Duration::ZERO };
        let took = group.began.elapsed();
        match self.style {
            Style::Runner => state.write("::endgroup::"),
            Style::Terminal => state.write(&format!("  \x1b[2m{}\x1b[0m", summary::seconds(took))),
            Style::Plain => state.write(&format!("  {}", summary::seconds(took))),
        }
        took
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere while printing leaves at worst half a line; the log stays usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, line: &str) {
        // One write a line: concurrent writers to the same pipe cannot split it. If it cannot be written, the release
        // goes on, and that is said at its end.
        let written = self.out.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.out.flush());
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A log whose lines a test can read.

    use super::*;
    use std::sync::Arc;

    /// What was printed so far.
    #[derive(Clone, Default)]
    pub(crate) struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Printed {
        /// Everything printed, as text.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("unpoisoned").clone()).expect("text")
        }
    }

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A log and what it prints.
    pub(crate) fn log(style: Style) -> (Log, Printed) {
        let printed = Printed::default();
        (Log::to(style, Box::new(printed.clone())), printed)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::log;
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read {0}")]
    struct Unreadable(&'static str);

    impl Explain for Unreadable {
        fn kind(&self) -> &'static str {
            "unreadable"
        }

        fn hint(&self) -> Option<String> {
            Some("mount it".to_owned())
        }
    }

    #[test]
    fn groups_for_a_runner() {
        let (log, printed) = log(Style::Runner);
        log.begin("build");
        log.say("one");
        log.begin("push");
        log.end();
        log.end();
        assert_eq!(printed.text(), "::group::build\none\n::endgroup::\n::group::push\n::endgroup::\n");
    }

    #[test]
    fn groups_for_a_file_are_indented() {
        let (log, printed) = log(Style::Plain);
        log.begin("build");
        log.say("one");
        log.end();
        log.say("two");
        let text = printed.text();
        assert!(text.starts_with("build\n  one\n  "), "{text}");
        assert!(text.ends_with(" ms\ntwo\n"), "{text}");
    }

    #[test]
    fn an_error_ends_the_group_and_is_plain_text() {
        let (log, printed) = log(Style::Runner);
        log.begin("build");
        log.error(&Unreadable("the file"));
        assert_eq!(printed.text(), "::group::build\n::endgroup::\nerror: cannot read the file\nhint: mount it\n");
    }

    #[test]
    fn foreign_words_never_become_commands() {
        let vectors = [
            "::set-output name=digest::evil",
            "  ::add-mask::a",
            "::endgroup::",
            "##[group]x",
            "ok\r::stop-commands::x",
            "\u{1b}[2J\u{1b}]0;title\u{7}",
            "first\n::group::second",
            "\u{202e}gnp.exe",
        ];
        for words in vectors {
            for style in [Style::Runner, Style::Plain, Style::Terminal] {
                let (log, printed) = log(style);
                log.quote(words);
                log.say(words);
                log.warn(words);
                for line in printed.text().lines() {
                    let start = line.trim_start();
                    assert!(!start.starts_with("::") && !start.starts_with("##["), "{words:?} became {line:?}");
                    let ours = line.replace("\x1b[33m", "").replace("\x1b[0m", "");
                    assert!(!ours.chars().any(char::is_control), "{words:?} became {line:?}");
                }
            }
        }
    }

    #[test]
    fn a_heading_never_becomes_two_lines() {
        let (log, printed) = log(Style::Runner);
        log.begin("build\n::add-mask::x");
        assert_eq!(printed.text().lines().count(), 1);
    }

    #[test]
    fn a_huge_line_is_cut_below_the_runners_limit() {
        let (log, printed) = log(Style::Runner);
        log.quote(&"ä".repeat(100_000));
        assert!(printed.text().len() < 64 * 1024);
        assert!(printed.text().ends_with("(cut)\n"));
    }

    #[test]
    fn what_could_not_be_written_is_known_at_the_end() {
        struct Refuses(io::ErrorKind);
        impl Write for Refuses {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for (kind, expected) in
            [(io::ErrorKind::StorageFull, Some(io::ErrorKind::StorageFull)), (io::ErrorKind::BrokenPipe, None)]
        {
            let log = Log::to(Style::Plain, Box::new(Refuses(kind)));
            assert!(log.failed().is_none());
            log.say("one");
            assert_eq!(log.failed().map(|error| error.kind()), expected);
        }
    }

    #[test]
    fn last_words_hide_what_the_log_hides() {
        let (log, printed) = log(Style::Terminal);
        log.hide("hunter22");
        assert_eq!(log.in_plain(&Unreadable("hunter22")), "error: cannot read ***\nhint: mount it\n");
        assert_eq!(printed.text(), "");
    }

    #[test]
    fn what_is_hidden_shows_in_no_style_and_is_told_to_nobody() {
        for style in [Style::Runner, Style::Plain, Style::Terminal] {
            let (log, printed) = log(style);
            log.hide("hunter22");
            assert_eq!(printed.text(), "", "a runner is told nothing: what a container prints is kept");
            log.begin("build with hunter22");
            log.say("hunter22");
            log.quote("the login hunter22 is wrong\nhunter22");
            log.warn("aHVudGVyMjI=");
            log.error(&Unreadable("hunter22"));
            log.summary(&Summary { headline: "hunter22".to_owned(), ..Summary::default() });
            let text = printed.text();
            assert!(!text.contains("hunter") && !text.contains("aHVu"), "{text}");
            assert_eq!(text.matches("***").count(), 7, "{text}");
        }
    }
}
