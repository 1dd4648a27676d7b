//! The names in a hand-off directory, and the identifier that is part of them.
//!
//! No file is touched here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

/// What the companion tells about itself.
pub const HOST: &str = "deploy-host";
/// The request of the plain form.
pub const TRIGGER: &str = "deploy-trigger";
/// The answer of the plain form.
pub const STATUS: &str = "deploy-status";

const REQUEST_PREFIX: &str = "deploy-request.";
const LOG_PREFIX: &str = "deploy-log.";
const STATUS_PREFIX: &str = "deploy-status.";
/// A file that is being written; it gets its real name once it is whole.
pub(super) const WRITING_PREFIX: &str = ".tagship-writing.";
/// A request that its own requester took back.
pub(super) const WITHDRAWN_PREFIX: &str = ".tagship-withdrawn.";
const CLAIMED_REQUEST_PREFIX: &str = ".tagship-request.";
const CLAIMED_TRIGGER_PREFIX: &str = ".tagship-trigger.";
/// Where things go that cannot be removed.
pub(super) const ASIDE: &str = ".tagship-aside";

/// Identifies one full request: a ULID in its canonical form, 26 characters of Crockford's Base32 in upper case.
///
/// Ordered by the time at which it was made, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Ulid);

/// A text that is no canonical ULID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a ULID in its canonical form (26 characters of Crockford's Base32 in upper case)")]
pub struct NotAnId;

impl RequestId {
    /// A new identifier, random beside its time.
    #[must_use]
    pub fn generate() -> RequestId {
        RequestId(Ulid::generate())
    }

    /// When it was made, as far as its maker's clock was right and its maker honest.
    #[must_use]
    pub fn made(self) -> Timestamp {
        // 48 bits of milliseconds always fit: the year 10889 is out of jiff's range, hence the fallback.
        Timestamp::UNIX_EPOCH.checked_add(Duration::from_millis(self.0.timestamp_ms())).unwrap_or(Timestamp::MAX)
    }

    /// `deploy-request.ULID`.
    #[must_use]
    pub fn request_name(self) -> String {
        format!("{REQUEST_PREFIX}{self}")
    }

    /// `deploy-log.ULID`.
    #[must_use]
    pub fn log_name(self) -> String {
        format!("{LOG_PREFIX}{self}")
    }

    /// `deploy-status.ULID`.
    #[must_use]
    pub fn status_name(self) -> String {
        format!("{STATUS_PREFIX}{self}")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl FromStr for RequestId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<RequestId, NotAnId> {
        // The decoder takes lower case, look-alike letters and overlong values: one identifier would have many names.
        Ulid::from_string(text).ok().filter(|id| id.to_string() == text).map(RequestId).ok_or(NotAnId)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RequestId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a name in the directory stands for. `None` inside means that the rest of the name is no ULID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `deploy-host`.
    Host,
    /// `deploy-trigger`.
    Trigger,
    /// `deploy-status`.
    Status,
    /// `deploy-request.…`.
    Request(Option<RequestId>),
    /// `deploy-log.…`.
    Log(Option<RequestId>),
    /// `deploy-status.…`.
    Answer(Option<RequestId>),
    /// A full request that a companion claimed but did not finish reading.
    ClaimedRequest(Option<RequestId>),
    /// A plain request that a companion claimed but did not finish reading.
    ClaimedTrigger,
    /// A file that somebody was writing or taking back: of no meaning to anybody else.
    Leftover,
    /// Anything else, which is left alone.
    Other,
}

impl Name {
    /// What `name` stands for. Names need not be UTF-8.
    #[must_use]
    pub fn of(name: &[u8]) -> Name {
        let Ok(name) = str::from_utf8(name) else {
            // Only the path unit's patterns matter for names that no program of ours made.
            return if name.starts_with(REQUEST_PREFIX.as_bytes()) { Name::Request(None) } else { Name::Other };
        };
        let id = |rest: &str| rest.parse().ok();
        match name {
            HOST => Name::Host,
            TRIGGER => Name::Trigger,
            STATUS => Name::Status,
            _ => {
                if let Some(rest) = name.strip_prefix(REQUEST_PREFIX) {
                    Name::Request(id(rest))
                } else if let Some(rest) = name.strip_prefix(LOG_PREFIX) {
                    Name::Log(id(rest))
                } else if let Some(rest) = name.strip_prefix(STATUS_PREFIX) {
                    Name::Answer(id(rest))
                } else if let Some(rest) = name.strip_prefix(CLAIMED_REQUEST_PREFIX) {
                    Name::ClaimedRequest(rest.split('.').next().and_then(id))
                } else if name.starts_with(CLAIMED_TRIGGER_PREFIX) {
                    Name::ClaimedTrigger
                } else if name.starts_with(WRITING_PREFIX) || name.starts_with(WITHDRAWN_PREFIX) {
                    Name::Leftover
                } else {
                    Name::Other
                }
            }
        }
    }

    /// Whether it is a request that nobody has claimed yet.
    #[must_use]
    pub fn is_request(self) -> bool {
        matches!(self, Name::Request(_) | Name::Trigger)
    }

    /// The start of the dot name that a claim of this name gets; random characters follow. `None` for what is no
    /// request.
    #[must_use]
    pub fn claim_prefix(self) -> Option<String> {
        match self {
            // The identifier goes along, so that a claim that cannot be read can still be answered after a crash.
            Name::Request(Some(id)) | Name::ClaimedRequest(Some(id)) => Some(format!("{CLAIMED_REQUEST_PREFIX}{id}.")),
            Name::Request(None) | Name::ClaimedRequest(None) => Some(format!("{CLAIMED_REQUEST_PREFIX}unknown.")),
            Name::Trigger | Name::ClaimedTrigger => Some(CLAIMED_TRIGGER_PREFIX.to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01D39ZY06FGSCTVN4T2V9PKHFZ";

    #[test]
    fn names_are_what_they_say() {
        let id: RequestId = ID.parse().unwrap();
        assert_eq!(Name::of(id.request_name().as_bytes()), Name::Request(Some(id)));
        assert_eq!(Name::of(id.log_name().as_bytes()), Name::Log(Some(id)));
        assert_eq!(Name::of(id.status_name().as_bytes()), Name::Answer(Some(id)));
        assert_eq!(Name::of(b"deploy-trigger"), Name::Trigger);
        assert_eq!(Name::of(b"deploy-status"), Name::Status);
        assert_eq!(Name::of(b"deploy-host"), Name::Host);
        assert_eq!(Name::of(b"deploy-request."), Name::Request(None));
        assert_eq!(Name::of(b"deploy-request.\xff"), Name::Request(None));
        assert_eq!(Name::of(b"deploy-trigger2"), Name::Other);
        assert_eq!(Name::of(b"config.yml"), Name::Other);
        assert_eq!(Name::of(b"\xff"), Name::Other);
    }

    #[test]
    fn a_claim_keeps_its_identifier() {
        let id: RequestId = ID.parse().unwrap();
        for name in [Name::Request(Some(id)), Name::Request(None), Name::Trigger] {
            let claimed = format!("{}0123456789abcdef", name.claim_prefix().unwrap());
            let expected = match name {
                Name::Request(id) => Name::ClaimedRequest(id),
                _ => Name::ClaimedTrigger,
            };
            assert_eq!(Name::of(claimed.as_bytes()), expected);
        }
        assert_eq!(Name::Status.claim_prefix(), None);
    }

    #[test]
    fn only_canonical_identifiers_count() {
        for (defect, text) in [
            ("empty", ""),
            ("short", "01D39ZY06FGSCTVN4T2V9PKHF"),
            ("long", "01D39ZY06FGSCTVN4T2V9PKHFZZ"),
            ("lower case", "01d39zy06fgsctvn4t2v9pkhfz"),
            ("look-alike letter", "OID39ZY06FGSCTVN4T2V9PKHFZ"),
            ("letter outside of the alphabet", "01D39ZY06FGSCTVN4T2V9PKHFU"),
            ("more than 128 bits", "81D39ZY06FGSCTVN4T2V9PKHFZ"),
            ("path", "../../../../../../etc/pass"),
            ("wide characters", "äääääääääääää"),
        ] {
            assert_eq!(text.parse::<RequestId>(), Err(NotAnId), "{defect}");
        }
        assert_eq!(ID.parse::<RequestId>().unwrap().to_string(), ID);
    }

    #[test]
    fn an_identifier_tells_when_it_was_made() {
        let before = Timestamp::now();
        let made = RequestId::generate().made();
        assert!(made.duration_since(before).as_millis().abs() < 1000, "{made} is not about {before}");
        assert_eq!("7ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<RequestId>().unwrap().made(), Timestamp::MAX);
    }
}
