//! The sign step: signs the registry's digest, has a log record it, puts it beside the image, and reads it back with
//! the verifier that the host uses.

use std::time::Duration;

use jiff::Timestamp;
use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, Repository};
use tagship_core::registry::Client;
use tagship_core::signature::{
    AnnotationRule, Expectation, Policy, PublicKey, Rekor, Verified, VerifyError, fetch, verify,
};

use crate::failure::Code;
use crate::log::Log;
use crate::signing::attach::{self, AttachError, NewLayer};
use crate::signing::key::SigningKey;
use crate::signing::rekor::{self, RekorError};
use crate::signing::sign::{self, Facts, SignError};

/// How often a signature is added again after other signers undid it.
const ATTEMPTS: u32 = 5;

/// What the step needs.
pub struct Needs<'a> {
    /// The image's registry.
    pub client: &'a Client,
    /// The image's repository.
    pub repository: &'a Repository,
    /// The registry's digest of what was pushed.
    pub digest: Digest,
    /// What to sign beside them.
    pub facts: &'a Facts,
    /// The key to sign with.
    pub key: &'a SigningKey,
    /// The log that records it, unless switched off.
    pub log: Option<&'a rekor::Log>,
}

/// Why the image is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignStepError {
    /// No signature was made.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The log did not record it.
    #[error(transparent)]
    Rekor(#[from] RekorError),
    /// It is not in the registry.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// What is there could not be read.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    /// Other signers undid it each time.
    #[error("the signature of {repository}@{digest} was replaced by other signers {ATTEMPTS} times")]
    Lost {
        /// Where.
        repository: Repository,
        /// Of what.
        digest: Digest,
    },
    /// It is in the registry, and does not verify.
    #[error("the signature that was just made does not verify as the host would verify it")]
    ReadBack(#[source] VerifyError),
}

impl Explain for SignStepError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Sign(error) => error.kind(),
            Self::Rekor(error) => error.kind(),
            Self::Attach(error) => error.kind(),
            Self::Fetch(error) => error.kind(),
            Self::Lost { .. } => "signature-lost",
            Self::ReadBack(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Sign(error) => error.hint(),
            Self::Rekor(error) => error.hint(),
            Self::Attach(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            Self::Lost { .. } => Some("let one job sign at a time, then run this one again".to_owned()),
            Self::ReadBack(error) => error.hint(),
        }
    }
}

impl SignStepError {
    /// The exit code it leads to: a registry that does not answer is no fault of the signature.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Fetch(_) | Self::Attach(AttachError::Registry { .. }) => Code::Registry,
            _ => Code::Signing,
        }
    }
}

/// Signs, unless a signature by this key already says the same (tag, commit, further annotations) and counts: signing a
/// re-run again would add a layer each time that says nothing new. Returns the signature as it was read back and verified.
pub async fn run(needs: Needs<'_>, log: &Log) -> Result<Verified, SignStepError> {
    let Needs { client, repository, digest, facts, key, log: rekor } = needs;
    let expected = Expectation { repository: repository.clone(), digest, tag: Some(facts.tag.clone()) };
    let policy = policy(key.public(), rekor);
    let layers = fetch::layers(client, repository, &digest).await?;
    let before = layers.iter().filter_map(|layer| verify::verify(&expected, std::slice::from_ref(layer), &policy).ok());
    if let Some(verified) = before.into_iter().find(|verified| facts.same_as(verified.annotations())) {
        log.say(&format!("{digest} is signed already by this key with the same annotations"));
        return Ok(verified);
    }

    let annotations = facts.annotations(repository, Timestamp::now())?;
    let signature = sign::sign(key, repository, &digest, &annotations)?;
    log.say(&format!("signed {digest} with the key {}", key.public().fingerprint()));
    let entry = match rekor {
        Some(rekor) => {
            let (entry, logged) = rekor.record(&signature.subject()).await?;
            log.say(&format!("recorded in the transparency log {} as entry {}", rekor.id(), logged.index()));
            Some(entry)
        }
        None => None,
    };
    let layer = NewLayer::new(&signature, entry.as_ref())?;
    for attempt in 1..=ATTEMPTS {
        attach::attach(client, repository, &digest, &layer).await?;
        let layers = fetch::layers(client, repository, &digest).await?;
        let ours: Vec<_> = layers.iter().filter(|found| layer.is_fetched(found)).cloned().collect();
        if ours.is_empty() {
            log.say(&format!("another signer replaced the signature (try {attempt} of {ATTEMPTS})"));
            tokio::time::sleep(pause(attempt)).await;
            continue;
        }
        let verified = verify::verify(&expected, &ours, &policy).map_err(SignStepError::ReadBack)?;
        // Beside the others that are there, as the host will meet it.
        verify::verify(&expected, &layers, &policy).map_err(SignStepError::ReadBack)?;
        log.say(&format!("read back from {repository} and verified"));
        return Ok(verified);
    }
    Err(SignStepError::Lost { repository: repository.clone(), digest })
}

/// Exactly what a host asks for that trusts this key alone.
fn policy(key: &PublicKey, rekor: Option<&rekor::Log>) -> Policy {
    Policy {
        keys: vec![key.clone()],
        rekor: if rekor.is_some() { Rekor::Required } else { Rekor::Off },
        log_keys: rekor.iter().map(|log| log.key().clone()).collect(),
        annotations: AnnotationRule::Required,
    }
}

/// Grows with each attempt, and by a random part, so that two signers do not meet again.
fn pause(attempt: u32) -> Duration {
    let mut random = [0; 1];
    // Without randomness the growth alone has to do.
    let _ = getrandom::fill(&mut random);
    Duration::from_millis(u64::from(attempt) * 100 + u64::from(random[0]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use tagship_core::registry::Target;

    use super::*;
    use crate::commands::verify::{report, run as verify_image};
    use crate::log::{Style, testing};
    use crate::testing::{FakeLog, Reply, Store, registry, serve};

    struct World {
        store: Arc<Mutex<Store>>,
        client: Client,
        repository: Repository,
        digest: Digest,
        key: SigningKey,
        facts: Facts,
    }

    impl World {
        async fn new() -> Self {
            let (store, client, repository) = registry().await;
            let image = br#"{"schemaVersion":2}"#;
            store.lock().unwrap().manifests.insert("v0.2.9".to_owned(), image.to_vec());
            let facts = Facts {
                tag: "v0.2.9".parse().unwrap(),
                commit: Some("0123abc".to_owned()),
                run: Some("17".to_owned()),
                further: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            };
            Self { store, client, repository, digest: Digest::of(image), key: SigningKey::generate().unwrap(), facts }
        }

        async fn sign(&self, key: &SigningKey, rekor: Option<&rekor::Log>) -> Result<Verified, SignStepError> {
            let (log, _) = testing::log(Style::Plain);
            let Self { client, repository, digest, facts, .. } = self;
            run(Needs { client, repository, digest: *digest, facts, key, log: rekor }, &log).await
        }

        /// Signs, and tells whether a signature was added.
        async fn adds(&self, key: &SigningKey, rekor: Option<&rekor::Log>) -> bool {
            let before = self.layers();
            self.sign(key, rekor).await.unwrap();
            self.layers() > before
        }

        fn layers(&self) -> usize {
            self.store.lock().unwrap().layers(&self.digest).len()
        }
    }

    #[tokio::test]
    async fn signs_once_and_verifies() {
        let mut world = World::new().await;
        let first = world.sign(&world.key, None).await.unwrap();
        assert_eq!((first.digest(), first.logged(), world.layers()), (world.digest, None, 1));
        assert!(!world.adds(&world.key, None).await);
        world.facts.run = Some("18".to_owned());
        assert!(!world.adds(&world.key, None).await, "another run says nothing new");
        world.facts.commit = Some("4567def".to_owned());
        assert!(world.adds(&world.key, None).await);
        world.facts.further.clear();
        assert!(world.adds(&world.key, None).await);
        assert_eq!(world.layers(), 3);

        let policy = policy(world.key.public(), None);
        let wanted = Target::Tag("v0.2.9".parse().unwrap());
        let verified = verify_image(&world.client, &world.repository, wanted, &policy).await.unwrap();
        let report = report(&verified).join("\n");
        assert!(report.contains("tag        v0.2.9 (signed)\ncommit     4567def\ncreated    "), "{report}");
        let absent = Target::Tag("v9".parse().unwrap());
        let error = verify_image(&world.client, &world.repository, absent, &policy).await.unwrap_err();
        assert_eq!(error.kind(), "no-such-image");
        let unsigned = Target::Digest(Digest::of(b"x"));
        let error = verify_image(&world.client, &world.repository, unsigned, &policy).await.unwrap_err();
        assert_eq!(error.kind(), "no-signature");
    }

    #[tokio::test]
    async fn keeps_the_signatures_of_others() {
        let world = World::new().await;
        let other = SigningKey::generate().unwrap();
        world.sign(&other, None).await.unwrap();
        world.sign(&world.key, None).await.unwrap();
        assert_eq!(world.layers(), 2);
        assert!(!world.adds(&other, None).await);
    }

    #[tokio::test]
    async fn signs_again_what_another_signer_undid() {
        let world = World::new().await;
        world.sign(&SigningKey::generate().unwrap(), None).await.unwrap();
        let theirs = world.store.lock().unwrap().manifests[world.digest.signature_tag().as_str()].clone();
        world.store.lock().unwrap().overwrites.extend([theirs.clone(), theirs.clone()]);
        world.sign(&world.key, None).await.unwrap();
        assert_eq!(world.layers(), 2);
    }

    #[tokio::test]
    async fn says_so_when_its_signature_never_stays() {
        let world = World::new().await;
        world.store.lock().unwrap().overwrites.extend(vec![br#"{"layers":[]}"#.to_vec(); 5]);
        let error = world.sign(&world.key, None).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), ("signature-lost", Code::Signing));
    }

    #[tokio::test]
    async fn records_before_it_pushes() {
        let world = World::new().await;
        let fake = Arc::new(FakeLog::new());
        let answering = Arc::clone(&fake);
        let up = serve(move |request| Reply(201, String::new(), answering.answer(&request.body))).await;
        let down = serve(|_| Reply(500, String::new(), Vec::new())).await;
        let lying = serve(|_| Reply(201, String::new(), FakeLog::new().answer(b"{}"))).await;
        for (address, kind) in [(down, "log-error"), (lying, "log-invalid")] {
            let error = world.sign(&world.key, Some(&fake.client(&address))).await.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(!world.store.lock().unwrap().was_written(), "{kind}");
        }
        let signed = world.sign(&world.key, Some(&fake.client(&up))).await.unwrap();
        assert_eq!(signed.logged().map(|logged| logged.index()), Some(7));
        assert!(!world.adds(&world.key, Some(&fake.client(&up))).await);
        let other = world.sign(&world.key, Some(&FakeLog::new().client(&up))).await;
        assert_eq!(other.unwrap_err().kind(), "log-invalid", "a log that is not trusted recorded nothing");
    }

    #[tokio::test]
    async fn an_unlogged_signature_does_not_do_where_the_log_is_on() {
        let world = World::new().await;
        world.sign(&world.key, None).await.unwrap();
        let fake = FakeLog::new();
        let public = fake.public();
        let address = serve(move |request| Reply(201, String::new(), fake.answer(&request.body))).await;
        let log = rekor::Log::new(
            &format!("http://{address}").parse().unwrap(),
            public,
            &tagship_core::tls::Roots::load(None).unwrap(),
        )
        .unwrap();
        let signed = world.sign(&world.key, Some(&log)).await.unwrap();
        assert_eq!((signed.logged().map(|logged| logged.index()), world.layers()), (Some(7), 2));
    }

    #[tokio::test]
    async fn reserved_annotations_are_refused() {
        let mut world = World::new().await;
        world.facts.further.insert("tag".to_owned(), "v1".to_owned());
        let error = world.sign(&world.key, None).await.unwrap_err();
        assert_eq!(error.kind(), "bad-annotation");
        world.facts.further = BTreeMap::from([("x".to_owned(), "y".repeat(70_000))]);
        let error = world.sign(&world.key, None).await.unwrap_err();
        assert_eq!(error.kind(), "bad-annotation");
        assert!(!world.store.lock().unwrap().was_written());
    }
}
