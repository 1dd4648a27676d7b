//! What is remembered between deploys: the mark, what runs, and whether signatures named their version before.

use std::cmp::Ordering;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tagship_core::reference::{Digest, Tag};

use super::{Release, order};

/// The remembered state, as it is kept on disk. Only releases that were proven, or verified anew for it, change it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustState {
    mark: Option<Release>,
    running: Option<Release>,
    #[serde(default)]
    annotated: bool,
    /// The oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Rejected>,
}

/// An image that was deployed here and did not get well, while the one before it then did on the same services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Which.
    pub digest: Digest,
    /// What it counted as.
    pub tag: Tag,
    /// When it was found out.
    pub at: Timestamp,
    /// Why it was rolled back.
    pub reason: String,
}

/// How many rejected images are remembered. Whoever releases that many bad ones in a row may have the first tried again.
const REJECTED: usize = 50;

impl TrustState {
    /// The highest release that was ever proven healthy here, unless the operator has set another.
    pub fn mark(&self) -> Option<&Release> {
        self.mark.as_ref()
    }

    /// The release that was proven healthy here last.
    pub fn running(&self) -> Option<&Release> {
        self.running.as_ref()
    }

    /// Whether the mark was rolled back from: something else runs.
    pub fn is_held(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| self.running.as_ref().is_none_or(|running| running.digest != mark.digest))
    }

    /// Whether a release whose signature names its version was ever proven here: from then on all must.
    pub fn is_annotated(&self) -> bool {
        self.annotated
    }

    /// Whether this image was rolled back from, for a reason that was its own.
    pub fn rejection(&self, digest: Digest) -> Option<&Rejected> {
        self.rejected.iter().find(|rejected| rejected.digest == digest)
    }

    /// Notes that an image did not get well and is to blame for it. What it said the first time is what counts.
    pub fn reject(&mut self, rejected: Rejected) {
        if self.rejection(rejected.digest).is_none() {
            self.rejected.push(rejected);
            let surplus = self.rejected.len().saturating_sub(REJECTED);
            self.rejected.drain(..surplus);
        }
    }

    /// Notes that a release was deployed, by whatever authority, and found healthy.
    ///
    /// The mark only rises, or takes the new digest of its own version. A signed time beyond now does not raise it.
    pub fn proven(&mut self, release: Release, now: Timestamp) {
        let raises = match &self.mark {
            None => true,
            Some(mark) => matches!(order::compare(&release, mark, now), Ok(Some(Ordering::Greater | Ordering::Equal))),
        };
        if raises {
            self.mark = Some(release.clone());
        }
        self.annotated |= release.signed;
        self.rejected.retain(|rejected| rejected.digest != release.digest);
        self.running = Some(release);
    }

    /// Sets the mark, up or down, to what was verified: by the operator's word, or because it was found running where no
    /// mark was known. From a signature that names its version on, all must.
    pub fn set_mark(&mut self, mark: Release) {
        self.annotated |= mark.signed;
        self.mark = Some(mark);
    }

    /// Notes that the operator went back to something that was never verified here. The mark stays, and is held.
    pub fn went_back_to_unverified(&mut self) {
        self.running = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(tag: &str, signed: bool) -> Release {
        Release { tag: tag.parse().unwrap(), digest: Digest::of(tag.as_bytes()), created: None, commit: None, signed }
    }

    #[test]
    fn the_mark_only_rises_and_the_ratchet_only_closes() {
        let mut state = TrustState::default();
        for (tag, signed, mark, held, annotated) in [
            ("v0.1.0", false, "v0.1.0", false, false),
            ("v0.2.0", true, "v0.2.0", false, true),
            ("v0.1.0", false, "v0.2.0", true, true),
            ("nightly", false, "v0.2.0", true, true),
            ("v0.3.0", true, "v0.3.0", false, true),
        ] {
            state.proven(release(tag, signed), Timestamp::UNIX_EPOCH);
            assert_eq!(state.mark().unwrap().tag.as_str(), mark);
            assert_eq!(state.running().unwrap().tag.as_str(), tag);
            assert_eq!((state.is_held(), state.is_annotated()), (held, annotated), "{tag}");
        }
    }

    #[test]
    fn a_mark_that_is_set_moves_either_way_and_holds_what_does_not_run() {
        let mut state = TrustState::default();
        for (tag, signed, held, annotated) in
            [("v0.3.0", false, true, false), ("v0.1.0", true, true, true), ("v0.2.0", false, false, true)]
        {
            state.running = Some(release("v0.2.0", false));
            state.set_mark(release(tag, signed));
            assert_eq!(state.mark().unwrap().tag.as_str(), tag);
            assert_eq!((state.is_held(), state.is_annotated()), (held, annotated), "{tag}");
        }
    }

    #[test]
    fn what_was_never_verified_holds_the_mark() {
        let mut state = TrustState::default();
        state.went_back_to_unverified();
        assert!(!state.is_held(), "nothing was proven yet");
        state.proven(release("v0.1.0", true), Timestamp::UNIX_EPOCH);
        state.went_back_to_unverified();
        assert!(state.is_held());
        assert_eq!(state.mark().unwrap().tag.as_str(), "v0.1.0");
    }

    #[test]
    fn the_first_reason_counts_until_it_is_proven() {
        let rejected = |tag: &str, reason: &str| {
            let Release { digest, tag, .. } = release(tag, true);
            Rejected { digest, tag, at: Timestamp::UNIX_EPOCH, reason: reason.into() }
        };
        let digest = |tag: &str| Digest::of(tag.as_bytes());
        let mut state = TrustState::default();
        state.reject(rejected("v0.1.0", "first"));
        state.reject(rejected("v0.1.0", "second"));
        state.reject(rejected("v0.2.0", "other"));
        assert_eq!(state.rejection(digest("v0.1.0")).unwrap().reason, "first");
        state.proven(release("v0.2.0", true), Timestamp::UNIX_EPOCH);
        assert!(state.rejection(digest("v0.2.0")).is_none());
        for n in 0..=REJECTED {
            state.reject(rejected(&format!("v1.0.{n}"), "bad"));
        }
        assert!(state.rejection(digest("v1.0.0")).is_none(), "the oldest is forgotten");
        assert!(state.rejection(digest("v1.0.1")).is_some());
    }

    #[test]
    fn it_survives_the_disk() {
        let mut state = TrustState::default();
        state.proven(release("v0.1.0", true), Timestamp::UNIX_EPOCH);
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<TrustState>(&json).unwrap(), state);
    }

    #[test]
    fn damage_is_no_empty_state() {
        for text in ["", "{", "[]", "{\"mark\":1}", "{\"mark\":null,\"running\":null,\"more\":1}"] {
            assert!(serde_json::from_str::<TrustState>(text).is_err(), "{text}");
        }
    }
}
