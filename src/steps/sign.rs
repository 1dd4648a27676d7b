//! The sign step: signs the registry's digest, has a log record it, puts it beside the image, and reads it back with
//! the verifier that the host uses.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use tagship_core::explain::{self, Explain};
use tagship_core::reference::{Digest, ImageRef, Repository};
use tagship_core::registry::Client;
use tagship_core::signature::fetch::{self, FetchError, Found};
use tagship_core::signature::log::Proposal;
use tagship_core::signature::{
    AnnotationRule, Annotations, Attached, Expectation, Format, Formats, Policy, PublicKey, Rekor, Verified,
    VerifyError, verify,
};

use crate::failure::Code;
use crate::log::Log;
use crate::signing::attach::{self, AttachError, Attachment, NewBundle, NewLayer};
use crate::signing::key::SigningKey;
use crate::signing::rekor::{self, RekorError};
use crate::signing::sign::{self, Facts, SignError};

/// How often a signature is added again after other signers undid it.
const ATTEMPTS: u32 = 5;

/// How many times the moment in which a list may be written over is waited for before it is read back. Four signers at
/// once on a busy machine differ by less.
const WINDOWS: u32 = 3;

/// The longest such wait: the registry that makes it longer is ill.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// What the step needs.
#[derive(Clone, Copy)]
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
    /// The formats to sign in.
    pub formats: Formats,
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
    Fetch(#[from] FetchError),
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
            Self::Fetch(_) | Self::Attach(AttachError::Registry { .. } | AttachError::Gone { .. }) => Code::Registry,
            _ => Code::Signing,
        }
    }
}

/// Signs in each format, unless a signature by this key already says the same in it (tag, commit, further annotations)
/// and counts: signing a re-run again would add one each time that says nothing new. Returns the signature as it was
/// read back and verified; of several formats that of the older one.
pub async fn run(needs: Needs<'_>, log: &Log) -> Result<Verified, SignStepError> {
    let Needs { client, repository, digest, facts, key, log: rekor, formats } = needs;
    let expected = Expectation { repository: repository.clone(), digest, tag: Some(facts.tag.clone()) };
    let policy = policy(key.public(), rekor, formats);
    let place = Place { client, expected: &expected, policy: &policy };

    let formats: Vec<Format> = formats.iter().collect();
    let found = try_join_all(formats.iter().map(|format| place.fetch(*format))).await?;
    let before: Vec<_> = found.iter().map(|found| place.says(facts, &found.attached)).collect();
    let missing = formats.iter().zip(&found).zip(&before).filter(|(_, known)| known.is_none());
    let (missing, lists): (Vec<Format>, Vec<&Found>) = missing.map(|((format, found), _)| (*format, found)).unzip();
    // Before anything is recorded or put in either format: half a signature would be of use to half the verifiers.
    let image = ImageRef::pinned(repository, &digest);
    lists.iter().try_for_each(|found| attach::has_room(&image, found))?;
    if missing.is_empty() {
        log.say(&format!("{digest} is signed already by this key with the same annotations"));
    } else {
        log.say(&format!("signs {digest} with the key {}", key.public().fingerprint()));
    }
    let now = Timestamp::now();
    let annotations = facts.annotations(repository, now)?;
    let made = try_join_all(missing.iter().map(|format| make(*format, &needs, &annotations, now))).await?;
    for Made { index, .. } in &made {
        if let (Some(index), Some(rekor)) = (index, rekor) {
            log.say(&format!("recorded in the transparency log {} as entry {index}", rekor.id()));
        }
    }
    made.iter().zip(&lists).try_for_each(|(made, found)| made.attachment.fits(&image, found))?;
    let mut put = place.put(made.into_iter().map(|made| made.attachment).collect(), log).await?.into_iter();
    let results = before.into_iter().filter_map(|known| known.or_else(|| put.next()));
    // There is at least one format, so there is a result.
    results.collect::<Vec<_>>().into_iter().next().ok_or_else(|| place.lost())
}

/// A signature that is not in the registry yet.
struct Made {
    attachment: Attachment,
    /// The log's entry of it, if it was recorded.
    index: Option<u64>,
}

/// Signs in one format, and has the log record it.
async fn make(
    format: Format,
    needs: &Needs<'_>,
    annotations: &Annotations,
    now: Timestamp,
) -> Result<Made, SignStepError> {
    let record = async |proposal: Proposal<'_>| match needs.log {
        Some(rekor) => rekor.record(&proposal).await.map(Some),
        None => Ok(None),
    };
    let (attachment, recorded) = match format {
        Format::Sig => {
            let signature = sign::sign(needs.key, needs.repository, &needs.digest, annotations)?;
            let recorded = record(signature.proposal()).await?;
            let layer = NewLayer::new(&signature, recorded.as_ref().map(|recorded| &recorded.entry))?;
            (Attachment::Layer(layer), recorded)
        }
        Format::Bundle => {
            let statement = sign::sign_statement(needs.key, &needs.digest, annotations)?;
            let recorded = record(statement.proposal()).await?;
            (Attachment::Bundle(NewBundle::new(&statement, recorded.as_ref(), now)?), recorded)
        }
    };
    Ok(Made { attachment, index: recorded.map(|recorded| recorded.logged.index()) })
}

/// The image in its registry, and what makes a signature of it count.
struct Place<'a> {
    client: &'a Client,
    expected: &'a Expectation,
    policy: &'a Policy,
}

impl Place<'_> {
    async fn fetch(&self, format: Format) -> Result<Found, FetchError> {
        fetch::attached(self.client, &self.expected.repository, &self.expected.digest, format).await
    }

    /// A signature among these that counts and says what is to be signed.
    fn says(&self, facts: &Facts, found: &[Attached]) -> Option<Verified> {
        let counts = |one| verify::verify(self.expected, std::slice::from_ref(one), self.policy).ok();
        found.iter().filter_map(counts).find(|verified| facts.same_as(verified.annotations()))
    }

    /// Puts signatures beside the image until they are found there, and verifies them as the host would. Gives them in
    /// the same order.
    async fn put(&self, attachments: Vec<Attachment>, log: &Log) -> Result<Vec<Verified>, SignStepError> {
        let Expectation { repository, digest, .. } = self.expected;
        let mut results: Vec<Option<Verified>> = attachments.iter().map(|_| None).collect();
        for attempt in 1..=ATTEMPTS {
            let (mut window, mut passing) = (Duration::ZERO, None);
            let missing = attachments.iter().zip(&results).filter(|(_, result)| result.is_none());
            for outcome in join_all(missing.map(|(one, _)| one.put(self.client, repository, digest))).await {
                match outcome {
                    Ok(moment) => window = window.max(moment),
                    Err(error) if error.is_passing() && attempt < ATTEMPTS => passing = Some(error),
                    Err(error) => return Err(error.into()),
                }
            }
            // Whoever read a list before it was written here has put his own by then, if he is not much slower.
            tokio::time::sleep((window * WINDOWS).min(LONGEST_WAIT)).await;
            results = try_join_all(attachments.iter().map(|attachment| self.read_back(attachment))).await?;
            if results.iter().all(Option::is_some) {
                for attachment in &attachments {
                    log.say(&format!("read back from {repository} and verified, as {}", named(attachment.format())));
                }
                return Ok(results.into_iter().flatten().collect());
            }
            let why = match passing {
                Some(error) => explain::chain(&error),
                None => "another signer replaced the signature".to_owned(),
            };
            log.say(&format!("{why} (try {attempt} of {ATTEMPTS})"));
            tokio::time::sleep(pause(attempt)).await;
        }
        Err(self.lost())
    }

    /// The signature as it is in the registry now, if it is.
    async fn read_back(&self, attachment: &Attachment) -> Result<Option<Verified>, SignStepError> {
        let found = self.fetch(attachment.format()).await?.attached;
        let Some(ours) = found.iter().find(|found| attachment.is(found)) else { return Ok(None) };
        let verify = |found: &[Attached]| verify::verify(self.expected, found, self.policy);
        let verified = verify(std::slice::from_ref(ours)).map_err(SignStepError::ReadBack)?;
        // Beside the others that are there, as the host will meet it.
        verify(&found).map_err(SignStepError::ReadBack)?;
        Ok(Some(verified))
    }

    fn lost(&self) -> SignStepError {
        SignStepError::Lost { repository: self.expected.repository.clone(), digest: self.expected.digest }
    }
}

/// What a format is for its reader.
fn named(format: Format) -> &'static str {
    match format {
        Format::Sig => "a signature for cosign 2 and Podman",
        Format::Bundle => "a bundle for cosign 3",
    }
}

/// Exactly what a host asks for that trusts this key alone.
fn policy(key: &PublicKey, rekor: Option<&rekor::Log>, formats: Formats) -> Policy {
    Policy {
        keys: vec![key.clone()],
        formats,
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
mod tests;
