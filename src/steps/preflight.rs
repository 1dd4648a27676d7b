//! Everything that can be found wrong before any slow work: the engine, the registry and its login, the key and its
//! password, the build context, the host. All at once, and all failures are told.
//!
//! Changes nothing but an upload that is started in the registry and cancelled: nothing less shows whether a login may
//! push. An image that is only signed has blobs of its signature uploaded ahead, which nothing names yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use tagship_core::credentials::{AuthFiles, Credential, CredentialError};
use tagship_core::engine;
use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, Repository, Tag};
use tagship_core::registry::{Client, RegistryError};
use tagship_core::signature::fetch::FetchError;
use tagship_core::signature::{AnnotationRule, Formats, Policy, PublicKey, Rekor};
use tagship_core::tls::Roots;

use super::deploy::{self, Place};
use super::sign;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::inputs::{Form, Inputs, Key, Step, TransparencyLog};
use crate::log::Log;
use crate::signing::key::SigningKey;
use crate::signing::rekor;

/// What preflight learns: everything that the steps need, connected, opened and decrypted.
pub struct Ready {
    /// The registry, and the login that it was given.
    pub registry: Option<Registry>,
    /// The engine, where an image is built or pushed.
    pub engine: Option<Docker>,
    /// Logins for base images, where an image is built.
    pub base_images: HashMap<String, DockerCredentials>,
    /// The build context, where an image is built.
    pub context: Option<Context>,
    /// The private key, where one was given.
    pub key: Option<SigningKey>,
    /// The transparency log, where a signature is recorded.
    pub rekor: Option<rekor::Log>,
    /// What makes a signature count, where a key is known.
    pub policy: Option<Policy>,
    /// The host's directory, where there is something to deploy.
    pub place: Option<Place>,
}

/// A registry that answered.
pub struct Registry {
    /// The connection.
    pub client: Client,
    /// The login for the engine to pass on.
    pub credentials: Option<DockerCredentials>,
    /// What the version tag names.
    pub held: Option<Digest>,
    /// The signatures of an image that is only signed: looked at and prepared while the key is opened.
    pub signatures: Option<sign::Ahead>,
}

tagship_core::assert_secret!(Ready, Registry);

/// What only preflight can find.
#[derive(Debug, thiserror::Error)]
enum PreflightError {
    /// The login may not push.
    #[error("cannot push to {image}")]
    Push { image: Repository, source: RegistryError },
    /// The version tag cannot be looked up.
    #[error("cannot look up {image}:{tag}")]
    LookUp { image: Repository, tag: Tag, source: RegistryError },
    /// The signatures that are there cannot be looked at.
    #[error(transparent)]
    Signatures(#[from] FetchError),
    /// Two keys that do not belong together.
    #[error("public-key is not the public half of the private key")]
    OtherKey,
}

impl Explain for PreflightError {
    fn kind(&self) -> &'static str {
        match self {
            PreflightError::Push { source, .. } | PreflightError::LookUp { source, .. } => source.kind(),
            PreflightError::Signatures(error) => error.kind(),
            PreflightError::OtherKey => "contradictory-input",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PreflightError::Push { source, .. } | PreflightError::LookUp { source, .. } => source.hint(),
            PreflightError::Signatures(error) => error.hint(),
            PreflightError::OtherKey => Some("leave public-key out where the private key is given".to_owned()),
        }
    }
}

/// Checks everything that the steps will need.
///
/// # Errors
/// All failures, in the order of the steps.
pub async fn run(inputs: &mut Inputs, must_be_mount: bool, log: &Log) -> Result<Ready, Vec<Failure>> {
    let roots = Roots::load(inputs.access.authorities()).map_err(|error| vec![Failure::new(Code::Usage, error)])?;
    // A build alone needs no key, and what is not needed is not decrypted.
    let key = inputs.key.take().filter(|_| inputs.steps != [Step::Build]);
    let login = inputs.access.login.take().map(|(user, secret)| Arc::new(Credential::Basic { user, secret }));
    let files = inputs.access.auth_files();
    let inputs = &*inputs;

    // The key first: it has a thread of its own, and takes longer than all the others.
    let (key, engine, registry, base_images) = tokio::join!(
        decrypt(key),
        connect_engine(inputs),
        reach_registry(inputs, login.clone(), &files, &roots),
        base_images(inputs, login.clone(), &files),
    );
    let mut failures = Vec::new();
    let mut check = Checks { failures: &mut failures };
    let context = check.passed(open_context(inputs)).flatten();
    let engine = check.passed(engine).flatten();
    let base_images = check.passed(base_images).unwrap_or_default();
    let registry = check.passed(registry).flatten();
    let key = check.passed(key).flatten();
    let policy = check.passed(policy(inputs, key.as_ref())).flatten();
    policy.iter().filter_map(doubt).for_each(|doubt| log.warn(&doubt));
    let rekor = check.passed(connect_log(inputs, policy.as_ref(), &roots)).flatten();
    let place = check.passed(find_host(inputs, must_be_mount, log)).flatten();
    if !failures.is_empty() {
        return Err(failures);
    }
    Ok(Ready { registry, engine, base_images, context, key, rekor, policy, place })
}

/// Collects failures, so that one does not hide the others.
struct Checks<'a> {
    failures: &'a mut Vec<Failure>,
}

impl Checks<'_> {
    fn passed<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        result.map_err(|failure| self.failures.push(failure)).ok()
    }
}

async fn connect_engine(inputs: &Inputs) -> Result<Option<Docker>, Failure> {
    if !inputs.wants(Step::Build) && !inputs.wants(Step::Push) {
        return Ok(None);
    }
    engine::connect(None).await.map(Some).map_err(|error| Failure::new(Code::Build, error))
}

async fn reach_registry(
    inputs: &Inputs,
    login: Option<Arc<Credential>>,
    files: &AuthFiles,
    roots: &Roots,
) -> Result<Option<Registry>, Failure> {
    // A build alone is an affair of the engine.
    if inputs.steps == [Step::Build] {
        return Ok(None);
    }
    let failed = |error| Failure::new(Code::Registry, error);
    let (image, tag) = (&inputs.image, &inputs.tag);
    let credential = match login {
        Some(credential) => credential,
        None => Arc::new(files.lookup(image).await.map_err(|error| Failure::new(Code::Usage, error))?),
    };
    let client = Client::new(image.registry(), credential.clone(), roots)
        .map_err(|error| Failure::new(Code::Registry, error))?;
    if [Step::Push, Step::Sign, Step::Promote].into_iter().any(|step| inputs.wants(step)) {
        let denied = |source| failed(PreflightError::Push { image: image.clone(), source });
        client.check_push(image).await.map_err(denied)?;
    }
    let lost = |source| failed(PreflightError::LookUp { image: image.clone(), tag: tag.clone(), source });
    let held = client.resolve(image, tag).await.map_err(lost)?;
    let signatures = match inputs.digest.or(held) {
        Some(digest) if inputs.wants(Step::Sign) && !inputs.wants(Step::Build) && !inputs.wants(Step::Push) => {
            let prepared = sign::prepare(&client, image, &digest, inputs.formats, &inputs.facts()).await;
            Some(prepared.map_err(|error| failed(error.into()))?)
        }
        _ => None,
    };
    Ok(Some(Registry { client, credentials: engine::docker_credentials(&credential), held, signatures }))
}

/// The logins for whatever the Containerfile builds upon; the one that was given counts for its registry.
async fn base_images(
    inputs: &Inputs,
    login: Option<Arc<Credential>>,
    files: &AuthFiles,
) -> Result<HashMap<String, DockerCredentials>, Failure> {
    if !inputs.wants(Step::Build) {
        return Ok(HashMap::new());
    }
    let unreadable = |error: CredentialError| Failure::new(Code::Usage, error);
    let known: BTreeMap<String, Credential> = files.all().await.map_err(unreadable)?;
    let mut logins = engine::build_credentials(&known);
    if let Some(login) = login.as_deref().and_then(engine::docker_credentials) {
        logins.insert(inputs.image.registry().to_string(), login);
    }
    Ok(logins)
}

async fn decrypt(key: Option<Key>) -> Result<Option<SigningKey>, Failure> {
    match key {
        Some(Key { pem, password }) => {
            SigningKey::load(pem, password).await.map(Some).map_err(|error| Failure::new(Code::Signing, error))
        }
        None => Ok(None),
    }
}

fn open_context(inputs: &Inputs) -> Result<Option<Context>, Failure> {
    if !inputs.wants(Step::Build) {
        return Ok(None);
    }
    Context::open(&inputs.build.context, inputs.build.file.as_deref())
        .map(Some)
        .map_err(|error| Failure::new(Code::Build, error))
}

/// What makes a signature count: the key that signs here, or the one that was given to verify with.
fn policy(inputs: &Inputs, key: Option<&SigningKey>) -> Result<Option<Policy>, Failure> {
    let given = match &inputs.public_key {
        Some(pem) => {
            Some(PublicKey::from_pem(&pem.name, &pem.bytes).map_err(|error| Failure::new(Code::Usage, error))?)
        }
        None => None,
    };
    let own = key.map(|key| key.public().clone());
    let trusted = match (given, own) {
        (Some(given), Some(own)) if given.fingerprint() != own.fingerprint() => {
            return Err(Failure::new(Code::Usage, PreflightError::OtherKey));
        }
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => return Ok(None),
    };
    trust(trusted, inputs.log.as_ref()).map(Some)
}

/// A policy that trusts one key, and the transparency log if there is one.
///
/// # Errors
/// When the log's key is none.
pub fn trust(key: PublicKey, log: Option<&TransparencyLog>) -> Result<Policy, Failure> {
    let log_keys = log.map(log_key).transpose()?;
    Ok(Policy {
        keys: vec![key],
        formats: Formats::BOTH,
        rekor: if log_keys.is_some() { Rekor::Required } else { Rekor::Off },
        log_keys: log_keys.into_iter().collect(),
        annotations: AnnotationRule::WhenPresent,
    })
}

/// Why no signature can count under a policy, if that is so.
#[must_use]
pub fn doubt(policy: &Policy) -> Option<String> {
    let doubt = policy.rekor.doubt(&policy.keys)?;
    Some(format!("{doubt}; use an ECDSA P-256 key, or set tlog to false"))
}

fn log_key(log: &TransparencyLog) -> Result<PublicKey, Failure> {
    match &log.public_key {
        Some(pem) => PublicKey::of_log(&pem.name, &pem.bytes).map_err(|error| Failure::new(Code::Usage, error)),
        None => Ok(PublicKey::public_log()),
    }
}

fn connect_log(inputs: &Inputs, policy: Option<&Policy>, roots: &Roots) -> Result<Option<rekor::Log>, Failure> {
    match (&inputs.log, policy.and_then(|policy| policy.log_keys.first())) {
        (Some(log), Some(key)) if inputs.wants(Step::Sign) => {
            rekor::Log::new(&log.url, key.clone(), roots).map(Some).map_err(|error| Failure::new(Code::Signing, error))
        }
        _ => Ok(None),
    }
}

fn find_host(inputs: &Inputs, must_be_mount: bool, log: &Log) -> Result<Option<Place>, Failure> {
    if !inputs.wants(Step::Deploy) {
        return Ok(None);
    }
    let handoff = &inputs.handoff;
    let place = deploy::check(&handoff.directory, must_be_mount, handoff.form)
        .map_err(|error| Failure::new(error.code(), error))?;
    // What the companion tells about itself may be old, and anybody may have written it: it proves nothing.
    if let Some(host) = place.host().filter(|_| handoff.form == Form::Full) {
        if host.image != inputs.image {
            log.warn(&format!("the host deploys {}, so it will probably refuse {}", host.image, inputs.image));
        }
        if host.log_required && inputs.log.is_none() {
            log.warn("the host wants signatures recorded in a transparency log, so it will probably refuse this one");
        }
    }
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    const P384: &str = "-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEp45dYQ+kmIZ3XNKCZ80lSOb/pgLzh8OK\n\
        BRxIKuHBlB40yOYxTnDCdflCJYwz9Oao++RVRX5pGfeUL3p2b3IYr1bgyV3f5qKw\n\
        PYuHxT7f6K8TZr0YDawzzUdreGWThFhO\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_whose_signatures_no_log_records_is_doubted_where_a_record_is_wanted() {
        let log = TransparencyLog { url: "https://rekor.test".parse().unwrap(), public_key: None };
        let p384 = || PublicKey::from_pem("public-key", P384.as_bytes()).unwrap();
        let doubted = |key, log| trust(key, log).map(|policy| doubt(&policy)).unwrap_or_default();
        assert!(doubted(p384(), Some(&log)).is_some_and(|text| text.contains("ECDSA P-384")));
        assert_eq!(doubted(p384(), None), None);
        assert_eq!(doubted(PublicKey::public_log(), Some(&log)), None);
    }
}
