//! Hands a digest to the host and waits for its verdict.
//!
//! The host alone decides; here is only what the requester does: ask, show what the host says, know when to stop
//! waiting, and take back what nobody claimed. What the files mean is the hand-off protocol's, in the core.

mod error;
mod full;
mod place;
mod plain;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use tagship_core::handoff::fields::{Line, Word};
use tagship_core::handoff::status::{Outcome, Service, Status};
use tagship_core::reference::{Digest, Repository, Tag};

use crate::inputs::{Form, Origin};
use crate::log::Log;
use crate::signing::key::SigningKey;
use crate::stop::Stop;

pub use error::DeployError;
pub use place::Place;

/// What handing off needs to know.
pub struct Needs<'a> {
    /// The hand-off directory, checked.
    pub place: &'a Place,
    /// What the host speaks.
    pub form: Form,
    /// The longest to wait for the verdict. Without it: as long as the host shows life, and in the plain form, where it
    /// shows none, half an hour.
    pub timeout: Option<Duration>,
    /// Where the image is.
    pub image: &'a Repository,
    /// Its version tag.
    pub tag: &'a Tag,
    /// Which image it is. Not told in the plain form.
    pub digest: &'a Digest,
    /// The commit and the run, for the host's records.
    pub origin: &'a Origin,
    /// Whether an older version than the present one is meant. The host obeys only if the request is signed. Not told
    /// in the plain form.
    pub rollback: bool,
    /// Signs the request, where the key is at hand. Not used in the plain form.
    pub key: Option<&'a SigningKey>,
}

/// What the host said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// A stable word that says why.
    pub kind: Word,
    /// Why.
    pub reason: Line,
    /// What the host deployed, or was to, as far as it told.
    pub digest: Option<Digest>,
    /// What ran before, as far as it told.
    pub previous_digest: Option<Digest>,
    /// How each service fared, as far as it told.
    pub services: Vec<Service>,
}

impl Verdict {
    /// Whether the image runs, and is healthy. If not, the program ends with the exit code for a host that said no.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.outcome.is_ok()
    }

    fn of(status: Status) -> Verdict {
        let Status { outcome, kind, reason, digest, previous_digest, services, .. } = status;
        Verdict { outcome, kind, reason, digest, previous_digest, services }
    }

    fn show(&self, tag: &Tag, log: &Log) {
        for Service { name, state, detail } in &self.services {
            log.quote(format!("{name}: {state} {detail}").trim_end());
        }
        log.say(&match self.is_ok() {
            true => format!("the host says ok: {tag} {}", self.outcome),
            false => format!("the host says no: {tag} {} ({})", self.outcome, self.kind),
        });
        if !self.reason.is_empty() {
            log.quote(self.reason.as_str());
        }
    }
}

/// How long to be patient. Constants, but for tests.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For a claim.
    claim: Duration,
    /// For a sign of life of whoever claimed it: the companion shows one every five seconds.
    silence: Duration,
    /// For an answer of a host that shows no life, if no timeout was given.
    plain: Duration,
}

const PATIENCE: Patience =
    Patience { claim: Duration::from_secs(30), silence: Duration::from_secs(30), plain: Duration::from_secs(30 * 60) };

/// Asks the host to deploy, and returns its verdict, be it yes or no. The verdict has been shown in the log.
///
/// # Errors
/// When there is no verdict: the request could not be made, nobody claimed it, or no answer came in time.
pub async fn run(needs: Needs<'_>, stop: &mut Stop, log: &Log) -> Result<Verdict, DeployError> {
    let verdict = match needs.form {
        Form::Full => full::run(&needs, PATIENCE, stop, log).await?,
        Form::Plain => plain::run(&needs, PATIENCE, stop, log).await?,
    };
    verdict.show(needs.tag, log);
    Ok(verdict)
}

/// Checks that a hand-off could work, before any slow work is done.
///
/// # Errors
/// If the directory is not there, not mounted or not writable, or if no companion has ever run there.
pub fn check(directory: &Path, must_be_mount: bool, form: Form) -> Result<Place, DeployError> {
    Place::open(directory, must_be_mount, form)
}
