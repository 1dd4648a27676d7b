//! What can be wrong with a configuration, and how to mend it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use tagship_core::{explain::Explain, signature::KeyError};

use super::{App, ownership::OwnershipError};

/// A configuration that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The environment does not say where the configuration is.
    #[error("no place for the configuration: HOME is not an absolute path")]
    NoHome,
    /// The app has no configuration.
    #[error("there is no configuration for {app}: {path} does not exist")]
    Missing {
        /// The app asked for.
        app: App,
        /// Where its file should be.
        path: PathBuf,
        /// Apps that do have one.
        others: Vec<String>,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory, a FIFO or a device where a file should be.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// What should be a file.
        path: PathBuf,
    },
    /// A file that is too large to be a configuration.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest that is read.
        limit: u64,
    },
    /// Not YAML, or YAML of another shape.
    #[error("{at}: {message}")]
    Yaml {
        /// File, line and column.
        at: Place,
        /// What is wrong there.
        message: String,
    },
    /// A key that means nothing.
    #[error("{at}: unknown key `{key}`")]
    UnknownKey {
        /// File, line and column.
        at: Place,
        /// The key as written.
        key: String,
        /// The keys that there are.
        known: Vec<&'static str>,
    },
    /// A key that must be there.
    #[error("{path}: `{key}` is missing")]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// A value that contradicts itself or another.
    #[error("{path}: `{key}`: {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        why: String,
    },
    /// A trusted key, or an administrator's file, is not in root's hands or cannot be read.
    #[error("{path}: `{key}` names a file that cannot be trusted")]
    Untrusted {
        /// The configuration file that names it.
        path: PathBuf,
        /// The key that names it.
        key: &'static str,
        /// Why not.
        source: OwnershipError,
    },
    /// A file of root's holds no key that counts.
    #[error("{path}: `{key}` names a key that cannot be used")]
    Unusable {
        /// The configuration file that names it.
        path: PathBuf,
        /// The key that names it.
        key: &'static str,
        /// Why not.
        source: KeyError,
    },
    /// An administrator's file, or their directory, is not in root's hands or cannot be read.
    #[error("what the administrator says in {path} cannot be trusted")]
    Admin {
        /// The file, or the directory.
        path: PathBuf,
        /// Why not.
        source: OwnershipError,
    },
    /// Two of the administrator's files bind one configuration.
    #[error("two administrator's files bind this configuration: {first} and {second}")]
    AdminTwice {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The administrator bound these services to another image.
    #[error("{path} names {image}, but the administrator's file {admin} binds its services to {bound}")]
    Pinned {
        /// The user's file.
        path: PathBuf,
        /// The image in it.
        image: String,
        /// The administrator's file.
        admin: PathBuf,
        /// The image there.
        bound: String,
    },
    /// Another app's configuration names the same directory or service.
    #[error("{path} and {other} both name the {what} {name}")]
    Shared {
        /// This app's file.
        path: PathBuf,
        /// The other app's file.
        other: PathBuf,
        /// What both name: `hand-off directory`, `service`.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

/// Where in a file something is, as compilers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line and column, both from 1, where they are known.
    pub position: Option<(u64, u64)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.path.display()),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

impl ConfigError {
    pub(super) fn value(path: &Path, key: &'static str, why: impl Into<String>) -> Self {
        Self::Value { path: path.to_owned(), key, why: why.into() }
    }
}

impl Explain for ConfigError {
    fn kind(&self) -> &'static str {
        match self {
            Self::NoHome | Self::Missing { .. } => "config-missing",
            Self::Untrusted { source, .. } | Self::Admin { source, .. } => source.kind(),
            Self::Unusable { source, .. } => source.kind(),
            Self::Shared { .. } => "config-shared",
            Self::Pinned { .. } | Self::AdminTwice { .. } => "config-pinned",
            _ => "config-invalid",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoHome => Some("run it as the app's user, in a login session or a user unit".into()),
            Self::Missing { path, others, .. } => Some(match others.as_slice() {
                [] => format!("write {}; the examples have one to start from", path.display()),
                others => format!("write {}, or name one of: {}", path.display(), others.join(", ")),
            }),
            Self::UnknownKey { key, known, .. } => Some(match nearest(key, known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the keys here are: {}", known.join(", ")),
            }),
            Self::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("let the app's user read {}", path.display()))
            }
            Self::NotAFile { path } => {
                Some(format!("put the configuration's text into a file of its own at {}", path.display()))
            }
            Self::MissingKey { key: "services", .. } => {
                Some("list the systemd services that run the image, in order: `services: [app-web, app-worker]`".into())
            }
            Self::MissingKey { key: "image", .. } => {
                Some("name registry and repository, without a tag: `image: git.example.org/me/app`".into())
            }
            Self::MissingKey { key: "verify.keys", .. } => {
                Some("name at least one public key that root owns: `keys: [/etc/containers/cosign-app.pub]`".into())
            }
            Self::Untrusted { source, .. } => source.hint(),
            Self::Unusable { source, .. } => source.hint(),
            Self::Admin { source, .. } => source.remedy(false),
            Self::AdminTwice { .. } => Some("merge the two, so that one rule holds".into()),
            Self::Pinned { bound, .. } => Some(format!("write `image: {bound}`, or ask the administrator")),
            Self::Shared { what, .. } => Some(format!("give each app a {what} of its own")),
            _ => None,
        }
    }
}

/// The known key that a mistyped one most likely means, if any is near.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let key: String = key.chars().take(64).map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect();
    let (distance, best) = known.iter().map(|known| (distance(&key, known), *known)).min()?;
    (distance <= best.len().div_ceil(3)).then_some(best)
}

/// The Levenshtein distance: how many characters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (to, above) in b.chars().zip(row.windows(2)) {
            let &[diagonal, up] = above else { continue };
            let left = next.last().copied().unwrap_or(up);
            next.push((diagonal + usize::from(from != to)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_the_key_meant() {
        let known = ["image", "moving-tag", "local-image", "services", "health", "keep-images", "reserve-space"];
        for (typed, meant) in [
            ("imge", Some("image")),
            ("service", Some("services")),
            ("moving_tag", Some("moving-tag")),
            ("Health", Some("health")),
            ("keep-image", Some("keep-images")),
            ("password", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
