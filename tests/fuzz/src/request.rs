//! The files of the hand-off directory, where a compromised job, or a hostile host, may write anything: requests in
//! both forms, answers, log lines, and what the companion tells about itself.

use tagship_core::handoff::host::HostFile;
use tagship_core::handoff::log::LogLine;
use tagship_core::handoff::names::Name;
use tagship_core::handoff::request::{self, Received, Request};
use tagship_core::handoff::status::{FirstLine, Status};
use tagship_core::reference::Tag;

use super::{comes_back, explained};

/// Reads bytes as each of the files, and as a file's name. Says whether they are one of them.
pub(crate) fn run(bytes: &[u8]) -> bool {
    claimed(bytes);
    full(bytes) | plain(bytes) | answer(bytes) | line(bytes) | host(bytes)
}

/// A claimed file's name says what the file was, for whoever finds it after a crash.
fn claimed(name: &[u8]) {
    if let Some(prefix) = Name::of(name).claim_prefix() {
        let again = Name::of(format!("{prefix}0123456789abcdef").as_bytes()).claim_prefix();
        assert_eq!(again.as_ref(), Some(&prefix), "claimed again");
    }
}

fn full(bytes: &[u8]) -> bool {
    let salvaged = request::salvage(bytes);
    let received = match Received::parse(bytes) {
        Ok(received) => received,
        Err(error) => {
            explained(&error);
            return false;
        }
    };
    let request: &Request = &received.request;
    assert_eq!((salvaged.tag.as_ref(), salvaged.id), (Some(&request.tag), Some(request.id)), "both read the same");
    comes_back(request, Received::parse(&request.encode()).map(|again| again.request));
    if let Some(signature) = received.signature() {
        assert!(bytes.starts_with(&signature.message), "the signature covers what stands before it");
        let line = bytes.get(signature.message.len()..).unwrap_or_default();
        assert!(line.starts_with(b"Signature: ") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
        let unsigned = Received::parse(&signature.message).map(|unsigned| unsigned.request);
        comes_back(request, unsigned);
        let signed = request.encode_signed(|_| Ok::<_, ()>(signature.bytes.clone())).expect("signing cannot fail");
        let again = Received::parse(&signed).expect("a signed request can be read");
        assert_eq!(again.request, *request);
        assert_eq!(again.signature().map(|one| &one.bytes), Some(&signature.bytes));
    }
    true
}

fn plain(bytes: &[u8]) -> bool {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let Some(tag) = str::from_utf8(line).ok().and_then(|text| text.parse::<Tag>().ok()) else { return false };
    assert_eq!(tag.to_string().as_bytes(), line, "a tag has one spelling");
    true
}

fn answer(bytes: &[u8]) -> bool {
    let first = FirstLine::parse(bytes);
    let status = match Status::parse(bytes) {
        Ok(status) => status,
        Err(error) => {
            explained(&error);
            return false;
        }
    };
    let first = first.expect("an answer has a first line");
    assert_eq!((first.ok, Some(&first.tag)), (status.outcome.is_ok(), status.tag.as_ref()), "both read the same");
    comes_back(&status, Status::parse(&status.encode()));
    true
}

fn line(bytes: &[u8]) -> bool {
    let Some(line) = LogLine::parse(bytes) else { return false };
    let written = line.encode();
    assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    comes_back(&Some(line), Ok::<_, ()>(LogLine::parse(written.trim_ascii_end())));
    true
}

fn host(bytes: &[u8]) -> bool {
    match HostFile::parse(bytes) {
        Ok(host) => {
            comes_back(&host, HostFile::parse(&host.encode()));
            true
        }
        Err(error) => {
            explained(&error);
            false
        }
    }
}
