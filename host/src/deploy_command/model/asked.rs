//! What was asked for in the full form, and which answers fit.

use tagship_core::{
    handoff::{
        dir::Stamp,
        names::RequestId,
        status::{Outcome, Status},
    },
    reference::Tag,
};

use super::Form;
use crate::{deploy::ImageId, trust::order::newer_request};

/// One identifier, and all files that name it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: RequestId,
    pub(super) tag: Tag,
    /// What it would run.
    pub(super) image: ImageId,
    pub(super) files: Vec<AskedBy>,
    /// How often the services had come to run one image, and how much trouble there had been.
    pub(super) since: (usize, usize),
    /// The answer, once one was seen.
    pub(super) answer: Option<String>,
    pub(super) outcome: Option<Outcome>,
}

/// One file.
#[derive(Debug)]
pub(super) struct AskedBy {
    pub(super) form: Form,
    pub(super) name: String,
    pub(super) text: String,
    /// None of what is no file: it cannot be taken back.
    pub(super) stamp: Option<Stamp>,
    pub(super) withdrawn: bool,
    /// It was there before the present run began.
    pub(super) waits: bool,
}

/// What has happened so far.
pub(super) struct Past<'a> {
    /// What all services ran together, one after the other.
    pub(super) moments: &'a [ImageId],
    /// How often something happened that interrupts: a crash, a stop, an outage of the engine.
    pub(super) troubles: usize,
    /// Whether anybody asked to go back.
    pub(super) went_back: bool,
    pub(super) registry_failed: bool,
    pub(super) engine_failed: bool,
    /// Whether an image was ever sick.
    pub(super) sick: &'a dyn Fn(&ImageId) -> bool,
    /// The tags of all requests, with their identifiers.
    pub(super) tags: &'a [(Tag, Option<RequestId>)],
    /// The tags of all versions with their images.
    pub(super) versions: &'a [(Tag, ImageId)],
}

impl Asked {
    /// Whether somebody waits for an answer.
    pub(super) fn is_due(&self) -> bool {
        self.files.iter().any(|file| !file.withdrawn)
    }

    /// Panics unless this answer fits what was asked and what has happened.
    pub(super) fn judge(&self, status: &Status, past: &Past<'_>) {
        assert_eq!(status.request, Some(self.id));
        assert!(self.is_due(), "{status:?} although {self:?} was withdrawn");
        let fits = |file: &AskedBy| !file.withdrawn && self.fits(file.form, status, past);
        assert!(self.files.iter().any(fits), "{status:?} does not fit {self:?}");
    }

    fn fits(&self, form: Form, status: &Status, past: &Past<'_>) -> bool {
        let kind = status.kind.as_str();
        let undone = match status.outcome {
            Outcome::Superseded => self.is_superseded(past),
            Outcome::Interrupted => past.troubles > self.since.1,
            _ => false,
        };
        let refused = status.outcome == Outcome::Refused;
        let hindered = refused && self.is_hindered(kind, past);
        match form {
            Form::Good => {
                (undone || hindered || self.was_tried(status, past)) && status.tag.as_ref() == Some(&self.tag)
            }
            Form::Late => (refused && kind == "too-late") || undone && status.outcome == Outcome::Superseded,
            Form::OtherBoot => (refused && kind == "before-boot") || undone && status.outcome == Outcome::Superseded,
            Form::OtherImage => undone || hindered || refused && kind == "another-image",
            Form::Unsigned => undone || hindered || refused && kind == "no-signature",
            Form::Foreign => undone || hindered || refused && kind == "foreign-signature",
            Form::OtherVersion => undone || hindered || refused && kind == "tag-mismatch",
            Form::Back => undone || hindered || self.was_tried(status, past) && !matches!(kind, "downgrade" | "held"),
            Form::BackUnsigned => undone || hindered || refused && kind == "request-unsigned",
            Form::BackForeign => undone || hindered || refused && kind == "request-signature",
            Form::Broken | Form::Nameless => refused && kind == "request-invalid",
            Form::Misnamed | Form::Unnamed => refused && kind == "request-name",
            Form::Thing => refused && kind == "not-a-file",
            Form::Nobody => false,
        }
    }

    /// Whether another request could have come first.
    fn is_superseded(&self, past: &Past<'_>) -> bool {
        past.tags.iter().any(|(tag, id)| *id != Some(self.id) && newer_request(tag, &self.tag).is_ge())
    }

    /// Whether this may keep it from being deployed, whatever it asks for.
    fn is_hindered(&self, kind: &str, past: &Past<'_>) -> bool {
        match kind {
            "registry-error" => past.registry_failed,
            "engine-missing" | "silent" => past.engine_failed,
            _ => false,
        }
    }

    /// Whether a good request may end so.
    fn was_tried(&self, status: &Status, past: &Past<'_>) -> bool {
        let ran = |from: usize| past.moments.get(from..).is_some_and(|moments| moments.contains(&self.image));
        match (status.outcome, status.kind.as_str()) {
            (Outcome::Deployed, _) => ran(self.since.0),
            (Outcome::Unchanged, _) => ran(self.since.0.saturating_sub(1)),
            (Outcome::RolledBack, _) => (past.sick)(&self.image),
            // Where nothing ran before, there is nothing to go back to.
            (Outcome::Failed, "interrupted") => past.troubles > self.since.1,
            (Outcome::Failed, _) => (past.sick)(&self.image) || past.engine_failed,
            (Outcome::Refused, "downgrade") => past
                .versions
                .iter()
                .any(|(tag, image)| newer_request(tag, &self.tag).is_gt() && past.moments.contains(image)),
            // Somebody went back to another version on purpose.
            (Outcome::Refused, "held") => past.went_back,
            (Outcome::Refused, "rejected") => (past.sick)(&self.image),
            _ => false,
        }
    }
}
