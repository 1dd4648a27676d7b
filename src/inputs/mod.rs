//! What a run is asked to do: raw text becomes typed `Inputs`, and every contradiction is found here.
//!
//! Reads the files that inputs name (keys, passwords, certificates) and nothing else; talks to nobody.

#[cfg(test)]
mod action_yml;
mod credentials;
mod error;
mod files;
mod lines;
mod origin;
mod parse;
mod raw;
mod secrets;
pub mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tagship_core::credentials::AuthFiles;
use tagship_core::reference::{Digest, Repository, Tag};
use tagship_core::registry::Target;
use tagship_core::secret::Secret;
use tagship_core::signature::Formats;

use crate::signing::sign::Facts;

pub use credentials::new_password;
pub use error::InputError;
pub use origin::Origin;
pub use raw::Raw;
pub use secrets::Secrets;

/// One step of a release, in the order of the full form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Build the image with the engine.
    Build,
    /// Push the version tag and read it back.
    Push,
    /// Sign the registry's digest and verify the signature.
    Sign,
    /// Hand the digest to the host and wait for its verdict.
    Deploy,
    /// Put the same manifest at the moving tag.
    Promote,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Step; 5] = [Step::Build, Step::Push, Step::Sign, Step::Deploy, Step::Promote];

    /// The word for it in `steps` and in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Step::Build => "build",
            Step::Push => "push",
            Step::Sign => "sign",
            Step::Deploy => "deploy",
            Step::Promote => "promote",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Everything a run needs to know, free of contradictions.
pub struct Inputs {
    /// The steps to run, without repetition and in the order of [`Step`].
    pub steps: Vec<Step>,
    /// Where the image lives.
    pub image: Repository,
    /// The version tag.
    pub tag: Tag,
    /// The tag that follows the newest proven release, if there is one.
    pub moving_tag: Option<Tag>,
    /// The digest to work on, where the run does not push and the caller knows it.
    pub digest: Option<Digest>,
    /// Build and push although the version tag exists.
    pub force: bool,
    /// An older version than the running one is meant, on purpose.
    pub rollback: bool,
    /// What to build from.
    pub build: Build,
    /// How to reach the registry.
    pub access: Access,
    /// What signs. Present whenever the steps include signing.
    pub key: Option<Key>,
    /// The public key to verify with, where it was given.
    pub public_key: Option<Pem>,
    /// Annotations to sign beside those that come by themselves.
    pub annotations: BTreeMap<String, String>,
    /// The formats to sign in.
    pub formats: Formats,
    /// The transparency log; `None` when signatures are neither recorded nor required to be.
    pub log: Option<TransparencyLog>,
    /// How to reach the host.
    pub handoff: Handoff,
    /// Where the release comes from.
    pub origin: Origin,
}

/// What to build from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The context's directory.
    pub context: PathBuf,
    /// The Containerfile, where one was named.
    pub file: Option<PathBuf>,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments as given; `GIT_HASH` is added by the build.
    pub args: BTreeMap<String, String>,
    /// Labels as given; those of the OCI are added by the build.
    pub labels: BTreeMap<String, String>,
    /// The platform, as `os/architecture`.
    pub platform: Option<String>,
}

/// How to reach the registry, and which base images may be pulled.
pub struct Access {
    /// A user's name and password or token for the image's registry, before any file.
    pub login: Option<(String, Secret)>,
    /// A credentials file to use instead of the user's own.
    pub auth_file: Option<PathBuf>,
    /// Private certificate authorities, PEM.
    pub ca: Option<Pem>,
}

impl Access {
    /// The private certificate authorities, and what messages call them.
    #[must_use]
    pub fn authorities(&self) -> Option<(&str, &[u8])> {
        self.ca.as_ref().map(|pem| (pem.name.as_str(), pem.bytes.as_slice()))
    }

    /// Where logins are looked up that were not given.
    #[must_use]
    pub fn auth_files(&self) -> AuthFiles {
        self.auth_file.as_ref().map_or_else(AuthFiles::standard, AuthFiles::only)
    }
}

/// The private key as given: encrypted PEM, and its password.
pub struct Key {
    /// The PEM text.
    pub pem: Secret,
    /// The password; empty if none was given.
    pub password: Secret,
}

/// A public key or a certificate as given, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pem {
    /// What messages call it: the path of its file, or the input whose text it is.
    pub name: String,
    /// The text.
    pub bytes: Vec<u8>,
}

/// A transparency log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransparencyLog {
    /// Its address.
    pub url: reqwest::Url,
    /// Its public key; `None` for the public log's.
    pub public_key: Option<Pem>,
}

/// How to reach the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// The shared directory.
    pub directory: PathBuf,
    /// What the host speaks.
    pub form: Form,
    /// The longest to wait for its verdict.
    pub timeout: Option<Duration>,
}

/// What the host speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The protocol of tagship's companion.
    Full,
    /// A trigger file and a status file, as a shell script does it.
    Plain,
}

impl Inputs {
    /// The step is asked for.
    #[must_use]
    pub fn wants(&self, step: Step) -> bool {
        self.steps.contains(&step)
    }

    /// What a signature says of the image beside repository and digest.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            tag: self.tag.clone(),
            commit: self.origin.commit.clone(),
            run: self.origin.run.clone(),
            further: self.annotations.clone(),
        }
    }

    /// Hands out each secret that must not show in a log, with the one form of it that only we know how to derive: the
    /// value of a Basic authorization header (RFC 7617 section 2).
    pub fn each_secret(&self, hide: impl FnMut(&str)) {
        each_secret(&self.access, self.key.as_ref(), hide);
    }
}

impl Check {
    /// As [`Inputs::each_secret`].
    pub fn each_secret(&self, hide: impl FnMut(&str)) {
        let key = match &self.key {
            CheckKey::Public(_) => None,
            CheckKey::Private(key) => Some(key),
        };
        each_secret(&self.access, key, hide);
    }
}

fn each_secret(access: &Access, key: Option<&Key>, mut hide: impl FnMut(&str)) {
    if let Some((user, secret)) = &access.login
        && let Some(secret) = secret.expose_str()
    {
        hide(secret);
        hide(&format!("{user}:{secret}"));
    }
    if let Some(key) = key {
        [&key.pem, &key.password].into_iter().filter_map(Secret::expose_str).for_each(hide);
    }
}

tagship_core::assert_secret!(Inputs, Access, Key, Check, CheckKey, Raw, Secrets);

/// The key that must have signed what is verified.
pub enum CheckKey {
    /// The public key.
    Public(Pem),
    /// A private key, whose public half it is.
    Private(Key),
}

/// What `tagship verify` is asked to do.
pub struct Check {
    /// Where the image lives.
    pub image: Repository,
    /// Which image: by tag or digest.
    pub target: Target,
    /// How to reach the registry.
    pub access: Access,
    /// The key that must have signed.
    pub key: CheckKey,
    /// The transparency log that must have recorded the signature, if one must.
    pub log: Option<TransparencyLog>,
}
