//! The validated configuration of one app: the only form of it that the rest of the program sees.
//!
//! Nothing here reads a file or knows YAML; `file` and `admin` do.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use tagship_core::{
    reference::{Repository, Tag},
    signature::{AnnotationRule, Formats, PublicKey, Rekor},
};

use super::ownership::RootFile;

/// Everything `tagship-host` may do for one app.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The app's name: its configuration's file name, its units' instance, its state directory.
    pub app: App,
    /// The only repository that this app is deployed from.
    pub image: Repository,
    /// The registry's moving tag, `stable` unless configured; none if the configuration says so with an empty value.
    pub moving_tag: Option<Tag>,
    /// The host's own name for the image: each service runs `LOCAL_IMAGE:SERVICE`. Without it all services share
    /// `IMAGE:MOVING_TAG`.
    pub local_image: Option<Repository>,
    /// Absolute path of the hand-off directory.
    pub handoff: PathBuf,
    /// Further uids whose requests are accepted; the user's own always is.
    pub requesters: Vec<u32>,
    /// What a signature must show.
    pub verify: VerifySettings,
    /// One-shot units that run once with the new image before any service; never on a rollback.
    pub before: Vec<ServiceName>,
    /// The services in order, never empty; the members of one inner list (never empty either) restart together.
    pub services: Vec<Vec<ServiceName>>,
    /// What counts as healthy, and for how long it is waited for.
    pub health: Health,
    /// The longest that a whole deploy may take, its rollback included.
    pub budget: Duration,
    /// How many proven versions stay in the local store, the running one included; at least two, so that the one to go
    /// back to is never pruned.
    pub keep_images: usize,
    /// How many bytes must stay free where a pull puts an image.
    pub reserve_space: u64,
}

impl Settings {
    /// Every service once, in deploy order.
    pub fn all_services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter().flatten()
    }

    /// The same for going back: a migration of the older version undoes nothing, and may not even know what it finds.
    #[must_use]
    pub fn for_rollback(&self) -> Self {
        Self { before: Vec::new(), ..self.clone() }
    }
}

/// What is known of an app's units alone, also from a configuration that is otherwise wrong.
#[derive(Debug, Clone)]
pub struct AppUnits {
    /// The repository that the app is deployed from.
    pub image: Repository,
    /// As in [`Settings`].
    pub moving_tag: Option<Tag>,
    /// As in [`Settings`].
    pub local_image: Option<Repository>,
    /// The one-shot units.
    pub before: Vec<ServiceName>,
    /// The services, in order.
    pub services: Vec<ServiceName>,
}

/// What a signature must show before its image is deployed.
#[derive(Debug, Clone)]
pub struct VerifySettings {
    /// The trusted public keys (PEM), each found to be in root's hands alone.
    pub keys: Vec<RootFile>,
    /// Where signatures are looked for.
    pub formats: Formats,
    /// Whether the transparency log must have seen the signature.
    pub rekor: Rekor,
    /// The log's public keys (PEM), in root's hands as well; empty means the public log's own.
    pub rekor_keys: Vec<RootFile>,
    /// Whether tag, repository and time must be in the signed payload.
    pub annotations: AnnotationRule,
    /// Whether a request itself must be signed.
    pub requests: RequestPolicy,
    /// What happens when an older version is asked for.
    pub downgrade: Downgrade,
    /// The administrator's lowest version: nothing below it is deployed, whatever the state says.
    pub floor: Option<Tag>,
    /// The administrator's list of keys that count nowhere any more, [`keys`](Self::keys) included.
    pub revoked_keys: Vec<PublicKey>,
}

/// Whether a request itself must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestPolicy {
    /// Whoever may write in the hand-off directory may ask.
    Any,
    /// Only who holds a trusted key may ask.
    Signed,
}

/// What happens when a version below the highest proven one is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Downgrade {
    /// It is refused; going back is the operator's command or a signed request.
    Refuse,
    /// It is accepted when the registry's moving tag names the same digest.
    MovingTag,
    /// It is accepted.
    Allow,
}

/// What counts as healthy, and for how long it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The longest wait for one service to become healthy after its restart.
    pub timeout: Duration,
    /// One window for the whole set after its last service is healthy, in which nothing may change.
    pub settle: Duration,
    /// What a container without a healthcheck means.
    pub missing: Missing,
}

/// What a container without a healthcheck means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Running is healthy enough.
    Running,
    /// The deploy is refused.
    Refuse,
}

/// An app's name: what may be a file name, a unit instance and a directory at once.
///
/// Lowercase letters, digits, `-`, `_` and `.`, starting with a letter or digit, at most 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct App(String);

/// A systemd service that runs one of the app's containers, without its `.service` suffix.
///
/// It is a local tag of the image as well, therefore also of the tag grammar; a template's instance (`web@1`) is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no {what}: {why}")]
pub struct NameError {
    what: &'static str,
    name: String,
    why: &'static str,
}

impl App {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ServiceName {
    /// The name without `.service`; also the local tag's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The unit's name for systemd, with `.service`.
    pub fn unit(&self) -> String {
        format!("{}.service", self.0)
    }
}

impl FromStr for App {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let fail = |why| Err(NameError { what: "app name", name: name.chars().take(80).collect(), why });
        if name.is_empty() || name.len() > 63 {
            return fail("it must have 1 to 63 characters");
        }
        if !name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
            return fail("it must start with a lowercase letter or a digit");
        }
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')) {
            return fail("only lowercase letters, digits, '-', '_' and '.' may be in it");
        }
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let fail = |why| Err(NameError { what: "service name", name: name.chars().take(80).collect(), why });
        let bare = name.strip_suffix(".service").unwrap_or(name);
        if bare.is_empty() || bare.len() > 128 {
            return fail("it must have 1 to 128 characters");
        }
        if !bare.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return fail("it must start with a letter, a digit or '_'");
        }
        if !bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return fail("only letters, digits, '-', '_' and '.' may be in it");
        }
        if [".container", ".target", ".socket", ".timer", ".pod", ".path"].iter().any(|end| bare.ends_with(end)) {
            return fail("it must be a service's name, without a suffix or with .service");
        }
        Ok(Self(bare.to_owned()))
    }
}

/// The string conversions that serde, `Display` and callers use, the same for every checked name.
macro_rules! as_string {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

as_string!(App);
as_string!(ServiceName);
