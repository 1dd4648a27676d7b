//! The only module that prints: lines for people, verdicts for the system journal, and the requester's log beside them.
//!
//! What is told, and when, is decided elsewhere.

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
    os::unix::net::UnixDatagram,
    path::Path,
    time::Duration,
};

use tagship_core::{
    explain::{self, Explain},
    handoff::status::Status,
    text,
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{
    answer::Progress,
    config::App,
    deploy::{News, Report},
    history::{Marked, Verdict},
};

/// Where journald takes messages with fields of their own (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

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
    let text = text::escape(text);
    let prefix = if is_managed() { format!("<{}>", urgency as u8) } else { String::new() };
    // Nobody is left to be told that nobody reads.
    let _ = writeln!(io::stderr().lock(), "{prefix}{text}");
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
    let urgency = if status.outcome.is_ok() { Urgency::Notice } else { Urgency::Warning };
    to_journal(&fields(app, verdict, &message, urgency), urgency, &message);
}

/// Tells a change of the mark to the system journal, as a verdict.
pub fn marked(app: &App, marked: &Marked) {
    let Marked { mark, previous, .. } = marked;
    let before = previous.as_ref().map_or("not known".to_owned(), |previous| previous.tag.to_string());
    let message = format!("{app}: the highest version is now {}, and was {before}", mark.tag);
    to_journal(&mark_fields(app, marked, &message), Urgency::Warning, &message);
}

fn to_journal(entry: &[u8], urgency: Urgency, message: &str) {
    if send(Path::new(JOURNAL_SOCKET), entry).is_err() || !is_managed() {
        line(urgency, message);
    }
}

pub(crate) fn fields(app: &App, verdict: &Verdict, message: &str, urgency: Urgency) -> Vec<u8> {
    let Status { tag, request, outcome, kind, digest, previous_digest, started, .. } = &verdict.status;
    let mut bytes = entry(app, message, urgency);
    let mut field = |name: &str, value: Option<&dyn fmt::Display>| put_some(&mut bytes, name, value);
    field("TAGSHIP_TAG", tag.as_ref().map(|tag| tag as _));
    field("TAGSHIP_DIGEST", digest.as_ref().map(|digest| digest as _));
    field("TAGSHIP_PREVIOUS_DIGEST", previous_digest.as_ref().map(|digest| digest as _));
    field("TAGSHIP_REQUEST", request.as_ref().map(|id| id as _));
    field("TAGSHIP_OUTCOME", Some(outcome));
    field("TAGSHIP_KIND", Some(kind));
    field("TAGSHIP_BY", Some(&verdict.by));
    field("TAGSHIP_STARTED", started.as_ref().map(|started| started as _));
    bytes
}

fn mark_fields(app: &App, Marked { by, mark, previous }: &Marked, message: &str) -> Vec<u8> {
    let mut bytes = entry(app, message, Urgency::Warning);
    let mut field = |name: &str, value: Option<&dyn fmt::Display>| put_some(&mut bytes, name, value);
    field("TAGSHIP_MARK", Some(&mark.tag));
    field("TAGSHIP_MARK_DIGEST", Some(&mark.digest));
    field("TAGSHIP_PREVIOUS_MARK", previous.as_ref().map(|previous| &previous.tag as _));
    field("TAGSHIP_PREVIOUS_MARK_DIGEST", previous.as_ref().map(|previous| &previous.digest as _));
    field("TAGSHIP_BY", Some(by));
    bytes
}

/// What every entry of ours in the journal begins with.
fn entry(app: &App, message: &str, urgency: Urgency) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_field(&mut bytes, "MESSAGE", &text::escape(message));
    put_field(&mut bytes, "PRIORITY", &(urgency as u8).to_string());
    put_field(&mut bytes, "SYSLOG_IDENTIFIER", "tagship-host");
    put_field(&mut bytes, "TAGSHIP_APP", app.as_str());
    bytes
}

fn put_some(bytes: &mut Vec<u8>, name: &str, value: Option<&dyn fmt::Display>) {
    if let Some(value) = value {
        put_field(bytes, name, &value.to_string());
    }
}

/// One field in the binary-safe form: name, line feed, length as 64 bits little-endian, value, line feed.
fn put_field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

fn send(socket: &Path, message: &[u8]) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    // A journal that is stuck must not hold up a deploy.
    sender.set_nonblocking(true)?;
    sender.send_to(message, socket).map(|_| ())
}

/// Prints what other modules trace, warnings and notices alike, one line an event.
pub fn print_traces() {
    // Only one is ever set, before anything else happens.
    let _ = tracing::subscriber::set_global_default(Traces);
}

struct Traces;

impl Subscriber for Traces {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("tagship")
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        let urgency = match *event.metadata().level() {
            Level::ERROR => Urgency::Error,
            Level::WARN => Urgency::Warning,
            _ => Urgency::Notice,
        };
        line(urgency, &words.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event's message, with its other fields behind it.
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}{}", self.0);
        } else {
            self.0.push_str(&format!(" ({} {value:?})", field.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tagship_core::handoff::status::Outcome;

    use super::*;
    use crate::{history::By, testing::digest, trust::Release};

    /// The fields of a message to the journal.
    fn read(mut rest: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let size = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap()) as usize;
            let value = &rest[end + 9..end + 9 + size];
            found.push(format!("{}={}", str::from_utf8(&rest[..end]).unwrap(), str::from_utf8(value).unwrap()));
            assert_eq!(rest[end + 9 + size], b'\n');
            rest = &rest[end + 10 + size..];
        }
        found
    }

    #[test]
    fn a_change_of_the_mark_has_fields_of_its_own() {
        let release = |name: &str| Release {
            tag: name.parse().unwrap(),
            digest: digest(name),
            created: None,
            commit: None,
            signed: true,
        };
        let first = Marked { by: By::Companion, mark: release("v0.1.0"), previous: None };
        let second = Marked { by: By::Operator, mark: release("v0.1.0"), previous: Some(release("v0.2.0")) };
        let own = |marked: &Marked| read(&mark_fields(&"app".parse().unwrap(), marked, "line")).split_off(4);
        let (now, before) = (digest("v0.1.0"), digest("v0.2.0"));
        let set = ["TAGSHIP_MARK=v0.1.0".to_owned(), format!("TAGSHIP_MARK_DIGEST={now}")];
        let was = ["TAGSHIP_PREVIOUS_MARK=v0.2.0".to_owned(), format!("TAGSHIP_PREVIOUS_MARK_DIGEST={before}")];
        assert_eq!(own(&first), [&set[..], &["TAGSHIP_BY=companion".to_owned()]].concat());
        assert_eq!(own(&second), [&set[..], &was[..], &["TAGSHIP_BY=operator".to_owned()]].concat());
    }

    #[test]
    fn a_verdict_reaches_the_journal_with_its_fields() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let status = Status {
            tag: Some("v1.0.0".parse().unwrap()),
            ..Status::new(Outcome::RolledBack, "unhealthy", "web is unhealthy\u{1b}[2J")
        };
        let verdict = Verdict { time: Timestamp::UNIX_EPOCH, by: By::Request, status };
        let bytes = fields(&"app".parse().unwrap(), &verdict, "line\nTAGSHIP_TAG=forged", Urgency::Warning);
        send(&path, &bytes).unwrap();

        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).unwrap();
        assert_eq!(
            read(&buffer[..length]),
            [
                "MESSAGE=line\\nTAGSHIP_TAG=forged",
                "PRIORITY=4",
                "SYSLOG_IDENTIFIER=tagship-host",
                "TAGSHIP_APP=app",
                "TAGSHIP_TAG=v1.0.0",
                "TAGSHIP_OUTCOME=rolled-back",
                "TAGSHIP_KIND=unhealthy",
                "TAGSHIP_BY=request",
            ]
        );
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

    #[test]
    fn no_journal_is_an_error_not_a_wait() {
        assert!(send(Path::new("/nonexistent/socket"), b"").is_err());
    }
}
