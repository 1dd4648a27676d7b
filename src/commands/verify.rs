//! `tagship verify`: checks an image as the host does, with the same code of the core.

use tagship_core::credentials::{Credential, CredentialError};
use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, ImageRef, Repository, Tag};
use tagship_core::registry::{Client, RegistryError, Target};
use tagship_core::signature::{self, CheckError, Expectation, Policy, PublicKey, TagClaim, Verified};
use tagship_core::text;
use tagship_core::tls::Roots;

use crate::failure::{Code, Failure};
use crate::inputs::{Check, CheckKey, Key};
use crate::log::Log;
use crate::signing::key::SigningKey;
use crate::steps::preflight::{self, trust};

/// Why an image is not verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyCommandError {
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

impl VerifyCommandError {
    fn code(&self) -> Code {
        match self {
            Self::Resolve { .. } | Self::Absent { .. } => Code::Registry,
            Self::Check(error) => Code::of_check(error),
        }
    }
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
            Self::Absent { .. } => Some(
                "check the image's name and tag; on some registries a private image that the credentials may not see \
                 looks like this, too"
                    .to_owned(),
            ),
            Self::Check(error) => error.hint(),
        }
    }
}

/// Verifies an image and says what its signature says.
///
/// # Errors
/// When its signatures cannot be had, or none counts.
pub async fn command(check: Check, log: &Log) -> Result<(), Failure> {
    check.each_secret(|secret| log.hide(secret));
    let usage = |error: CredentialError| Failure::new(Code::Usage, error);
    let roots = Roots::load(check.access.authorities()).map_err(|error| Failure::new(Code::Usage, error))?;
    let files = check.access.auth_files();
    let credential = match check.access.login {
        Some((user, secret)) => Credential::Basic { user, secret },
        None => files.lookup(&check.image).await.map_err(usage)?,
    };
    let client =
        Client::new(check.image.registry(), credential, &roots).map_err(|error| Failure::new(Code::Registry, error))?;
    let key = match check.key {
        CheckKey::Public(pem) => {
            PublicKey::from_pem(pem.name, &pem.bytes).map_err(|error| Failure::new(Code::Usage, error))?
        }
        CheckKey::Private(Key { pem, password }) => {
            let key = SigningKey::load(pem, password).await.map_err(|error| Failure::new(Code::Signing, error))?;
            key.public().clone()
        }
    };
    let policy = trust(key, check.log.as_ref())?;
    preflight::doubt(&policy).iter().for_each(|doubt| log.warn(doubt));
    let verified =
        run(&client, &check.image, check.target, &policy).await.map_err(|error| Failure::new(error.code(), error))?;
    report(&verified).iter().for_each(|line| log.say(line));
    Ok(())
}

/// Verifies an image; the tag or digest is looked up with the policy that a host would use.
pub(crate) async fn run(
    client: &Client,
    repository: &Repository,
    target: Target,
    policy: &Policy,
) -> Result<Verified, VerifyCommandError> {
    // What a tag names must be signed under that tag, or under none; a digest, under whatever tag it was signed.
    let (digest, tag) = match target {
        Target::Digest(digest) => (digest, None),
        Target::Tag(tag) => (resolve(client, repository, &tag).await?, Some(tag)),
    };
    let expected = Expectation { repository: repository.clone(), digest, tag };
    Ok(signature::check(client, &expected, policy).await?)
}

/// What was verified, line by line, for a person to read.
pub(crate) fn report(verified: &Verified) -> Vec<String> {
    let annotations = verified.annotations();
    let mut lines = vec![
        format!("verified   {}@{}", verified.repository(), verified.digest()),
        format!("key        {} ({})", text::escape(verified.key_name()), verified.key_fingerprint()),
        match verified.tag_claim() {
            TagClaim::Signed(tag) => format!("tag        {tag} (signed)"),
            TagClaim::Unsigned => {
                "tag        not signed: only the registry says which, and a host that requires annotations refuses it"
                    .to_owned()
            }
        },
    ];
    if !verified.is_repository_signed() {
        lines.push("repository not signed: the same digest would count in another one, too".to_owned());
    }
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
