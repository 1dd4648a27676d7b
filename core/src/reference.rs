//! Names of images: registry, repository, tag, digest, and references made of them.
//!
//! Text is parsed here once, at the edge; the rest of the code sees only these types. The grammar is that of the OCI
//! distribution specification 1.1 ("Pulling manifests") and, for the registry's part, of the reference grammar that
//! Docker and Podman share. Nothing here knows a default registry or a default tag: a release must say what it means.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The longest `registry/path`, in bytes, that Docker and Podman accept.
const NAME_MAX: usize = 255;

/// The longest tag, in bytes (OCI distribution specification).
const TAG_MAX: usize = 128;

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {:?}: {why}", .text.chars().take(300).collect::<String>())]
pub struct ReferenceError {
    what: &'static str,
    text: String,
    why: &'static str,
}

impl ReferenceError {
    /// What is wrong with the text, for messages that show the text themselves.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

impl crate::explain::Explain for ReferenceError {
    fn kind(&self) -> &'static str {
        "reference-invalid"
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self.what {
                "tag" => "a tag is up to 128 letters, digits, '_', '.' and '-', and begins with none of '.' and '-'",
                "digest" => "a digest is written sha256: and 64 lower-case hexadecimal digits",
                _ => "write it as registry.example.org/owner/name, in lower case",
            }
            .to_owned(),
        )
    }
}

/// A registry's host, with its port where it has one: `git.example.org`, `localhost:5000`, `[::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registry(String);

impl Registry {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host without the port and without an IPv6 address's brackets.
    pub fn host(&self) -> &str {
        if let Some(rest) = self.0.strip_prefix('[') {
            return rest.split(']').next().unwrap_or_default();
        }
        self.0.split(':').next().unwrap_or_default()
    }

    /// Whether it is this very machine: `localhost` or a loopback address. Only there is plain HTTP spoken.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for Registry {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| Err(ReferenceError { what: "registry", text: text.to_owned(), why });
        if text.len() > NAME_MAX {
            return fail("longer than 255 bytes");
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, "")) => (address, None),
                Some((address, port)) if port.starts_with(':') => (address, port.strip_prefix(':')),
                _ => return fail("its IPv6 address is not closed by ']'"),
            },
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if let Some(port) = port
            && (!port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().map_or(true, |port| port == 0))
        {
            return fail("its port is not a number from 1 to 65535");
        }
        if text.starts_with('[') {
            return match host.parse::<std::net::Ipv6Addr>() {
                Ok(_) if !host.bytes().any(|b| b.is_ascii_uppercase()) => Ok(Self(text.to_owned())),
                _ => fail("it holds no IPv6 address in lower case between '[' and ']'"),
            };
        }
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            return fail("it has upper-case letters");
        }
        let label = |label: &str| {
            let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
            edge(label.bytes().next())
                && edge(label.bytes().last())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !host.split('.').all(label) {
            return fail("it is no host name");
        }
        // What tells a registry from the first part of a path (Docker's rule, which Podman follows).
        if host != "localhost" && port.is_none() && !host.contains('.') {
            return fail("a registry's name has a '.' or a port, or is localhost");
        }
        Ok(Self(text.to_owned()))
    }
}

/// A repository in a registry: `git.example.org/chris/mastosum`. Its [`Display`](fmt::Display) is what signatures call
/// the docker-reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: Registry,
    path: String,
}

impl Repository {
    /// The registry that holds it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The path inside the registry, `chris/mastosum`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| Err(ReferenceError { what: "image", text: text.to_owned(), why });
        if text.len() > NAME_MAX {
            return fail("longer than 255 bytes");
        }
        if text.contains("://") {
            return fail("it is written as a URL");
        }
        let Some((registry, path)) = text.split_once('/') else {
            return fail("it names no registry, or no repository in it");
        };
        let registry = registry.parse::<Registry>().map_err(|error| ReferenceError {
            what: "image",
            text: text.to_owned(),
            ..error
        })?;
        if path.contains('@') {
            return fail("it has a digest, and is written without one");
        }
        if path.contains(':') {
            return fail("it has a tag, and is written without one");
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return fail("its path has upper-case letters");
        }
        if !path.split('/').all(is_path_component) {
            return fail("its path is none that a registry accepts");
        }
        Ok(Self { registry, path: path.to_owned() })
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, the grammar of one component of a repository's name.
fn is_path_component(text: &str) -> bool {
    let mut separator = String::new();
    let mut letters = false;
    for c in text.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            let known = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !known || (!letters && !separator.is_empty()) {
                return false;
            }
            separator.clear();
            letters = true;
        } else if matches!(c, '.' | '_' | '-') {
            separator.push(c);
        } else {
            return false;
        }
    }
    letters && separator.is_empty()
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| Err(ReferenceError { what: "tag", text: text.to_owned(), why });
        if text.is_empty() {
            return fail("it is empty");
        }
        if text.len() > TAG_MAX {
            return fail("longer than 128 bytes");
        }
        if text.starts_with(['.', '-']) {
            return fail("it begins with '.' or '-'");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
            return fail("it has a character that tags cannot have");
        }
        Ok(Self(text.to_owned()))
    }
}

/// A SHA-256 digest. Other algorithms are refused: no registry in use names images by them, and a signature covers
/// exactly this one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash in 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The hash's first 12 digits, which tell images apart for a reader.
    pub fn short(&self) -> String {
        self.0.iter().take(6).map(|b| format!("{b:02x}")).collect()
    }

    /// The tag under which cosign and Podman look for this image's signatures: `sha256-<hex>.sig`.
    pub fn signature_tag(&self) -> Tag {
        Tag(format!("sha256-{}.sig", self.hex()))
    }

    /// The tag that lists what refers to this manifest where the registry itself does not: `sha256-<hex>` (OCI
    /// distribution specification, "Referrers Tag Schema").
    pub fn referrers_tag(&self) -> Tag {
        Tag(format!("sha256-{}", self.hex()))
    }
}

impl From<[u8; 32]> for Digest {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl FromStr for Digest {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| Err(ReferenceError { what: "digest", text: text.to_owned(), why });
        let Some(hex) = text.strip_prefix("sha256:") else {
            return fail("it does not begin with sha256:");
        };
        if hex.len() != 64 {
            return fail("it has not 64 digits");
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let mut value = 0;
            for digit in pair {
                let digit = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return fail("it has a digit that is not lower-case hexadecimal"),
                };
                value = value << 4 | digit;
            }
            *byte = value;
        }
        Ok(Self(hash))
    }
}

/// A repository with a tag, a digest, both or neither: `registry/path[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// Where the image is.
    pub repository: Repository,
    /// The tag, where one is named.
    pub tag: Option<Tag>,
    /// The digest, where one is named.
    pub digest: Option<Digest>,
}

impl ImageRef {
    /// `registry/path:tag`.
    pub fn tagged(repository: &Repository, tag: &Tag) -> Self {
        Self { repository: repository.clone(), tag: Some(tag.clone()), digest: None }
    }

    /// `registry/path@sha256:…`.
    pub fn pinned(repository: &Repository, digest: &Digest) -> Self {
        Self { repository: repository.clone(), tag: None, digest: Some(*digest) }
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A ':' before the last '/' belongs to the registry's port.
        let path = rest.rfind('/').unwrap_or(0);
        let (name, tag) = match rest.rfind(':').filter(|colon| *colon > path) {
            Some(colon) => {
                let (name, tag) = rest.split_at(colon);
                (name, Some(tag.trim_start_matches(':').parse()?))
            }
            None => (rest, None),
        };
        Ok(Self { repository: name.parse()?, tag, digest })
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Each of the types is its text in JSON and YAML.
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(Registry, Repository, Tag, Digest, ImageRef);

#[cfg(test)]
mod tests;
