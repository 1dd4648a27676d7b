//! The sign step: signs the registry's digest, has a log record it, puts it beside the image, and reads it back with
//! the verifier that the host uses.

use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use tagship_core::explain::{self, Explain};
use tagship_core::reference::{Digest, ImageRef, Repository};
use tagship_core::registry::{Client, Manifest, Target};
use tagship_core::signature::fetch::{self, FetchError, Found};
use tagship_core::signature::log::Proposal;
use tagship_core::signature::{
    AnnotationRule, Annotations, Attached, Expectation, Format, Formats, Policy, PublicKey, Rekor, Verified,
    VerifyError, verify,
};

use crate::failure::Code;
use crate::log::Log;
use crate::signing::attach::{self, AttachError, Attachment, NewBundle, NewLayer, Stored};
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
    /// The formats to sign in, as they were looked at.
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

/// What an image has of signatures in each format.
type Lists = Vec<(Format, Found)>;

/// What is done before the key is needed.
pub struct Ahead {
    lists: Lists,
    stored: Stored,
    /// When the image is signed, as the signature will say.
    now: Timestamp,
}

/// Looks at what is there. May be done ahead: whatever changes meanwhile is read again before it is written over.
///
/// # Errors
/// When the registry does not give it.
pub async fn look(
    client: &Client,
    repository: &Repository,
    digest: &Digest,
    formats: Formats,
) -> Result<Ahead, FetchError> {
    let fetch = async |format| Ok((format, fetch::attached(client, repository, digest, format).await?));
    let lists = try_join_all(formats.iter().map(fetch)).await?;
    Ok(Ahead { lists, stored: Stored::default(), now: Timestamp::now() })
}

/// Looks, and where there is no signature yet uploads what a new one needs but its own bytes.
///
/// # Errors
/// As [`look`]. What cannot be uploaded, or may not be signed, is told when it is needed.
pub async fn prepare(
    client: &Client,
    repository: &Repository,
    digest: &Digest,
    formats: Formats,
    facts: &Facts,
) -> Result<Ahead, FetchError> {
    let Ahead { lists, now, .. } = look(client, repository, digest, formats).await?;
    let annotations = facts.annotations(repository, now).ok();
    let payload = annotations.and_then(|annotations| sign::payload(repository, digest, &annotations).ok());
    let is_new = lists.iter().all(|(_, found)| found.attached.is_empty());
    let stored = match payload {
        Some(payload) if is_new => Stored::ahead(client, (repository, digest), &lists, &payload).await,
        _ => Stored::default(),
    };
    Ok(Ahead { lists, stored, now })
}

/// Signs in each format, unless a signature by this key already says the same in it (tag, commit, further annotations)
/// and counts: signing a re-run again would add one each time that says nothing new. Returns the signature as it was
/// read back and verified; of several formats that of the older one.
pub async fn run(needs: Needs<'_>, ahead: Ahead, log: &Log) -> Result<Verified, SignStepError> {
    let Needs { client, repository, digest, facts, key, log: rekor, formats } = needs;
    let Ahead { lists, stored, now } = ahead;
    let expected = Expectation { repository: repository.clone(), digest, tag: Some(facts.tag.clone()) };
    let policy = policy(key.public(), rekor, formats);
    let place = Place { client, expected: &expected, policy: &policy };

    let before: Vec<_> = lists.iter().map(|(_, found)| place.says(facts, &found.attached)).collect();
    let missing = lists.into_iter().zip(&before).filter(|(_, known)| known.is_none());
    let missing: Lists = missing.map(|(list, _)| list).collect();
    // Before anything is recorded or put in either format: half a signature would be of use to half the verifiers.
    let image = ImageRef::pinned(repository, &digest);
    missing.iter().try_for_each(|(_, found)| attach::has_room(&image, found))?;
    if missing.is_empty() {
        log.say(&format!("{digest} is signed already by this key with the same annotations"));
    } else {
        log.say(&format!("signs {digest} with the key {}", key.public().fingerprint()));
    }
    let annotations = facts.annotations(repository, now)?;
    let made = try_join_all(missing.iter().map(|(format, _)| make(*format, &needs, &annotations, now))).await?;
    for Made { index, .. } in &made {
        if let (Some(index), Some(rekor)) = (index, rekor) {
            log.say(&format!("recorded in the transparency log {} as entry {index}", rekor.id()));
        }
    }
    made.iter().zip(&missing).try_for_each(|(made, (_, found))| made.attachment.fits(&image, found))?;
    let attachments = made.into_iter().map(|made| made.attachment).collect();
    let mut put = place.put(attachments, missing, stored, log).await?.into_iter();
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

/// A list as it was at some moment, and the signature that is wanted, if it was there and counts.
struct Seen {
    found: Found,
    verified: Option<Verified>,
}

/// The image in its registry, and what makes a signature of it count.
struct Place<'a> {
    client: &'a Client,
    expected: &'a Expectation,
    policy: &'a Policy,
}

impl Place<'_> {
    /// A signature among these that counts and says what is to be signed.
    fn says(&self, facts: &Facts, found: &[Attached]) -> Option<Verified> {
        let counts = |one| verify::verify(self.expected, std::slice::from_ref(one), self.policy).ok();
        found.iter().filter_map(counts).find(|verified| facts.same_as(verified.annotations()))
    }

    /// Puts signatures beside the image, of whose lists these were found, until they are found there, and verifies them
    /// as the host would. Gives them in the same order.
    async fn put(
        &self,
        attachments: Vec<Attachment>,
        lists: Lists,
        mut stored: Stored,
        log: &Log,
    ) -> Result<Vec<Verified>, SignStepError> {
        let Expectation { repository, digest, .. } = self.expected;
        let mut seen: Vec<Seen> = lists.into_iter().map(|(_, found)| Seen { found, verified: None }).collect();
        for attempt in 1..=ATTEMPTS {
            let (mut until, mut passing) = (None, None);
            let missing = attachments.iter().zip(&seen).filter(|(_, seen)| seen.verified.is_none());
            let put = missing.map(|(one, seen)| one.put(self.client, (repository, digest), &seen.found, &stored));
            for outcome in join_all(put).await {
                match outcome {
                    Ok(moment) => until = until.max(moment.map(|moment| moment.passed(WINDOWS, LONGEST_WAIT))),
                    Err(error) if error.is_passing() && attempt < ATTEMPTS => passing = Some(error),
                    Err(error) => return Err(error.into()),
                }
            }
            seen = self.read_back(&attachments, until).await?;
            let verified: Option<Vec<_>> = seen.iter().map(|seen| seen.verified.clone()).collect();
            if let Some(verified) = verified {
                for attachment in &attachments {
                    log.say(&format!("read back from {repository} and verified, as {}", named(attachment.format())));
                }
                return Ok(verified);
            }
            let why = match passing {
                Some(error) => explain::chain(&error),
                None => "another signer replaced the signature".to_owned(),
            };
            log.say(&format!("{why} (try {attempt} of {ATTEMPTS})"));
            // Whatever it was, the next try relies on nothing that was done before.
            stored = Stored::default();
            tokio::time::sleep(pause(attempt)).await;
        }
        Err(self.lost())
    }

    /// The signatures as they are in the registry at this time: whoever read a list before it was written here has put
    /// his own by then, if he is not much slower. All is read at once, and the lists once more at the end.
    async fn read_back(&self, attachments: &[Attachment], until: Option<Instant>) -> Result<Vec<Seen>, SignStepError> {
        let all = || try_join_all(attachments.iter().map(|attachment| self.see(attachment)));
        let Some(until) = until else { return all().await };
        let (seen, ()) = tokio::join!(all(), tokio::time::sleep_until(until.into()));
        let seen = seen?;
        let same = try_join_all(seen.iter().map(|seen| self.is_as_found(&seen.found))).await?;
        if same.into_iter().all(|same| same) { Ok(seen) } else { all().await }
    }

    /// A signature as it is in the registry now, if it is.
    async fn see(&self, attachment: &Attachment) -> Result<Seen, SignStepError> {
        let Expectation { repository, digest, .. } = self.expected;
        let found = fetch::attached(self.client, repository, digest, attachment.format()).await?;
        let Some(ours) = found.attached.iter().find(|found| attachment.is(found)) else {
            return Ok(Seen { found, verified: None });
        };
        let verify = |found: &[Attached]| verify::verify(self.expected, found, self.policy);
        let verified = verify(std::slice::from_ref(ours)).map_err(SignStepError::ReadBack)?;
        // Beside the others that are there, as the host will meet it.
        verify(&found.attached).map_err(SignStepError::ReadBack)?;
        Ok(Seen { found, verified: Some(verified) })
    }

    /// Whether a list that signers keep is still the one that was found.
    async fn is_as_found(&self, found: &Found) -> Result<bool, FetchError> {
        let Expectation { repository, digest, .. } = self.expected;
        let Some(tag) = found.list.tag_of(digest) else { return Ok(true) };
        let image = || ImageRef::pinned(repository, digest);
        let now = self.client.manifest(repository, &Target::from(tag)).await;
        let now = now.map_err(|source| FetchError::Registry { image: image(), source })?;
        Ok(now.as_ref().map(Manifest::digest) == found.manifest.as_ref().map(Manifest::digest))
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
