//! The engine's names for things, typed: image ids, container ids, local names.
//!
//! No engine is asked here.

use std::fmt;

use serde::{Deserialize, Serialize};
use tagship_core::reference::{Repository, Tag};

use crate::config::ServiceName;

/// A local image's id: the engine's, 64 lowercase hexadecimal digits, which is not the registry's digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

/// A container's id: 64 lowercase hexadecimal digits. A restarted Quadlet has a new one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// An id that the engine would never give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id: it must be 64 lowercase hexadecimal digits")]
pub struct IdError(String);

/// A name in the local store that a unit runs: `localhost/demo:web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocalName {
    /// Everything before the tag.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
}

impl LocalName {
    /// The name that a service's unit has to run: one of its own below `local`, or else the one that all of them share,
    /// the moving tag of `image`. None where nothing says which.
    pub fn of(
        service: &ServiceName,
        local: Option<&Repository>,
        (image, moving): (&Repository, Option<&Tag>),
    ) -> Option<Self> {
        let (repository, tag) = match local {
            Some(local) => (local, service.as_str().parse().ok()),
            None => (image, moving.cloned()),
        };
        Some(Self { repository: repository.clone(), tag: tag? })
    }
}

impl fmt::Display for LocalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// The conversions of an id, the same for both kinds. The compatible API writes image ids with `sha256:` in front,
/// Podman's own without.
macro_rules! id {
    ($name:ident) => {
        impl $name {
            /// The bare digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve digits, as the engine's own lists show them.
            pub fn short(&self) -> &str {
                self.0.get(..12).unwrap_or(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                let bare = text.strip_prefix("sha256:").unwrap_or(&text);
                if bare.len() == 64 && bare.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')) {
                    return Ok(Self(bare.to_owned()));
                }
                Err(IdError(text.chars().take(80).collect()))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id!(ImageId);
id!(ContainerId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_with_and_without_the_algorithm() {
        let bare = "ab".repeat(32);
        assert_eq!(ImageId::try_from(bare.clone()), ImageId::try_from(format!("sha256:{bare}")));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for (defect, text) in [
            ("empty", String::new()),
            ("short", "ab".repeat(31)),
            ("long", "ab".repeat(33)),
            ("upper case", "AB".repeat(32)),
            ("other algorithm", format!("sha512:{}", "ab".repeat(32))),
            ("not hexadecimal", "xy".repeat(32)),
        ] {
            assert!(ImageId::try_from(text).is_err(), "{defect}");
        }
    }
}
