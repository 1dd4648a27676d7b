//! What was proven and how every deploy ended: the trust state, what may be gone back to, and one line a verdict.
//!
//! The line is for people and tools; nothing is decided from it. What decides is `trust.json`, replaced whole.

use std::{cmp::Ordering, collections::BTreeSet, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tagship_core::{
    handoff::status::Status,
    reference::{Digest, Tag},
    signature::{Evidence, Fingerprint, PublicKey},
};

use crate::{
    config::ServiceName,
    deploy::{ImageId, InFlight},
    state_dir::{self, StateDir, StateError},
    trust::{Rejected, Release, TrustState, order},
};

const TRUST: &str = "trust.json";
const VERDICTS: &str = "history.jsonl";
/// How many proven versions are remembered for going back to. More than the local store keeps: an older one is pulled.
const REMEMBERED: usize = 20;

/// What was proven healthy here, and what follows from it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Mark, hold and ratchet.
    pub trust: TrustState,
    /// The proven versions, the latest proof first; each digest once.
    #[serde(default)]
    proven: Vec<Proven>,
    /// What the last good deploy found before its first effect: the way back where that was never verified.
    #[serde(default)]
    before: Option<InFlight>,
    /// What the operator put back, while that runs: what a deploy had found, and nobody verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    back: Option<InFlight>,
    /// What ran when nothing was known was asked for its version.
    #[serde(default)]
    recalled: bool,
    /// Images that run here though no deploy proved them, and whose keys signed them: the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    found: Vec<FoundSigned>,
    /// How the last deploy ended.
    #[serde(default)]
    last: Option<Verdict>,
}

/// A version that was found healthy here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// Which.
    pub release: Release,
    /// What the local store calls it.
    pub image: ImageId,
    /// Why it was believed; verified again before it runs anew.
    pub evidence: Evidence,
    /// When its proof was complete.
    pub at: Timestamp,
}

/// An image that runs here, and by whose key it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FoundSigned {
    image: ImageId,
    key: Fingerprint,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// When.
    pub time: Timestamp,
    /// Who asked.
    pub by: By,
    /// All that the answer says.
    #[serde(flatten)]
    pub status: Status,
}

/// A change of the mark that no deploy made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// By whom.
    pub by: By,
    /// What it is now.
    pub mark: Release,
    /// What it was.
    pub previous: Option<Release>,
}

/// Who asked for a deploy, or changed the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A request in the hand-off directory.
    Request,
    /// The operator on the host.
    Operator,
    /// Nobody: tagship-host itself found reason to.
    Companion,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Operator => "operator",
            Self::Companion => "companion",
        })
    }
}

impl History {
    /// Reads it; an empty one if there is none.
    pub fn open(dir: &StateDir) -> Result<Self, StateError> {
        Ok(dir.read_json(TRUST)?.unwrap_or_default())
    }

    /// The proven versions, the latest proof first.
    pub fn proven(&self) -> &[Proven] {
        &self.proven
    }

    /// The version that was proven last, which should run now.
    pub fn running(&self) -> Option<&Proven> {
        let running = self.trust.running()?;
        self.proven.iter().find(|proven| proven.release.digest == running.digest)
    }

    /// The images that were proven by one of these keys, or found running and signed by one, and by none that counted
    /// when they were proven: nothing goes back to them once the key is revoked.
    pub fn signed_by(&self, keys: &[PublicKey]) -> BTreeSet<ImageId> {
        let is_one = |of: Fingerprint| keys.iter().any(|key| key.fingerprint() == of);
        let proven = self.proven.iter().filter(|proven| is_one(proven.evidence.key())).map(|proven| &proven.image);
        let was_proven = |image: &ImageId| self.proven.iter().any(|proven| proven.image == *image);
        let found = self.found.iter().filter(|found| is_one(found.key)).map(|found| &found.image);
        proven.chain(found.filter(|image| !was_proven(image))).cloned().collect()
    }

    /// Notes whose key signed an image that runs here and was proven by no deploy.
    pub fn found(&mut self, dir: &StateDir, image: ImageId, key: Fingerprint) -> Result<(), StateError> {
        if self.found.iter().any(|found| found.image == image && found.key == key) {
            return Ok(());
        }
        self.found.retain(|found| found.image != image);
        self.found.push(FoundSigned { image, key });
        let surplus = self.found.len().saturating_sub(REMEMBERED);
        self.found.drain(..surplus);
        dir.write_json(TRUST, self)
    }

    /// The image that a service runs since the last thing that was found to work here: a proven version, or what the
    /// operator put back. None if nothing says.
    pub fn image_of(&self, service: &ServiceName) -> Option<ImageId> {
        match (self.running(), &self.back) {
            (Some(running), _) => Some(running.image.clone()),
            (None, Some(back)) => back.restorable(service).map(|restorable| restorable.image().clone()),
            (None, None) => None,
        }
    }

    /// What ran before the last good deploy, if it was never verified: an image from before tagship came.
    pub fn incumbent(&self) -> Option<&InFlight> {
        let proven = |image: &ImageId| self.proven.iter().any(|proven| proven.image == *image);
        self.before.as_ref().filter(|entry| {
            let mut images = entry.services.iter().filter_map(|service| service.image.as_ref()).peekable();
            images.peek().is_some() && !images.any(proven)
        })
    }

    /// How the last deploy ended.
    pub fn last(&self) -> Option<&Verdict> {
        self.last.as_ref()
    }

    /// The proven version of this tag.
    pub fn of_tag(&self, tag: &Tag) -> Option<&Proven> {
        self.proven.iter().find(|proven| proven.release.tag == *tag)
    }

    /// The version to go back to from the running one: the latest proven one that is not known to be newer.
    pub fn previous(&self) -> Option<&Proven> {
        let running = self.trust.running()?;
        self.proven.iter().find(|proven| {
            let order = order::compare(&proven.release, running, proven.at);
            proven.release.digest != running.digest && !matches!(order, Ok(Some(Ordering::Greater)))
        })
    }

    /// The digest that ran before a deploy, for its answer.
    pub fn running_digest(&self) -> Option<Digest> {
        self.trust.running().map(|release| release.digest)
    }

    /// Notes a proof, on disk before anybody is told. `before` is what the deploy found, if there was one.
    pub fn prove(&mut self, dir: &StateDir, proven: Proven, before: Option<InFlight>) -> Result<(), StateError> {
        self.trust.proven(proven.release.clone(), proven.at);
        self.proven.retain(|earlier| earlier.release.digest != proven.release.digest);
        self.proven.insert(0, proven);
        self.proven.truncate(REMEMBERED);
        self.before = before.or(self.before.take());
        self.back = None;
        self.forget_what_is_too_much();
        dir.write_json(TRUST, self)
    }

    /// Forgets the oldest versions where their evidence is so large that the file could not be read back one day. What runs
    /// and what would be gone back to stay. Half is left for what else is written there.
    fn forget_what_is_too_much(&mut self) {
        while state_dir::json(self).is_ok_and(|bytes| bytes.len() as u64 > state_dir::LARGEST / 2) {
            let spared = [self.running(), self.previous()].map(|proven| proven.map(|proven| proven.release.digest));
            match self.proven.iter().rposition(|proven| !spared.contains(&Some(proven.release.digest))) {
                Some(oldest) => self.proven.remove(oldest),
                None => return,
            };
        }
    }

    /// Whether nothing is known, and what runs was not asked for its version yet: a first installation, or lost state.
    /// Once, before the first deploy: what runs after a failed one was never proven.
    pub fn is_new(&self) -> bool {
        self.trust.mark().is_none() && !self.recalled
    }

    /// Notes that what runs was asked for its version, whatever came of it.
    pub fn recalled(&mut self, dir: &StateDir) -> Result<(), StateError> {
        self.recalled = true;
        dir.write_json(TRUST, self)
    }

    /// Sets the mark, up or down, to what was verified anew.
    pub fn set_mark(&mut self, dir: &StateDir, mark: Release) -> Result<(), StateError> {
        self.trust.set_mark(mark);
        dir.write_json(TRUST, self)
    }

    /// Notes that a release did not get well here, and is to blame.
    pub fn reject(&mut self, dir: &StateDir, rejected: Rejected) -> Result<(), StateError> {
        self.trust.reject(rejected);
        dir.write_json(TRUST, self)
    }

    /// Notes that the operator went back to what ran before, which was never verified. `before` is what that found.
    pub fn went_back(&mut self, dir: &StateDir, before: Option<InFlight>) -> Result<(), StateError> {
        self.trust.went_back_to_unverified();
        self.back = std::mem::replace(&mut self.before, before);
        dir.write_json(TRUST, self)
    }

    /// The newest verdicts of the file, the oldest first, at most so many; how many of its lines are none; and whether
    /// there are older lines, or were: a file that grew too large has lost its older half.
    pub fn verdicts(dir: &StateDir, most: usize) -> Result<(Vec<Verdict>, usize, bool), StateError> {
        let bytes = dir.read_end(VERDICTS)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        // Of a cut file half of the largest is left, but for a line of a few kilobytes.
        let is_cut = lines.len() > most || bytes.len() as u64 > state_dir::LARGEST / 4;
        let newest = lines.get(lines.len().saturating_sub(most)..).unwrap_or_default();
        let read: Vec<Verdict> = newest.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let damaged = newest.len().saturating_sub(read.len());
        Ok((read, damaged, is_cut))
    }

    /// Notes a verdict: in the file of lines, and as the last one.
    pub fn conclude(&mut self, dir: &StateDir, verdict: Verdict) -> Result<(), StateError> {
        // A status is made of strings, times and lists, which JSON always holds.
        let line = serde_json::to_string(&verdict).unwrap_or_default();
        self.last = Some(verdict);
        dir.append(VERDICTS, &line)?;
        dir.write_json(TRUST, self)
    }
}

#[cfg(test)]
mod tests {
    use tagship_core::handoff::status::Outcome;

    use super::*;
    use crate::state_dir::tests::fresh;

    fn proven(tag: &str) -> Proven {
        let digest = Digest::of(tag.as_bytes());
        Proven {
            release: Release { tag: tag.parse().unwrap(), digest, created: None, commit: None, signed: true },
            image: digest.hex().try_into().unwrap(),
            evidence: Evidence::Layer {
                payload: String::new(),
                signature: String::new(),
                bundle: None,
                key: digest.hex().parse().unwrap(),
            },
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn after(dir: &StateDir, tags: &[&str]) -> History {
        let mut history = History::open(dir).unwrap();
        for tag in tags {
            history.prove(dir, proven(tag), None).unwrap();
        }
        history
    }

    #[test]
    fn the_way_back_never_leads_forward() {
        for (tags, previous) in [
            (&["v0.1.0"][..], None),
            (&["v0.1.0", "v0.2.0"][..], Some("v0.1.0")),
            (&["v0.1.0", "v0.2.0", "v0.3.0", "v0.2.0"][..], Some("v0.1.0")),
            (&["v0.1.0", "v0.2.0", "v0.1.0"][..], None),
            (&["v0.1.0", "nightly"][..], Some("v0.1.0")),
            (&["v0.1.0", "v0.1.0"][..], None),
        ] {
            let (_temp, dir) = fresh();
            let history = after(&dir, tags);
            assert_eq!(history.previous().map(|p| p.release.tag.as_str()), previous, "{tags:?}");
        }
    }

    #[test]
    fn it_survives_and_forgets_only_the_oldest() {
        let (_temp, dir) = fresh();
        let tags: Vec<String> = (0..REMEMBERED + 5).map(|patch| format!("v1.0.{patch}")).collect();
        after(&dir, &tags.iter().map(String::as_str).collect::<Vec<_>>());
        let history = History::open(&dir).unwrap();
        assert_eq!(history.proven().len(), REMEMBERED);
        assert_eq!(history.running().unwrap().release.tag.as_str(), tags.last().unwrap());
        assert!(history.of_tag(&"v1.0.0".parse().unwrap()).is_none());
    }

    #[test]
    fn large_evidence_leaves_fewer_versions_and_never_a_file_that_cannot_be_read() {
        let (_temp, dir) = fresh();
        // As large as evidence may be, and twice that once JSON has escaped it.
        let large = |tag: &str| {
            let key = Digest::of(tag.as_bytes()).hex().parse().unwrap();
            let (payload, signature) = ("\"".repeat(256 * 1024), String::new());
            Proven { evidence: Evidence::Layer { payload, signature, bundle: None, key }, ..proven(tag) }
        };
        let mut history = History::open(&dir).unwrap();
        for patch in 0..REMEMBERED {
            history.prove(&dir, large(&format!("v1.0.{patch}")), None).unwrap();
        }
        // Back to an old one: what is still newer must not push out what would be gone back to next.
        let back = history.proven().iter().rev().nth(1).cloned().unwrap();
        history.prove(&dir, back, None).unwrap();
        let read = History::open(&dir).unwrap();
        assert!((3..REMEMBERED).contains(&read.proven().len()), "{}", read.proven().len());
        assert_eq!(read.running().map(|proven| &proven.release), history.running().map(|proven| &proven.release));
        assert!(read.previous().is_some());
        let newest = format!("v1.0.{}", REMEMBERED - 1);
        assert!(read.of_tag(&newest.parse().unwrap()).is_some(), "the oldest go first");
    }

    #[test]
    fn after_going_back_to_the_unverified_nothing_proven_runs() {
        let (_temp, dir) = fresh();
        let mut history = after(&dir, &["v0.1.0"]);
        history.went_back(&dir, None).unwrap();
        let history = History::open(&dir).unwrap();
        assert!(history.running().is_none());
        assert!(history.trust.is_held());
    }

    #[test]
    fn every_verdict_is_a_line_and_the_last_is_known() {
        let (_temp, dir) = fresh();
        let mut history = History::open(&dir).unwrap();
        for kind in ["first", "second"] {
            let status = Status::new(Outcome::Refused, kind, "no\nway");
            history.conclude(&dir, Verdict { time: Timestamp::UNIX_EPOCH, by: By::Request, status }).unwrap();
        }
        let lines = String::from_utf8(dir.read(VERDICTS).unwrap().unwrap()).unwrap();
        assert_eq!(lines.lines().count(), 2);
        assert_eq!(History::open(&dir).unwrap().last().unwrap().status.kind.as_str(), "second");
    }
}
