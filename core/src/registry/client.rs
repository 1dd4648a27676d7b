//! The operations on a registry.

use std::sync::Arc;

use bytes::Bytes;

use super::{Manifest, RegistryError, Target};
use crate::credentials::Credential;
use crate::reference::{Digest, Registry, Repository, Tag};
use crate::tls::Roots;

/// A connection to one registry, with one set of credentials. Cheap to share by reference; it keeps its token.
pub struct Client {
    registry: Registry,
    _credential: Arc<Credential>,
}

impl Client {
    /// Prepares a client; nothing is sent before the first operation.
    pub fn new(
        registry: &Registry,
        credential: impl Into<Arc<Credential>>,
        _roots: &Roots,
    ) -> Result<Self, RegistryError> {
        Ok(Self { registry: registry.clone(), _credential: credential.into() })
    }

    fn pending<T>(&self) -> Result<T, RegistryError> {
        Err(RegistryError::Protocol { url: self.registry.to_string(), why: "not written yet".into() })
    }

    /// The registry that this client speaks to.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The digest that a tag names now; `None` when there is no such tag. Computed from the manifest's bytes.
    pub async fn resolve(&self, _repository: &Repository, _tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        self.pending()
    }

    /// A manifest; `None` when there is none. Asked for by digest, the bytes are those of the digest.
    pub async fn manifest(
        &self,
        _repository: &Repository,
        _target: &Target,
    ) -> Result<Option<Manifest>, RegistryError> {
        self.pending()
    }

    /// Puts a manifest's exact bytes under a tag or its own digest.
    pub async fn put_manifest(
        &self,
        _repository: &Repository,
        _target: &Target,
        _manifest: &Manifest,
    ) -> Result<(), RegistryError> {
        self.pending()
    }

    /// A blob of at most `limit` bytes; its bytes are those of the digest.
    pub async fn blob(
        &self,
        _repository: &Repository,
        _digest: &Digest,
        _limit: usize,
    ) -> Result<Bytes, RegistryError> {
        self.pending()
    }

    /// Uploads a small blob; one that is there already is left as it is.
    pub async fn put_blob(&self, _repository: &Repository, _bytes: &[u8]) -> Result<Digest, RegistryError> {
        self.pending()
    }

    /// Proves that the credentials may push: starts an upload and cancels it.
    pub async fn check_push(&self, _repository: &Repository) -> Result<(), RegistryError> {
        self.pending()
    }

    /// The repository's tags; empty when it does not exist.
    pub async fn tags(&self, _repository: &Repository) -> Result<Vec<Tag>, RegistryError> {
        self.pending()
    }
}
