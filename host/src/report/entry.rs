//! Entries in the journal with fields of their own, in journald's native protocol.
//!
//! What is told, and to whom else, is not known here.

use std::{fmt, io, os::unix::net::UnixDatagram, path::Path, time::Duration};

use tagship_core::{handoff::status::Status, text};

use super::Urgency;
use crate::{
    config::{App, ServiceName},
    history::{Marked, Verdict},
};

/// Where journald takes messages with fields of their own (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// How long a journal is waited for that has more to read than it can: it is usually done in milliseconds, and what it
/// does not take now is told nowhere else with its fields. One that is stuck must not hold up a deploy.
const PATIENCE: Duration = Duration::from_millis(500);

/// Hands an entry to the system's journald.
pub(super) fn tell(entry: &[u8]) -> io::Result<()> {
    send(Path::new(JOURNAL_SOCKET), entry, PATIENCE)
}

/// The entry of a verdict.
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

/// The entry of a change of the mark.
pub(super) fn mark_fields(app: &App, Marked { by, mark, previous }: &Marked, message: &str) -> Vec<u8> {
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

/// A line of a service, by the field that systemd itself uses for what it says of one (systemd.journal-fields(7)).
pub(super) fn of_unit(service: &ServiceName, message: &str, urgency: Urgency) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_field(&mut bytes, "MESSAGE", &text::escape(message));
    put_field(&mut bytes, "PRIORITY", &(urgency as u8).to_string());
    put_field(&mut bytes, "SYSLOG_IDENTIFIER", service.as_str());
    put_field(&mut bytes, "USER_UNIT", &service.unit());
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

/// Hands an entry to journald, and waits no longer than this.
fn send(socket: &Path, message: &[u8], patience: Duration) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(patience))?;
    sender.send_to(message, socket).map(|_| ())
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
    fn what_is_said_for_a_unit_names_it() {
        let entry = of_unit(&"web".parse().unwrap(), "web is not\nstarted", Urgency::Error);
        let expected = ["MESSAGE=web is not\\nstarted", "PRIORITY=3", "SYSLOG_IDENTIFIER=web", "USER_UNIT=web.service"];
        assert_eq!(read(&entry), expected);
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
        send(&path, &bytes, PATIENCE).unwrap();

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
    fn no_journal_is_an_error_not_a_wait() {
        assert!(send(Path::new("/nonexistent/socket"), b"", PATIENCE).is_err());
    }

    #[test]
    fn a_journal_that_is_busy_is_waited_for_and_not_for_ever() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        while other.send_to(b"line", &path).is_ok() {}
        let (begun, patience) = (std::time::Instant::now(), Duration::from_millis(50));
        assert!(send(&path, b"verdict", patience).is_err());
        assert!(begun.elapsed() >= patience);
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| send(&path, b"verdict", Duration::from_secs(60)));
            journal.recv(&mut [0; 16]).unwrap();
            sent.join().unwrap().unwrap();
        });
    }
}
