//! What a run has learned so far, and what it tells of it in the end. Pure.

use std::time::Duration;

use tagship_core::reference::{Digest, ImageRef};
use tagship_core::registry::{Client, Manifest};
use tagship_core::signature::Verified;

use crate::inputs::{Inputs, Step};
use crate::log::Summary;
use crate::steps::deploy::Verdict;
use crate::steps::promote::Promoted;

/// What has been learned so far.
#[derive(Default)]
pub(super) struct Course {
    pub(super) reuse: bool,
    pub(super) took: Vec<(&'static str, Duration)>,
    pub(super) manifest: Option<Manifest>,
    pub(super) digest: Option<Digest>,
    pub(super) verified: Option<Verified>,
    pub(super) verdict: Option<Verdict>,
    pub(super) promoted: Option<Promoted>,
    /// The moving tag was moved for a host that then did not deploy.
    pub(super) must_be_put_back: bool,
    pub(super) client: Option<Client>,
}

impl Course {
    fn log_index(&self) -> Option<String> {
        Some(self.verified.as_ref()?.logged()?.index().to_string())
    }

    fn previous(&self) -> Option<Digest> {
        let told = self.verdict.as_ref().and_then(|verdict| verdict.previous_digest);
        let moved = self.promoted.as_ref().and_then(|promoted| promoted.previous.as_ref());
        told.or(moved.map(Manifest::digest))
    }

    /// One word for how it ended: the host's, where it was asked.
    fn outcome(&self, well: bool) -> String {
        match &self.verdict {
            Some(verdict) => verdict.outcome.to_string(),
            None if well => "done".to_owned(),
            None => "failed".to_owned(),
        }
    }

    /// For the steps that follow in a workflow: whatever is known.
    pub(super) fn outputs(&self, inputs: &Inputs, well: bool) -> Vec<(&'static str, String)> {
        let known = [
            ("image", Some(inputs.image.to_string())),
            ("tag", Some(inputs.tag.to_string())),
            ("digest", self.digest.map(|digest| digest.to_string())),
            ("rekor-log-index", self.log_index()),
            ("outcome", Some(self.outcome(well))),
            ("previous-digest", self.previous().map(|digest| digest.to_string())),
        ];
        known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// What the end of the log says of a run that went well.
    pub(super) fn summary(&self, inputs: &Inputs, total: Duration) -> Summary {
        let image = ImageRef::tagged(&inputs.image, &inputs.tag);
        let verb = match (&self.verdict, &self.promoted, inputs.steps.last()) {
            // Nobody was asked whether it runs.
            (None, Some(_), _) if inputs.steps == [Step::Promote] => "promoted",
            (Some(_), ..) | (None, Some(_), _) => "released",
            (None, None, Some(Step::Sign)) => "signed",
            (None, None, Some(Step::Push)) => "pushed",
            (None, None, Some(Step::Build)) => "built",
            (None, None, _) => "checked",
        };
        let moved = self.promoted.as_ref().and_then(|promoted| {
            let before = promoted.previous.as_ref().map(|manifest| manifest.digest());
            Some(match (inputs.moving_tag.as_ref()?, before) {
                (moving, Some(before)) if Some(before) == self.digest => format!("{moving}, as before"),
                (moving, Some(before)) => format!("{moving}, before that {before}"),
                (moving, None) => format!("{moving}, for the first time"),
            })
        });
        let facts = [
            ("digest", self.digest.map(|digest| digest.to_string())),
            ("log entry", self.log_index()),
            ("host", self.verdict.as_ref().map(|verdict| verdict.outcome.to_string())),
            ("moving tag", moved),
        ];
        let again = if self.reuse { ", which was there already" } else { "" };
        Summary {
            headline: format!("{verb} {image}{again}"),
            facts: facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            steps: self.took.clone(),
            total,
        }
    }
}
