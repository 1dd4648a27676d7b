//! What can be in the registry before a signature is made: everything that its bytes are no part of. A key that is opened
//! meanwhile takes longer than that.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use tagship_core::reference::{Digest, Repository};
use tagship_core::registry::{Client, RegistryError};
use tagship_core::signature::Format;
use tagship_core::signature::fetch::Found;

use super::{bundle, layer};

/// Blobs that were put a moment ago.
#[derive(Debug, Default)]
pub struct Stored(BTreeSet<Digest>);

impl Stored {
    /// Puts what a signature of this payload will need where there is no list yet. No manifest names it until it is
    /// signed, so that nobody sees it, and a registry that removes what nothing names removes it. Without all of it
    /// there is nothing that would not be put later.
    pub async fn ahead(client: &Client, repository: &Repository, lists: &[(Format, Found)], payload: &[u8]) -> Self {
        let mut blobs = BTreeSet::new();
        for (format, found) in lists {
            match format {
                Format::Sig if found.manifest.is_none() => {
                    blobs.insert(payload.to_vec());
                    blobs.extend(layer::first_config(payload));
                }
                Format::Sig => {}
                Format::Bundle => {
                    blobs.insert(bundle::EMPTY.to_vec());
                }
            }
        }
        let put = try_join_all(blobs.iter().map(|blob| client.put_blob(repository, blob))).await;
        Self(put.unwrap_or_default().into_iter().collect())
    }

    /// Puts a blob, unless it is one of these.
    pub(super) async fn put(&self, client: &Client, repository: &Repository, blob: &[u8]) -> Result<(), RegistryError> {
        if self.0.contains(&Digest::of(blob)) { Ok(()) } else { client.put_blob(repository, blob).await.map(drop) }
    }
}
