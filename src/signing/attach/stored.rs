//! What can be in the registry before a signature is made: everything that its bytes are no part of. A key that is opened
//! meanwhile takes longer than that.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use tagship_core::reference::{Digest, Repository};
use tagship_core::registry::{Client, Manifest, RegistryError, Target};
use tagship_core::signature::Format;
use tagship_core::signature::fetch::Found;

use super::{bundle, layer};

/// What is known to be in the registry since a moment ago.
#[derive(Debug, Default)]
pub struct Stored {
    blobs: BTreeSet<Digest>,
    /// The image's manifest, to which a bundle refers.
    subject: Option<Manifest>,
}

impl Stored {
    /// Puts what a signature of this payload will need where there is no list yet, and asks for what it will refer to. No
    /// manifest names it until it is signed, so that nobody sees it, and a registry that removes what nothing names
    /// removes it. Without all of it there is nothing that would not be put later.
    pub async fn ahead(
        client: &Client,
        (repository, digest): (&Repository, &Digest),
        lists: &[(Format, Found)],
        payload: &[u8],
    ) -> Self {
        let mut blobs = BTreeSet::new();
        let mut refers = false;
        for (format, found) in lists {
            match format {
                Format::Sig if found.manifest.is_none() => {
                    blobs.insert(payload.to_vec());
                    blobs.extend(layer::first_config(payload));
                }
                Format::Sig => {}
                Format::Bundle => {
                    blobs.insert(bundle::EMPTY.to_vec());
                    refers = true;
                }
            }
        }
        let subject = async {
            match refers {
                true => client.manifest(repository, &Target::Digest(*digest)).await,
                false => Ok(None),
            }
        };
        let put = try_join_all(blobs.iter().map(|blob| client.put_blob(repository, blob)));
        let (put, subject) = tokio::join!(put, subject);
        Self { blobs: put.unwrap_or_default().into_iter().collect(), subject: subject.unwrap_or_default() }
    }

    /// Puts a blob, unless it is one of these.
    pub(super) async fn put(&self, client: &Client, repository: &Repository, blob: &[u8]) -> Result<(), RegistryError> {
        let is_there = self.blobs.contains(&Digest::of(blob));
        if is_there { Ok(()) } else { client.put_blob(repository, blob).await.map(drop) }
    }

    /// The image's manifest, as it was a moment ago or is now, if there is one.
    pub(super) async fn subject(
        &self,
        client: &Client,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Manifest>, RegistryError> {
        match &self.subject {
            Some(subject) => Ok(Some(subject.clone())),
            None => client.manifest(repository, &Target::Digest(*digest)).await,
        }
    }
}
