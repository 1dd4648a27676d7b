//! Moves the moving tag: the identical manifest bytes are put there and read back.
//!
//! No layer is pushed and nothing is written anew, so both tags have one digest by construction. Only a verified image
//! can be promoted.

use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, Repository, Tag};
use tagship_core::registry::{Client, Manifest, RegistryError, Target};
use tagship_core::signature::Verified;

use crate::log::Log;

/// What promoting learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// What the moving tag named before; whole, so that it can be put back.
    pub previous: Option<Manifest>,
}

/// Why the moving tag was not moved, or not back.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// The registry did not answer as it should.
    #[error("cannot {operation} {image}:{tag}")]
    Registry {
        /// What was being done.
        operation: &'static str,
        /// The repository.
        image: Repository,
        /// The moving tag.
        tag: Tag,
        /// Why not.
        source: RegistryError,
    },
    /// The image is not there.
    #[error("the registry does not have {image}@{digest}")]
    Absent {
        /// The repository.
        image: Repository,
        /// The digest.
        digest: Digest,
    },
    /// The moving tag names something else than what was just put there.
    #[error("{image}:{tag} names {} after it was moved to {digest}", found.map_or("nothing".to_owned(), |found| found.to_string()))]
    Different {
        /// The repository.
        image: Repository,
        /// The moving tag.
        tag: Tag,
        /// What was put there.
        digest: Digest,
        /// What is there.
        found: Option<Digest>,
    },
}

impl Explain for PromoteError {
    fn kind(&self) -> &'static str {
        match self {
            PromoteError::Registry { source, .. } => source.kind(),
            PromoteError::Absent { .. } => "image-absent",
            PromoteError::Different { .. } => "moving-tag-different",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PromoteError::Registry { source, .. } => source.hint(),
            PromoteError::Absent { .. } => Some("push it first".to_owned()),
            PromoteError::Different { .. } => {
                Some("another job may move the same tag; run one release at a time".to_owned())
            }
        }
    }
}

/// Moves the tag to the image that was verified.
///
/// # Errors
/// When the registry cannot be reached or refuses, or the tag names something else afterwards.
pub async fn run(
    registry: &Client,
    verified: &Verified,
    moving: &Tag,
    manifest: &Manifest,
    log: &Log,
) -> Result<Promoted, PromoteError> {
    let tag = MovingTag { registry, image: verified.repository(), tag: moving };
    let digest = verified.digest();
    if manifest.digest() != digest {
        return Err(PromoteError::Absent { image: tag.image.clone(), digest });
    }
    // Read whole before it is moved: a registry may delete a manifest at once that has lost its last tag.
    let previous = tag.read().await?;
    match &previous {
        Some(previous) if previous.digest() == digest => {
            log.say(&format!("{moving} names {digest} already"));
        }
        previous => {
            tag.put(manifest).await?;
            let before = previous.as_ref().map_or("nothing".to_owned(), |previous| previous.digest().to_string());
            log.say(&format!("{moving} names {digest} now, and named {before} before"));
        }
    }
    Ok(Promoted { previous })
}

/// Puts the moving tag back to where it was, if it still names the image that it was moved to. Registries cannot
/// compare and swap: a tag that somebody else moves between the look and the move is overwritten.
///
/// # Errors
/// When the registry cannot be reached or refuses, or the tag names something else afterwards.
pub async fn put_back(
    registry: &Client,
    image: &Repository,
    moving: &Tag,
    ours: Digest,
    previous: Option<&Manifest>,
    log: &Log,
) -> Result<(), PromoteError> {
    let tag = MovingTag { registry, image, tag: moving };
    let found = tag.read().await?.map(|manifest| manifest.digest());
    match previous {
        _ if found != Some(ours) => {
            log.warn(&format!("{moving} was moved by somebody else meanwhile, and stays where it is"));
        }
        None => log.warn(&format!(
            "{moving} named nothing before and goes on naming {ours}: removing a tag would remove the image in some \
             registries"
        )),
        Some(previous) if previous.digest() == ours => {}
        Some(previous) => {
            tag.put(previous).await?;
            log.say(&format!("{moving} names {} again", previous.digest()));
        }
    }
    Ok(())
}

/// The manifest of a digest, to be promoted by a run that did not push it.
///
/// # Errors
/// When the registry cannot be reached, or does not have it.
pub async fn fetch(
    registry: &Client,
    image: &Repository,
    moving: &Tag,
    digest: Digest,
) -> Result<Manifest, PromoteError> {
    match registry.manifest(image, &Target::Digest(digest)).await {
        Ok(Some(manifest)) => Ok(manifest),
        Ok(None) => Err(PromoteError::Absent { image: image.clone(), digest }),
        Err(source) => {
            let (image, tag) = (image.clone(), moving.clone());
            Err(PromoteError::Registry { operation: "read the manifest for", image, tag, source })
        }
    }
}

struct MovingTag<'a> {
    registry: &'a Client,
    image: &'a Repository,
    tag: &'a Tag,
}

impl MovingTag<'_> {
    fn failed(&self, operation: &'static str) -> impl FnOnce(RegistryError) -> PromoteError {
        let (image, tag) = (self.image.clone(), self.tag.clone());
        move |source| PromoteError::Registry { operation, image, tag, source }
    }

    async fn read(&self) -> Result<Option<Manifest>, PromoteError> {
        self.registry.manifest(self.image, &Target::Tag(self.tag.clone())).await.map_err(self.failed("read"))
    }

    /// Puts a manifest and makes sure that it is there.
    async fn put(&self, manifest: &Manifest) -> Result<(), PromoteError> {
        let target = Target::Tag(self.tag.clone());
        self.registry.put_manifest(self.image, &target, manifest).await.map_err(self.failed("move"))?;
        let found = self.registry.resolve(self.image, self.tag).await.map_err(self.failed("read back"))?;
        if found == Some(manifest.digest()) {
            return Ok(());
        }
        let (image, tag) = (self.image.clone(), self.tag.clone());
        Err(PromoteError::Different { image, tag, digest: manifest.digest(), found })
    }
}
