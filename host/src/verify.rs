//! From a request to a verified, named and allowed image: asks the registry, lets the signature decide, then `trust`.
//!
//! How bytes verify is the core's, how versions follow each other `trust`'s; here they meet the registry.

mod denied;

use std::future::Future;

use jiff::Timestamp;
use tagship_core::{
    credentials::AuthFiles,
    handoff::request::Received,
    reference::{Digest, ImageRef, Repository, Tag},
    registry::{Client, RegistryError},
    signature::{
        self, AnnotationRule, CheckError, Evidence, Expectation, Fingerprint, Formats, KeyError, Policy, PublicKey,
        Rekor, TagClaim, Verified, verify,
    },
    tls::Roots,
};

pub use denied::Denied;

use crate::{
    config::{RequestPolicy, Settings, VerifySettings},
    deploy::{self, Contents, Described},
    inbox::Asked,
    trust::{
        Refusal, Release, TrustState,
        identity::{self, Named},
        judge::{self, Authority, Ruling},
    },
};

/// The largest image configuration that is read, in bytes: a long history makes some ten thousand.
const LARGEST_CONFIG: usize = 1024 * 1024;

/// The registry, as far as a verification needs it.
pub trait Registry: Sync {
    /// The digest that a tag of the configured image names now.
    fn resolve(&self, tag: &Tag) -> impl Future<Output = Result<Option<Digest>, RegistryError>> + Send;

    /// What one of its digests consists of, for this machine; none if its manifest is of a shape not known here.
    fn contents(&self, digest: Digest) -> impl Future<Output = Result<Option<Contents>, RegistryError>> + Send;

    /// Fetches and verifies the signatures of one of its digests.
    fn check(
        &self,
        expected: &Expectation,
        policy: &Policy,
    ) -> impl Future<Output = Result<Verified, CheckError>> + Send;
}

/// The configured image's real registry, with the user's own credentials.
pub struct Remote {
    client: Client,
    repository: Repository,
}

/// An image that may be deployed: verified, named, and allowed to follow what was proven before.
#[derive(Debug)]
pub struct Approved {
    /// What it counts as.
    pub release: Release,
    /// The proof.
    pub verified: Verified,
}

impl Remote {
    /// Prepares the connection; nothing is sent yet.
    pub async fn connect(settings: &Settings) -> Result<Self, Denied> {
        let roots = Roots::load(None)?;
        let credential = AuthFiles::standard().lookup(&settings.image).await?;
        let client = Client::new(settings.image.registry(), credential, &roots)?;
        Ok(Self { client, repository: settings.image.clone() })
    }
}

impl Registry for Remote {
    async fn resolve(&self, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        self.client.resolve(&self.repository, tag).await
    }

    async fn contents(&self, digest: Digest) -> Result<Option<Contents>, RegistryError> {
        let mut wanted = digest;
        // An index, and the image that it names: an index of indexes is none that any engine pulls.
        for _ in 0..2 {
            let Some(manifest) = self.client.manifest(&self.repository, &wanted.into()).await? else { return Ok(None) };
            match Described::parse(manifest.bytes(), deploy::architecture()) {
                Some(Described::Image { config, sizes }) => {
                    let config = self.client.blob(&self.repository, &config, LARGEST_CONFIG).await?;
                    return Ok(Contents::new(&sizes, &config));
                }
                Some(Described::Platform(image)) => wanted = image,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn check(&self, expected: &Expectation, policy: &Policy) -> Result<Verified, CheckError> {
        signature::check(&self.client, expected, policy).await
    }
}

/// Decides on a request: which digest it means, whether that is signed as asked, and whether it may be deployed now.
pub async fn approve(
    settings: &Settings,
    trust: &TrustState,
    registry: &impl Registry,
    asked: &Asked,
    now: Timestamp,
) -> Result<Approved, Denied> {
    let authority = authority(settings, asked)?;
    match asked {
        Asked::Full(received) => {
            let request = &received.request;
            if request.image != settings.image {
                let (asked, configured) = (request.image.clone(), settings.image.clone());
                return Err(Denied::AnotherImage { asked, configured });
            }
            settle(settings, trust, registry, (&request.tag, request.digest, false), authority, now).await
        }
        Asked::Plain { tag, .. } => {
            let digest = resolve(settings, registry, tag).await?;
            settle(settings, trust, registry, (tag, digest, true), authority, now).await
        }
    }
}

/// Whether the request is signed by a key that counts, and asks for a rollback.
pub fn permits_rollback(settings: &Settings, asked: &Asked) -> bool {
    matches!(authority(settings, asked), Ok(Authority::Rollback))
}

/// Decides on what the operator asks for by its tag, with this authority.
pub async fn approve_tag(
    settings: &Settings,
    trust: &TrustState,
    registry: &impl Registry,
    (tag, authority): (&Tag, Authority),
    now: Timestamp,
) -> Result<Approved, Denied> {
    let digest = resolve(settings, registry, tag).await?;
    settle(settings, trust, registry, (tag, digest, true), authority, now).await
}

/// Decides on what was proven here before, by the signatures that the registry has of that very image now.
pub async fn approve_signed_anew(
    settings: &Settings,
    trust: &TrustState,
    registry: &impl Registry,
    proven: &Release,
    now: Timestamp,
) -> Result<Approved, Denied> {
    settle(settings, trust, registry, (&proven.tag, proven.digest, false), Authority::Rollback, now).await
}

/// Verifies again what was proven here before, from the evidence that was kept: offline, by the keys trusted today.
pub fn approve_proven(
    settings: &Settings,
    trust: &TrustState,
    (release, evidence): (&Release, &Evidence),
    now: Timestamp,
) -> Result<Approved, Denied> {
    // What its signature said about its version was judged when it was proven; the keys, the log and the floor of
    // today still hold.
    let policy =
        policy(&settings.verify, if release.signed { AnnotationRule::WhenPresent } else { AnnotationRule::Off })?;
    let expected = Expectation {
        repository: settings.image.clone(),
        digest: release.digest,
        tag: release.signed.then(|| release.tag.clone()),
    };
    let checked = verify::verify(&expected, &[evidence.attached()], &policy).map_err(CheckError::from);
    let verified = checked.map_err(|error| Denied::of(error, &settings.verify, Some(evidence.key())))?;
    judge::judge(release, trust, Authority::Rollback, rules(settings), now)?;
    Ok(Approved { release: release.clone(), verified })
}

/// Verifies what runs here: by which key it is signed, and under which version, if its signature names one. Nobody asks
/// for it to be deployed, so nothing is ruled on.
pub async fn recognise(
    settings: &Settings,
    registry: &impl Registry,
    digest: Digest,
) -> Result<(Fingerprint, Option<Approved>), Denied> {
    let policy = policy(&settings.verify, settings.verify.annotations)?;
    let expected = Expectation { repository: settings.image.clone(), digest, tag: None };
    let checked = registry.check(&expected, &policy).await;
    let verified = checked.map_err(|error| Denied::of(error, &settings.verify, None))?;
    let key = verified.evidence().key();
    let TagClaim::Signed(tag) = verified.tag_claim() else { return Ok((key, None)) };
    match identity::identify(digest, verified.tag_claim(), verified.annotations(), tag) {
        Named::BySignature(release) => Ok((key, Some(Approved { release, verified }))),
        Named::IfRegistryAgrees(_) => Ok((key, None)),
    }
}

/// Which of the revoked keys signed a digest, if one did: verified, not taken from the signature's own word, or whoever
/// may push could have any image called revoked. The log is not asked: what a thief signed need not be in it.
pub async fn signed_by_revoked(
    settings: &Settings,
    registry: &impl Registry,
    digest: Digest,
) -> Result<Option<Fingerprint>, Denied> {
    let revoked = &settings.verify.revoked_keys;
    if revoked.is_empty() {
        return Ok(None);
    }
    let policy = Policy {
        keys: revoked.clone(),
        formats: Formats::BOTH,
        rekor: Rekor::Off,
        log_keys: Vec::new(),
        annotations: AnnotationRule::Off,
    };
    let expected = Expectation { repository: settings.image.clone(), digest, tag: None };
    match registry.check(&expected, &policy).await {
        Ok(verified) => Ok(Some(verified.evidence().key())),
        Err(error) => match Denied::of(error, &settings.verify, None) {
            denied if denied.is_about_image() => Ok(None),
            denied => Err(denied),
        },
    }
}

async fn resolve(settings: &Settings, registry: &impl Registry, tag: &Tag) -> Result<Digest, Denied> {
    let image = || ImageRef::tagged(&settings.image, tag);
    registry.resolve(tag).await?.ok_or_else(|| Denied::NoSuchTag { image: image() })
}

fn rules(settings: &Settings) -> judge::Rules<'_> {
    judge::Rules { app: &settings.app, downgrade: settings.verify.downgrade, floor: settings.verify.floor.as_ref() }
}

/// Verifies a digest that was asked for under a tag, and rules on it. `agreed`: the registry's tag was seen to name it.
async fn settle(
    settings: &Settings,
    trust: &TrustState,
    registry: &impl Registry,
    (asked, digest, agreed): (&Tag, Digest, bool),
    authority: Authority,
    now: Timestamp,
) -> Result<Approved, Denied> {
    let rule = identity::ratchet(settings.verify.annotations, trust.is_annotated());
    let policy = policy(&settings.verify, rule)?;
    // Asked for by the moving tag's name, an image counts as whatever it is signed as.
    let tag = (settings.moving_tag.as_ref() != Some(asked)).then(|| asked.clone());
    let expected = Expectation { repository: settings.image.clone(), digest, tag };
    let checked = registry.check(&expected, &policy).await;
    let verified = checked.map_err(|error| Denied::of(error, &settings.verify, None))?;
    let release = match identity::identify(digest, verified.tag_claim(), verified.annotations(), asked) {
        Named::BySignature(release) => release,
        Named::IfRegistryAgrees(release) if agreed || registry.resolve(asked).await? == Some(digest) => release,
        Named::IfRegistryAgrees(_) => return Err(Refusal::TagElsewhere { asked: asked.clone(), digest }.into()),
    };
    match judge::judge(&release, trust, authority, rules(settings), now)? {
        Ruling::Allow => {}
        Ruling::AllowIfMoving(refusal) => {
            let names_it = match &settings.moving_tag {
                Some(moving) => registry.resolve(moving).await? == Some(digest),
                None => false,
            };
            if !names_it {
                return Err(refusal.into());
            }
        }
    }
    Ok(Approved { release, verified })
}

/// Why no image can ever be verified by these settings, if that is so.
pub fn doubt(settings: &VerifySettings) -> Option<String> {
    let doubt = settings.rekor.doubt(&keys(settings).ok()?)?;
    Some(format!("{doubt}; name an ECDSA P-256 key in `verify.keys`, or set `rekor: off`"))
}

/// What a request may do. A signature counts only where one is needed; elsewhere it grants nothing and costs nothing.
fn authority(settings: &Settings, asked: &Asked) -> Result<Authority, Denied> {
    let rollback = asked.is_rollback();
    if !rollback && settings.verify.requests == RequestPolicy::Any {
        return Ok(Authority::Request);
    }
    let signature = match asked {
        Asked::Full(received) => Received::signature(received),
        Asked::Plain { .. } => None,
    };
    let signature = signature.ok_or(Denied::RequestUnsigned { rollback })?;
    let trusted = keys(&settings.verify)?.iter().any(|key| key.verify(&signature.bytes, &signature.message));
    match (trusted, rollback) {
        (false, _) => Err(Denied::RequestSignature),
        (true, true) => Ok(Authority::Rollback),
        (true, false) => Ok(Authority::Request),
    }
}

fn policy(settings: &VerifySettings, annotations: AnnotationRule) -> Result<Policy, KeyError> {
    let log_keys =
        settings.rekor_keys.iter().map(|file| PublicKey::of_log(file.path().display().to_string(), file.bytes()));
    let mut log_keys: Vec<PublicKey> = log_keys.collect::<Result<_, _>>()?;
    if log_keys.is_empty() {
        log_keys.push(PublicKey::public_log());
    }
    Ok(Policy { keys: keys(settings)?, formats: settings.formats, rekor: settings.rekor, log_keys, annotations })
}

fn keys(settings: &VerifySettings) -> Result<Vec<PublicKey>, KeyError> {
    settings.keys.iter().map(|file| PublicKey::from_pem(file.path().display().to_string(), file.bytes())).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tagship_core::signature::Rekor;

    use super::*;
    use crate::{
        config::RootFile,
        testing::{self, P384},
    };

    #[test]
    fn keys_whose_signatures_no_log_records_are_doubted_where_a_record_is_wanted() {
        let mut settings = testing::settings(&testing::Signer::new(), Path::new("/handoff")).verify;
        let (p256, p384) = (PublicKey::public_log().to_pem(), P384);
        for (rekor, keys, doubted) in [
            (Rekor::Required, vec![p384], true),
            (Rekor::Required, vec![p384, &p256], false),
            (Rekor::Required, vec![p256.as_str()], false),
            (Rekor::WhenPresent, vec![p384], false),
            (Rekor::Off, vec![p384], false),
        ] {
            settings.rekor = rekor;
            settings.keys = keys.iter().map(|pem| RootFile::for_test("/k.pub", pem.as_bytes())).collect();
            let doubt = doubt(&settings);
            assert_eq!(doubt.is_some(), doubted, "{rekor:?}");
            assert!(doubt.is_none_or(|text| text.contains("/k.pub (ECDSA P-384)")));
        }
    }
}
