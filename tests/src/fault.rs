//! What can go wrong between a client and a server, as a test asks the proxy for it. The proxy itself is a program of
//! its own, in `proxy/`.

use std::fmt;
use std::str::FromStr;

/// What the proxy does to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it is forwarded, and so is the answer.
    Pass,
    /// The connection is closed; the server never hears of it.
    DropRequest,
    /// The connection stays open, and nothing ever comes; the server never hears of it.
    Stall,
    /// It is forwarded, and the connection is closed instead of answered.
    LoseAnswer,
    /// It is forwarded, and the connection is closed in the middle of the answer's body.
    CutAnswer,
    /// It is answered with this status in the server's stead.
    Status(u16),
    /// It is forwarded, and one character of the answer is changed: the one this far behind the first `after` in its
    /// body, whose beginning an empty `after` stands for. Digits stay digits and letters letters, so that what is
    /// changed is the meaning and not the form.
    Alter {
        /// What the character stands behind.
        after: String,
        /// How far: 0 is the character right behind.
        at: usize,
    },
}

impl Fault {
    /// Alters a member of a JSON answer: the value's character `at`, quotes and brackets not counted.
    #[must_use]
    pub fn alter(member: &str, at: usize) -> Self {
        Self::Alter { after: format!("\"{member}\":"), at }
    }

    /// The answer's body with its character changed; `None` where there is no such character.
    #[must_use]
    pub fn altered(after: &str, at: usize, body: &[u8]) -> Option<Vec<u8>> {
        let found = match after.len() {
            0 => 0,
            length => body.windows(length).position(|part| part == after.as_bytes())?,
        };
        let start = found + after.len();
        let skipped = body[start..].iter().take_while(|byte| b" \"[".contains(byte)).count();
        let place = start + skipped + at;
        let mut body = body.to_vec();
        *body.get_mut(place)? = other(*body.get(place)?);
        Some(body)
    }
}

/// Another character of the same kind; a hexadecimal digit stays one.
fn other(byte: u8) -> u8 {
    match byte {
        b'9' => b'0',
        b'f' => b'a',
        b'F' => b'A',
        b'z' => b'y',
        b'Z' => b'Y',
        _ if byte.is_ascii_alphanumeric() => byte + 1,
        b'+' => b'/',
        b'/' => b'+',
        _ => byte ^ 1,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::DropRequest => f.write_str("drop-request"),
            Self::Stall => f.write_str("stall"),
            Self::LoseAnswer => f.write_str("lose-answer"),
            Self::CutAnswer => f.write_str("cut-answer"),
            Self::Status(status) => write!(f, "status={status}"),
            Self::Alter { after, at } => write!(f, "alter={at}={after}"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} is no fault");
        Ok(match text.split_once('=') {
            None if text == "pass" => Self::Pass,
            None if text == "drop-request" => Self::DropRequest,
            None if text == "stall" => Self::Stall,
            None if text == "lose-answer" => Self::LoseAnswer,
            None if text == "cut-answer" => Self::CutAnswer,
            Some(("status", status)) => Self::Status(status.parse().map_err(|_| unknown())?),
            Some(("alter", alter)) => {
                let (at, after) = alter.split_once('=').ok_or_else(unknown)?;
                Self::Alter { after: after.to_owned(), at: at.parse().map_err(|_| unknown())? }
            }
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for fault in [
            Fault::Pass,
            Fault::DropRequest,
            Fault::Stall,
            Fault::LoseAnswer,
            Fault::CutAnswer,
            Fault::Status(503),
            Fault::alter("a=b", 7),
        ] {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        for bad in ["", "Pass", "pass=1", "status", "status=x", "alter=7", "alter=x=y"] {
            assert!(bad.parse::<Fault>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_character_changes_and_the_form_stays() {
        let body = br#"{"set":"MEUCI9","hashes":["0f9a"],"size":19}"#;
        for (member, at, from, to) in [
            ("set", 0, "MEUCI9", "NEUCI9"),
            ("set", 5, "MEUCI9", "MEUCI0"),
            ("hashes", 1, "0f9a", "0a9a"),
            ("size", 1, "19", "10"),
        ] {
            let Fault::Alter { after, at } = Fault::alter(member, at) else { unreachable!() };
            let altered = String::from_utf8(Fault::altered(&after, at, body).unwrap()).unwrap();
            assert_eq!(altered, String::from_utf8_lossy(body).replacen(from, to, 1));
        }
        assert_eq!(Fault::altered("\"absent\":", 0, body), None);
        assert_eq!(Fault::altered("\"size\":", 9, body), None);
        assert_eq!(Fault::altered("", 1, b"abc").unwrap(), b"acc");
    }

    #[test]
    fn every_character_becomes_another() {
        for byte in 0..=u8::MAX {
            assert_ne!(other(byte), byte);
            assert!(other(byte).is_ascii_hexdigit() || !byte.is_ascii_hexdigit(), "{byte}");
        }
    }
}
