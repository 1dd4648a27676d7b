//! `tagship verify`: checks an image exactly as the host does, with the same code of the core.

use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, ImageRef, Repository, Tag};
use tagship_core::registry::{Client, RegistryError};
use tagship_core::signature::{self, CheckError, Expectation, Policy, TagClaim, Verified};
use tagship_core::text;

/// Why an image is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyCommandError {
    /// The tag could not be resolved.
    #[error("cannot resolve {image}")]
    Resolve {
        /// What was to be resolved.
        image: ImageRef,
        /// Why.
        source: RegistryError,
    },
    /// There is no such tag.
    #[error("{image} does not exist")]
    Absent {
        /// What does not exist.
        image: ImageRef,
    },
    /// No signature counts, or none could be had.
    #[error(transparent)]
    Check(#[from] CheckError),
}

impl Explain for VerifyCommandError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Resolve { source, .. } => source.kind(),
            Self::Absent { .. } => "no-such-image",
            Self::Check(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Resolve { source, .. } => source.hint(),
            Self::Absent { .. } => Some("check the image's name and tag; on some registries a private image that the credentials may not see looks like this, too".to_owned()),
            Self::Check(error) => error.hint(),
        }
    }
}

/// Verifies an image; the tag or digest is looked up with the policy that a host would use.
pub async fn run(
    client: &Client,
    repository: &Repository,
    wanted: Wanted,
    policy: &Policy,
) -> Result<Verified, VerifyCommandError> {
    let (digest, tag) = match wanted {
        Wanted::Digest(digest) => (digest, None),
        Wanted::Tag(tag) => (resolve(client, repository, &tag).await?, Some(tag)),
    };
    let expected = Expectation { repository: repository.clone(), digest, tag };
    Ok(signature::check(client, &expected, policy).await?)
}

/// What to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What the registry holds under this tag. It must be signed under this tag, or under none.
    Tag(Tag),
    /// This digest, under whatever tag it was signed.
    Digest(Digest),
}

/// What was verified, line by line, for a person to read.
pub fn report(verified: &Verified) -> Vec<String> {
    let annotations = verified.annotations();
    let mut lines = vec![
        format!("verified   {}@{}", verified.repository(), verified.digest()),
        format!("key        {} ({})", text::escape(verified.key_name()), verified.key_fingerprint()),
        match verified.tag_claim() {
            TagClaim::Signed(tag) => format!("tag        {tag} (signed)"),
            TagClaim::Unsigned => "tag        not signed: only the registry says which".to_owned(),
        },
    ];
    let signed = [
        ("commit", annotations.commit().map(text::escape)),
        ("created", annotations.created().map(|time| time.to_string())),
        ("run", annotations.run().map(text::escape)),
    ];
    lines.extend(signed.into_iter().filter_map(|(name, value)| Some(format!("{name:<10} {}", value?))));
    lines.push(match verified.logged() {
        Some(logged) => format!("log        entry {} of {}", logged.index(), logged.log()),
        None => "log        not checked".to_owned(),
    });
    lines
}

async fn resolve(client: &Client, repository: &Repository, tag: &Tag) -> Result<Digest, VerifyCommandError> {
    let image = || ImageRef::tagged(repository, tag);
    match client.resolve(repository, tag).await {
        Ok(Some(digest)) => Ok(digest),
        Ok(None) => Err(VerifyCommandError::Absent { image: image() }),
        Err(source) => Err(VerifyCommandError::Resolve { image: image(), source }),
    }
}
