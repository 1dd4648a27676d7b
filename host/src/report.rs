//! The only module that prints: lines for people, verdicts for the system journal, and the requester's log beside them.
//!
//! What is told, and when, is decided elsewhere.

mod entry;
mod traces;

use std::{
    env,
    io::{self, IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use tagship_core::{
    explain::{self, Explain},
    handoff::status::{Outcome, Service, Status},
    text,
};

use crate::{
    answer::Progress,
    config::{App, ServiceName},
    deploy::{News, Report},
    history::{Marked, Verdict},
};

pub(crate) use entry::fields;
pub use traces::print_traces;

/// How urgent a line is, in syslog's numbers (RFC 5424, clause 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Something did not work.
    Error = 3,
    /// Something needs a look.
    Warning = 4,
    /// Something of note happened. The units keep systemd's own lines below this one out of the journal.
    Notice = 5,
}

/// Prints a line about the work. Under systemd it carries its urgency, as sd-daemon(3) describes.
pub fn line(urgency: Urgency, text: &str) {
    // Tests judge what is written down, not what is printed.
    if cfg!(test) {
        return;
    }
    let managed = is_managed();
    if let (true, Some(unit)) = (managed, UNIT.get())
        && entry::tell(&entry::of_unit(unit, text, urgency)).is_ok()
    {
        return;
    }
    let text = text::escape(text);
    let prefix = if managed { format!("<{}>", urgency as u8) } else { String::new() };
    // Nobody is left to be told that nobody reads.
    let _ = writeln!(io::stderr().lock(), "{prefix}{text}");
}

/// Whose lines these are, where the program speaks for a unit that is not its own.
static UNIT: OnceLock<ServiceName> = OnceLock::new();

/// From now on lines in the journal are this unit's, and `journalctl --user -u` shows them: of a program that ends as soon
/// as it has spoken journald often cannot find out any more which unit it was of.
pub fn speak_for(service: &ServiceName) {
    let _ = UNIT.set(service.clone());
}

/// Whether what is printed goes to the journal. The variable is inherited by whatever else is started there, so it
/// counts only if it names this very stream (systemd.exec(5)).
fn is_managed() -> bool {
    let Ok(stream) = rustix::fs::fstat(io::stderr()) else { return false };
    env::var("JOURNAL_STREAM").is_ok_and(|named| named == format!("{}:{}", stream.st_dev, stream.st_ino))
}

/// Prints an error with its causes and what to try.
pub fn error(error: &dyn Explain) {
    line(Urgency::Error, &format!("error: {}", explain::chain(error)));
    if let Some(hint) = error.hint() {
        line(Urgency::Error, &format!("hint: {hint}"));
    }
}

/// Prints an error that changes nothing about what was done.
pub fn warning(error: &dyn Explain) {
    line(Urgency::Warning, &format!("warning: {}", explain::chain(error)));
    if let Some(hint) = error.hint() {
        line(Urgency::Warning, &format!("hint: {hint}"));
    }
}

/// A command's result that could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct Unwritten(#[source] io::Error);

impl Explain for Unwritten {
    fn kind(&self) -> &'static str {
        "output-unwritten"
    }

    fn hint(&self) -> Option<String> {
        Some("send the output to where it can be written and read".into())
    }
}

/// Prints a command's result: the text as it is, which the caller has made safe. Who stops reading wants no more of it.
pub fn output(text: &str) -> Result<(), Unwritten> {
    match shown(text) {
        Err(Unwritten(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints what must have been there to be read before anything is done.
pub fn shown(text: &str) -> Result<(), Unwritten> {
    put(&mut io::stdout().lock(), text)
}

fn put(out: &mut impl Write, text: &str) -> Result<(), Unwritten> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Unwritten)
}

/// Whether a person watches what is told.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Whether results may be coloured: on a terminal, unless `NO_COLOR` (no-color.org) says otherwise.
pub fn colours() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Tells one deploy's news: to the requester's log and to whoever runs the program.
#[derive(Debug, Clone)]
pub struct Told {
    progress: Progress,
}

impl Told {
    /// News for this requester.
    pub fn new(progress: Progress) -> Self {
        Self { progress }
    }

    /// Tells the requester alone: whoever runs the program is told otherwise.
    pub fn tell_requester(&self, phase: &str, event: &str, text: &str) {
        self.progress.tell(phase, None, event, text);
    }

    /// Tells something that needs a look, and is no deploy's own news.
    pub fn warn(&self, phase: &str, event: &str, text: &str) {
        self.tell_requester(phase, event, text);
        line(Urgency::Warning, text);
    }

    /// Tells something that is no deploy's own news.
    pub fn tell(&self, phase: &str, event: &str, text: &str) {
        self.tell_requester(phase, event, text);
        line(Urgency::Notice, text);
    }
}

impl Report for Told {
    fn tell(&self, news: News<'_>) {
        let service = news.service.map(|service| service.as_str());
        let took = news.took.map(|took| format!(" ({})", seconds(took))).unwrap_or_default();
        let words = format!("{}{took}", news.text);
        self.progress.tell(news.phase.as_str(), service, news.event, &words);
        let urgency = if matches!(news.event, "failed" | "warning") { Urgency::Warning } else { Urgency::Notice };
        match service {
            Some(service) if !words.starts_with(service) => line(urgency, &format!("{service}: {words}")),
            _ => line(urgency, &words),
        }
    }
}

/// A duration as people read it.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Tells a verdict to the system journal, where the app's user cannot change it; prints it where there is none, and for
/// the operator.
pub fn verdict(app: &App, verdict: &Verdict) {
    let status = &verdict.status;
    let tag = status.tag.as_ref().map_or("invalid", |tag| tag.as_str());
    let message = format!("{app}: {tag} {}: {}", status.outcome, status.reason);
    let urgency = urgency(status);
    to_journal(&fields(app, verdict, &message, urgency), urgency, &message);
}

/// How urgent an answer is. One that leaves a service down is an error: nothing runs there until somebody comes.
fn urgency(status: &Status) -> Urgency {
    match status.outcome {
        outcome if outcome.is_ok() => Urgency::Notice,
        Outcome::Failed if status.services.iter().any(Service::is_down) => Urgency::Error,
        _ => Urgency::Warning,
    }
}

/// Tells a change of the mark to the system journal, as a verdict.
pub fn marked(app: &App, marked: &Marked) {
    let Marked { mark, previous, .. } = marked;
    let before = previous.as_ref().map_or("not known".to_owned(), |previous| previous.tag.to_string());
    let message = format!("{app}: the highest version is now {}, and was {before}", mark.tag);
    to_journal(&entry::mark_fields(app, marked, &message), Urgency::Warning, &message);
}

fn to_journal(entry: &[u8], urgency: Urgency, message: &str) {
    if entry::tell(entry).is_err() || !is_managed() {
        line(urgency, message);
    }
}

#[cfg(test)]
mod tests {
    use tagship_core::handoff::fields::{Line, Word};

    use super::*;

    #[test]
    fn a_service_that_is_left_down_is_an_error() {
        let status = |outcome, state: &str| {
            let service = Service { name: Line::lossy("web"), state: Word::lossy(state), detail: Line::lossy("") };
            Status { services: vec![service], ..Status::new(outcome, "unhealthy", "because") }
        };
        for (outcome, state, expected) in [
            (Outcome::Failed, "broken", Urgency::Error),
            (Outcome::Failed, "stopped", Urgency::Error),
            (Outcome::Failed, "untouched", Urgency::Warning),
            (Outcome::RolledBack, "restored", Urgency::Warning),
            // It was stopped before.
            (Outcome::RolledBack, "stopped", Urgency::Warning),
            (Outcome::Deployed, "deployed", Urgency::Notice),
        ] {
            assert_eq!(urgency(&status(outcome, state)) as u8, expected as u8, "{outcome} {state}");
        }
    }

    #[test]
    fn what_could_not_be_printed_is_an_error() {
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = put(&mut full, "x").unwrap_err();
        assert_eq!(explain::chain(&error), "cannot write to standard output: No space left on device (os error 28)");
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert!(put(&mut writer, "x").is_err(), "a closed pipe, too: who asks decides");
    }
}
