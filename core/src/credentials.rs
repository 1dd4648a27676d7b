//! Credentials for registries, found where Podman and Docker keep them (containers-auth.json(5), Docker's config.json).
//!
//! What is done with a credential is known by the registry client and the engine. Nothing here writes a file, asks a
//! user, or falls back to something weaker when a file is broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::explain::Explain;
use crate::reference::{Registry, Repository};
use crate::secret::Secret;
use crate::text;

mod file;
mod helper;

/// How to present oneself to a registry.
pub enum Credential {
    /// Not at all.
    Anonymous,
    /// With a user name and a password or access token.
    Basic {
        /// The user's name; Forgejo takes any beside an access token.
        user: String,
        /// The password or access token.
        secret: Secret,
    },
    /// With an OAuth 2 refresh token, to be exchanged at the registry's token service.
    IdentityToken {
        /// The refresh token.
        token: Secret,
    },
}

crate::assert_secret!(Credential);

/// Why credentials could not be had. None of the texts quotes what a file or a helper said: it may be the secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file exists, or was named, but cannot be read.
    #[error("cannot read the credentials in {}", text::path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// There is something else in the file's place.
    #[error("cannot read the credentials in {}: it is {what}", text::path(path))]
    Irregular {
        /// Where a file should be.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },

    /// The file is not what Podman or Docker writes.
    #[error("the credentials in {} are malformed: {why}", text::path(path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },

    /// The credential helper cannot be run.
    #[error("cannot run the credential helper {helper}, which {} names", text::path(path))]
    Helper {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The credential helper ran, but gave nothing that can be used.
    #[error(
        "the credential helper {helper}, which {} names, gave no credentials for {}: {why}",
        text::path(path),
        text::escape(key)
    )]
    HelperAnswer {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// What it was asked for.
        key: String,
        /// What went wrong.
        why: String,
    },
}

impl Explain for CredentialError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Irregular { .. } => "credentials-unreadable",
            Self::Malformed { .. } => "credentials-malformed",
            Self::Helper { .. } | Self::HelperAnswer { .. } => "credentials-helper",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { path, .. } => format!("check that {} exists and belongs to this user", text::path(path)),
            Self::Irregular { .. } => "give a regular file, as `podman login --authfile FILE` writes it".to_owned(),
            Self::Malformed { path, .. } => {
                format!("mend the file, or log in anew with `podman login --authfile {}`", text::path(path))
            }
            Self::Helper { helper, .. } => format!("install {helper} on the PATH, or take it out of the file"),
            // The key is the file's own word, and the hint is for a shell.
            Self::HelperAnswer { helper, key, .. } if key.bytes().all(is_of_a_key) => {
                format!("try it by hand: `echo {key} | {helper} get` (it prints the secret)")
            }
            Self::HelperAnswer { helper, .. } => format!("try `{helper} get` by hand (it prints the secret)"),
        })
    }
}

/// Of what the names of registries and repositories, and addresses, are made.
fn is_of_a_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'/' | b'-' | b'_' | b'[' | b']')
}

/// The files to look credentials up in, in order.
pub struct AuthFiles {
    files: Vec<PathBuf>,
    /// Whether the first file was named by the user, and so must exist.
    named: bool,
}

impl AuthFiles {
    /// Podman's usual places, then Docker's: `$REGISTRY_AUTH_FILE` alone if set; else
    /// `$XDG_RUNTIME_DIR/containers/auth.json` (`/run/containers/UID/auth.json` without that variable),
    /// `~/.config/containers/auth.json`, `~/.docker/config.json` (`$XDG_CONFIG_HOME` and `$DOCKER_CONFIG` are heeded).
    pub fn standard() -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self::standard_in(uid, |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    /// This file alone; it must exist.
    pub fn only(path: impl Into<PathBuf>) -> Self {
        Self { files: vec![path.into()], named: true }
    }

    fn standard_in(uid: u32, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        if let Some(named) = variable("REGISTRY_AUTH_FILE") {
            return Self::only(named);
        }
        let home = variable("HOME");
        let at_home = |below: &str| home.as_ref().map(|home| home.join(below));
        let runtime = variable("XDG_RUNTIME_DIR").map(|runtime| runtime.join("containers"));
        let config = variable("XDG_CONFIG_HOME").or_else(|| at_home(".config"));
        let docker = variable("DOCKER_CONFIG").or_else(|| at_home(".docker"));
        let files = [
            Some(runtime.unwrap_or_else(|| format!("/run/containers/{uid}").into()).join("auth.json")),
            config.map(|config| config.join("containers/auth.json")),
            docker.map(|docker| docker.join("config.json")),
        ];
        Self { files: files.into_iter().flatten().collect(), named: false }
    }

    /// The credentials for a repository; [`Credential::Anonymous`] when no file has any.
    ///
    /// In each file: the registry's own credential helper; then the entry with the longest matching key, from
    /// `registry/owner/name` down to `registry`; then the file's general credential store.
    pub async fn lookup(&self, repository: &Repository) -> Result<Credential, CredentialError> {
        for path in &self.files {
            let Some(mut file) = self.read(path)? else { continue };
            let registry = key_of(repository.registry());
            if let Some(helper) = file.cred_helpers.get(registry)
                && let Some(credential) = helper::get(helper, registry, path).await?
            {
                return Ok(credential);
            }
            for key in keys(repository) {
                if let Some(credential) = file.take(&key).map_or(Ok(None), |entry| entry.credential(&key, path))? {
                    return Ok(credential);
                }
            }
            if let Some(store) = &file.creds_store
                && let Some(credential) = helper::get(store, registry, path).await?
            {
                return Ok(credential);
            }
        }
        Ok(Credential::Anonymous)
    }

    /// All credentials, by the registry (or registry and path) that they are kept under: for a build, whose base images
    /// may come from anywhere. Of two files the earlier wins.
    pub async fn all(&self) -> Result<BTreeMap<String, Credential>, CredentialError> {
        let mut all = BTreeMap::new();
        for path in &self.files {
            let Some(file) = self.read(path)? else { continue };
            for (registry, helper) in &file.cred_helpers {
                if let Some(credential) = helper::get(helper, registry, path).await? {
                    all.entry(registry.clone()).or_insert(credential);
                }
            }
            for (key, entry) in file.auths {
                let credential = match (entry.credential(&key, path)?, &file.creds_store) {
                    (None, Some(store)) => helper::get(store, &key, path).await?,
                    (found, _) => found,
                };
                if let Some(credential) = credential {
                    all.entry(plain_key(&key).to_owned()).or_insert(credential);
                }
            }
        }
        Ok(all)
    }

    fn read(&self, path: &Path) -> Result<Option<AuthFile>, CredentialError> {
        let bytes = match file::read(path) {
            Err(CredentialError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && !self.named =>
            {
                return Ok(None);
            }
            read => read?,
        };
        let malformed = |why| Err(CredentialError::Malformed { path: path.to_owned(), why });
        if bytes.trim_ascii().is_empty() {
            // What `podman logout` and a fresh mount leave behind.
            return Ok(Some(AuthFile::default()));
        }
        match serde_json::from_slice(&bytes) {
            Ok(file) => Ok(Some(file)),
            // The parser's own text is kept back: it quotes values.
            Err(error) => malformed(format!(
                "{} at line {}, column {}",
                if error.is_data() { "something unexpected" } else { "no valid JSON" },
                error.line(),
                error.column()
            )),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

impl AuthFile {
    /// The entry under this key, or under a URL that Docker writes for it.
    fn take(&mut self, key: &str) -> Option<Entry> {
        self.auths.remove(key).or_else(|| {
            let written = self.auths.keys().find(|written| plain_key(written) == key)?.clone();
            self.auths.remove(&written)
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// Base64 of `user:password`.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Entry {
    /// What the entry holds; `None` for an empty one, which Docker writes when the secret is in the store.
    fn credential(self, key: &str, path: &Path) -> Result<Option<Credential>, CredentialError> {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = some(self.identitytoken) {
            return Ok(Some(Credential::IdentityToken { token: token.into() }));
        }
        if let Some(auth) = some(self.auth) {
            let auth = Zeroizing::new(auth);
            let (user, secret) = decode(&auth).ok_or_else(|| CredentialError::Malformed {
                path: path.to_owned(),
                why: format!("the entry for {key:?} is not base64 of user:password"),
            })?;
            return Ok(Some(Credential::Basic { user, secret }));
        }
        match (some(self.username), some(self.password)) {
            (Some(user), Some(password)) => Ok(Some(Credential::Basic { user, secret: password.into() })),
            _ => Ok(None),
        }
    }
}

fn decode(auth: &str) -> Option<(String, Secret)> {
    let pair = Zeroizing::new(STANDARD.decode(auth.trim()).ok()?);
    let colon = pair.iter().position(|b| *b == b':')?;
    let (user, secret) = pair.split_at_checked(colon)?;
    let user = std::str::from_utf8(user).ok()?.to_owned();
    // Old versions of Docker pad the password with zero bytes.
    let secret = secret.split_first()?.1;
    let end = secret.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    Some((user, Secret::new(secret.get(..end)?.to_vec())))
}

/// The keys under which a repository's credentials may be kept, the most specific first.
fn keys(repository: &Repository) -> Vec<String> {
    let registry = key_of(repository.registry());
    let mut path = Some(repository.path());
    let mut keys = Vec::new();
    while let Some(part) = path {
        keys.push(format!("{registry}/{part}"));
        path = part.rsplit_once('/').map(|(owner, _)| owner);
    }
    keys.push(registry.to_owned());
    keys
}

/// Docker Hub's credentials are kept under the name of its old index.
fn key_of(registry: &Registry) -> &str {
    if registry.as_str() == "docker.io" { "index.docker.io" } else { registry.as_str() }
}

/// A key without what Docker adds: `https://git.example.org/v2/` is `git.example.org`, and Docker Hub is its index. A
/// key that is not a URL keeps its path, which names a repository.
fn plain_key(key: &str) -> &str {
    let url = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    match url.map_or(key, |rest| rest.split('/').next().unwrap_or_default()) {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        plain => plain,
    }
}

#[cfg(test)]
mod tests;
